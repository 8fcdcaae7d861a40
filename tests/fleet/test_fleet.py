"""Places, keys, handles, the budget and the numbers."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any, cast

import pytest
from attrs import evolve

from equos_async import (
    ClientClosedError,
    ConfigurationError,
    DrainReport,
    EquosClient,
    EquosError,
    FleetFullError,
    KeyInUseError,
    LiveSession,
    RateLimitError,
    SessionEnd,
    SessionFleet,
    StartOutcomeUnknownError,
    StartUnreadableError,
    Timeouts,
)
from equos_async.testing import Delay, Drop, EquosEmulator, Status, Truncate
from tests.clocks import FakeClock, settle
from tests.fleet.support import REQUEST, TOKEN, Events, ScriptedClient


async def test_a_session_runs_and_is_stopped(client: EquosClient, emulator: EquosEmulator) -> None:
    """A session of a fleet is live under its key until the fleet is left."""
    async with SessionFleet(client) as fleet:
        live = await fleet.start(REQUEST, key="guild-1")
        assert set(emulator.live_sessions) == {live.session.id}
        assert dict(fleet.live) == {"guild-1": live}
        assert (live.key, live.server_url) == ("guild-1", "wss://rtc.example.test")
    assert not emulator.live_sessions
    assert [end.session_id for end in fleet.report.stopped] == [live.session.id]
    assert str(fleet.report) == "1 stopped, 0 had ended, 0 left"


async def test_stop_by_handle_and_by_key(client: EquosClient, emulator: EquosEmulator) -> None:
    """Stopping by handle and by key give the ended session, and None for a key without one."""
    async with SessionFleet(client) as fleet:
        one = await fleet.start(REQUEST, key=1)
        two = await fleet.start(REQUEST, key=(2, "b"))
        ended = await one.stop()
        assert ended is not None
        assert ended.status == "ended"
        assert await one.stop() is ended
        stopped = await fleet.stop((2, "b"))
        assert stopped is not None
        assert stopped.id == two.session.id
        assert await fleet.stop("nobody") is None
        assert not fleet.live
    assert not fleet.report.stopped
    assert emulator.request_count == 4


async def test_a_full_fleet_waits_in_order_and_never_exceeds(scripted: ScriptedClient) -> None:
    """Starts beyond the limit wait, come in the order of their asking, and never exceed it."""
    order: list[int] = []
    async with SessionFleet(scripted, max_live=3) as fleet:

        async def talk(number: int) -> None:
            async with await fleet.start(REQUEST, key=number):
                order.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*map(talk, range(50)))
        assert fleet.stats().free == 3
    assert order == list(range(50))
    assert scripted.most == 3


async def test_no_place_without_waiting(scripted: ScriptedClient) -> None:
    """With wait=False a full fleet refuses at once, and its key stays free."""
    async with SessionFleet(scripted, max_live=1) as fleet:
        live = await fleet.start(REQUEST, key=1, wait=False)
        with pytest.raises(FleetFullError, match="all 1 slots of the fleet are taken"):
            await fleet.start(REQUEST, key=2, wait=False)
        await live.stop()
        await fleet.start(REQUEST, key=2, wait=False)
    assert len(scripted.requests) == 2


async def test_a_key_is_unique(scripted: ScriptedClient) -> None:
    """A second start for a key is refused while the first one is on its way or live."""
    async with SessionFleet(scripted) as fleet:
        first = asyncio.create_task(fleet.start(REQUEST, key="k"))
        await asyncio.sleep(0)
        with pytest.raises(KeyInUseError, match="key 'k' already has a session"):
            await fleet.start(REQUEST, key="k")
        await (await first).stop()
        again = await fleet.start(REQUEST, key="k")
        with pytest.raises(KeyInUseError, match="key 'k' already has a session"):
            await fleet.start(REQUEST, key="k")
        assert fleet.live["k"] is again


async def test_a_key_in_the_line_is_taken(scripted: ScriptedClient) -> None:
    """A start that waits for a place has its key reserved, and loses it when it is cancelled."""
    async with SessionFleet(scripted, max_live=1) as fleet:
        live = await fleet.start(REQUEST, key=1)
        waiting = asyncio.create_task(fleet.start(REQUEST, key=2))
        await settle()
        with pytest.raises(KeyInUseError, match="key 2 already has a session"):
            await fleet.start(REQUEST, key=2)
        waiting.cancel()
        await settle()
        await live.stop()
        assert (await fleet.start(REQUEST, key=2)).key == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_live": 0}, "max_live"),
        ({"drain_deadline": -1}, "drain_deadline"),
        ({"default_max_duration": 0}, "default_max_duration"),
        ({"budget_seconds": 0}, "budget_seconds"),
        ({"renew_before": 0}, "renew_before"),
        ({"client": "x"}, "client must be of type EquosClient"),
        ({"ledger": 5}, "ledger must be of type SessionLedger"),
        ({"lease": -1}, "lease must be"),
        ({"on_event": 5}, "on_event must be callable"),
        ({"clock": 5}, "clock must be of type Clock"),
    ],
)
async def test_bad_settings(
    scripted: ScriptedClient, arguments: dict[str, Any], message: str
) -> None:
    """A wrong setting is named."""
    settings: dict[str, Any] = {"client": scripted}
    with pytest.raises(ConfigurationError, match=message):
        SessionFleet(**(settings | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"request": None}, "request must be a CreateSessionPassRequest or Create"),
        ({"key": []}, "key must be hashable, which list is not"),
        ({"renew": True}, "pass renew and on_renewed together"),
        ({"on_renewed": print}, "pass renew and on_renewed together"),
        ({"deadline": "5"}, "deadline must be a finite number above 0, not str"),
        ({"deadline": 0}, "deadline must be a finite number above 0"),
    ],
)
async def test_bad_starts(
    scripted: ScriptedClient, arguments: dict[str, Any], message: str
) -> None:
    """A wrong argument of a start is named, and nothing is sent."""
    good: dict[str, Any] = {"request": REQUEST, "key": 1}
    async with SessionFleet(scripted) as fleet:
        with pytest.raises(ConfigurationError, match=message):
            await fleet.start(**(good | arguments))
        assert fleet.stats().free == 50
    assert not scripted.requests


async def test_the_default_duration_is_sent(client: EquosClient, emulator: EquosEmulator) -> None:
    """A request without max_duration is sent with the fleet's."""
    async with SessionFleet(client, default_max_duration=77) as fleet:
        live = await fleet.start(evolve(REQUEST, max_duration=None), key=1)
        assert emulator.live_sessions[live.session.id].max_duration == 77
        assert 74 < live.remaining <= 75


