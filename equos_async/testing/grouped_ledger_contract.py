"""The tests for a ledger that counts the rows of groups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from attrs import evolve

from equos_async.ledger.protocol import GroupedLedger, LedgerRow, Placing

from .ledger_contract import LEASE, claim, ids, listening, live, place, row


async def ask(
    ledger: GroupedLedger, one: LedgerRow, *, limit: int = 100, group_limit: int = 2
) -> Placing:
    """Ask for a slot of a group."""
    return await ledger.place_in_group(
        one, seconds=600.0, limit=limit, wait=True, lease=LEASE, group_limit=group_limit
    )


def of(group: str, label: str, owner: str = "worker-1") -> LedgerRow:
    """An intent of a group."""
    return row(label, owner, group=group)


async def told(turns: AsyncIterator[str], one: LedgerRow) -> None:
    """Wait until a worker learns that a slot may be free for one of its rows."""
    while await anext(turns) != one.id:
        pass


@pytest.mark.asyncio
class GroupedLedgerContract:
    """The tests for an engine that is also a :class:`GroupedLedger`, with the same fixture."""

    @pytest.mark.parametrize("group", ["tenant", "a\0b", "ключ", ""])
    async def test_the_limit_of_a_group(
        self, open_ledger: Callable[[], GroupedLedger], group: str
    ) -> None:
        """The limit holds over all workers, and does not affect other groups."""
        ledger = open_ledger()
        assert isinstance(ledger, GroupedLedger)
        first, second = of(group, "a"), of(group, "b", "worker-2")
        for one in (first, second, second):
            assert (await ask(ledger, one)).placed
        full = await ask(ledger, of(group, "c"))
        assert (full.placed, full.group_full) == (False, True)
        assert (await ask(ledger, of(f"{group}x", "d"), limit=3)).placed, "c delays no other row"
        assert await place(ledger, row("e"))
        assert {one.key: one.group for one in await ledger.rows()} == {
            "a": group,
            "b": group,
            "d": f"{group}x",
            "e": None,
        }
        await ledger.remove(second.id)
        assert (await ask(ledger, of(group, "c"))).placed
        assert (await ask(ledger, of(group, "f"), group_limit=3)).placed, "a larger limit"

    async def test_a_parked_row(self, open_ledger: Callable[[], GroupedLedger]) -> None:
        """A parked row has its key and its worker, and joins the end of the queue later."""
        ledger = open_ledger()
        await live(ledger, of("g", "a"), "s1")
        parked, queued = of("g", "b"), of("h", "c")
        assert (await ask(ledger, parked, group_limit=1)).group_full
        assert not (await ask(ledger, queued, limit=1)).group_full
        held = await ask(ledger, of("h", "b", "worker-2"))
        assert held.holder == "worker-1"
        assert (await ledger.renew("worker-1", lease=LEASE)) == {
            "worker-1/a": "s1",
            "worker-1/b": None,
            "worker-1/c": None,
        }
        await ledger.remove("worker-1/a")
        assert not (await ask(ledger, parked, limit=1, group_limit=1)).placed
        assert (await ask(ledger, queued, limit=1)).placed, "it was before it"
        await ledger.remove(queued.id)
        assert (await ask(ledger, parked, limit=1, group_limit=1)).placed
        assert await ids(ledger) == [parked.id]

    async def test_a_turn_that_a_full_group_cannot_use(
        self, open_ledger: Callable[[], GroupedLedger]
    ) -> None:
        """The next row in the queue gets the slot."""
        ledger = open_ledger()
        turns = await listening(ledger)
        await live(ledger, of("h", "a"), "s1")
        await live(ledger, of("g", "b"), "s2")
        first, second = of("g", "c"), of("h", "d")
        for one in (first, second):
            assert not (await ask(ledger, one, limit=2)).placed
        await ledger.remove("worker-1/a")
        await told(turns, first)
        assert (await ask(ledger, first, limit=2, group_limit=1)).group_full
        await told(turns, second)
        assert (await ask(ledger, second, limit=2, group_limit=1)).placed

    async def test_a_claimed_session_counts(self, open_ledger: Callable[[], GroupedLedger]) -> None:
        """A claimed session counts until it ends; parked rows go with their worker."""
        ledger = open_ledger()
        session = await live(ledger, of("g", "a"), "s1")
        assert (await ask(ledger, of("g", "b"), group_limit=1)).group_full
        await ledger.renew("worker-1", lease=0)
        (claimed,) = await claim(ledger, "worker-2")
        assert claimed.group == "g"
        assert (await ask(ledger, of("g", "b", "worker-2"), group_limit=1)).group_full
        await ledger.remove(session.id)
        assert (await ask(ledger, of("g", "b", "worker-2"), group_limit=1)).placed

    async def test_a_row_written_again_counts(
        self, open_ledger: Callable[[], GroupedLedger]
    ) -> None:
        """A row that is written again after a loss counts for its group."""
        ledger = open_ledger()
        session = evolve(of("g", "a"), session_id="s1")
        for _ in range(2):
            assert await ledger.record(session, seconds=600) == "worker-1"
        assert (await ask(ledger, of("g", "b", "worker-2"), group_limit=1)).group_full
