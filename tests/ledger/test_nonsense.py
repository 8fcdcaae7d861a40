"""Ledgers with invalid values or lost parts: everything that can be read still works."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from equos_async import LedgerError, RedisLedger, SQLiteLedger
from equos_async.cli import main
from equos_async.testing.ledger_contract import HERE, LEASE, claim, live, place, row
from tests.ledger.conftest import RedisServer

T = TypeVar("T")
Ledger = RedisLedger | SQLiteLedger
EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = itertools.count()
DEAD = "worker-3"
SOUND = {
    "id": f"{DEAD}/x",
    "key": "x",
    "name": "x",
    "client": "c",
    "owner": DEAD,
    "endpoint": HERE,
    "session_id": "sx",
    "resource": "session",
    "marker": "m",
    "group": "g",
    "started": 1.0,
    "expires": 4e9,
    "version": 1,
    "mood": "calm",
    "most": 5,
    "turn": "0000000000000001",
    "skipped": 1,
    "renews": True,
    "process": "{}",
}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
HUGE = st.sampled_from(["1e999", "-1e999", "1" * 400, '"\\ud800"', "[" * 2000, "null", "{}"])


def but_for(name: str, value: str) -> bytes:
    """A sound row as JSON, with one field that has another value."""
    fields = [f"{json.dumps(one)}: {json.dumps(SOUND[one])}" for one in SOUND if one != name]
    return ("{" + ", ".join([*fields, f"{json.dumps(name)}: {value}"]) + "}").encode()


ODD_JSON = st.builds(but_for, st.sampled_from(list(SOUND)), st.builds(json.dumps, ANY) | HUGE)
ODD_TEXT = st.builds(bytes.__add__, st.sampled_from([b"2:sx", b""]), ODD_JSON | st.binary())
REDIS_KEYS = [
    *("rows", "owned", "keys", "unresolved", "line", "tickets", "workers", "claimed"),
    *("claimed_at", "engine", "foreign", "names", "grouped", "parked", "standing"),
]
COLUMNS_OF_ROWS = list(SOUND)[: list(SOUND).index("mood")]
TABLES = ["line", "workers", "claimed", "engine", "memory", "calls", "names"]
COLUMNS = [
    *(f"rows.{name}" for name in COLUMNS_OF_ROWS),
    *("line.id", "line.key", "line.owner", "line.most", "line.group", "line.turn", "line.skipped"),
    *("workers.owner", "workers.until"),
    *("engine.heard", "engine.since", "engine.live", "memory.inode", "memory.counted"),
    *("names.name", "names.owner", "names.process"),
]
ODD_SQL = st.sampled_from(
    ["x'ff'", "x''", "CAST(x'fffe' AS TEXT)", "'nonsense'", "''", "9e999", "-9e999", "-1", "1e300"]
)


async def settled(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a step; after a step that finds a loss, the next one works."""
    try:
        return await call()
    except LedgerError:
        return await call()


async def begin(ledger: Ledger) -> None:
    """A worker that lives, one that is dead, and one that waits."""
    await ledger.renew("worker-1", lease=LEASE)
    await live(ledger, row("a"), "s1")
    await live(ledger, row("b", group="g"), "s2")
    await live(ledger, row("d", DEAD, group="g"), "s3")
    await ledger.enlist(DEAD, name="bot", process="{}", lease=LEASE)
    assert not await place(ledger, row("w", "worker-2"), limit=3)
    await ledger.renew(DEAD, lease=0)


