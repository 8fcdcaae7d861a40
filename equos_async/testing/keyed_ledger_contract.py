"""The tests for a ledger in which any worker can stop a key's session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from attrs import evolve

from equos_async.ledger.protocol import NOBODY, KeyedLedger

from .ledger_contract import LEASE, claim, ids, listening, live, place, row


@pytest.mark.asyncio
class KeyedLedgerContract:
    """The tests for an engine that is also a :class:`KeyedLedger`, with the same fixture."""

    async def test_a_session_that_is_removed(self, open_ledger: Callable[[], KeyedLedger]) -> None:
        """Its owner gets a turn, and learns that the session is over, as often as it asks."""
        ledger = open_ledger()
        assert isinstance(ledger, KeyedLedger)
        turns = await listening(ledger)
        session = await live(ledger, row("a"), "s1")
        other = await live(ledger, row("b"), "s2")
        (found,) = await ledger.call_off("a", worker="worker-2")
        assert (found.id, found.session_id) == (session.id, "s1")
        assert await ledger.record(session, seconds=600) == "worker-1", "it was only looked at"
        assert await ledger.remove(session.id, worker="worker-2") is True
        assert await asyncio.wait_for(anext(turns), 5) == session.id
        for _ in range(2):
            assert await ledger.record(session, seconds=600) == NOBODY
        assert await ledger.remove(session.id, worker="worker-1") is False, "worker-2 tells of it"
        assert await ledger.remove(session.id, worker="worker-3") is False
        assert await ledger.call_off("a", worker="worker-2") == []
        assert await ledger.renew("worker-1", lease=LEASE) == {other.id: "s2"}
        assert await place(ledger, row("a", "worker-2")), "the key is free"

    async def test_a_row_that_its_owner_removes(
        self, open_ledger: Callable[[], KeyedLedger]
    ) -> None:
        """Afterwards it is unknown: another worker that is late removes nothing."""
        ledger = open_ledger()
        session = await live(ledger, row("a"), "s1")
        assert await ledger.remove(session.id, worker="worker-1") is True
        assert await ledger.remove(session.id, worker="worker-2") is None
        assert await ledger.remove(session.id, worker="worker-1") is None
        assert await ledger.record(session, seconds=600) == "worker-1", "the engine had lost it"

    async def test_a_row_that_a_person_removes(
        self, open_ledger: Callable[[], KeyedLedger]
    ) -> None:
        """Its owner learns that the session is over, and is the one to report the end."""
        ledger = open_ledger()
        turns = await listening(ledger)
        session = await live(ledger, row("a"), "s1")
        await ledger.remove(session.id)
        assert await asyncio.wait_for(anext(turns), 5) == session.id
        assert await ledger.record(session, seconds=600) == NOBODY
        assert await ledger.remove(session.id, worker="worker-1") is None

    async def test_one_worker_reports_a_claimed_session(
        self, open_ledger: Callable[[], KeyedLedger]
    ) -> None:
        """The worker that removes the row first reports the end, the claimer or the stalled one."""
        ledger = open_ledger()
        for first, second in (("worker-1", "worker-2"), ("worker-2", "worker-1")):
            session = await live(ledger, row(f"for {first}"), "s1")
            await ledger.renew("worker-1", lease=0)
            assert len(await claim(ledger, "worker-2")) == 1
            assert await ledger.remove(session.id, worker=first) is True
            assert await ledger.remove(session.id, worker=second) is False
            assert await ledger.record(session, seconds=600) == "worker-2"

    async def test_a_start_in_the_queue_is_called_off(
        self, open_ledger: Callable[[], KeyedLedger]
    ) -> None:
        """It leaves the queue; its owner gets a turn, and learns the reason when it asks again."""
        ledger = open_ledger()
        turns = await listening(ledger)
        await place(ledger, row("a"), limit=1)
        queued = row("b")
        assert not await place(ledger, queued, limit=1)
        assert await ledger.call_off("b", worker="worker-1") == []
        assert await ledger.call_off("b", worker="worker-2") == []
        assert await asyncio.wait_for(anext(turns), 5) == queued.id
        placing = await ledger.place(queued, seconds=600, limit=9, wait=True, lease=LEASE)
        assert (placing.placed, placing.called_off) == (False, True)
        assert (await ledger.renew("worker-1", lease=LEASE)).keys() == {"worker-1/a"}

    async def test_a_start_in_progress_is_called_off(
        self, open_ledger: Callable[[], KeyedLedger]
    ) -> None:
        """Its intent stays, and its owner gets a turn; a session that comes can be stopped."""
        ledger = open_ledger()
        turns = await listening(ledger)
        intent = row("a")
        await place(ledger, intent)
        assert await ledger.record(intent, seconds=600) == "worker-1"
        for _ in range(2):
            (found,) = await ledger.call_off("a", worker="worker-2")
            assert (found.id, found.session_id) == (intent.id, None)
        assert await asyncio.wait_for(anext(turns), 5) == intent.id
        placing = await ledger.place(intent, seconds=600, limit=9, wait=True, lease=LEASE)
        assert placing.called_off, "the answer to its first call was lost"
        assert await ledger.record(intent, seconds=600) == NOBODY
        assert await ids(ledger) == [intent.id], "its slot is still taken"
        session = evolve(intent, session_id="s1")
        assert await ledger.record(session, seconds=600) == "worker-1"
        (found,) = await ledger.call_off("a", worker="worker-2")
        assert found.session_id == "s1"
        assert await ledger.remove(session.id, worker="worker-1") is True
        assert await ledger.record(session, seconds=600) == "worker-1", "no old news is left"

    async def test_an_intent_without_an_owner_is_not_called_off(
        self, open_ledger: Callable[[], KeyedLedger]
    ) -> None:
        """No worker can call it off, and it has no key."""
        ledger = open_ledger()
        await place(ledger, row("a"))
        await ledger.renew("worker-1", lease=0)
        assert len(await claim(ledger, "worker-2")) == 1
        assert await ledger.call_off("a", worker="worker-2") == []
        assert await ids(ledger) == ["worker-1/a"]
