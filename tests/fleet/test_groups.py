"""Groups, such as tenants: they take turns, and each has a limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from equos_async import (
    APIConnectionError,
    ConfigurationError,
    FleetFullError,
    GroupStats,
    LiveSession,
    SessionEnd,
    SessionFleet,
    SessionLedger,
)
from equos_async.fleet.values import REPORTED
from tests.clocks import FakeClock, settle
from tests.fleet.support import REQUEST, Events, MemoryLedger, ScriptedClient


def client_of(request: Any) -> str | None:
    """The group of these tests."""
    client: str | None = request.client
    return client


def moved(old: LiveSession, new: LiveSession) -> None:
    """Hand a session over to its replacement."""


def start(
    fleet: SessionFleet, tenant: str | None, key: object, **settings: Any
) -> asyncio.Task[LiveSession]:
    """Set out to start a session of a tenant."""
    request = evolve(REQUEST, client=tenant)
    return asyncio.create_task(fleet.start(request, key=key, **settings))


async def called_off(starts: list[asyncio.Task[LiveSession]]) -> None:
    """Cancel all waiting starts."""
    for one in starts:
        one.cancel()
    await asyncio.wait(starts)


async def freed(fleet: SessionFleet, count: int) -> list[object]:
    """Free one slot after the other, those of the oldest first; who got them."""
    order: list[object] = []
    for _ in range(count):
        before = set(fleet.live)
        await fleet.stop(next(iter(fleet.live)))
        await settle()
        order += set(fleet.live) - before
    return order


async def test_they_take_turns(scripted: ScriptedClient) -> None:
    """A single call does not wait behind a thousand of another tenant; each is served in order."""
    async with SessionFleet(scripted, max_live=2, group=client_of) as fleet:
        starts = [start(fleet, "a", f"a{n}") for n in range(1002)]
        await settle()
        starts += [start(fleet, "b", f"b{n}") for n in range(3)]
        starts.append(start(fleet, None, "nobody's"))
        await settle()
        assert await freed(fleet, 8) == ["a2", "b0", "nobody's", "a3", "b1", "a4", "b2", "a5"]
        assert fleet.stats().groups["a"] == GroupStats(taken=1, waiting=996)
        starts.append(start(fleet, "b", "late"))
        await settle()
        assert await freed(fleet, 2) == ["a6", "late"]
        await called_off(starts)
    assert scripted.most == 2


async def test_none_is_above_its_limit(scripted: ScriptedClient) -> None:
    """What one may not have others get; its own next one gets what it gives back."""
    async with SessionFleet(scripted, max_live=4, group=client_of, max_per_group=2) as fleet:
        starts = [start(fleet, "a", f"a{n}") for n in range(5)]
        await settle()
        assert (sorted(map(str, fleet.live)), fleet.stats().waiting) == (["a0", "a1"], 3)
        await start(fleet, "b", "b0")
        starts[3].cancel()
        await fleet.stop("a0")
        await starts[2]
        assert fleet.stats().groups == {
            "a": GroupStats(taken=2, waiting=1),
            "b": GroupStats(taken=1, waiting=0),
        }
        fleet.resize(5)
        await settle()
        assert not starts[4].done()
        for n in range(2):
            await start(fleet, None, n)
        starts.append(start(fleet, None, 2))
        await settle()
        assert await freed(fleet, 2) == [2, "a4"], "those of no group have no limit"


async def test_a_group_that_is_full(scripted: ScriptedClient, still: FakeClock) -> None:
    """The error says whose places are taken, and when the next of those is free at the latest."""
    async with SessionFleet(
        scripted, max_live=3, group=client_of, max_per_group=1, budget_seconds=2000, clock=still
    ) as fleet:
        await start(fleet, "b", "b0")
        still.advance(100)
        await start(fleet, "a", "a0")
        with pytest.raises(FleetFullError, match="all 1 slots of group 'a' are taken") as full:
            await start(fleet, "a", "a1", wait=False)
        assert (full.value.retry_after, full.value.budget_left) == (598, 800)
        fleet.resize(2)
        with pytest.raises(FleetFullError, match="all 2 slots of the fleet are taken") as full:
            await start(fleet, "c", "c0", wait=False, deadline=1)
        assert full.value.retry_after == 498


@pytest.mark.parametrize("ledger", [None, MemoryLedger()], ids=["alone", "ledger"])
async def test_each_may_wait(scripted: ScriptedClient, ledger: SessionLedger | None) -> None:
    """``max_waiting`` holds for each group: one that fills its own queue keeps no other out."""
    settings: dict[str, Any] = {"max_live": 1, "max_waiting": 2, "group": client_of}
    async with SessionFleet(scripted, ledger=ledger, **settings) as fleet:
        await start(fleet, "a", "a0")
        waiting = [start(fleet, "a", f"a{n}") for n in (1, 2)]
        await settle()
        with pytest.raises(FleetFullError, match="2 starts of group 'a' wait already"):
            await start(fleet, "a", "a3")
        waiting += [start(fleet, "b", f"b{n}") for n in (1, 2)]
        await settle()
        stats = fleet.stats()
        assert stats.waiting == 4
        assert {name: one.waiting for name, one in stats.groups.items()} == {"a": 2, "b": 2}
        with pytest.raises(FleetFullError, match="2 starts of group 'b' wait already"):
            await start(fleet, "b", "b3")
        assert not any(one.done() for one in waiting)
        await called_off(waiting)
        assert fleet.stats().waiting == 0


async def test_a_turn_that_nobody_takes(scripted: ScriptedClient) -> None:
    """A waiter that is cancelled in the tick of its turn passes the slot on, to the next group."""
    async with SessionFleet(scripted, max_live=1, group=client_of, max_per_group=1) as fleet:
        await start(fleet, "a", "a0")
        gone, following = start(fleet, "a", "a1"), start(fleet, "b", "b0")
        await settle()
        await fleet.stop("a0")
        gone.cancel()
        assert (await following).key == "b0"
        gone, following = start(fleet, "a", "a1"), start(fleet, "a", "a2")
        await settle()
        stop = asyncio.create_task(fleet.stop("b0"))
        await settle(1)
        gone.cancel()
        await stop
        assert (await following).key == "a2"
        assert fleet.stats().groups == {"a": GroupStats(taken=1, waiting=0)}


async def test_a_renewal_is_of_its_group(scripted: ScriptedClient, still: FakeClock) -> None:
    """It needs a place of the group, too, and gets that before newcomers of the group."""
    settings: dict[str, Any] = {"max_live": 9, "group": client_of, "max_per_group": 2}
    async with SessionFleet(scripted, clock=still, **settings) as fleet:
        renewed = await start(fleet, "a", "a0", renew=True, on_renewed=moved)
        await start(fleet, "a", "a1")
        newcomer = start(fleet, "a", "a2")
        still.advance(570)
        await settle()
        assert fleet.live["a0"] is renewed
        await fleet.stop("a1")
        await settle()
        assert fleet.live["a0"] is not renewed
        assert newcomer.done(), "the old session has given its place back"


async def test_it_is_told(scripted: ScriptedClient, events: Events) -> None:
    """By events and ends."""
    ends: list[SessionEnd] = []
    async with SessionFleet(
        scripted, group=client_of, on_end=ends.append, on_event=events
    ) as fleet:
        await start(fleet, "a", 1)
        await start(fleet, "", 2)
        assert fleet.stats().groups == {"a": GroupStats(taken=1, waiting=0)}
        assert hash(fleet.stats())
    assert {end.key: end.group for end in ends} == {1: "a", 2: None}
    assert {(event.key, event.group) for event in events.all} == {(1, "a"), (2, None)}


async def test_each_end_has_its_group(
    scripted: ScriptedClient, still: FakeClock, events: Events
) -> None:
    """However the session ended; and so do all events of it."""
    ends: list[SessionEnd] = []
    async with SessionFleet(
        scripted,
        clock=still,
        group=client_of,
        on_end=ends.append,
        on_event=events,
        drain_deadline=1,
    ) as fleet:
        await start(fleet, "stopped", 1)
        await fleet.stop(1)
        gone = await start(fleet, "already_ended", 2)
        del scripted.live[gone.session.id]
        await fleet.stop(2)
        marked = await start(fleet, "marked_ended", 3)
        await fleet.mark_ended(marked.session.id)
        await start(fleet, "replaced", 4)
        await start(fleet, "stopped", 4, if_taken="replace")
        live = await start(fleet, "renewed", 5)
        await live.renew()
        await fleet.stop(5)
        await start(fleet, "never_joined", 6, join_within=5)
        await start(fleet, "idle", 7, idle_after=5)
        still.advance(5)
        await settle()
        await fleet.stop(4)
        await start(fleet, "expired", 8)
        still.advance(600)
        await settle()
        await start(fleet, "failed", 9)
        scripted.stop_errors = [APIConnectionError("down")]
        still.advance(600)
        await settle()
        await start(fleet, "unresolved", 10)
        scripted.stops_go.clear()
        closing = asyncio.create_task(fleet.aclose())
        await settle()
        still.advance(1)
        await closing
    scripted.stops_go.set()
    await settle()
    assert {(end.group, end.outcome) for end in ends} == {
        (end.outcome, end.outcome) for end in ends
    } | {("renewed", "stopped")}
    assert {end.outcome for end in ends} == set(REPORTED) - {"lost", "reaped", "stopped_elsewhere"}
    assert all(event.group is not None for event in events.all)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_per_group": 1}, "max_per_group needs group"),
        ({"max_per_group": 0, "group": client_of}, "max_per_group must be"),
        ({"group": "client"}, "group must be callable, not str"),
    ],
)
async def test_bad_settings(scripted: ScriptedClient, settings: Any, told: str) -> None:
    """They are refused."""
    with pytest.raises(ConfigurationError, match=told):
        SessionFleet(scripted, **settings)


async def test_a_function_that_is_wrong(scripted: ScriptedClient) -> None:
    """What it returns or raises is a ConfigurationError, before anything is sent."""

    def group(request: Any) -> Any:
        return {"int": 5}[request.client]

    async with SessionFleet(scripted, group=group) as fleet:
        with pytest.raises(ConfigurationError, match="group must be a string, not int"):
            await start(fleet, "int", 1)
        with pytest.raises(ConfigurationError, match="group raised KeyError for a request"):
            await start(fleet, "other", 1)
    assert not scripted.requests
