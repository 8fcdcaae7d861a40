"""What a fleet learns after its callers were told: late answers and stops, and what was unsent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from equos_async import (
    ClientClosedError,
    EquosClient,
    EquosError,
    Event,
    LiveSession,
    RetryPolicy,
    SessionFleet,
    SQLiteLedger,
    StartOutcomeUnknownError,
)
from equos_async.testing import Delay, Drop, EmulatorClock, EquosEmulator, Status
from tests.clocks import FakeClock, settle, until
from tests.fleet.support import REQUEST, Events, MemoryLedger, ScriptedClient

ONCE = RetryPolicy(stop_attempts=1)


@pytest.fixture
async def emulator() -> AsyncIterator[EquosEmulator]:
    """A server that answers when the test lets it."""
    async with EquosEmulator(clock=EmulatorClock(ticking=False)) as emulator:
        yield emulator


async def soon(condition: Callable[[], object]) -> None:
    """Wait for something in which sockets have a part."""
    async with asyncio.timeout(60):
        await until(condition)


async def overdue(
    fleet: SessionFleet, emulator: EquosEmulator, clock: FakeClock, key: object = 1
) -> None:
    """The time of a start's attempt is over, and its answer has not come."""
    asked = emulator.request_count
    starting = asyncio.create_task(fleet.start(REQUEST, key=key))
    await soon(lambda: emulator.request_count > asked)
    clock.advance(30)
    with pytest.raises(StartOutcomeUnknownError):
        await starting


@pytest.mark.parametrize("late", ["session", "refusal"])
async def test_a_late_answer_frees_the_place(
    emulator: EquosEmulator, still: FakeClock, tmp_path: Path, late: str
) -> None:
    """What the client has settled holds neither slot nor budget nor row any longer."""
    async with (
        SQLiteLedger(tmp_path / "ledger.db") as ledger,
        EquosClient("key", endpoint=emulator.endpoint, clock=still) as client,
        SessionFleet(client, max_live=1, budget_seconds=1000, ledger=ledger) as fleet,
    ):
        refusal = [Status(400)] if late == "refusal" else []
        emulator.faults.start.add(Delay(1), *refusal)
        await overdue(fleet, emulator, still)
        assert (fleet.stats().free, fleet.stats().budget_left) == (0, 400)
        emulator.advance(1)
        await soon(lambda: fleet.stats().free)
        assert fleet.stats().budget_left == 1000
        while await ledger.rows():
            await settle()
        assert emulator.live_sessions == {}
        await fleet.start(REQUEST, key=1)
    assert fleet.report.left == ()


async def test_a_late_session_whose_stop_fails(emulator: EquosEmulator, still: FakeClock) -> None:
    """The place follows the client, which asks again until the stop is confirmed."""
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still, retry=ONCE) as client,
        SessionFleet(client, max_live=1) as fleet,
    ):
        emulator.faults.start.add(Delay(1))
        emulator.faults.stop.add(Status(500))
        await overdue(fleet, emulator, still)
        emulator.advance(1)
        await soon(lambda: client.unresolved and client.unresolved[-1].operation == "stop")
        assert fleet.stats().free == 0
        await settle()
        still.advance(1)
        await soon(lambda: fleet.stats().free)
        assert emulator.live_sessions == {}


async def test_no_answer_at_all(emulator: EquosEmulator, still: FakeClock) -> None:
    """A call that ends without an answer settles nothing: the place is kept to the end."""
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still) as client,
        SessionFleet(client, max_live=1) as fleet,
    ):
        emulator.faults.start.add(Drop("after"))
        with pytest.raises(StartOutcomeUnknownError):
            await fleet.start(REQUEST, key=1)
        await settle()
        assert fleet.stats().free == 0
        still.advance(600)
        assert fleet.stats().free == 1


async def test_a_stop_that_is_confirmed_late(
    emulator: EquosEmulator, still: FakeClock, tmp_path: Path
) -> None:
    """It is tried again long before the session's time is over, and then all is free."""
    events = Events()
    async with (
        SQLiteLedger(tmp_path / "ledger.db") as ledger,
        EquosClient("key", endpoint=emulator.endpoint, clock=still, retry=ONCE) as client,
        SessionFleet(client, max_live=1, on_event=events, ledger=ledger) as fleet,
    ):
        live = await fleet.start(REQUEST, key=1)
        assert live.state == "live"
        emulator.faults.stop.add(Status(500))
        with pytest.raises(EquosError):
            await live.stop()
        assert live.state == "live"
        await settle()
        still.advance(1)
        end = await asyncio.wait_for(live.ended(), 60)
        assert (end.outcome, live.state, fleet.stats().free) == ("stopped", "ended", 1)
        assert await ledger.rows() == []
        assert await live.stop() is None
        assert events.kinds == [("started", 1), ("failed", 1), ("stopped", 1)]
        await fleet.start(REQUEST, key=1)


