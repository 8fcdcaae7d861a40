"""A group's limit holds over all workers of a ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from equos_async import (
    EquosError,
    FleetFullError,
    RedisLedger,
    SessionEnd,
    SessionFleet,
    SQLiteLedger,
)
from tests.clocks import eventually
from tests.fleet.support import Events, ScriptedClient
from tests.fleet.test_groups import client_of, start
from tests.ledger.conftest import RedisServer

Join = Callable[..., SessionFleet]


@pytest.fixture(params=["sqlite", "redis"])
async def join(
    request: pytest.FixtureRequest, tmp_path: Path, scripted: ScriptedClient
) -> AsyncIterator[Join]:
    """Another worker of one ledger, whose groups may have two slots."""
    redis: RedisServer | None = (
        request.getfixturevalue("redis") if request.param == "redis" else None
    )
    async with AsyncExitStack() as stack:

        def fleet(**settings: Any) -> SessionFleet:
            ledger = RedisLedger(redis.url) if redis else SQLiteLedger(tmp_path / "ledger.db")
            stack.push_async_callback(ledger.aclose)
            settings = {"group": client_of, "max_per_group": 2, "max_live": 9, **settings}
            return SessionFleet(scripted, ledger=ledger, **settings)

        yield fleet


async def test_it_holds_over_all_workers(join: Join) -> None:
    """What one worker has counts for the other; who waits gets what either gives back."""
    async with join() as one, join() as two:
        await start(one, "a", "a0")
        await start(two, "a", "a1")
        with pytest.raises(FleetFullError, match="all 2 slots of group 'a' are taken"):
            await start(one, "a", "a2", wait=False)
        waiting = [start(one, "a", f"a{n}") for n in (2, 3, 4)]
        await eventually(lambda: one.stats().waiting == 3)
        await start(two, "b", "b0")
        await start(one, None, "nobody's")
        await two.stop("a1")
        await asyncio.wait_for(waiting[0], 60)
        await one.stop("a0")
        await asyncio.wait_for(waiting[1], 60)
        assert not waiting[2].done()
        assert one.stats().groups["a"].waiting == 1
        await two.stop("a4")  # it is called off, wherever it waits
        with pytest.raises(EquosError, match="stop"):
            await waiting[2]


async def test_when_it_has_a_slot_again(join: Join) -> None:
    """Only an end of its own sessions helps a group; that of another worker's is not known here."""
    async with join(max_per_group=1) as one, join(max_per_group=1) as two:
        await start(one, "a", "a0")
        await start(two, "b", "b0")
        with pytest.raises(FleetFullError) as full:
            await start(two, "a", "a1", wait=False)
        assert full.value.retry_after is None
        with pytest.raises(FleetFullError) as full:
            await start(two, "b", "b1", wait=False)
        assert full.value.retry_after == pytest.approx(598, abs=60)


async def test_many_are_placed_one_after_the_other(join: Join, scripted: ScriptedClient) -> None:
    """A whole group's slots that become free elsewhere are taken at once, not one a second."""
    async with join(max_per_group=6) as one, join(max_per_group=6) as two:
        for n in range(6):
            await start(two, "a", f"a{n}")
        waiting = [start(one, "a", f"b{n}") for n in range(6)]
        await eventually(lambda: one.stats().waiting == 6)
        await two.drain()
        async with asyncio.timeout(60):
            await asyncio.gather(*waiting)
    assert scripted.most == 6


async def test_who_gives_up_is_not_in_the_way(join: Join) -> None:
    """The next of its group has the slot."""
    async with join(max_per_group=1) as one, join(max_per_group=1) as two:
        await start(two, "a", "a0")
        gone, following = start(one, "a", "a1"), start(one, "a", "a2")
        await eventually(lambda: one.stats().waiting == 2)
        gone.cancel()
        await eventually(lambda: one.stats().waiting == 1)
        await two.stop("a0")
        assert (await asyncio.wait_for(following, 60)).key == "a2"


async def test_ends_that_another_worker_tells(join: Join) -> None:
    """They bring the group, for the bill; so do the events."""
    ends: list[SessionEnd] = []
    events = Events()
    async with join(on_event=events) as one, join(on_end=ends.append, on_event=events) as two:
        await start(one, "a", "a0")
        await two.stop("a0")
        marked = await start(one, "b", "b0")
        await two.mark_ended(marked.session.id)
    assert {(end.outcome, end.group) for end in ends} == {
        ("stopped_elsewhere", "a"),
        ("marked_ended", "b"),
    }
    assert {event.group for event in events.all} == {"a", "b"}


async def test_turns_over_all_workers(join: Join) -> None:
    """One tenant's single call does not wait behind another's many, whichever worker has them."""
    async with join(max_per_group=None, max_live=1) as one, join(max_per_group=None) as two:
        await start(two, "a", "a0")
        two.resize(1)
        many = [start(one, "a", f"a{n}") for n in range(1, 101)]
        await eventually(lambda: one.stats().waiting == 100)
        single = start(two, "b", "b0")
        await eventually(lambda: two.stats().waiting == 1)
        gone = many.pop(0)
        gone.cancel()
        await two.stop("a0")
        await asyncio.wait_for(many[0], 60)
        assert not single.done()
        await one.stop("a2")
        await asyncio.wait_for(single, 60)
        assert [task.done() for task in many[:2]] == [True, False]
        await two.stop("b0")
        await asyncio.wait_for(many[1], 60)
        for task in many[2:]:
            task.cancel()
        await asyncio.wait(many)


async def test_renewals_over_all_workers(join: Join) -> None:
    """What replaces a live session comes before all new starts, those of other workers, too."""
    async with join(max_live=2) as one, join(max_live=2) as two:
        live = await start(one, "a", "a0")
        await start(two, "b", "b0")
        newcomers = [start(two, "c", f"c{n}") for n in range(3)]
        await eventually(lambda: two.stats().waiting == 3)
        renewed = asyncio.create_task(live.renew())
        await eventually(lambda: one.stats().waiting == 1)
        await two.stop("b0")
        assert (await asyncio.wait_for(renewed, 60)).key == "a0"
        await asyncio.wait_for(newcomers[0], 60)  # has the slot of the session that was replaced
        for task in newcomers[1:]:
            task.cancel()
        await asyncio.wait(newcomers)