async def test_the_handle_tells_when_it_ends(scripted: ScriptedClient, still: FakeClock) -> None:
    """expires_at and remaining follow the clock, and remaining is 0 after the end."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1)
        assert live.expires_at.isoformat() == "2025-12-10T09:21:45+00:00"
        still.advance(100)
        assert live.remaining == 498
        assert repr(live) == "<LiveSession 1 s1 live, 498 s left>"
        assert repr(fleet) == "<SessionFleet 1 live, 49 free, open>"
        await live.stop()
        assert live.remaining == 0
    assert repr(live) == "<LiveSession 1 s1 stopped>"
    assert repr(fleet) == "<SessionFleet 0 live, 50 free, closed>"


async def test_no_token_is_shown(scripted: ScriptedClient, events: Events) -> None:
    """The token is on the handle, and in no repr, event or report."""
    async with SessionFleet(scripted, on_event=events) as fleet:
        live = await fleet.start(REQUEST, key=1)
        assert live.consumer_access_token == TOKEN
    # What hangs on the handle stands in tracebacks that show locals.
    hanging = [one for one in gc.get_referents(live) if type(one).__module__.startswith("equos_")]
    assert hanging
    for shown in (live, fleet, fleet.report, fleet.stats(), events.all, *hanging):
        assert TOKEN not in repr(shown)
        assert TOKEN not in str(shown)


async def test_ended_tells_how(scripted: ScriptedClient) -> None:
    """Everybody who waits for the end of a session gets the same account of it."""
    async with SessionFleet(scripted) as fleet:
        live = await fleet.start(REQUEST, key=1)
        waiters = [asyncio.create_task(live.ended()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters.pop().cancel()
        await live.stop()
        ends = [*await asyncio.gather(*waiters), await live.ended()]
        assert {(end.outcome, end.session_id) for end in ends} == {("stopped", "s1")}


async def test_stops_at_the_same_time_are_one(client: EquosClient, emulator: EquosEmulator) -> None:
    """Concurrent stops send one request and get one answer, a cancelled one among them."""
    async with SessionFleet(client) as fleet:
        live = await fleet.start(REQUEST, key=1)
        cancelled = asyncio.create_task(live.stop())
        await asyncio.sleep(0)
        cancelled.cancel()
        answers = await asyncio.gather(live.stop(), fleet.stop(1), live.stop())
        assert answers[0] is not None
        assert answers[0] is answers[1] is answers[2]
    assert [one.operation for one in emulator.requests] == ["start", "stop"]


async def test_a_session_is_a_block(scripted: ScriptedClient) -> None:
    """Leaving the block of a handle stops it, and a failed stop is raised."""
    async with SessionFleet(scripted) as fleet:
        async with await fleet.start(REQUEST, key=1) as live:
            assert isinstance(live, LiveSession)
        assert scripted.stopped == ["s1"]
        scripted.stop_errors.append(EquosError("no"))
        with pytest.raises(EquosError, match="no"):
            async with await fleet.start(REQUEST, key=2):
                pass


async def test_a_failed_stop_does_not_hide_the_body(scripted: ScriptedClient) -> None:
    """Where the body of a handle's block raised, a failed stop is a note."""
    async with SessionFleet(scripted) as fleet:
        scripted.stop_errors.append(EquosError("no"))
        with pytest.raises(KeyError) as caught:
            async with await fleet.start(REQUEST, key=1):
                raise KeyError
        assert caught.value.__notes__ == ["stopping session s1 failed: no"]


