"""``reap``, ``stop --key`` and ``forget``: end or forget what a ledger holds."""

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
from equos_async.clock import Clock
from equos_async.errors import ConfigurationError
from equos_async.fleet._elsewhere import Elsewhere
from equos_async.fleet._engine import Engine
from equos_async.fleet._reaper import Reaped, Reaper
from equos_async.ledger.protocol import NOBODY, LedgerRow
from equos_async.ledger.redis import RedisLedger
from equos_async.ledger.sqlite import SQLiteLedger
from equos_async.settings import Timeouts

from .calls import add_stop_arguments as add_id_arguments
from .calls import client_of, seconds
from .calls import stop as stop_id
from .output import tell

Ledger = RedisLedger | SQLiteLedger

LEASE: Final = 60.0
"""Seconds of the lease with which `reap --wait 0` claims sessions."""

BEAT: Final = 0.5
"""Seconds between two searches for stalled workers."""

FORGET: Final = (
    "For a session that cannot be stopped, and may run on: its slot and its key are free at once. "
    "A worker that has the session lets go of it."
)

_SCHEMES: Final = ("redis://", "rediss://", "unix://", "sqlite:")


class Told(TypedDict):
    """The result for a session of another worker.

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
    """The options of all commands that use a ledger."""
    parser.add_argument(
        "--ledger",
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


def add_stop_arguments(parser: argparse.ArgumentParser) -> None:
    """The further options of ``stop``."""
    add_id_arguments(parser)
    parser.add_argument("--key", metavar="KEY", help="stop the session of this key, on any worker")


def add_forget_arguments(parser: argparse.ArgumentParser) -> None:
    """The further argument of ``forget``."""
    parser.add_argument("row", metavar="ROW", help="id of the row, as sessions lists it")


def open_ledger(where: str | None, namespace: str) -> Ledger:
    """Open the ledger that ``--ledger`` or ``EQUOS_LEDGER`` names.

    Raises:
        ConfigurationError: It names no ledger.
    """
    where = where or os.environ.get("EQUOS_LEDGER")
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


def plain(text: str) -> str:
    """A text that is safe to print: one with control characters is escaped."""
    return text if text.isprintable() else ascii(text)


async def reap(args: argparse.Namespace) -> int:
    """Stop the sessions of stalled workers and print them; 4 if a stop failed."""
    wait = _validate.number("--wait", args.wait, zero=True)
    worker = _own_name("reap")
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
            tell(f"searching for stalled workers for {wait:g} s")
        try:
            async for rows in _claims(reaper, wait):
                reaped += map(_told, await asyncio.gather(*map(reaper.end, rows)))
            await engine.ask(ledger.renew(worker, lease=0))  # others try again what failed
        finally:
            _report(reaped, "left by", as_json=args.json)
        left = [row for row in await ledger.rows() if row.endpoint == client.endpoint]
        _tell_held(sum(row.owner not in {NOBODY, worker} for row in left))
    return 4 if any(one["outcome"] == "failed" for one in reaped) else 0


async def stop(args: argparse.Namespace) -> int:
    """Stop a session or a conversation by its id, or by its key in a ledger."""
    if (args.session_id is None) == (args.key is None):
        raise ConfigurationError("pass either ID, or --ledger and --key")
    if args.key is not None:
        return await _stop_key(args)
    if args.ledger is not None:
        raise ConfigurationError("--ledger needs --key; without it, pass an ID only")
    return await stop_id(args)


async def _stop_key(args: argparse.Namespace) -> int:
    """Stop what a key has, as any fleet's ``stop`` does, and print it."""
    if args.conversation:
        raise ConfigurationError("--conversation goes with an ID; a ledger knows what a key has")
    timeouts = Timeouts() if args.deadline is None else Timeouts(deadline=args.deadline)
    stopped: list[Told] = []
    async with (
        client_of(args, timeouts) as client,
        open_ledger(args.ledger, args.namespace) as ledger,
    ):
        elsewhere = Elsewhere(
            ledger,
            client,
            Engine(),
            worker=_own_name("stop"),
            clock=Clock(),
            ended=lambda row, _, __: stopped.append(_told(Reaped(row, "stopped"))),
        )
        try:
            await elsewhere.stop(args.key)
        finally:
            _report(stopped, "held by", as_json=args.json)
        for row in await ledger.rows():
            if row.key == args.key and row.owner == NOBODY:
                tell(f"left in the ledger: {_running(row)}, row {plain(row.id)}")
    return 0


async def forget(args: argparse.Namespace) -> int:
    """Remove a row, stop nothing, and print what may still be running."""
    async with open_ledger(args.ledger, args.namespace) as ledger:
        row = next((one for one in await ledger.rows() if one.id == args.row), None)
        removed = await ledger.remove(args.row, worker=_own_name("forget"))
    if args.json:
        print_json(row and values_of(row))
    elif row is None:
        told = "is forgotten; it could not be read" if removed else "is not in the ledger"
        print(f"row {plain(args.row)} {told}")
    else:
        print(f"row {plain(row.id)} is forgotten: {_running(row)}")
    return 0


def values_of(row: LedgerRow) -> dict[str, Any]:
    """A row for programs."""
    return asdict(row) | {"age": row.age, "remaining": row.remaining}


def _running(row: LedgerRow) -> str:
    """Describe the session of a row, which may still be running."""
    what = f"{plain(row.resource)} {plain(row.session_id or '(id unknown)')}"
    where = f"of {row.key!a} at {plain(row.endpoint)}"
    return f"{what} {where} may run for {row.remaining:.0f} s"


def _own_name(verb: str) -> str:
    """A worker's name for this process."""
    return f"{verb}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


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


def _report(reaped: Sequence[Told], whose: str, *, as_json: bool) -> None:
    if as_json:
        print_json(reaped)
        return
    for one in reaped:
        reason = one["reason"] and f": {one['reason']}"
        what = f"{plain(one['resource'])} {plain(one['session_id'] or '(id unknown)')}"
        print(f"{one['outcome']} {what} of {one['key']!a} {whose} {plain(one['worker'])}{reason}")
    print(f"{sum(one['outcome'] == 'stopped' for one in reaped)} stopped")


def _tell_held(count: int) -> None:
    if count:
        tell(f"{count} more in the ledger: the leases of their workers have not expired")


def print_json(told: Any) -> None:
    """Print a value for programs."""
    json.dump(told, sys.stdout, indent=2)
    print()