async def go_on(ledger: Ledger, *, is_lost: bool) -> None:
    """Run all steps: living workers are not affected, and dead ones are found.

    Args:
        ledger: What holds nonsense.
        is_lost: Whether the rows are gone.
    """
    early = await settled(lambda: ledger.claim("worker-2", endpoint=HERE, lease=LEASE))
    assert "worker-1" not in {one.owner for one in early}
    held = await settled(lambda: ledger.renew("worker-1", lease=LEASE))
    assert is_lost or {"worker-1/a": "s1", "worker-1/b": "s2"}.items() <= held.items()
    own = row("a", session_id="s1")
    assert await ledger.record(own, seconds=600) == "worker-1"
    again = row("b", session_id="s2", group="g")
    assert await ledger.record_all("worker-1", [(again, 600)], lease=LEASE) == ["worker-1"]
    claimed = [*early, *await claim(ledger, "worker-2"), *await claim(ledger, "worker-2")]
    assert "worker-1" not in {one.owner for one in claimed}
    assert is_lost or "s3" in {one.session_id for one in claimed}
    for limit in (1, 100):
        placing = await ledger.place_in_group(
            row("n", "worker-2", group="g"),
            seconds=600,
            limit=limit,
            wait=True,
            lease=LEASE,
            group_limit=50,
        )
        assert placing.holder is None
        assert not placing.called_off
    held_by = (await ledger.place(own, seconds=9, limit=9, wait=False, lease=LEASE)).placed
    assert held_by
    assert await ledger.enlist("worker-2", name="bot", process="", lease=LEASE) is None
    for key in ("a", "b", "x"):
        await ledger.call_off(key, worker="worker-2")
    await ledger.give_up("worker-2", "worker-3/x")
    assert {"s1", "s2"} <= {one.session_id for one in await ledger.rows()}
    assert {"worker-1", "worker-2"} <= {one.id for one in await ledger.workers()}
    for row_id in ("worker-3/x", "worker-3/d", "worker-2/n", "worker-2/w", "worker-1/a"):
        await ledger.remove(row_id, worker="worker-2")
    assert "s2" in {one.session_id for one in await ledger.rows()}


async def listed(where: str, namespace: str = "equos") -> None:
    """The rows can be listed."""
    words = ["sessions", f"--ledger={where}", f"--namespace={namespace}"]
    assert await asyncio.to_thread(main, words) == 0
    assert await asyncio.to_thread(main, [*words, "--json"]) == 0


@EXAMPLES
@given(
    st.lists(st.sampled_from(REDIS_KEYS), unique=True, max_size=3),
    st.lists(
        st.tuples(st.sampled_from(["rows", "tickets", "names", "foreign"]), ODD_TEXT), max_size=6
    ),
)
@example([], [("rows", b""), ("tickets", but_for("mood", "1e999"))])  # it cannot be written again
async def test_redis(redis: RedisServer, lost: list[str], odd: list[tuple[str, bytes]]) -> None:
    """Any key is missing, and any row is replaced by any text."""
    space = f"n{next(NUMBERS)}"
    async with RedisLedger(redis.url, namespace=space) as ledger, Redis(port=redis.port) as client:
        await begin(ledger)
        ids = [f"{DEAD}/x", f"{DEAD}/y", "worker-2/w", "bot", DEAD]
        for row_id, (key, text) in zip(itertools.cycle(ids), odd, strict=False):
            await client.hset(f"{{{space}}}:{key}", row_id, text)
            await client.zadd(f"{{{space}}}:owned", {f"{DEAD}\0{row_id}": 0})
        if lost:
            await client.delete(*(f"{{{space}}}:{key}" for key in lost))
        await go_on(ledger, is_lost="rows" in lost)
        await listed(redis.url, space)


@EXAMPLES
@given(
    st.lists(st.sampled_from(TABLES), unique=True, max_size=3),
    st.lists(st.tuples(st.sampled_from(COLUMNS), ODD_SQL), max_size=4),
)
@example([], [("engine.heard", "-1")])
@example([], [("rows.endpoint", "CAST(x'fffe' AS TEXT)")])  # read while a transaction writes
async def test_sqlite(lost: list[str], odd: list[tuple[str, str]]) -> None:
    """Any table but that of the rows is empty, and any value is in any column."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        async with SQLiteLedger(path) as ledger:
            await begin(ledger)
            with closing(sqlite3.connect(path)) as db, db:
                names = COLUMNS_OF_ROWS
                db.execute(
                    f"INSERT INTO rows ({', '.join(map(json.dumps, names))}) "
                    f"VALUES ({', '.join('?' * len(names))})",
                    [SOUND[name] for name in names],
                )
                for column, value in odd:
                    table, _, name = column.partition(".")
                    only = "WHERE key = 'x'" if table == "rows" else ""
                    db.execute(f'UPDATE OR IGNORE {table} SET "{name}" = {value} {only}')
                for table in lost:
                    db.execute(f"DELETE FROM {table}")
            await settled(lambda: place(ledger, row("o", "worker-2"), limit=1))
            async with SQLiteLedger(path) as another:  # as a worker that begins opens it
                await go_on(another, is_lost=False)
        await listed(f"sqlite:{path}")