async def test_a_failed_stop_can_be_tried_again(scripted: ScriptedClient, events: Events) -> None:
    """After a failed stop the session keeps key and place, until the next stop."""
    async with SessionFleet(scripted, max_live=1, on_event=events) as fleet:
        live = await fleet.start(REQUEST, key=1)
        scripted.stop_errors.append(EquosError("no"))
        with pytest.raises(EquosError, match="no"):
            await live.stop()
        assert fleet.live[1] is live
        assert fleet.stats().free == 0
        assert await live.stop() is not None
        assert fleet.stats().free == 1
    assert events.kinds == [("started", 1), ("failed", 1), ("stopped", 1)]


async def test_a_refused_start_gives_all_back(
    client: EquosClient, emulator: EquosEmulator, events: Events
) -> None:
    """A start that the server refuses at its limit frees place, key and budget."""
    emulator.limit_concurrent = 1
    settings: dict[str, Any] = {"budget_seconds": 2000, "requeue_refused": False}
    async with SessionFleet(client, on_event=events, **settings) as fleet:
        await fleet.start(REQUEST, key=1)
        with pytest.raises(RateLimitError):
            await fleet.start(REQUEST, key=2)
        stats = fleet.stats()
        assert (stats.free, stats.refused, stats.budget_left) == (49, 1, 1400)
        await fleet.stop(1)
        await fleet.start(REQUEST, key=2)
    assert events.kinds[:2] == [("started", 1), ("refused", 2)]


