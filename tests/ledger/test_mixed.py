"""Ledgers that newer and older workers share, or that are damaged in part."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from redis import asyncio as engine

from equos_async import RedisLedger, SQLiteLedger
from equos_async.ledger.protocol import ROW_VERSION
from equos_async.testing.ledger_contract import HERE, LEASE, SHORT, claim, live, place, row
from tests.ledger.conftest import RedisServer

SESSIONS = 450


async def test_fields_of_a_newer_worker(redis: RedisServer) -> None:
    """They are kept for newer workers, and older ones ignore them."""
    async with RedisLedger(redis.url) as ledger:
        await live(ledger, row("a"), "s1")
        text = redis.ask("HGET", "{equos}:rows", "worker-1/a").strip()
        newer = json.dumps(json.loads(text.partition("s1")[2]) | {"mood": ["good"]})
        redis.ask("HSET", "{equos}:rows", "worker-1/a", f"2:s1{newer}")
        assert [one.session_id for one in await ledger.rows()] == ["s1"]
        await ledger.renew("worker-1", lease=0)
        assert [one.session_id for one in await claim(ledger, "worker-2")] == ["s1"]
        assert '"mood":["good"]' in redis.ask("HGET", "{equos}:rows", "worker-1/a")


async def test_a_file_of_a_newer_release(tmp_path: Path) -> None:
    """An older worker joins it, and leaves alone what only newer ones understand."""
    path = tmp_path / "ledger.db"
    newer = partial(row, group="g", version=ROW_VERSION + 1)
    async with SQLiteLedger(path) as ledger:
        await live(ledger, newer("a"), "s1")
        parked = await ledger.place_in_group(
            newer("b"), seconds=600, limit=9, wait=True, lease=LEASE, group_limit=1
        )
        assert parked.group_full
    with closing(sqlite3.connect(path)) as db:
        for table in ("rows", "line", "workers", "claimed", "calls", "names", "memory"):
            db.execute(f"ALTER TABLE {table} ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'")
        db.execute("CREATE TABLE moods (id TEXT PRIMARY KEY)")
        db.execute("UPDATE rows SET mood = 'good'")
        db.commit()
    async with SQLiteLedger(path) as ledger:
        assert [one.version for one in await ledger.rows()] == [ROW_VERSION + 1]
        for key in ("a", "b"):
            refused = await ledger.place(
                row(key, "worker-2"), seconds=600, limit=9, wait=False, lease=LEASE
            )
            assert refused.holder == "worker-1"
        assert not await place(ledger, row("c", "worker-2"), limit=1)
        await ledger.enlist("worker-2", name="bot", process="", lease=LEASE)
        await ledger.renew("worker-1", lease=0)
        assert await claim(ledger, "worker-2") == []
        assert await place(ledger, row("c", "worker-2"), limit=2)
        assert await place(ledger, row("b", "worker-2"), limit=3), "nobody waits with it any more"
        await ledger.remove("worker-2/c")
        with closing(sqlite3.connect(path)) as db:
            kept = db.execute("SELECT id, owner, mood FROM rows ORDER BY id").fetchall()
        assert kept == [("worker-1/a", "worker-1", "good"), ("worker-2/b", "worker-2", "calm")]


@pytest.mark.parametrize("text", ["nonsense", "2:s1[]", "0:{}", "2:s1{", '2:s1{"id":"worker-1/b"}'])
async def test_a_row_of_nonsense(redis: RedisServer, text: str) -> None:
    """It is passed over by all, keeps a place, and can be removed."""
    async with RedisLedger(redis.url) as ledger:
        await live(ledger, row("a"), "s1")
        await live(ledger, row("b"), "s2")
        redis.ask("HSET", "{equos}:rows", "worker-1/b", text)
        redis.ask("HSET", "{equos}:rows", "unknown", text)
        redis.ask("HSET", "{equos}:tickets", "unknown-2", text)
        assert [one.session_id for one in await ledger.rows()] == ["s1"]
        await ledger.renew("worker-1", lease=0)
        assert [one.session_id for one in await claim(ledger, "worker-2")] == ["s1"]
        assert not await place(ledger, row("b", "worker-2"), limit=3)
        assert await ledger.remove("unknown") is True
        assert await ledger.remove("unknown") is None
        assert await ledger.remove("worker-1/b") is True
        assert await place(ledger, row("b", "worker-2"), limit=2)


@pytest.mark.parametrize("lost", ["owned", "keys", "unresolved", "workers", "line", "standing"])
async def test_a_missing_helper_key(redis: RedisServer, lost: str) -> None:
    """The indexes are rebuilt from the rows, a part with each heartbeat."""
    async with RedisLedger(redis.url) as ledger:
        for n in range(SESSIONS):
            await ledger.record(row(f"{n}", session_id=f"s{n}"), seconds=600)
        assert not await place(ledger, row("waits"), limit=SESSIONS)
        await ledger.renew("worker-1", lease=0)
        redis.ask("DEL", f"{{equos}}:{lost}")
        for _ in range(10):
            await ledger.renew("worker-2", lease=LEASE)
        refused = await ledger.place(
            row("7", "worker-2"), seconds=600, limit=1000, wait=False, lease=LEASE
        )
        assert refused.holder == "worker-1"
        assert len(await claim(ledger, "worker-2")) == SESSIONS
        await ledger.remove("worker-1/7")
        assert await place(ledger, row("waits", "worker-2"), limit=SESSIONS)


async def test_leases_that_are_evicted(redis: RedisServer) -> None:
    """No living worker counts as stalled because of it; a dead one does later."""
    async with RedisLedger(redis.url) as ledger:
        await ledger.renew("worker-2", lease=LEASE)
        redis.ask("HSET", "{equos}:engine", "since", "1")  # long ago
        await live(ledger, row("a"), "s1")
        redis.ask("DEL", "{equos}:workers")
        await ledger.record(row("b", "worker-3", session_id="s2"), seconds=600)
        taken = [await ledger.claim("worker-2", endpoint=HERE, lease=5 * SHORT)]
        await ledger.renew("worker-3", lease=LEASE)
        async with asyncio.timeout(60):
            while not taken[-1]:
                await asyncio.sleep(SHORT)
                taken.append(await ledger.claim("worker-2", endpoint=HERE, lease=5 * SHORT))
        assert [one.session_id for one in taken[-1]] == ["s1"]
        assert taken[0] == []


async def test_a_groups_rows_are_evicted(redis: RedisServer) -> None:
    """Slots are given again when its index is rebuilt."""
    async with RedisLedger(redis.url) as ledger:
        await live(ledger, row("a", group="g"), "s1")
        await live(ledger, row("b"), "s2")
        redis.ask("DEL", "{equos}:grouped")
        ask = partial(ledger.place_in_group, seconds=9, limit=9, wait=False, group_limit=1)
        waits = await ask(row("c", group="g"), lease=SHORT)
        assert (waits.placed, waits.recovers_in > 0) == (False, True)
        async with asyncio.timeout(60):
            while waits.recovers_in > 0:
                await asyncio.sleep(waits.recovers_in)
                waits = await ask(row("c", group="g"), lease=SHORT)
        assert waits.group_full
        assert (await ask(row("d"), lease=SHORT)).placed


async def test_rows_that_are_evicted(redis: RedisServer) -> None:
    """No start gets a slot until all workers had the time to write their rows again."""
    async with RedisLedger(redis.url) as ledger:
        session = await live(ledger, row("a"), "s1")
        redis.ask("DEL", "{equos}:rows")
        waits = await ledger.place(row("b"), seconds=600, limit=1, wait=False, lease=0.2)
        assert waits.recovers_in > 0
        assert await ledger.record(session, seconds=600) == "worker-1"
        await asyncio.sleep(0.25)
        assert not await place(ledger, row("b"), limit=1, wait=False)
        assert await place(ledger, row("b"), limit=2, wait=False)


async def test_what_an_early_worker_wrote(redis: RedisServer) -> None:
    """Its rows have fewer fields and keys; they are counted, found, and ended all the same."""
    now, owned = time.time(), [f"worker-1/{label}" for label in "abc"]
    early: dict[str, Any] = {"name": "x", "owner": "worker-1", "endpoint": HERE, "read_at": 0}
    rows = {
        owned[0]: early | {"id": owned[0], "key": "a", "session_id": "s1", "expires": now + 600},
        owned[1]: early | {"id": owned[1], "key": "b", "expires": now + 0.5},
    }
    waits = json.dumps({"owner": "worker-1", "key": "c", "most": 2})
    client: Any = cast("Any", engine.Redis).from_url(redis.url)
    async with client, RedisLedger(redis.url) as ledger:
        for row_id, one in rows.items():
            session = str(one.get("session_id", ""))
            text = f"{len(session)}:{session}{json.dumps(one | {'started': now})}"
            await client.hset("{equos}:rows", row_id, text)
        await client.hset("{equos}:tickets", owned[2], waits)
        await client.zadd("{equos}:line", {owned[2]: 1})
        await client.zadd("{equos}:workers", {"worker-1": now + 60})
        for row_id, key in zip(owned, "abc", strict=True):
            hashed = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
            await client.zadd("{equos}:keys", {f"{hashed}\0{row_id}": 0})
            await client.zadd("{equos}:owned", {f"worker-1\0{row_id}": 0})
        run = (await client.info("server"))["run_id"]
        facts = {"since": now - 60, "heard": now, "run": run, "born": f"{run}1.2", "number": 1}
        await client.hset("{equos}:engine", mapping=facts)
        assert {one.id: one.session_id for one in await ledger.rows()} == {
            owned[0]: "s1",
            owned[1]: None,
        }
        refused = await ledger.place(
            row("c", "worker-2"), seconds=600, limit=9, wait=False, lease=LEASE
        )
        assert refused.holder == "worker-1"
        assert not await place(ledger, row("d", "worker-2"), limit=2)
        async with asyncio.timeout(30):
            while not await place(ledger, row("c"), limit=2):  # noqa: ASYNC110 - b expires
                await asyncio.sleep(0.05)
        await ledger.renew("worker-1", lease=0)
        taken = await claim(ledger, "worker-2")
        assert {one.id: one.session_id for one in taken} == {owned[0]: "s1", owned[2]: None}


async def test_older_workers_in_the_queue(redis: RedisServer) -> None:
    """They go by a number, and have no turns; what they leave is mended."""
    async with RedisLedger(redis.url) as ledger:
        assert await place(ledger, row("x"), limit=1)
        for label in ("a", "b"):
            assert not await place(ledger, row(label), limit=1)
        number = redis.ask("HINCRBY", "{equos}:engine", "number", "1").strip()
        older = {"key": "c", "owner": "worker-2", "most": 1}
        redis.ask("ZADD", "{equos}:line", number, "worker-2/c")
        redis.ask("HSET", "{equos}:tickets", "worker-2/c", json.dumps(older))
        redis.ask("HDEL", "{equos}:tickets", "worker-1/b")
        redis.ask("ZREM", "{equos}:line", "worker-1/b")
        for label in ("d", "e"):
            assert not await place(ledger, row(label, "worker-3", group="g"), limit=1)
        await ledger.remove("worker-1/x")
        last = row("e", "worker-3", group="g")
        assert await place(ledger, row("a"), limit=1)
        await ledger.remove("worker-1/a")
        assert not await place(ledger, last, limit=1), "c was before it"
        await ledger.remove("worker-2/c")
        assert not await place(ledger, last, limit=1), "d was before it"
        await ledger.remove("worker-3/d")
        assert await place(ledger, last, limit=1)
