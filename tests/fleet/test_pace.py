"""A drain begins its stops as fast as the client carries them out, and none waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from equos_async import EquosClient, Limits, LiveSession, SessionFleet
from equos_async.fleet._pace import Pace
from equos_async.testing import Delay, EquosEmulator, Status
from tests.clocks import FakeClock, settle, until
from tests.fleet.support import REQUEST, MemoryLedger, ScriptedClient

TWO = Limits(stop_connections=2)


async def draining(
    fleet: SessionFleet[int], scripted: ScriptedClient, sessions: int = 5
) -> tuple[list[LiveSession[int]], asyncio.Task[object]]:
    """A drain in progress: two stops are on the wire, the others have not begun."""
    live = [await fleet.start(REQUEST, key=key) for key in range(sessions)]
    scripted.stops_go.clear()
    task: asyncio.Task[object] = asyncio.create_task(fleet.drain())
    await settle()
    assert scripted.asked == ["s1", "s2"]
    return live, task


async def test_as_many_stops_as_the_client_sends() -> None:
    """The state of all is "stopping" from the first moment on."""
    scripted = ScriptedClient(limits=TWO)
    async with SessionFleet[int](scripted) as fleet:
        live, task = await draining(fleet, scripted)
        assert [one.state for one in live] == ["stopping"] * 5
        scripted.stops_go.set()
        await task
        assert scripted.asked == scripted.stopped == ["s1", "s2", "s3", "s4", "s5"]
        assert [one.state for one in live] == ["ended"] * 5


async def test_who_asks_for_a_stop_does_not_wait_for_its_turn() -> None:
    """It is begun at once, and once."""
    scripted = ScriptedClient(limits=TWO)
    async with SessionFleet[int](scripted) as fleet:
        live, task = await draining(fleet, scripted)
        stop = asyncio.create_task(live[4].stop())
        await settle()
        assert scripted.asked == ["s1", "s2", "s5"]
        scripted.stops_go.set()
        await asyncio.gather(stop, task)
        assert sorted(scripted.asked) == ["s1", "s2", "s3", "s4", "s5"]


async def test_a_key_is_wanted_again() -> None:
    """Its session is stopped before its turn, so that the next one can start."""
    scripted = ScriptedClient(limits=TWO)
    async with SessionFleet[int](scripted) as fleet:
        _, task = await draining(fleet, scripted)
        start = asyncio.create_task(fleet.start(REQUEST, key=4, if_taken="return"))
        await settle()
        assert scripted.asked == ["s1", "s2", "s5"]
        scripted.stops_go.set()
        assert (await start).session_id == "s6"
        await task


def is_about(session_id: str) -> Callable[[object], bool]:
    """Picks the stops of one session."""
    return lambda call: getattr(call, "session_id", "") == session_id


def by_cancelling(task: asyncio.Task[object], _: FakeClock) -> None:
    """End the stop by cancelling its caller."""
    task.cancel()


def by_its_deadline(_: asyncio.Task[object], still: FakeClock) -> None:
    """It has waited for long enough."""
    still.advance(20.0)


@pytest.mark.parametrize("end", [by_cancelling, by_its_deadline])
async def test_a_drain_that_is_over_leaves_no_stop_unbegun(
    end: Callable[[asyncio.Task[object], FakeClock], None], still: FakeClock
) -> None:
    """Whether it was cancelled, or had waited for long enough."""
    scripted = ScriptedClient(still, limits=TWO)
    async with SessionFleet[int](scripted) as fleet:
        _, task = await draining(fleet, scripted)
        end(task, still)
        await asyncio.wait([task])
        await settle()
        assert scripted.asked == ["s1", "s2", "s3", "s4", "s5"]
        scripted.stops_go.set()
    assert not scripted.live


def test_a_stop_that_is_collected_outside_its_loop() -> None:
    """The next one begins in the loop; if the loop is closed, none begins, and nothing fails."""
    begun: list[object] = []
    pace = Pace(begun.append, 1)
    records = [Mock(is_to_stop=True) for _ in "abc"]
    loop = asyncio.new_event_loop()

    async def turn(first: bool) -> None:
        if first:
            pace.add(records)
        await asyncio.sleep(0)

    loop.run_until_complete(turn(first=True))
    pace.over(records[0])
    assert begun == records[:1]
    loop.run_until_complete(turn(first=False))
    assert begun == records[:2]
    loop.close()
    pace.over(records[1])
    assert begun == records[:2]


async def test_it_is_known_to_have_ended_before_its_turn() -> None:
    """Then nothing is sent for it."""
    scripted = ScriptedClient(limits=TWO)
    async with SessionFleet[int](scripted) as fleet:
        live, task = await draining(fleet, scripted)
        assert await fleet.mark_ended("s4")
        scripted.stops_go.set()
        await task
        assert scripted.asked == ["s1", "s2", "s3", "s5"]
        assert (await live[3].ended()).outcome == "marked_ended"


async def test_a_stop_that_waits_to_be_sent_again_holds_up_no_other(
    emulator: EquosEmulator,
) -> None:
    """Nor does one that failed: with one connection, all others are stopped meanwhile."""
    client = EquosClient("key", endpoint=emulator.endpoint, limits=Limits(stop_connections=1))
    async with SessionFleet(client, drain_deadline=0) as fleet:
        ids = [(await fleet.start(REQUEST, key=key)).session_id for key in range(6)]
        for bad, status in ((ids[0], 503), (ids[1], 400)):
            emulator.faults.stop.add(Status(status), times=None, when=is_about(bad))
        drain = asyncio.create_task(fleet.drain())
        await until(lambda: set(emulator.live) == set(ids[:2]))
        drain.cancel()
        await client.aclose(deadline=0)


async def test_a_ledger_that_does_not_answer_holds_up_no_stop() -> None:
    """Billed is the session, not its row."""

    class Stuck(MemoryLedger):
        go = asyncio.Event()

        async def remove(self, row_id: str) -> None:
            await self.go.wait()
            await super().remove(row_id)

    scripted, ledger = ScriptedClient(limits=TWO), Stuck()
    async with SessionFleet(scripted, ledger=ledger) as fleet:
        for key in range(5):
            await fleet.start(REQUEST, key=key)
        drain = asyncio.create_task(fleet.drain())
        await until(lambda: not scripted.live)
        assert len(ledger.held) == 5
        ledger.go.set()
        assert len((await drain).stopped) == 5


async def test_the_client_is_closed_meanwhile(emulator: EquosEmulator) -> None:
    """It ends what the fleet has not begun to end, and the drain learns of it."""
    client = EquosClient("key", endpoint=emulator.endpoint, limits=Limits(stop_connections=1))
    async with SessionFleet(client) as fleet:
        ids = [(await fleet.start(REQUEST, key=key)).session_id for key in range(4)]
        emulator.faults.stop.add(Delay(0.2), when=is_about(ids[0]))
        drain = asyncio.create_task(fleet.drain())
        await until(lambda: len(emulator.requests) == 5)
        assert await client.aclose() == ()
        report = await drain
    assert (emulator.live, report.left) == ({}, ())
