"""The tests for a ledger with a queue in which groups take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pytest

from equos_async.ledger.protocol import GroupedLedger, KeyedLedger, LedgerRow

from .ledger_contract import LEASE, claim, listening, place, row


def of(group: str | None, *labels: str, owner: str = "worker-1") -> list[LedgerRow]:
    """Intents of a group."""
    return [row(label, owner, group=group) for label in labels]


async def ask(
    ledger: GroupedLedger,
    rows: Iterable[LedgerRow],
    *,
    limit: int = 1,
    wait: bool = True,
    group_limit: int | None = None,
    renews: bool = False,
) -> list[bool]:
    """Ask for slots, one after the other."""
    return [
        (
            await ledger.place_in_group(
                one,
                seconds=600.0,
                limit=limit,
                wait=wait,
                lease=LEASE,
                group_limit=group_limit,
                renews=renews,
            )
        ).placed
        for one in rows
    ]


async def order(ledger: GroupedLedger, waiting: Sequence[LedgerRow]) -> str:
    """The keys of the waiting rows in the order in which they get the one slot."""
    left, served = list(waiting), ""
    while left:
        placed = [one for one in reversed(left) if (await ask(ledger, [one]))[0]]
        assert len(placed) == 1, "one slot, so one of them"
        served += f"{placed[0].key} "
        left.remove(placed[0])
        await ledger.remove(placed[0].id)
    return served.strip()


@pytest.mark.asyncio
class TurnsContract:
    """The tests of the queue of a :class:`GroupedLedger`, with the same fixture."""

    @pytest.fixture
    async def ledger(self, open_ledger: Callable[[], GroupedLedger]) -> GroupedLedger:
        """A ledger whose one slot is taken; ``remove("holder/x")`` frees it."""
        ledger = open_ledger()
        assert await place(ledger, row("x", "holder"), limit=1)
        return ledger

    async def test_groups_take_turns(self, ledger: GroupedLedger) -> None:
        """Many rows of one group do not delay a single row of another; no group is a group, too."""
        waiting = [
            *of("a", "a1", "a2", "a3", "a4"),
            *of("b", "b1", "b2", owner="worker-2"),
            *of(None, "c1", "c2"),
            *of("", "d1"),
        ]
        assert not any(await ask(ledger, waiting))
        await ledger.remove("holder/x")
        assert await order(ledger, waiting) == "a1 b1 c1 d1 a2 b2 c2 a3 a4"

    async def test_a_group_that_returns(self, ledger: GroupedLedger) -> None:
        """It joins at the end of the round, not behind all waiting rows."""
        waiting = of("a", "a1", "a2", "a3")
        again = of("b", "b1", "b2", "b3")
        assert not any(await ask(ledger, [*waiting, again[0]]))
        await ledger.remove("holder/x")
        told = ""
        for one, following in zip(again, [*again[1:], None], strict=True):
            assert await ask(ledger, [waiting[0]]) == [True]
            assert await ask(ledger, [waiting[1] if len(waiting) > 1 else one]) == [False]
            await ledger.remove(waiting.pop(0).id)
            assert await ask(ledger, [one]) == [True]
            if following is not None:
                assert await ask(ledger, [following]) == [False]
            await ledger.remove(one.id)
            told += one.key
        assert told == "b1b2b3"

    async def test_a_group_that_comes_within_a_round(self, ledger: GroupedLedger) -> None:
        """It comes after the groups without a turn in this round, and before their next turns."""
        first, others, comes = of("b", "b1", "b2"), of("c", "c1"), of("a", "a1")
        assert not any(await ask(ledger, [*first, *others]))
        await ledger.remove("holder/x")
        assert await ask(ledger, first[:1]) == [True]
        following = of("c", "c2")
        assert not any(await ask(ledger, [*comes, *following]))
        await ledger.remove(first[0].id)
        served = await order(ledger, [first[1], *others, *comes, *following])
        assert served == "c1 b2 a1 c2"

    async def test_turns_that_are_not_used(self, ledger: GroupedLedger) -> None:
        """They stay with the group: a row that gave up does not delay those behind it."""
        gone, stays = of("a", *(f"x{n}" for n in range(20))), of("a", "a1", "a2", "a3")
        others = of("b", *(f"b{n}" for n in range(1, 5)), owner="worker-2")
        assert not any(await ask(ledger, [*gone, *stays, *others]))
        for one in gone[1:9]:  # in the middle first
            await ledger.remove(one.id)
        await ledger.remove(gone[0].id)
        assert isinstance(ledger, KeyedLedger)
        await ledger.call_off("x9", worker="worker-2")
        for one in gone[10:]:
            await ledger.remove(one.id)
        late = of("a", "a4")
        assert not any(await ask(ledger, late))
        await ledger.remove("holder/x")
        told = await order(ledger, [*stays, *others, *late])
        assert told == "a1 b1 a2 b2 a3 b3 a4 b4"

    async def test_rows_placed_out_of_order(self, ledger: GroupedLedger) -> None:
        """In whatever order rows of a group are placed, each uses one turn."""
        mine, others = of("a", "a1", "a2", "a3", "a4", "a5"), of("b", "b1", "b2", "b3", "b4", "b5")
        assert not any(await ask(ledger, [*mine, *others]))
        await ledger.remove("holder/x")
        first = [mine[2], mine[1], others[0], mine[0], others[2], others[1]]
        assert all(await ask(ledger, first, limit=6))
        for one in first:
            await ledger.remove(one.id)
        assert await order(ledger, [*mine[3:], *others[3:]]) == "a4 b4 a5 b5"

    async def test_a_stalled_workers_turns(self, ledger: GroupedLedger) -> None:
        """They stay with the group, also for rows of other workers."""
        gone, stays = of("a", "x1", "x2", owner="dead"), of("a", "a1")
        others = of("b", "b1", "b2")
        assert not any(await ask(ledger, [*gone, *stays, *others]))
        await ledger.renew("dead", lease=0)
        await claim(ledger, "worker-2")
        await ledger.remove("holder/x")
        assert await order(ledger, [*stays, *others]) == "a1 b1 b2"

    async def test_a_group_that_is_full(self, ledger: GroupedLedger) -> None:
        """A parked row gives up its turn, and joins at the end when it is back."""
        parked, others = of("a", "a1", "a2"), of("b", "b1", "b2")
        assert not any(await ask(ledger, [*parked, *others]))
        assert not any(await ask(ledger, [*parked, *parked], group_limit=0))
        assert not any(await ask(ledger, parked))
        await ledger.remove("holder/x")
        assert await order(ledger, [*parked, *others]) == "b1 a1 b2 a2"

    async def test_renewals_come_first(self, ledger: GroupedLedger) -> None:
        """Renewals come before new starts; among renewals groups take turns, too."""
        newcomers, renewals = of("a", "a1", "a2"), of("a", "r1", "r2", "r3")
        others = of("b", "s1", "s2")
        assert not any(await ask(ledger, newcomers))
        assert not any(await ask(ledger, [*renewals, *others], renews=True))
        await ledger.remove(renewals[0].id)
        await ledger.remove("holder/x")
        served = await order(ledger, [*newcomers, *renewals[1:], *others])
        assert served == "r2 s1 r3 s2 a1 a2"

    async def test_a_row_that_does_not_wait(self, ledger: GroupedLedger) -> None:
        """It gets a slot if it would be next, and leaves no row."""
        waiting, asks, renewal = of("a", "a1", "a2"), of("b", "b1"), of("b", "b2")
        assert not any(await ask(ledger, waiting))
        await ledger.remove("holder/x")
        assert await ask(ledger, asks, wait=False) == [False]
        assert await ask(ledger, renewal, wait=False, renews=True) == [True]
        await ledger.remove(renewal[0].id)
        assert await ask(ledger, asks, wait=False, limit=2) == [True], "before the second of a"
        assert await ask(ledger, waiting, limit=2) == [True, False]

    async def test_a_row_that_moves_forward_gets_its_turn(
        self, open_ledger: Callable[[], GroupedLedger]
    ) -> None:
        """It gets the turn of the row that gave up, before rows that know of their turns."""
        ledger = open_ledger()
        assert isinstance(ledger, KeyedLedger)
        remove = partial(ledger.remove, worker="worker-1")
        turns = await listening(ledger)
        held = of("h", "h1", "h2")
        waiting = [*of("a", "a1", "a2"), *of("b", "b1", "b2")]
        assert all(await ask(ledger, held, limit=2))
        assert not any(await ask(ledger, waiting, limit=2))
        for one in held:
            await remove(one.id)
        told = {await asyncio.wait_for(anext(turns), 5) for _ in range(2)}
        assert told == {waiting[0].id, waiting[2].id}
        await remove(waiting[0].id)
        called = ""
        while called != waiting[1].id:
            called = await asyncio.wait_for(anext(turns), 5)
        assert await ask(ledger, [waiting[3], waiting[1], waiting[2]], limit=2) == [
            False,
            True,
            True,
        ]
