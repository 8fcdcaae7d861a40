"""Measures a ledger: each step, a full ledger, a thousand orphans, and many workers.

``nox -s ledger`` runs it after the sweep. Everything goes over loopback, beside a real
redis-server with ``appendonly yes``, ``appendfsync everysec``.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from attrs import evolve

from equos_async import (
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
    LedgerRow,
    RedisLedger,
    SessionFleet,
    SQLiteLedger,
)
from equos_async.testing import EquosEmulator
from equos_async.testing.ledger_contract import HERE, LEASE, row
from tests.ledger.conftest import RedisServer

Ledger = RedisLedger | SQLiteLedger
Open = Callable[[], Ledger]

REQUEST = CreateSessionPassRequest(
    name="bench",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
    max_duration=600,
)
STEPS = 500
"""How often each step is measured."""


def percentiles(times: list[float]) -> str:
    """Median and 99th percentile, in milliseconds."""
    cuts = statistics.quantiles(times, n=100)
    return f"{cuts[49] * 1e3:.2f} / {cuts[98] * 1e3:.2f}"


async def timed(work: Awaitable[object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def added(ledger: Ledger | None) -> tuple[list[float], list[float]]:
    """Seconds for starts and stops of a fleet, one after the other."""
    starts: list[float] = []
    stops: list[float] = []
    async with (
        EquosEmulator() as emulator,
        EquosClient("any-key", endpoint=emulator.endpoint) as client,
        SessionFleet(client, max_live=10**6, ledger=ledger) as fleet,
    ):
        for n in range(STEPS):
            starts.append(await timed(fleet.start(REQUEST, key=n)))
            stops.append(await timed(fleet.live[n].stop()))
    return starts, stops


async def fill(ledger: Ledger, owner: str, count: int) -> None:
    """Write sessions."""
    for first in range(0, count, 100):
        await asyncio.gather(
            *(
                ledger.record(row(f"{n}", owner, session_id=f"s{n}"), seconds=600)
                for n in range(first, min(first + 100, count))
            )
        )


async def steps(ledger: Ledger, worker: str, count: int) -> dict[str, list[float]]:
    """Seconds for the steps of starts and stops, one after the other."""
    times: dict[str, list[float]] = {"place": [], "record": [], "remove": []}
    for n in range(count):
        one = row(f"new-{n}", worker)
        times["place"].append(
            await timed(ledger.place(one, seconds=600, limit=10**6, wait=True, lease=LEASE))
        )
        session = evolve(one, session_id="s")
        times["record"].append(await timed(ledger.record(session, seconds=600)))
        times["remove"].append(await timed(ledger.remove(one.id)))
    return times


async def reap(ledger: Ledger, count: int) -> float:
    """Seconds until a reaper has stopped what a dead worker left."""
    async with (
        EquosEmulator() as emulator,
        EquosClient("any-key", endpoint=emulator.endpoint) as client,
    ):
        for n in range(count):
            started = await client.start_session(REQUEST)
            one = row(f"{n}", "dead", session_id=started.session.id, endpoint=emulator.endpoint)
            await ledger.record(one, seconds=600)
        await ledger.renew("reaper", lease=LEASE)
        await ledger.renew("dead", lease=0)
        began = time.perf_counter()
        while rows := await ledger.claim(
            "reaper", endpoint=emulator.endpoint, lease=LEASE, at_once=True
        ):
            await asyncio.gather(*(client.stop_session(str(one.session_id)) for one in rows))
            await asyncio.gather(*(ledger.remove(one.id) for one in rows))
        took = time.perf_counter() - began
        assert not emulator.live_sessions
        return took


tell = partial(print, flush=True)  # it takes minutes, and whoever reads it may be a pipe


async def measure(name: str, engine: Open, rows: int) -> None:
    """All of it, for one engine."""
    without = await added(None)
    async with engine() as ledger:
        with_it = await added(ledger)
    for what, plain, more in zip(("start", "stop"), without, with_it, strict=True):
        extra = (statistics.median(more) - statistics.median(plain)) * 1e3
        tell(f"| {name}: added to a {what}, p50 | {extra:.2f} ms |")
    async with engine() as ledger:
        await fill(ledger, "other", rows)
        for step, times in (await steps(ledger, "worker-1", STEPS)).items():
            tell(f"| {name}: {step} among {rows:,} rows, ms p50 and p99 | {percentiles(times)} |")
        tell(f"| {name}: list {rows:,} rows | {await timed(ledger.rows()):.2f} s |")
        tell(
            f"| {name}: renew a lease on {rows:,} rows | "
            f"{await timed(ledger.renew('other', lease=LEASE)) * 1e3:.0f} ms |"
        )
        while await ledger.claim("other-2", endpoint=HERE, lease=LEASE, at_once=True):
            pass  # none: all are in time


async def grow(name: str, engine: Open) -> None:
    """Starts and stops a second, by how many workers share a ledger."""
    for workers in (1, 5, 10, 50):
        ledgers = [engine() for _ in range(workers)]
        each = max(1, 1000 // workers)
        began = time.perf_counter()
        done = await asyncio.gather(*(steps(one, f"w{n}", each) for n, one in enumerate(ledgers)))
        took = time.perf_counter() - began
        places = [seconds for times in done for seconds in times["place"]]
        tell(
            f"| {name}: {workers} workers | {each * workers / took:.0f} sessions a second, "
            f"place p50 and p99 {percentiles(places)} ms |"
        )
        for one in ledgers:
            await one.aclose()


async def on_paper(redis: RedisServer, rows: int) -> None:
    """The server's own numbers: memory for a row, and CPU for each step."""

    def told(section: str, pattern: str) -> float:
        found = re.search(pattern, redis.ask("INFO", section))
        assert found is not None
        return float(found[1])

    async with RedisLedger(redis.url, timeout=10) as ledger:
        before = told("memory", r"used_memory:(\d+)")
        for first in range(0, rows, 100):
            some = (
                LedgerRow(
                    id=f"host-12-4711-ab12cd-{n}",
                    key=f"guild-{n:012d}",
                    name="support call",
                    client="tenant-42",
                    owner="host-12-4711-ab12cd",
                    endpoint=HERE,
                    session_id=f"0f9e3c52-7d1b-4c7e-9d55-{n:012d}",
                )
                for n in range(first, first + 100)
            )
            await asyncio.gather(*(ledger.record(one, seconds=600) for one in some))
        each = (told("memory", r"used_memory:(\d+)") - before) / rows
        tell(f"| Redis: memory of a row, of {rows:,} | {each:.0f} bytes |")
        new = [row(f"new-{n}") for n in range(STEPS)]
        work: dict[str, Callable[[LedgerRow], Awaitable[object]]] = {
            "place": lambda one: ledger.place(one, seconds=9, limit=10**6, wait=True, lease=LEASE),
            "record": lambda one: ledger.record(one, seconds=9),
            "remove": lambda one: ledger.remove(one.id),
            f"renew {rows:,} rows": lambda _: ledger.renew("host-12-4711-ab12cd", lease=LEASE),
        }
        for step, ask in work.items():
            redis.ask("CONFIG", "RESETSTAT")
            for one in new if "renew" not in step else new[:10]:
                await ask(one)
            usec = told("commandstats", r"cmdstat_evalsha:.*usec_per_call=([\d.]+)")
            tell(f"| Redis: its own time to {step} | {usec / 1000:.3f} ms |")


@asynccontextmanager
async def engines() -> AsyncGenerator[tuple[RedisServer, dict[str, Open]]]:
    """Both, fresh, and the server of one."""
    with tempfile.TemporaryDirectory() as directory:
        redis = RedisServer(Path(directory))
        redis.start()
        redis.ask("CONFIG", "SET", "appendfsync", "everysec")
        try:
            yield (
                redis,
                {
                    "SQLite": lambda: SQLiteLedger(Path(directory) / "ledger.db", timeout=10),
                    "Redis": lambda: RedisLedger(redis.url, timeout=10),
                },
            )
        finally:
            redis.stop(signal.SIGKILL)


async def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    tell("| what | measured |\n|---|---:|")
    async with engines() as (_, fresh):
        for name, engine in fresh.items():
            await measure(name, engine, args.rows)
    async with engines() as (redis, fresh):
        await on_paper(redis, 10_000)
        redis.ask("FLUSHALL")
        for name, engine in fresh.items():
            async with engine() as ledger:
                tell(f"| {name}: 1,000 orphans stopped | {await reap(ledger, 1000):.2f} s |")
            await grow(name, engine)


if __name__ == "__main__":
    asyncio.run(main())
