"""How fast a ledger's queue is served: ``python -m tests.bench.ledger_queue``.

One worker has all slots, and five others wait for as many. Then the slots become free, and what is
measured is the time until the last start that waited has returned: its turn was called, its intent
placed, its request answered, and its session recorded. The API is a process of its own that answers
with prepared bytes. It prints a Markdown table with the machine's load.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from equos_async import EquosClient, FleetEvent, RedisLedger, SessionFleet, SQLiteLedger
from equos_async.testing.ledger_contract import row
from tests.bench.ledger_cost import REQUEST, Ledger
from tests.bench.server import running
from tests.ledger.conftest import RedisServer
from tests.ledger.servers import Relay

WORKERS = 5


class Line:
    """Counts the starts that the engine has let wait."""

    def __init__(self, count: int) -> None:
        self.full = asyncio.Event()
        self._left = count

    def __call__(self, event: FleetEvent) -> None:
        """Count an event of a fleet."""
        self._left -= event.kind == "waiting"
        if self._left == 0:
            self.full.set()


async def served(endpoint: str, make: Callable[[], Ledger], count: int) -> float:
    """How many starts a second leave the queue when as many slots become free."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(EquosClient("any", endpoint=endpoint))
        holder = make()
        await stack.enter_async_context(holder)
        held = [row(f"{n}", "holder", session_id=f"s{n}") for n in range(count)]
        await holder.record_all("holder", [(one, 600) for one in held], lease=60)
        line = Line(count)
        fleets = [
            await stack.enter_async_context(
                SessionFleet(
                    client,
                    ledger=await stack.enter_async_context(make()),
                    max_live=count,
                    lease=60,
                    on_event=line,
                )
            )
            for _ in range(WORKERS)
        ]
        starts = [
            asyncio.create_task(fleets[n % WORKERS].start(REQUEST, key=f"guild-{n}"))
            for n in range(count)
        ]
        await line.full.wait()
        began = time.perf_counter()
        await asyncio.gather(*(holder.remove(one.id, worker="holder") for one in held))
        await asyncio.gather(*starts)
        return count / (time.perf_counter() - began)


async def measure(count: int, runs: int) -> None:
    """Print a row for each engine."""
    with tempfile.TemporaryDirectory() as directory, running() as endpoint:
        redis = RedisServer(Path(directory))
        redis.start()
        redis.ask("CONFIG", "SET", "appendfsync", "everysec")
        try:
            async with Relay(redis.port, delay=0.025) as far:
                files = iter(range(10**6))
                engines: dict[str, Callable[[Path], Callable[[], Ledger]]] = {
                    "SQLite": lambda file: lambda: SQLiteLedger(file),
                    "Redis over loopback": lambda _: lambda: RedisLedger(redis.url),
                    "Redis, 50 ms away": lambda _: lambda: RedisLedger(far.url),
                }
                for name, engine in engines.items():
                    rates: list[float] = []
                    for _ in range(runs):
                        redis.ask("FLUSHALL")
                        make = engine(Path(directory) / f"{next(files)}.db")
                        rates.append(await served(endpoint, make, count))
                    told = " / ".join(f"{rate:,.0f}" for rate in sorted(rates))
                    load = os.getloadavg()[0]
                    print(f"| {name} | {told} | {load:.1f} |", flush=True)
        finally:
            redis.stop()


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    print(f"| {args.count} starts wait in {WORKERS} workers | starts a second | load |")
    print("|---|---:|---:|", flush=True)
    asyncio.run(measure(args.count, args.runs))


if __name__ == "__main__":
    main()
