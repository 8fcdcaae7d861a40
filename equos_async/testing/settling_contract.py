"""The tests for a ledger in which workers settle the starts of dead ones.

Subclass :class:`SettlingLedgerContract` beside ``LedgerContract``, with the same fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from attrs import evolve

from equos_async.ledger.protocol import NOBODY, LedgerRow, SettlingLedger

from .ledger_contract import HERE, LEASE, claim, place, row


@pytest.mark.asyncio
class SettlingLedgerContract:
    """The tests for an engine that is also a :class:`SettlingLedger`."""

    async def test_an_intent_is_settled(self, open_ledger: Callable[[], SettlingLedger]) -> None:
        """An intent belongs to its claimer, as its own worker learns, until it is given up."""
        ledger = open_ledger()
        assert isinstance(ledger, SettlingLedger)
        intent = row("lost", marker="m1")
        await place(ledger, intent)
        await ledger.renew("worker-1", lease=0)
        (claimed,) = await claim_intents(ledger, "worker-2")
        assert (claimed.marker, claimed.owner) == ("m1", "worker-1")
        assert await ledger.renew("worker-2", lease=LEASE) == {intent.id: None}
        told = await ledger.place(
            row("other", "worker-3", key="lost"), seconds=60, limit=9, wait=False, lease=LEASE
        )
        assert told.holder == "worker-2"
        assert await ledger.record(evolve(intent, session_id="s1"), seconds=60) == "worker-2"
        await ledger.give_up("worker-1", intent.id)
        assert [one.owner for one in await ledger.rows()] == ["worker-2"]
        await ledger.give_up("worker-2", intent.id)
        assert [one.owner for one in await ledger.rows()] == [NOBODY]
        assert await claim_intents(ledger, "worker-2") == []
        assert await ledger.record(evolve(intent, session_id="s1"), seconds=60) == "worker-1"

    async def test_another_worker_continues_a_search(
        self, open_ledger: Callable[[], SettlingLedger]
    ) -> None:
        """Another worker continues; a slow one learns of it, also when the row is gone."""
        ledger = open_ledger()
        intent = row("lost", marker="m1")
        await place(ledger, intent)
        for worker, other in (("worker-1", "worker-2"), ("worker-2", "worker-3")):
            await ledger.renew(worker, lease=0)
            (claimed,) = await claim_intents(ledger, other)
            assert (claimed.owner, claimed.marker) == (worker, "m1")
        await ledger.remove(intent.id)
        assert await ledger.record(evolve(intent, session_id="s1"), seconds=60) == "worker-3"
        await ledger.give_up("worker-3", intent.id)
        assert await ledger.rows() == []

    async def test_a_session_is_not_given_up(
        self, open_ledger: Callable[[], SettlingLedger]
    ) -> None:
        """A session that is known stays with its claimer, and its marker is dropped."""
        ledger = open_ledger()
        intent = row("lost", marker="m1")
        await place(ledger, intent)
        await ledger.record(evolve(intent, session_id="s1", marker=None), seconds=60)
        await ledger.give_up("worker-1", intent.id)
        assert [(one.owner, one.marker) for one in await ledger.rows()] == [("worker-1", None)]

    async def test_intents_that_cannot_be_settled(
        self, open_ledger: Callable[[], SettlingLedger]
    ) -> None:
        """An intent without a marker, of another endpoint, or of a worker that cannot search."""
        ledger = open_ledger()
        await place(ledger, row("unmarked"))
        await place(ledger, row("abroad", marker="m1", endpoint="https://elsewhere.test"))
        await ledger.renew("worker-1", lease=0)
        assert len(await claim_intents(ledger, "worker-2")) == 2
        await place(ledger, row("marked", "worker-3", marker="m2"))
        await ledger.renew("worker-3", lease=0)
        assert len(await claim(ledger, "worker-2")) == 1
        assert {one.owner for one in await ledger.rows()} == {NOBODY}


async def claim_intents(ledger: SettlingLedger, worker: str) -> Sequence[LedgerRow]:
    """Claim at once, as a worker that can search for sessions."""
    return await ledger.claim(worker, endpoint=HERE, lease=LEASE, at_once=True, settles=True)
