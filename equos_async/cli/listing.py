"""``sessions``: list what a ledger holds, once or each second until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import frozen

from equos_async.errors import LedgerError
from equos_async.ledger.protocol import LedgerRow, LedgerWorker

from .ledger import Ledger, open_ledger, plain, print_json, values_of
from .output import tell

EVERY: Final = 1.0
"""Seconds between two looks of ``--watch``."""

_CLEAR: Final = "\x1b[H\x1b[2J"
"""Clears a terminal, and moves its cursor to the top."""

_SESSIONS: Final = ("WORKER", "KEY", "NAME", "RESOURCE", "SESSION", "AGE", "REMAINING", "ROW")
_WORKERS: Final = ("WORKER", "OPEN", "WAITING", "LEASE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The further option of ``sessions``."""
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show sessions, queue and workers each second until Ctrl-C; with --json as lines",
    )


async def show(args: argparse.Namespace) -> int:
    """List what is open, by worker."""
    async with open_ledger(args.ledger, args.namespace) as ledger:
        if args.watch:
            await _watch(ledger, as_json=args.json)
        rows = _sorted(await ledger.rows())
    if args.json:
        print_json([values_of(row) for row in rows])
        return 0
    for line in _table(_SESSIONS, map(_cells, rows)):
        print(line)
    tell(f"{len(rows)} open")
    return 0


@frozen
class _Look:
    """The rows and workers of a ledger, read one after the other."""

    rows: Sequence[LedgerRow]
    workers: Sequence[LedgerWorker]

    @classmethod
    async def at(cls, ledger: Ledger) -> _Look:
        workers = await ledger.workers()
        return cls(_sorted(await ledger.rows()), workers)

    def as_json(self) -> str:
        workers = [
            {"id": one.id, "open": live, "waiting": waiting, "lease_left": one.lease_left}
            for one, live, waiting in self._counted()
        ]
        return json.dumps({"sessions": list(map(values_of, self.rows)), "workers": workers})

    def as_text(self) -> str:
        counted = list(self._counted())
        queue = sum(waiting for _, _, waiting in counted)
        of = "1 worker" if len(counted) == 1 else f"{len(counted)} workers"
        head = f"{len(self.rows)} open, {queue} waiting, {of}"
        workers = (
            (plain(one.id), str(live), str(waiting), _lease(one)) for one, live, waiting in counted
        )
        lines = [f"{time.strftime('%H:%M:%S')}  {head}", ""]
        lines += [*_table(_WORKERS, workers), ""]
        return "\n".join([*lines, *_table(_SESSIONS, map(_cells, self.rows))])

    def _counted(self) -> Iterator[tuple[LedgerWorker, int, int]]:
        """The workers, how many rows each has, and how many of its starts are in the queue."""
        live = Counter(row.owner for row in self.rows)
        for one in self.workers:
            yield one, live[one.id], max(0, one.held - live[one.id])


async def _watch(ledger: Ledger, *, as_json: bool) -> None:
    """Show what the ledger holds each second; a failure is shown, except the first time."""
    look: _Look | LedgerError = await _Look.at(ledger)
    while True:
        _draw(look, as_json=as_json)
        await asyncio.sleep(EVERY)
        try:
            look = await _Look.at(ledger)
        except LedgerError as error:  # shown, until the ledger works again
            look = error


def _draw(look: _Look | LedgerError, *, as_json: bool) -> None:
    if isinstance(look, LedgerError):
        words = f"{time.strftime('%H:%M:%S')}  LedgerError: {plain(str(look))}\n"
        text = json.dumps({"error": str(look)}) if as_json else words
    else:
        text = look.as_json() if as_json else look.as_text() + "\n"
    if sys.stdout.isatty() and not as_json:
        text = _CLEAR + _fitting(text)
    print(text, flush=True)


def _fitting(text: str) -> str:
    """The part of a text that a terminal shows without scrolling."""
    size = shutil.get_terminal_size()
    lines = text.splitlines()
    shown = lines[: max(1, size.lines - 2)]
    if len(lines) > len(shown):
        shown[-1] = f"... {len(lines) - len(shown) + 1} more lines"
    return "\n".join(line[: size.columns] for line in shown)


def _sorted(rows: Sequence[LedgerRow]) -> Sequence[LedgerRow]:
    return sorted(rows, key=lambda row: (row.owner, row.started))


def _lease(worker: LedgerWorker) -> str:
    return f"{worker.lease_left:.0f} s" if worker.lease_left > 0 else "stalled"


def _cells(row: LedgerRow) -> tuple[str, ...]:
    session = row.session_id or ("starting" if row.owner else "unknown")
    names = (row.owner or "nobody", row.key, row.name, row.resource, session)
    times = (f"{row.age:.0f} s", f"{row.remaining:.0f} s")
    return (*map(plain, names), *times, plain(row.id))


def _table(head: Sequence[str], cells: Iterator[Sequence[str]]) -> Iterator[str]:
    lines = [head, *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(map(str.ljust, line, widths)).rstrip()
