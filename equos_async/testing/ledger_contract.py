"""The tests that every ledger must pass: subclass :class:`LedgerContract` in yours.

::

    class TestMyLedger(LedgerContract):
        @pytest.fixture
        async def open_ledger(self, tmp_path):
            ...
            yield lambda: MyLedger(tmp_path)  # each call: another process's view of one ledger

The tests need pytest with pytest-asyncio, and take some real time, because an engine uses its own
clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from attrs import evolve

from equos_async.ledger.protocol import (
    NOBODY,
    ROW_VERSION,
    BulkLedger,
    LedgerRow,
    SessionLedger,
)

OpenLedger = Callable[[], SessionLedger]

HERE = "https://api.example.test"
LEASE = 60.0
SHORT = 0.2
"""Seconds: a lease that a test can wait for."""


def row(label: str, owner: str = "worker-1", **changes: Any) -> LedgerRow:
    """An intent whose key and name are its label."""
    base = LedgerRow(id=f"{owner}/{label}", key=label, name=label, owner=owner, endpoint=HERE)
    return evolve(base, **changes)


async def place(
    ledger: SessionLedger,
    one: LedgerRow,
    *,
    limit: int = 100,
    wait: bool = True,
    seconds: float = 600.0,
    lease: float = LEASE,
) -> bool:
    """Ask for a slot."""
    return (await ledger.place(one, seconds=seconds, limit=limit, wait=wait, lease=lease)).placed


async def live(ledger: SessionLedger, one: LedgerRow, session_id: str) -> LedgerRow:
    """Place a row, and record its session."""
    assert await place(ledger, one), f"{one.id} got no place"
    session = evolve(one, session_id=session_id)
    assert await ledger.record(session, seconds=600.0) == one.owner
    return session


async def claim(ledger: SessionLedger, worker: str) -> Sequence[LedgerRow]:
    """Claim at once, for the endpoint that all of these rows have."""
    return await ledger.claim(worker, endpoint=HERE, lease=LEASE, at_once=True)


async def ids(ledger: SessionLedger) -> list[str]:
    """The ids of all rows, the oldest first."""
    return [one.id for one in await ledger.rows()]


async def another(turns: AsyncIterator[str], told: str) -> str:
    """The next turn that differs from the last one, because an engine may repeat ids."""
    return await anext(turn async for turn in turns if turn != told)


async def listening(ledger: SessionLedger, worker: str = "worker-1") -> AsyncIterator[str]:
    """Listen to a worker's turns, in a ledger without rows."""
    first, second = row("first", worker), row("second", worker)
    assert await place(ledger, first, limit=1)
    assert not await place(ledger, second, limit=1)
    await ledger.remove(first.id)
    turns = ledger.turns(worker)
    while await asyncio.wait_for(anext(turns), 5) != second.id:
        pass
    await ledger.remove(second.id)
    return (told async for told in turns if told not in {first.id, second.id})