async def test_asked_anew_before_that(emulator: EquosEmulator, still: FakeClock) -> None:
    """Where its user stops it first, what the client learns later changes nothing."""
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still, retry=ONCE) as client,
        SessionFleet(client) as fleet,
    ):
        live = await fleet.start(REQUEST, key=1)
        emulator.faults.stop.add(Status(500))
        with pytest.raises(EquosError):
            await live.stop()
        assert await live.stop()
        await settle()
        still.advance(1)
        await settle()
        assert fleet.stats().stopped == 1


class TestUnsent:
    """A start that waits out a pause was not sent."""

    @pytest.mark.parametrize("way", ["cancel", "stop", "drain", "leave", "close"])
    async def test_it_is_withdrawn(
        self, emulator: EquosEmulator, still: FakeClock, way: str
    ) -> None:
        """As soon as no caller wants it, it is not sent, and all that it had is free."""
        events, seen = Events(), list[Event]()
        emulator.faults.start.add(Status(429, retry_after=3))
        async with EquosClient(
            "key", endpoint=emulator.endpoint, clock=still, on_event=seen.append
        ) as client:
            async with SessionFleet(client, max_live=1, on_event=events) as fleet:
                starting = asyncio.create_task(fleet.start(REQUEST, key=1))
                await soon(lambda: [event for event in seen if event.kind == "retry"])
                if way == "cancel":
                    starting.cancel()
                    await asyncio.wait([starting])
                    await settle()
                elif way == "stop":
                    await fleet.stop(1)
                elif way == "drain":
                    assert (await fleet.drain()).left == ()
                elif way == "close":
                    await client.aclose()
                    await asyncio.wait([starting])
                if way != "leave":
                    assert fleet.stats().free == 1
            still.advance(60)
            await settle()
            assert emulator.request_count == 1
        assert fleet.report.left == ()
        assert events.kinds == [("refused", 1)]
        expected = {
            "cancel": asyncio.CancelledError,
            "close": ClientClosedError,
            "leave": ClientClosedError,
        }.get(way, EquosError)
        with pytest.raises(expected):
            await starting

    async def test_a_coroutine_that_is_closed(
        self, emulator: EquosEmulator, still: FakeClock
    ) -> None:
        """A closed coroutine of a start counts as a cancelled caller."""
        async with (
            EquosClient("key", endpoint=emulator.endpoint, clock=still) as client,
            SessionFleet(client, max_live=1) as fleet,
        ):
            starts = [fleet.start(REQUEST, key=key) for key in range(2)]
            for start in starts:
                start.send(None)
            assert fleet.stats().waiting == 1
            for start in reversed(starts):
                start.close()
            await settle()
            assert (fleet.stats().free, fleet.stats().waiting) == (1, 0)
            await fleet.start(REQUEST, key=0)
        assert emulator.request_count == 2

    async def test_cancelled_before_its_first_step(
        self, emulator: EquosEmulator, still: FakeClock
    ) -> None:
        """A start that was not even begun leaves nothing."""
        async with (
            EquosClient("key", endpoint=emulator.endpoint, clock=still) as client,
            SessionFleet(client, max_live=1) as fleet,
        ):
            start = fleet.start(REQUEST, key=1)
            start.send(None)
            start.close()
            await settle()
            assert fleet.stats().free == 1
        assert emulator.request_count == 0

    async def test_a_sent_one_is_awaited(self, emulator: EquosEmulator, still: FakeClock) -> None:
        """What is on the wire cannot be taken back: its session is stopped when it comes."""
        emulator.faults.start.add(Delay(1))
        async with (
            EquosClient("key", endpoint=emulator.endpoint, clock=still) as client,
            SessionFleet(client, max_live=1) as fleet,
        ):
            starting = asyncio.create_task(fleet.start(REQUEST, key=1))
            await soon(lambda: emulator.request_count)
            starting.cancel()
            await asyncio.wait([starting])
            await settle()
            assert fleet.stats().starting == 1
            emulator.advance(1)
            await soon(lambda: fleet.stats().free)
            assert (emulator.live_sessions, fleet.stats().stopped) == ({}, 1)


