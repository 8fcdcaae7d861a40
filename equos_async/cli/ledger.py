"""``sessions`` and ``reap``: list the sessions in a ledger, and stop those of dead workers."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from attrs import asdict

from equos_async import _validate
from equos_async.errors import ConfigurationError
from equos_async.fleet._engine import Engine
from equos_async.fleet._reaper import Reaped, Reaper
from equos_async.ledger.protocol import NOBODY, LedgerRow
from equos_async.ledger.redis import RedisLedger
from equos_async.ledger.sqlite import SQLiteLedger

from .calls import client_of, seconds

LEASE: Final = 60.0
"""Seconds of the lease with which `reap --wait 0` claims sessions."""

BEAT: Final = 0.5
"""Seconds between two searches for stalled workers."""

_SCHEMES: Final = ("redis://", "rediss://", "unix://", "sqlite:")
_HEAD: Final = ("WORKER", "KEY", "NAME", "RESOURCE", "SESSION", "AGE", "REMAINING")


class Told(TypedDict):
    """How a session ended that a dead worker left.

    Attributes:
        resource: ``"session"`` or ``"conversation"``.
        session_id: None if the outcome of its start is unknown.
        outcome: ``"stopped"``, ``"failed"`` or ``"unresolved"``.
    """

    key: str
    worker: str
    resource: str
    session_id: str | None
    outcome: str
    reason: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of both commands."""
    parser.add_argument(
        "--ledger",
        default=os.environ.get("EQUOS_LEDGER"),
        metavar="URL",
        help="redis://…, rediss://…, unix://… or sqlite:PATH; default EQUOS_LEDGER",
    )
    parser.add_argument(
        "--namespace",
        default="equos",
        metavar="NAME",
        help="namespace of a Redis ledger; default %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_reap_arguments(parser: argparse.ArgumentParser) -> None:
    """The further options of ``reap``."""
    parser.add_argument(
        "--wait",
        type=seconds,
        default=15.0,
        metavar="SECONDS",
        help="how long to search for stalled workers: their lease, or 0 if no worker is alive; "
        "default %(default)g",
    )


def open_ledger(where: str | None, namespace: str) -> RedisLedger | SQLiteLedger:
    """Open the ledger that ``--ledger`` names.

    Raises:
        ConfigurationError: It names no ledger.
    """
    if not where:
        raise ConfigurationError("--ledger is missing: redis://… or sqlite:PATH")
    if not where.startswith(_SCHEMES):
        raise ConfigurationError(f"--ledger must begin with {', '.join(_SCHEMES[:-1])} or sqlite:")
    if not where.startswith("sqlite:"):
        return RedisLedger(where, namespace=namespace)
    path = where.removeprefix("sqlite:")
    if not Path(path).is_file():
        raise ConfigurationError(f"--ledger: there is no file {path}")
    return SQLiteLedger(path)


async def show(args: argparse.Namespace) -> int:
    """List what is open, by worker."""
    async with open_ledger(args.ledger, args.namespace) as ledger:
        rows = sorted(await ledger.rows(), key=lambda row: (row.owner, row.started))
    if args.json:
        told = [asdict(row) | {"age": row.age, "remaining": row.remaining} for row in rows]
        _print_json(told)
        return 0
    lines = [_HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())
    print(f"{len(rows)} open", file=sys.stderr)
    return 0


def _cells(row: LedgerRow) -> tuple[str, ...]:
    session = row.session_id or ("starting" if row.owner else "unknown")
    names = (row.owner or "nobody", row.key, row.name, row.resource, session)
    return (*map(_plain, names), f"{row.age:.0f} s", f"{row.remaining:.0f} s")


def _plain(text: str) -> str:
    """A text that is safe to print: one with control characters is escaped."""
    return text if text.isprintable() else ascii(text)


async def reap(args: argparse.Namespace) -> int:
    """Stop the sessions of stalled workers and print them; 4 if a stop failed."""
    wait = _validate.number("--wait", args.wait, zero=True)
    worker = f"reap-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    reaped: list[Told] = []
    async with (
        client_of(args) as client,
        open_ledger(args.ledger, args.namespace) as ledger,
    ):
        engine = Engine()
        reaper = Reaper(
            ledger,
            client,
            engine,
            worker=worker,
            lease=wait or LEASE,
            deadline=args.deadline,
        )
        if wait:
            print(f"searching for stalled workers for {wait:g} s", file=sys.stderr)
        try:
            async for rows in _claims(reaper, wait):
                reaped += map(_told, await asyncio.gather(*map(reaper.end, rows)))
            await engine.ask(ledger.renew(worker, lease=0))  # what failed is for others to try
        finally:
            _report(reaped, as_json=args.json)
        left = [row for row in await ledger.rows() if row.endpoint == client.endpoint]
        _tell_held(sum(row.owner not in {NOBODY, worker} for row in left))
    return 4 if any(one["outcome"] == "failed" for one in reaped) else 0


async def _claims(reaper: Reaper, wait: float) -> AsyncIterator[Sequence[LedgerRow]]:
    """The sessions of stalled workers, as they are found.

    A worker that could not reach the engine for a while counts as stalled, too; it is given this
    time to send a heartbeat.
    """
    over = time.monotonic() + wait
    while True:
        async for rows in reaper.claims(at_once=not wait):
            yield rows
        if time.monotonic() >= over:
            return
        await asyncio.sleep(min(BEAT, wait / 4))


def _told(one: Reaped) -> Told:
    return Told(
        key=one.row.key,
        worker=one.row.owner,
        resource=one.row.resource,
        session_id=one.row.session_id,
        outcome=one.outcome,
        reason=one.reason,
    )


def _report(reaped: Sequence[Told], *, as_json: bool) -> None:
    if as_json:
        _print_json(reaped)
        return
    for one in reaped:
        reason = one["reason"] and f": {one['reason']}"
        what = f"{_plain(one['resource'])} {one['session_id'] or '(id unknown)'}"
        print(f"{one['outcome']} {what} of {one['key']!a} left by {one['worker']}{reason}")
    print(f"{sum(one['outcome'] == 'stopped' for one in reaped)} stopped")


def _tell_held(count: int) -> None:
    if count:
        print(
            f"{count} more in the ledger: the leases of their workers have not expired",
            file=sys.stderr,
        )


def _print_json(told: Any) -> None:
    json.dump(told, sys.stdout, indent=2)
    print()