@pytest.mark.asyncio
class LedgerContract:
    """The behaviour that a fleet relies on; you write the fixture ``open_ledger``."""

    async def test_a_row_from_its_intent_to_its_end(self, open_ledger: OpenLedger) -> None:
        """An intent is a row when it is placed, becomes the session's row, and is removed."""
        ledger = open_ledger()
        intent = row("guild", client="tenant-42")
        assert await place(ledger, intent)
        (written,) = await ledger.rows()
        assert evolve(written, started=0, expires=0, read_at=0) == intent
        assert 0 <= written.age < 5
        assert 595 < written.remaining <= 600
        session = evolve(intent, session_id="s1")
        assert await ledger.record(session, seconds=30.0) == "worker-1"
        (known,) = await ledger.rows()
        assert known.session_id == "s1"
        assert known.started == written.started
        assert 25 < known.remaining <= 30
        await ledger.remove(intent.id)
        await ledger.remove(intent.id)
        assert await ledger.rows() == []

    async def test_all_workers_read_the_same_rows(self, open_ledger: OpenLedger) -> None:
        """A row of one worker is read by another."""
        one, other = open_ledger(), open_ledger()
        await live(one, row("guild"), "s1")
        assert [row.session_id for row in await other.rows()] == ["s1"]

    @pytest.mark.parametrize("text", ["{}", "\"'\n;--", "ключ 🔑", "a\0b", "x" * 1000, " "])
    async def test_names_may_be_any_text(self, open_ledger: OpenLedger, text: str) -> None:
        """Names may contain any text."""
        ledger = open_ledger()
        await live(ledger, row("guild", key=text, name=text, client=text), text)
        (found,) = await ledger.rows()
        assert (found.key, found.name, found.client, found.session_id) == (text,) * 4
        await ledger.remove("worker-1/guild")
        assert await place(ledger, row("guild", "worker-2", key=text))

    async def test_a_repeated_place_changes_nothing(self, open_ledger: OpenLedger) -> None:
        """A worker that lost the answer may call again."""
        ledger = open_ledger()
        assert await place(ledger, row("guild"), limit=1)
        assert await place(ledger, row("guild"), limit=1)
        assert await ids(ledger) == ["worker-1/guild"]

    async def test_the_limit_holds_over_all_workers(self, open_ledger: OpenLedger) -> None:
        """There are never more rows than the limit over all workers; a removal frees a slot."""
        ledger = open_ledger()
        assert await place(ledger, row("a"), limit=2)
        assert await place(ledger, row("b", "worker-2"), limit=2)
        assert not await place(ledger, row("c"), limit=2, wait=False)
        await ledger.remove("worker-1/a")
        assert await place(ledger, row("c"), limit=2, wait=False)

    async def test_concurrent_workers_place_exactly_the_limit(
        self, open_ledger: OpenLedger
    ) -> None:
        """Of forty starts of four workers at once, exactly the limit is placed."""
        ledgers = [open_ledger() for _ in range(4)]
        placed = await asyncio.gather(
            *(
                place(
                    ledgers[n % 4], row(f"guild-{n}", f"worker-{n % 4}"), limit=5, wait=n % 2 == 0
                )
                for n in range(40)
            )
        )
        assert sum(placed) == 5
        assert len(await ledgers[0].rows()) == 5

    async def test_the_queue_is_first_come_first_served(self, open_ledger: OpenLedger) -> None:
        """Rows are placed in the order of their arrival; a new row does not overtake."""
        ledger = open_ledger()
        await place(ledger, row("a"), limit=1)
        for name in ("b", "c", "d"):
            assert not await place(ledger, row(name, f"worker-{name}"), limit=1)
        await ledger.remove("worker-1/a")
        assert not await place(ledger, row("new"), limit=1, wait=False)
        assert not await place(ledger, row("c", "worker-c"), limit=1)
        assert await place(ledger, row("b", "worker-b"), limit=1)
        await ledger.remove("worker-c/c")  # gives up
        await ledger.remove("worker-b/b")
        assert await place(ledger, row("d", "worker-d"), limit=1)

    async def test_a_waiting_worker_gets_its_turn(self, open_ledger: OpenLedger) -> None:
        """A waiting worker gets its turn, whichever worker freed the slot."""
        mine, other = open_ledger(), open_ledger()
        await place(other, row("a", "worker-2"), limit=1)
        assert not await place(mine, row("b"), limit=1)
        assert not await place(mine, row("c"), limit=1)
        turns = mine.turns("worker-1")
        told = asyncio.ensure_future(anext(turns))
        done, _ = await asyncio.wait([told], timeout=0.1)
        assert not done, "its turn was told before there was a place"
        await other.remove("worker-2/a")
        assert await asyncio.wait_for(told, 5) == "worker-1/b"
        assert await place(mine, row("b"), limit=1)
        following = asyncio.ensure_future(another(turns, "worker-1/b"))
        await mine.remove("worker-1/b")
        assert await asyncio.wait_for(following, 5) == "worker-1/c"
        last = asyncio.ensure_future(anext(turns))
        await asyncio.sleep(0)
        last.cancel()
        await asyncio.wait([last])

    async def test_all_free_slots_are_given_at_once(self, open_ledger: OpenLedger) -> None:
        """As many waiting rows are placed as slots are free, in any order, and no others."""
        mine, other = open_ledger(), open_ledger()
        for n in range(3):
            await place(other, row(f"old-{n}", "worker-2"), limit=3)
        for n in range(4):
            assert not await place(mine, row(f"{n}"), limit=3)
        assert not await place(other, row("theirs", "worker-2"), limit=3)
        for n in range(3):
            await other.remove(f"worker-2/old-{n}")
        turns = mine.turns("worker-1")
        async with asyncio.timeout(60):
            told = {await anext(turns)}
            while len(told) < 3:
                told.add(await anext(turns))
        assert told == {f"worker-1/{n}" for n in range(3)}
        assert not await place(other, row("new", "worker-2"), limit=3, wait=False)
        for n, placed in ((3, False), (2, True), (0, True), (3, False), (1, True), (3, False)):
            assert await place(mine, row(f"{n}"), limit=3) == placed, n
        await mine.remove("worker-1/3")  # gives up
        await mine.remove("worker-1/0")
        assert await place(other, row("theirs", "worker-2"), limit=3)

    async def test_a_smaller_limit_delays_only_its_own_rows(self, open_ledger: OpenLedger) -> None:
        """While a deployment changes the limit, rows with the larger limit pass the others."""
        ledger = open_ledger()
        for n in range(3):
            await place(ledger, row(f"{n}"), limit=3)
        for n in range(2):
            assert not await place(ledger, row(f"small-{n}", "worker-2"), limit=2)
        for n in range(3):
            assert not await place(ledger, row(f"large-{n}"), limit=3)
        await ledger.remove("worker-1/0")
        turns = another(ledger.turns("worker-1"), "worker-1/0")
        assert await asyncio.wait_for(turns, 5) == "worker-1/large-0"
        assert not await place(ledger, row("large-1"), limit=3)
        assert not await place(ledger, row("new"), limit=3, wait=False)
        assert not await place(ledger, row("small-0", "worker-2"), limit=2)
        assert await place(ledger, row("large-0"), limit=3)
        await ledger.remove("worker-1/1")
        await ledger.remove("worker-1/2")
        assert await place(ledger, row("small-0", "worker-2"), limit=2)
        assert not await place(ledger, row("small-1", "worker-2"), limit=2)
        assert await place(ledger, row("large-1"), limit=3)
        assert not await place(ledger, row("large-2"), limit=3)
        assert await place(ledger, row("small-1", "worker-2"), limit=4)
        assert not await place(ledger, row("large-2"), limit=4)

    async def test_a_key_belongs_to_one_worker(self, open_ledger: OpenLedger) -> None:
        """Another worker learns the holder, also in the queue; the same one may renew."""
        ledger = open_ledger()
        await live(ledger, row("guild"), "s1")
        refused = await ledger.place(
            row("guild", "worker-2"), seconds=600, limit=10, wait=True, lease=LEASE
        )
        assert (refused.placed, refused.holder) == (False, "worker-1")
        assert refused.session_id in {"s1", None}, "an engine need not say it"
        assert await place(ledger, row("again", key="guild"), limit=2)
        assert not await place(ledger, row("waits"), limit=2)
        waiting = await ledger.place(
            row("waits", "worker-2"), seconds=600, limit=2, wait=True, lease=LEASE
        )
        assert waiting.holder == "worker-1"

    async def test_a_key_is_free_again(self, open_ledger: OpenLedger) -> None:
        """A key is free when all rows of its worker for it are gone, also those in the queue."""
        ledger = open_ledger()
        await live(ledger, row("guild"), "s1")
        await live(ledger, row("again", key="guild"), "s2")
        assert not await place(ledger, row("third", key="guild"), limit=2)
        for gone in ("worker-1/guild", "worker-1/again", "worker-1/third"):
            assert not await place(ledger, row("guild", "worker-2"))
            await ledger.remove(gone)
        assert await place(ledger, row("guild", "worker-2"))

    async def test_a_lost_row_is_written_again(self, open_ledger: OpenLedger) -> None:
        """A worker may write the sessions that it has, whatever the limit, because they exist."""
        ledger = open_ledger()
        assert await place(ledger, row("a"), limit=1)
        session = row("b", "worker-2", session_id="s2")
        assert await ledger.record(session, seconds=600) == "worker-2"
        assert not await place(ledger, row("c"), limit=2, wait=False)
        assert await ledger.renew("worker-2", lease=LEASE) == {"worker-2/b": "s2"}

    async def test_a_session_started_without_its_turn_leaves_the_queue(
        self, open_ledger: OpenLedger
    ) -> None:
        """A session that was started while its row was in the queue delays no other row."""
        ledger = open_ledger()
        await place(ledger, row("a"), limit=1)
        assert not await place(ledger, row("b"), limit=1)
        assert await ledger.record(row("b", session_id="s2"), seconds=600) == "worker-1"
        await ledger.remove("worker-1/a")
        assert await place(ledger, row("c", "worker-2"), limit=2, wait=False)
        await ledger.renew("worker-1", lease=0)
        assert [one.session_id for one in await claim(ledger, "worker-2")] == ["s2"]

    async def test_a_renewal_returns_the_workers_rows(self, open_ledger: OpenLedger) -> None:
        """A renewal returns the worker's own rows, with intents and rows in the queue."""
        ledger = open_ledger()
        await live(ledger, row("a"), "s1")
        await place(ledger, row("b"))
        await place(ledger, row("c", "worker-2"))
        assert not await place(ledger, row("d"), limit=3)
        assert await ledger.renew("worker-1", lease=LEASE) == {
            "worker-1/a": "s1",
            "worker-1/b": None,
            "worker-1/d": None,
        }
        await ledger.remove("worker-1/d")
        assert (await ledger.renew("worker-1", lease=LEASE)).keys() == {"worker-1/a", "worker-1/b"}
        assert await ledger.renew("worker-3", lease=LEASE) == {}

    async def test_a_valid_lease_keeps_its_rows(self, open_ledger: OpenLedger) -> None:
        """Rows of a worker with a valid lease are not claimed, nor one's own."""
        ledger = open_ledger()
        await live(ledger, row("a"), "s1")
        await live(ledger, row("b", "worker-2"), "s2")
        assert await claim(ledger, "worker-2") == []
        assert await claim(ledger, "worker-2") == []

    async def test_a_stalled_worker_loses_its_rows(self, open_ledger: OpenLedger) -> None:
        """Sessions go to the claimer, intents to ``NOBODY``; rows in the queue are removed."""
        ledger = open_ledger()
        await live(ledger, row("a"), "s1")
        await place(ledger, row("b"))
        assert not await place(ledger, row("c"), limit=2)
        assert not await place(ledger, row("d", "worker-2"), limit=2)
        await ledger.renew("worker-1", lease=0)
        taken = await claim(ledger, "worker-2")
        assert {(one.id, one.owner, one.session_id) for one in taken} == {
            ("worker-1/a", "worker-1", "s1"),
            ("worker-1/b", "worker-1", None),
        }
        assert all(one.remaining > 500 for one in taken)
        assert await claim(ledger, "worker-3") == []
        owners = {one.id: one.owner for one in await ledger.rows()}
        assert owners == {"worker-1/a": "worker-2", "worker-1/b": NOBODY}
        assert not await place(ledger, row("d", "worker-2"), limit=2), "the places are still taken"
        await ledger.remove("worker-1/a")
        assert await place(ledger, row("d", "worker-2"), limit=2), "the late one is before it"

    async def test_each_row_is_claimed_once(self, open_ledger: OpenLedger) -> None:
        """If several workers claim at once, one gets each session."""
        ledgers = [open_ledger() for _ in range(4)]
        for n in range(20):
            await live(ledgers[0], row(f"guild-{n}"), f"s{n}")
        await ledgers[0].renew("worker-1", lease=0)
        taken = await asyncio.gather(*(claim(one, f"w{n}") for n, one in enumerate(ledgers)))
        sessions = [one.session_id for part in taken for one in part]
        assert sorted(map(str, sessions)) == sorted(f"s{n}" for n in range(20))

    async def test_a_slow_worker_learns_of_a_claim(self, open_ledger: OpenLedger) -> None:
        """A worker that writes a claimed row learns the claimer, also when the row is gone."""
        ledger = open_ledger()
        session = await live(ledger, row("a"), "s1")
        await ledger.renew("worker-1", lease=0)
        await claim(ledger, "worker-2")
        assert await ledger.renew("worker-1", lease=LEASE) == {}
        assert await ledger.record(session, seconds=600) == "worker-2"
        await ledger.remove(session.id)
        assert await ledger.record(session, seconds=600) == "worker-2"
        assert await ledger.rows() == []

    async def test_a_late_start_is_its_workers_again(self, open_ledger: OpenLedger) -> None:
        """An intent of ``NOBODY`` belongs to its worker again when the session is known."""
        ledger = open_ledger()
        intent = row("a")
        await place(ledger, intent)
        await ledger.renew("worker-1", lease=0)
        assert len(await claim(ledger, "worker-2")) == 1
        assert await ledger.record(evolve(intent, session_id="s1"), seconds=600) == "worker-1"
        assert await ledger.renew("worker-1", lease=LEASE) == {"worker-1/a": "s1"}

    async def test_a_late_start_whose_key_is_gone(self, open_ledger: OpenLedger) -> None:
        """An intent of ``NOBODY`` keeps no key: its new holder is returned."""
        ledger = open_ledger()
        intent = row("a")
        await place(ledger, intent)
        await ledger.renew("worker-1", lease=0)
        assert len(await claim(ledger, "worker-2")) == 1
        assert await place(ledger, row("a", "worker-2"))
        assert await ledger.record(intent, seconds=600) == "worker-2"
        assert await ledger.record(evolve(intent, session_id="s1"), seconds=600) == "worker-2"
        assert await ledger.renew("worker-1", lease=LEASE) == {"worker-1/a": "s1"}
        assert len(await ledger.rows()) == 2

    async def test_a_late_start_whose_worker_dies(self, open_ledger: OpenLedger) -> None:
        """A stalled worker that came back for a moment and died is still stalled."""
        ledger = open_ledger()
        intent = row("a")
        await place(ledger, intent)
        await ledger.renew("worker-1", lease=0)
        assert len(await claim(ledger, "worker-2")) == 1
        assert await ledger.record(evolve(intent, session_id="s1"), seconds=600) == "worker-1"
        await asyncio.sleep(0.01)
        assert [one.session_id for one in await claim(ledger, "worker-3")] == ["s1"]

    async def test_an_intent_without_an_owner_expires(self, open_ledger: OpenLedger) -> None:
        """It keeps its slot until its time is over."""
        ledger = open_ledger()
        await place(ledger, row("a"), seconds=SHORT * 5)
        await ledger.renew("worker-1", lease=0)
        assert len(await claim(ledger, "worker-2")) == 1
        assert not await place(ledger, row("b", "worker-2"), limit=1)
        async with asyncio.timeout(60):
            while not await place(ledger, row("b", "worker-2"), limit=1):  # noqa: ASYNC110
                await asyncio.sleep(SHORT / 4)
        assert await ids(ledger) == ["worker-2/b"]

    async def test_any_number_of_rows_is_claimed(self, open_ledger: OpenLedger) -> None:
        """Repeated calls claim the rest, each row once."""
        ledger = open_ledger()
        for n in range(1200):
            await ledger.record(row(f"guild-{n}", session_id=f"s{n}"), seconds=600)
        await ledger.renew("worker-1", lease=0)
        sessions: list[str | None] = []
        while taken := await claim(ledger, "worker-2"):
            sessions += [one.session_id for one in taken]
        assert sorted(map(str, sessions)) == sorted(f"s{n}" for n in range(1200))
        assert len(await ledger.renew("worker-2", lease=LEASE)) == 1200

    async def test_a_claimer_learns_the_resource(self, open_ledger: OpenLedger) -> None:
        """The claimer learns the resource, also one that only newer releases know."""
        ledger = open_ledger()
        words = {"a": "session", "b": "conversation", "c": "telepathy"}
        for label, word in words.items():
            await live(ledger, row(label, resource=word), label)
        assert {one.key: one.resource for one in await ledger.rows()} == words
        await ledger.renew("worker-1", lease=0)
        assert {one.key: one.resource for one in await claim(ledger, "worker-2")} == words

    async def test_other_endpoints_are_not_claimed(self, open_ledger: OpenLedger) -> None:
        """Sessions of another endpoint are left for a worker with that endpoint."""
        ledger = open_ledger()
        await live(ledger, row("a", endpoint="https://other.example.test"), "s1")
        await ledger.renew("worker-1", lease=0)
        assert await claim(ledger, "worker-2") == []
        there = await ledger.claim(
            "worker-3", endpoint="https://other.example.test", lease=LEASE, at_once=True
        )
        assert [one.session_id for one in there] == ["s1"]

    async def test_each_row_expires(self, open_ledger: OpenLedger) -> None:
        """Each row is removed at its end, also of living workers and unknown endpoints."""
        ledger = open_ledger()
        elsewhere = "https://other.example.test"
        for one in (row("a"), row("b", "worker-2"), row("c", "worker-3", endpoint=elsewhere)):
            session = evolve(one, session_id=f"s-{one.key}")
            assert await ledger.record(session, seconds=SHORT * 5) == one.owner
        await live(ledger, row("d"), "s-d")
        for gone in ("worker-2", "worker-3"):
            await ledger.renew(gone, lease=0)
        assert [one.session_id for one in await claim(ledger, "worker-4")] == ["s-b"]
        async with asyncio.timeout(60):
            while len(await ledger.rows()) > 1:
                await asyncio.sleep(SHORT / 4)
                await ledger.renew("worker-1", lease=LEASE)
        assert await ledger.renew("worker-1", lease=LEASE) == {"worker-1/d": "s-d"}
        assert await place(ledger, row("c", "worker-4"), limit=2), "its place or key is still taken"

    async def test_rows_of_other_endpoints_stay(self, open_ledger: OpenLedger) -> None:
        """Rows of another endpoint stay with their worker, and are claimed later."""
        ledger = open_ledger()
        elsewhere = "https://other.example.test"
        abroad = await live(ledger, row("a", endpoint=elsewhere), "s1")
        for _ in range(2):
            await ledger.renew("worker-1", lease=0)
            assert await claim(ledger, "worker-2") == []
            assert await claim(ledger, "worker-2") == []
        assert await ledger.renew("worker-1", lease=LEASE) == {"worker-1/a": "s1"}
        await ledger.remove(abroad.id)
        await live(ledger, row("b"), "s2")
        await ledger.renew("worker-1", lease=0)
        assert [one.session_id for one in await claim(ledger, "worker-2")] == ["s2"]

    async def test_a_newer_version_is_not_claimed(self, open_ledger: OpenLedger) -> None:
        """It keeps its slot and its key, and is left to newer workers; others are claimed."""
        ledger = open_ledger()
        newer = row("new", version=ROW_VERSION + 1)
        await live(ledger, newer, "s1")
        assert await place(ledger, row("intent", version=ROW_VERSION + 1))
        await live(ledger, row("old"), "s2")
        await ledger.renew("worker-1", lease=0)
        for _ in range(2):
            claimed = {one.session_id for one in await claim(ledger, "worker-2")}
            assert claimed <= {"s2"}
        (first, *_) = [one for one in await ledger.rows() if one.id == newer.id]
        assert (first.owner, first.version) == ("worker-1", ROW_VERSION + 1)
        assert not await place(ledger, row("b", "worker-2"), limit=3, wait=False)
        assert not await place(ledger, row("new", "worker-2"), wait=False)

    async def test_no_worker_is_stalled_after_an_outage(self, open_ledger: OpenLedger) -> None:
        """After an outage of the engine all workers have the time of a lease to come back."""
        ledger = open_ledger()
        await live(ledger, row("a"), "s1")
        await ledger.renew("worker-1", lease=SHORT)
        await asyncio.sleep(SHORT * 2)  # no heartbeat of any worker
        await ledger.renew("worker-3", lease=0)  # one that leaves does not hide it
        assert await ledger.claim("worker-2", endpoint=HERE, lease=SHORT) == []
        taken: Sequence[LedgerRow] = []
        async with asyncio.timeout(60):
            while not taken:
                await asyncio.sleep(SHORT / 8)
                taken = await ledger.claim("worker-2", endpoint=HERE, lease=SHORT)
        assert [one.session_id for one in taken] == ["s1"]


@pytest.mark.asyncio
class BulkLedgerContract:
    """The tests for an engine that is also a :class:`BulkLedger`, with the same fixture."""

    async def test_many_rows_are_written_again(self, open_ledger: Callable[[], BulkLedger]) -> None:
        """All rows are written, their worker is alive from then on, and claimers are returned."""
        ledger = open_ledger()
        assert isinstance(ledger, BulkLedger)
        claimed = await live(ledger, row("claimed"), "s")
        await ledger.renew("worker-1", lease=0)
        assert len(await claim(ledger, "worker-2")) == 1
        lost = [row(f"{n}", session_id=f"s{n}") for n in range(700)]
        lost.append(row("intent"))
        rows = [(one, 600.0) for one in [claimed, *lost]]
        told = await ledger.record_all("worker-1", rows, lease=LEASE)
        assert told == ["worker-2"] + ["worker-1"] * 701
        assert await claim(ledger, "worker-2") == []
        held = await ledger.renew("worker-1", lease=LEASE)
        assert held == {one.id: one.session_id for one in lost}
        assert await ledger.record_all("worker-1", [], lease=LEASE) == []
        ends = {one.remaining > 500 for one in await ledger.rows()}
        assert ends == {True}
