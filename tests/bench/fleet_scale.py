"""Ten thousand live sessions in one process: ``python -m tests.bench.fleet_scale``.

A fleet in this process holds them against the emulator in another one, over loopback, and drains
them. It prints a Markdown table for 100, 1,000 and 10,000 sessions, and where the memory goes, and
fails where a session is left on the server.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any, cast

from attrs import frozen

from equos_async import (
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
    Limits,
)
from equos_async.fleet._fleet import SessionFleet
from equos_async.testing import EquosEmulator

REQUEST = CreateSessionPassRequest(
    name="bench",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
    client="tenant-42",
    max_duration=3600,
)
PARTS = {
    "the fleet's own": ("equos_async/fleet", "equos_async.fleet", "heapq"),
    "decoded answers": ("wire.py", "cattrs", "json", "attrs", "<attrs", "parser"),
}
"""Which allocations belong to what, by parts of the file's name."""


@frozen(kw_only=True)
class Result:
    """The result of one run."""

    sessions: int
    started: float
    drained: float
    left: int
    memory: float
    parts: dict[str, float]

    def row(self) -> str:
        """A row of the table."""
        cells = (
            f"{self.sessions:,}",
            f"{self.memory / 1024:.1f} KiB",
            f"{self.sessions / self.started:,.0f}",
            f"{self.sessions / self.drained:,.0f}",
            f"{self.drained:.2f} s",
            str(self.left),
        )
        return f"| {' | '.join(cells)} |"


HEAD = """\
| live sessions | memory each | starts a second | stops a second | drain of all | left there |
|---:|---:|---:|---:|---:|---:|"""


class Server:
    """The emulator in a process of its own, as another machine would be."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._stdin = cast("IO[str]", process.stdin)
        self._stdout = cast("IO[str]", process.stdout)
        self.endpoint = self._stdout.readline().strip()

    def count(self) -> int:
        """How many sessions are live on it."""
        self._stdin.write("\n")
        self._stdin.flush()
        return int(self._stdout.readline())


@contextmanager
def running() -> Generator[Server, None, None]:
    """Run the server for a block; it ends when its input does."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process)


async def serve() -> None:
    """The other process: print the endpoint, then the live count for each line of input."""
    async with EquosEmulator() as emulator:
        print(emulator.endpoint, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(len(emulator.live_sessions), flush=True)


async def measure(server: Server, sessions: int) -> Result:
    """Hold a number of sessions and drain them; once for the time, once for the memory."""
    started, drained, left = await _time(server, sessions)
    memory, parts = await weigh(server, sessions)
    return Result(
        sessions=sessions,
        started=started,
        drained=drained,
        left=left + server.count(),
        memory=memory,
        parts=parts,
    )


async def _time(server: Server, sessions: int) -> tuple[float, float, int]:
    async with EquosClient("pk_bench", endpoint=server.endpoint) as client:
        async with SessionFleet(client, max_live=sessions, drain_deadline=60) as fleet:
            begun = time.perf_counter()
            await _fill(fleet, sessions)
            started = time.perf_counter() - begun
            live = await asyncio.to_thread(server.count)
            if live != sessions:
                raise RuntimeError(f"{live} of {sessions} sessions are live")
            begun = time.perf_counter()
        drained = time.perf_counter() - begun
        if len(fleet.report.stopped) != sessions:
            raise RuntimeError(str(fleet.report)[:1000])
    return started, drained, server.count()


async def weigh(server: Server, sessions: int) -> tuple[float, dict[str, float]]:
    """The bytes of memory that a live session takes, together and by part."""
    limits = Limits(keepalive=0)  # idle connections are no session's
    async with (
        EquosClient("pk_bench", endpoint=server.endpoint, limits=limits) as client,
        SessionFleet(client, max_live=sessions, drain_deadline=60) as fleet,
    ):
        await _fill(fleet, 100)  # what is there once and for all is no session's
        await fleet.drain()
        gc.collect()
        tracemalloc.start()
        await _fill(fleet, sessions)
        gc.collect()
        snapshot = tracemalloc.take_snapshot()
        tracemalloc.stop()
    parts = dict.fromkeys((*PARTS, "everything else"), 0.0)
    for one in snapshot.statistics("filename"):
        name = one.traceback[0].filename
        if name != tracemalloc.__file__:
            parts[_part(name)] += one.size / sessions
    return sum(parts.values()), parts


def _part(filename: str) -> str:
    for part, names in PARTS.items():
        if any(name in filename for name in names):
            return part
    return "everything else"


async def _fill(fleet: SessionFleet, sessions: int) -> None:
    """Start them all, a hundred callers at once."""
    keys = iter(range(sessions))

    async def call() -> None:
        for key in keys:
            await fleet.start(REQUEST, key=key)

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(call())


def main() -> int:
    """Print the table; returns 1 if a session is left."""
    parser = argparse.ArgumentParser(description="Hold and drain many live sessions.")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("sessions", nargs="*", type=int, help="how many; default 100 1000 10000")
    args: Any = parser.parse_args()
    if args.serve:
        asyncio.run(serve())
        return 0
    results: list[Result] = []
    print(HEAD, flush=True)
    for sessions in args.sessions or (100, 1_000, 10_000):
        with running() as server:
            results.append(asyncio.run(measure(server, sessions)))
        print(results[-1].row(), flush=True)
    told = (f"{part} {size:,.0f} bytes" for part, size in results[-1].parts.items())
    print(f"\nOf a session's memory: {', '.join(told)}.")
    return 1 if any(result.left for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
