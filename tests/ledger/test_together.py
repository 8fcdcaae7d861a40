"""Steps that are asked for at the same time: one question of Redis, one transaction of SQLite."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from equos_async import LedgerError, RedisLedger, SQLiteLedger
from equos_async.testing.ledger_contract import LEASE, ids, live, place, row
from tests.ledger.conftest import RedisServer
from tests.ledger.servers import Relay

MANY = 100


async def a_tick() -> None:
    """Let tasks ask."""
    await asyncio.sleep(0)


class TestRedis:
    """Only a few requests are in flight at a time."""

    async def test_many_in_few_questions(self, redis: RedisServer) -> None:
        """Each step has its own answer, and the queue is called once for all free slots."""
        async with RedisLedger(redis.url) as ledger:
            assert await place(ledger, row("first"))
            redis.ask("CONFIG", "RESETSTAT")
            told = await asyncio.gather(
                *(place(ledger, row(f"{n:03}"), limit=MANY // 2) for n in range(MANY))
            )
            assert sum(told) == MANY // 2 - 1
            held = await ids(ledger)
            await asyncio.gather(*(ledger.remove(one, worker="worker-1") for one in held))
            assert await ids(ledger) == []
            called = re.search(r"cmdstat_evalsha:calls=(\d+)", redis.ask("INFO", "commandstats"))
            assert called is not None
            assert int(called[1]) < 12

    async def test_all_that_are_together_fail(self) -> None:
        """Each with an error of its own."""
        async with RedisLedger("redis://127.0.0.1:1") as ledger:
            steps = (place(ledger, row(f"{n}")) for n in range(4))
            told = await asyncio.gather(*steps, return_exceptions=True)
            assert [type(one) for one in told] == [LedgerError] * 4
            assert len(set(map(id, told))) == 4

    async def test_who_waits_no_more_sends_nothing(self, redis: RedisServer) -> None:
        """A step whose caller was cancelled is not sent."""
        async with RedisLedger(redis.url) as ledger:
            for gone in (["a"], ["a", "b"]):
                steps = {name: asyncio.create_task(place(ledger, row(name))) for name in "ab"}
                await a_tick()
                for name in gone:
                    steps[name].cancel()
                await asyncio.wait(steps.values())
                await a_tick()
                assert await ids(ledger) == ["worker-1/b"]

    async def test_what_is_under_way_is_done(self, redis: RedisServer) -> None:
        """A sent step is awaited although its caller was cancelled; then the ledger is closed."""
        async with Relay(redis.port, delay=0.1) as far:
            async with RedisLedger(far.url, timeout=5) as ledger:
                await live(ledger, row("a"), "s1")
                for fate in ("answered", "failed"):
                    gone = asyncio.create_task(place(ledger, row(fate)))
                    await asyncio.wait([gone], timeout=0.05)
                    gone.cancel()
                    await asyncio.wait([gone])
            async with RedisLedger(redis.url) as ledger:
                held = ["worker-1/a", "worker-1/answered", "worker-1/failed"]
                assert await ids(ledger) == held


@contextmanager
def lock(path: Path) -> Generator[None]:
    """Keep the lock of a file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")


class TestSQLite:
    """It takes the lock once for all that wait for it."""

    async def test_one_that_fails(self, tmp_path: Path) -> None:
        """The others are still written."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path, timeout=10) as ledger:
            await live(ledger, row("a"), "s1")
            bad = row("bad", name=cast("Any", object()))
            with lock(path):
                steps = [asyncio.create_task(ledger.record(row("b"), seconds=LEASE))]
                await asyncio.wait(steps, timeout=0.1)
                steps += [
                    asyncio.create_task(ledger.record(one, seconds=LEASE))
                    for one in (row("c"), bad, row("d"))
                ]
                await a_tick()
            told = await asyncio.gather(*steps, return_exceptions=True)
            assert [type(one) for one in told] == [str, str, LedgerError, str]
            assert await ids(ledger) == [f"worker-1/{name}" for name in "abcd"]

    async def test_a_lock(self, tmp_path: Path) -> None:
        """All wait for it together, not one after the other."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path, timeout=0.2) as ledger:
            await live(ledger, row("a"), "s1")
            with lock(path):
                began = time.monotonic()
                steps = (place(ledger, row(f"{n}")) for n in range(40))
                told = await asyncio.gather(*steps, return_exceptions=True)
                assert time.monotonic() - began < 4
            assert {str(one) for one in told} == {f"{path}: database is locked"}

    async def test_who_waits_no_more_writes_nothing(self, tmp_path: Path) -> None:
        """A step that has not begun is left out."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path, timeout=10) as ledger:
            await live(ledger, row("a"), "s1")
            with lock(path):
                steps = [asyncio.create_task(place(ledger, row("b")))]
                await asyncio.wait(steps, timeout=0.1)
                steps += [asyncio.create_task(place(ledger, row(name))) for name in "cd"]
                await a_tick()
                steps[1].cancel()
                await asyncio.wait([steps[1]])
            await asyncio.wait(steps)
            assert await ids(ledger) == [f"worker-1/{name}" for name in "abd"]