@pytest.mark.parametrize(
    ("error", "free"), [(RateLimitError("no"), 50), (StartOutcomeUnknownError("lost"), 49)]
)
async def test_a_start_fails_when_its_caller_is_gone(
    scripted: ScriptedClient, error: EquosError, free: int
) -> None:
    """A start whose caller was cancelled is accounted for when its outcome is known."""
    async with SessionFleet(scripted) as fleet:
        scripted.starts_go.clear()
        scripted.start_errors.append(error)
        start = asyncio.create_task(fleet.start(REQUEST, key=1))
        await settle()
        start.cancel()
        await settle()
        assert (fleet.stats().free, fleet.stats().starting) == (49, 1)
        scripted.starts_go.set()
        await settle()
        assert (fleet.stats().free, fleet.stats().starting) == (free, 0)


async def test_an_unknown_start_keeps_its_place(
    emulator: EquosEmulator, client: EquosClient, still: FakeClock, events: Events
) -> None:
    """The place of a start without an answer is taken until its time is over; its key is free."""
    emulator.faults.start.add(Drop("after"))
    async with SessionFleet(client, max_live=1, clock=still, on_event=events) as fleet:
        with pytest.raises(StartOutcomeUnknownError):
            await fleet.start(REQUEST, key=1)
        with pytest.raises(FleetFullError):
            await fleet.start(REQUEST, key=1, wait=False)
        waiting = asyncio.create_task(fleet.start(REQUEST, key=1))
        await settle()
        still.advance(599)
        await settle()
        assert not waiting.done()
        still.advance(1)
        assert (await waiting).key == 1
        assert fleet.stats().unknown == 1
    assert events.kinds[0] == ("unknown", 1)
    assert not fleet.report.left