async def test_records_name_the_key(
    emulator: EquosEmulator, still: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each warning of a fleet and of its client says whose session it is about."""
    caplog.set_level(logging.INFO, "equos_async")
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still, retry=ONCE) as client,
        SessionFleet(client) as fleet,
    ):
        await fleet.start(REQUEST, key="guild-1")
        emulator.faults.stop.add(Status(500), times=None)
        emulator.faults.start.add(Drop("after"))
        with pytest.raises(StartOutcomeUnknownError):
            await fleet.start(REQUEST, key="guild-2")
        emulator.faults.start.add(Delay(1))
        await overdue(fleet, emulator, still, key="guild-3")
        emulator.advance(1)
        await soon(lambda: "stop failed" in caplog.text)
        leaving = asyncio.create_task(fleet.aclose())
        await soon(leaving.done)
        emulator.faults.stop.clear()
    told = {(vars(one)["equos_event"], str(vars(one)["equos_key"])) for one in caplog.records}
    assert ("start_unknown", "guild-2") in told
    assert ("stop_failed", "guild-1") in told
    assert ("stop_failed", "guild-3") in told
    assert {event for event, key in told if "[" in key} == {"left"}


@pytest.mark.parametrize("status", ["ended", "error", "blocked"])
async def test_a_session_that_is_over_already(
    emulator: EquosEmulator, still: FakeClock, status: str
) -> None:
    """It is handed over as what it is, stopped for certain, and holds no place."""
    body = emulator_answer(status)
    emulator.faults.start.add(Status(201, body=body))
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still) as client,
        SessionFleet(client, max_live=1) as fleet,
    ):
        live = await fleet.start(REQUEST, key=1)
        assert live.state == "stopping"
        assert "stopping" in repr(live)
        assert (await live.ended()).reason == "the server answered that it had ended"
        assert fleet.stats().free == 1


def emulator_answer(status: str) -> str:
    """An answer with a status of a session."""
    host = {"serverUrl": "wss://rtc.example.test"}
    return json.dumps({"session": {"id": "s-over", "status": status, "host": host}})


async def test_a_replacement_that_is_over_already(
    emulator: EquosEmulator, still: FakeClock
) -> None:
    """The old session goes on: a dead one is no replacement."""
    moved: list[LiveSession] = []
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still) as client,
        SessionFleet(client) as fleet,
    ):
        live = await fleet.start(
            REQUEST, key=1, renew=True, on_renewed=lambda _, new: moved.append(new)
        )
        emulator.faults.start.add(Status(201, body=emulator_answer("blocked")))
        still.advance(570)
        await soon(lambda: fleet.stats().stopped)
        assert moved == []
        assert dict(fleet.live) == {1: live}


async def test_an_unreadable_answer_that_was_settled(
    emulator: EquosEmulator, still: FakeClock
) -> None:
    """The client has stopped its session: nothing more is asked for, and the place is free."""
    events = Events()
    emulator.faults.start.add(Status(201, body='{"session": {"id": "s-1"}}'))
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still) as client,
        SessionFleet(client, max_live=1, budget_seconds=700, on_event=events) as fleet,
    ):
        with pytest.raises(StartOutcomeUnknownError, match="has been stopped"):
            await fleet.start(REQUEST, key=1)
        assert (fleet.stats().free, fleet.stats().budget_left) == (1, 700)
        await settle()
        assert events.kinds == [("refused", 1)]
    assert [one.method for one in emulator.requests] == ["POST", "PATCH"]


async def test_calls_of_hooks_are_their_own(emulator: EquosEmulator, still: FakeClock) -> None:
    """What a hook begins in the context of a fleet's call is not taken for that call."""
    begun: list[asyncio.Task[object]] = []

    def on_event(event: Event) -> None:
        if event.kind == "retry":
            begun.append(asyncio.create_task(client.stop_session("s-other")))

    emulator.faults.start.add(Status(429, retry_after=3))
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still, on_event=on_event) as client,
        SessionFleet(client, max_live=1) as fleet,
    ):
        starting = asyncio.create_task(fleet.start(REQUEST, key=1))
        await soon(lambda: begun)
        await asyncio.wait(begun)
        await fleet.stop(1)
        await asyncio.wait([starting])
        assert fleet.stats().free == 1


async def test_stopped_at_each_step(still: FakeClock) -> None:
    """Whenever stop() comes, with a ledger too, nothing is held when it returns."""
    for steps in range(1, 40):
        client, ledger = ScriptedClient(), MemoryLedger()
        async with SessionFleet(client, max_live=1, ledger=ledger, clock=still) as fleet:
            starting = asyncio.create_task(fleet.start(REQUEST, key=1))
            for _ in range(steps):
                await asyncio.sleep(0)
            await fleet.stop(1)
            assert (fleet.stats().free, fleet.stats().live) == (1, 0), steps
            await asyncio.wait([starting])
            await settle()
            assert (ledger.held, client.live) == ({}, {}), steps