async def test_an_unknown_start_is_in_the_report(
    emulator: EquosEmulator, client: EquosClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A start whose outcome is still unknown on the way out is reported by its key, and logged."""
    emulator.faults.start.add(Drop("after"))
    async with SessionFleet(client) as fleet:
        with pytest.raises(StartOutcomeUnknownError):
            await fleet.start(REQUEST, key="lost")
    (end,) = fleet.report.unresolved
    assert (end.key, end.session_id) == ("lost", None)
    assert "'lost' (session unknown) unresolved: the start was sent" in caplog.text


async def test_an_unreadable_start_is_stopped(
    emulator: EquosEmulator, client: EquosClient, scripted: ScriptedClient
) -> None:
    """Where an unusable answer tells the session's id, its place is free as soon as it stopped."""
    emulator.faults.start.add(Truncate(keep=20))
    async with SessionFleet(client, budget_seconds=600) as fleet:
        with pytest.raises(StartOutcomeUnknownError):
            await fleet.start(REQUEST, key=1)
        assert fleet.stats().free == 49
    scripted.start_errors.append(StartUnreadableError("bad", session_id="s9"))
    async with SessionFleet(scripted, budget_seconds=600) as fleet:
        with pytest.raises(StartUnreadableError):
            await fleet.start(REQUEST, key=1)
        await settle()
        assert scripted.stopped == ["s9"]
        stats = fleet.stats()
        assert (stats.free, stats.budget_left) == (50, 600)


async def test_an_unreadable_start_that_cannot_be_stopped(
    scripted: ScriptedClient, still: FakeClock
) -> None:
    """Where it cannot be stopped its place is taken until its time is over, not longer."""
    scripted.start_errors += [StartUnreadableError("bad", session_id=f"s{n}") for n in (8, 9)]
    scripted.stop_errors.append(EquosError("no"))
    async with SessionFleet(scripted, max_live=2, clock=still) as fleet:
        with pytest.raises(StartUnreadableError):
            await fleet.start(REQUEST, key=1)
        await settle()
        assert fleet.stats().free == 1
        scripted.stops_go.clear()
        with pytest.raises(StartUnreadableError):
            await fleet.start(REQUEST, key=2)
        still.advance(600)
        assert fleet.stats().free == 2
        scripted.stops_go.set()
        await settle()
        assert fleet.stats().free == 2


async def test_a_bug_in_the_client_keeps_the_place(scripted: ScriptedClient) -> None:
    """What is not an error of ours tells nothing of the session, so its place stays taken."""
    scripted.start_errors.append(ZeroDivisionError("bug"))
    async with SessionFleet(scripted) as fleet:
        with pytest.raises(ZeroDivisionError):
            await fleet.start(REQUEST, key=1)
        assert fleet.stats().free == 49


async def test_the_budget_refuses_what_could_exceed_it(
    scripted: ScriptedClient, still: FakeClock
) -> None:
    """Seconds are reserved for each start, and what a session did not use flows back."""
    async with SessionFleet(scripted, budget_seconds=1000, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1)
        with pytest.raises(
            FleetFullError, match="budget has 400 s left; this start asks for 600 s"
        ):
            await fleet.start(REQUEST, key=2)
        still.advance(100)
        await live.stop()
        assert fleet.stats().budget_left == 900
        assert fleet.stats().seconds_live == 100
        await fleet.start(REQUEST, key=2)
        still.advance(30)
        assert fleet.stats().seconds_live == 130
    assert len(scripted.requests) == 2


async def test_events_and_numbers(scripted: ScriptedClient, events: Events) -> None:
    """Each event carries the gauges as they are after it."""
    async with SessionFleet(scripted, max_live=1, on_event=events) as fleet:
        live = await fleet.start(REQUEST, key=1)
        second = asyncio.create_task(fleet.start(REQUEST, key=2))
        third = asyncio.create_task(fleet.start(REQUEST, key=3))
        await settle()
        assert fleet.stats().waiting == 2
        third.cancel()
        await settle()
        await live.stop()
        await second
        stats = fleet.stats()
        assert (stats.live, stats.starting, stats.waiting, stats.free) == (1, 0, 0, 0)
        assert (stats.started, stats.stopped, stats.expired) == (2, 1, 0)
        assert stats.budget_left is None
    assert [(e.kind, e.key, e.live, e.waiting) for e in events.all] == [
        ("started", 1, 1, 0),
        ("waiting", 2, 1, 1),
        ("waiting", 3, 1, 2),
        ("waiting", 3, 1, 1),
        ("stopped", 1, 0, 0),
        ("started", 2, 1, 0),
        ("stopped", 2, 0, 0),
    ]


async def test_a_hook_that_raises_is_logged_once(
    scripted: ScriptedClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing on_event is no reason for a session to fail."""
    async with SessionFleet(scripted, on_event=lambda _: 1 / 0) as fleet:
        await fleet.start(REQUEST, key=1)
    assert len(fleet.report.stopped) == 1
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "on_event raised" in record.getMessage()


async def test_a_fleet_is_used_once(scripted: ScriptedClient) -> None:
    """After its end a fleet starts nothing and cannot be entered; stopping stays harmless."""
    fleet = SessionFleet(scripted)
    with pytest.raises(RuntimeError, match="before the fleet is closed"):
        _ = fleet.report
    async with fleet:
        live = await fleet.start(REQUEST, key=1)
    with pytest.raises(ClientClosedError, match="the fleet is closed or closing"):
        await fleet.start(REQUEST, key=2)
    with pytest.raises(ClientClosedError, match="the fleet is closed or closing"):
        await fleet.__aenter__()
    assert await fleet.stop(1) is None
    assert await live.stop() is not None
    assert len(scripted.requests) == 1


async def test_stop_calls_off_a_start(scripted: ScriptedClient) -> None:
    """Stopping a key whose start is on its way or in the line leaves no session."""
    async with SessionFleet(scripted, max_live=1) as fleet:
        scripted.starts_go.clear()
        on_its_way = asyncio.create_task(fleet.start(REQUEST, key=1))
        in_line = asyncio.create_task(fleet.start(REQUEST, key=2))
        await settle()
        assert await fleet.stop(2) is None
        with pytest.raises(EquosError, match=r"stop\(\) was called before"):
            await in_line
        stop = asyncio.create_task(fleet.stop(1))
        await settle()
        assert not stop.done()
        scripted.starts_go.set()
        assert await stop is not None
        with pytest.raises(EquosError, match=r"stop\(\) was called before") as caught:
            await on_its_way
        assert caught.value.session_id == "s1"
        assert fleet.stats().free == 1
    assert scripted.stopped == ["s1"]


@pytest.mark.parametrize("steps", range(8))
async def test_a_start_is_cancelled_at_any_step(scripted: ScriptedClient, steps: int) -> None:
    """Whenever its caller is cancelled, what a start brings is in hands or stopped."""
    async with SessionFleet(scripted) as fleet:
        start = asyncio.create_task(fleet.start(REQUEST, key=1))
        for _ in range(steps):
            await asyncio.sleep(0)
        held = start.done()
        start.cancel()
        await settle()
        assert len(scripted.live) == len(fleet.live) == held


async def occupy(fleet: SessionFleet, scripted: ScriptedClient) -> None:
    """Let a place be taken until the clock is moved by 600 s, and be free in that very tick."""
    scripted.start_errors = [StartOutcomeUnknownError("no answer came")]
    with pytest.raises(StartOutcomeUnknownError):
        await fleet.start(REQUEST, key=1)
    assert fleet.stats().free == 0


async def test_leaving_when_a_turn_just_came(scripted: ScriptedClient, still: FakeClock) -> None:
    """A start that got its place in the tick in which the fleet is left is not sent."""
    async with SessionFleet(scripted, max_live=1, clock=still) as fleet:
        await occupy(fleet, scripted)
        second = asyncio.create_task(fleet.start(REQUEST, key=2))
        await settle()
        still.advance(600)  # the turn of key 2
    with pytest.raises(ClientClosedError):
        await second
    assert len(scripted.requests) == 1


async def test_stop_calls_off_a_start_whose_turn_just_came(
    scripted: ScriptedClient, still: FakeClock
) -> None:
    """A start that is called off in the tick in which it got its place passes the place on."""
    async with SessionFleet(scripted, max_live=1, clock=still) as fleet:
        await occupy(fleet, scripted)
        second = asyncio.create_task(fleet.start(REQUEST, key=2))
        third = asyncio.create_task(fleet.start(REQUEST, key=3))
        await settle()
        still.advance(600)  # the turn of key 2
        assert await fleet.stop(2) is None
        with pytest.raises(EquosError, match=r"stop\(\) was called before"):
            await second
        assert (await asyncio.wait_for(third, 60)).key == 3
        assert len(scripted.requests) == 2


async def test_a_time_without_end(scripted: ScriptedClient) -> None:
    """A duration that no date can hold is as good as for ever."""
    async with SessionFleet(scripted) as fleet:
        live = await fleet.start(evolve(REQUEST, max_duration=1e12), key=1)
        assert live.expires_at.year == 9999
        assert live.remaining > 1e11


async def test_a_late_answer(emulator: EquosEmulator) -> None:
    """A start that is answered too late has an unknown outcome, and its session is stopped."""
    emulator.faults.start.add(Delay(0.2))
    timeouts = Timeouts(start_attempt=0.05)
    async with (
        EquosClient("pk_test", endpoint=emulator.endpoint, timeouts=timeouts) as client,
        SessionFleet(client) as fleet,
    ):
        with pytest.raises(StartOutcomeUnknownError):
            await fleet.start(REQUEST, key=1)
        assert fleet.stats().free == 49
    assert [end.key for end in fleet.report.unresolved] == [1]
    assert emulator.ended_count == 1
    assert not emulator.live_sessions


async def test_the_server_grants_less(scripted: ScriptedClient, still: FakeClock) -> None:
    """A session ends when the server said, where that is before the time that was asked for."""
    scripted.grant = 60
    async with SessionFleet(scripted, clock=still) as fleet:
        assert (await fleet.start(REQUEST, key=1)).remaining == 58
        scripted.grant = 0
        assert (await fleet.start(REQUEST, key=2)).remaining == 598


async def test_a_server_that_says_wait_is_waited_for(
    client: EquosClient, emulator: EquosEmulator
) -> None:
    """A fleet leaves retries to its client: one 429 with Retry-After is no failure."""
    emulator.faults.start.add(Status(429, retry_after=1))
    async with SessionFleet(client) as fleet:
        await fleet.start(REQUEST, key=1)
        assert fleet.stats().refused == 0


async def test_a_fleet_must_be_entered(scripted: ScriptedClient) -> None:
    """Nothing would stop what it starts; nothing is started, and it is entered once."""
    fleet = SessionFleet(scripted)
    with pytest.raises(ConfigurationError, match="async with"):
        await fleet.start(REQUEST, key=1)
    assert scripted.requests == []
    async with fleet:
        with pytest.raises(ConfigurationError, match="entered already"):
            await fleet.open()
        await fleet.start(REQUEST, key=1)


async def test_opened_and_closed_by_hand(scripted: ScriptedClient) -> None:
    """For programs that are set up and torn down; the same report, as often as asked for."""
    fleet = SessionFleet(scripted)
    await fleet.open()
    await fleet.start(REQUEST, key=1)
    report = await fleet.aclose()
    assert [end.key for end in report.stopped] == [1]
    assert await fleet.aclose() is report
    assert scripted.live == {}
    with pytest.raises(ClientClosedError):
        await fleet.open()


async def test_dropped_with_sessions(
    scripted: ScriptedClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A fleet that was never left makes a warning and a log record about its sessions."""
    fleet = await SessionFleet(scripted).__aenter__()
    await fleet.start(REQUEST, key=1)
    with pytest.warns(ResourceWarning, match="dropped with 1 sessions that may be running"):
        del fleet
    (record,) = caplog.records
    assert "dropped with 1 sessions" in record.getMessage()


async def test_a_key_is_free_when_stop_returns(scripted: ScriptedClient) -> None:
    """A start that stood in line is gone then: another one may have its key."""
    async with SessionFleet(scripted, max_live=1, budget_seconds=1200) as fleet:
        live = await fleet.start(REQUEST, key="a")
        waiting = asyncio.create_task(fleet.start(REQUEST, key="b"))
        await settle()
        await fleet.stop("b")
        assert fleet.stats().budget_left == 600
        again = asyncio.create_task(fleet.start(REQUEST, key="b"))
        with pytest.raises(EquosError, match="before the session was live"):
            await waiting
        await live.stop()
        assert (await again).key == "b"
        assert fleet.stats().refused == 1


async def test_on_renewed_must_be_callable(scripted: ScriptedClient) -> None:
    """What cannot be called is refused before anything is sent."""
    async with SessionFleet(scripted) as fleet:
        with pytest.raises(ConfigurationError, match="on_renewed must be callable"):
            await fleet.start(REQUEST, key=1, renew=True, on_renewed=cast("Any", "move"))
    assert scripted.requests == []


def test_a_report_is_short() -> None:
    """However many are left, and for whatever reasons: it is one line for a log."""
    left = tuple(
        SessionEnd(key=n, session_id=None, outcome="unresolved", reason="x" * 1000)
        for n in range(100)
    )
    report = DrainReport(unresolved=left)
    assert str(report).startswith("0 stopped, 0 had ended, 100 left; 0 (session unknown)")
    assert str(report).endswith("...; and 90 more")
    assert len(repr(report)) < 4000
    assert len(report.left) == 100
