"""Every session has an end, and a conversation can outlive it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from equos_async import EquosClient, EquosError, PermissionDeniedError, StartOutcomeUnknownError
from equos_async.clock import MIN_CANCELLED, Timers
from equos_async.fleet._fleet import SessionFleet
from equos_async.fleet._session import LiveSession
from equos_async.fleet.values import DrainReport
from equos_async.testing import EquosEmulator
from tests.clocks import FakeClock, FakeTimer, settle
from tests.fleet.support import REQUEST, Events, ScriptedClient, others


async def test_the_end_frees_the_place(
    emulator: EquosEmulator, client: EquosClient, still: FakeClock, events: Events
) -> None:
    """The fleet stops a session at its end even if the server does not, and its slot is free."""
    async with SessionFleet(client, max_live=1, clock=still, on_event=events) as fleet:
        live = await fleet.start(REQUEST, key=1)
        waiting = asyncio.create_task(fleet.start(REQUEST, key=2))
        still.advance(597.9)
        assert emulator.live_sessions
        still.advance(0.1)
        end = await live.ended()
        assert (end.outcome, end.reason, end.seconds) == ("expired", "its time was over", 598)
        assert (await waiting).key == 2
        assert fleet.stats().expired == 1
    assert ("expired", 1) in events.kinds
    assert not emulator.live_sessions


async def test_the_end_of_a_session_that_the_server_ended(
    emulator: EquosEmulator, client: EquosClient, still: FakeClock
) -> None:
    """A session that the server has ended by then is known to have ended already."""
    async with SessionFleet(client, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1)
        emulator.advance(600)
        still.advance(600)
        assert (await live.ended()).outcome == "expired"
        assert not fleet.live


async def test_an_end_that_fails_frees_the_place_all_the_same(
    scripted: ScriptedClient, still: FakeClock, events: Events
) -> None:
    """Where the stop fails before the end it is tried again at the end, and not after that."""
    async with SessionFleet(scripted, max_live=1, clock=still, on_event=events) as fleet:
        live = await fleet.start(REQUEST, key=1)
        scripted.stop_errors += [EquosError("first"), EquosError("second")]
        with pytest.raises(EquosError, match="first"):
            await live.stop()
        assert fleet.stats().free == 0
        still.advance(600)
        assert (await live.ended()).reason == "second"
        assert fleet.stats().free == 1
        with pytest.raises(EquosError, match="second"):
            await live.stop()
    assert events.kinds == [("started", 1), ("failed", 1), ("failed", 1)]
    assert not fleet.report.left


async def test_a_stop_under_way_at_the_end(scripted: ScriptedClient, still: FakeClock) -> None:
    """The end comes during a stop: one stop, and nothing is held after its failure."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1)
        scripted.stops_go.clear()
        scripted.stop_errors.append(EquosError("late"))
        stop = asyncio.create_task(live.stop())
        await settle()
        still.advance(600)
        scripted.stops_go.set()
        with pytest.raises(EquosError, match="late"):
            await stop
        assert (await live.ended()).outcome == "failed"
        assert not fleet.live


async def test_a_stop_that_succeeds_at_the_end(
    scripted: ScriptedClient, still: FakeClock, events: Events
) -> None:
    """A session whose stop is in progress at its end counts as stopped, not as expired."""
    async with SessionFleet(scripted, clock=still, on_event=events) as fleet:
        live = await fleet.start(REQUEST, key=1)
        scripted.stops_go.clear()
        stop = asyncio.create_task(live.stop())
        await settle()
        still.advance(600)
        scripted.stops_go.set()
        await stop
    assert events.kinds == [("started", 1), ("stopped", 1)]


class EarlyClock(FakeClock):
    """A clock whose timers go off a hair early, as a loop's may."""

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        return super().call_at(when - 1e-6, callback, *args)


async def test_a_timer_that_goes_off_early(scripted: ScriptedClient) -> None:
    """The step of a timer that fires early is due; a failed stop is then the last."""
    clock = EarlyClock()
    async with SessionFleet(scripted, clock=clock) as fleet:
        live = await fleet.start(REQUEST, key=1)
        scripted.stop_errors.append(EquosError("no"))
        clock.advance(600 - 1e-6)
        await settle()
        assert not fleet.live
        assert (await live.ended()).outcome == "failed"


async def test_nothing_rings_after_the_fleet(scripted: ScriptedClient, still: FakeClock) -> None:
    """Leaving the fleet cancels the timer, even if a session could not be stopped."""
    async with SessionFleet(scripted, clock=still) as fleet:
        await fleet.start(REQUEST, key=1)
        scripted.stop_errors.append(EquosError("no"))
    assert fleet.report.left
    assert not still.due


async def test_a_callback_that_hangs(scripted: ScriptedClient, still: FakeClock) -> None:
    """Leaving does not wait for a callback, and leaves no task behind."""
    async with SessionFleet(scripted, clock=still) as fleet:
        await fleet.start(REQUEST, key=1, renew=True, on_renewed=Handover())
        still.advance(570)
        await settle()
    assert len(fleet.report.stopped) == 2
    assert not others()


async def test_one_timer_for_all(scripted: ScriptedClient, still: FakeClock) -> None:
    """A hundred live sessions are watched by one timer and no task."""
    async with SessionFleet(scripted, max_live=100, stop_before_end=0, clock=still) as fleet:
        for number in range(100):
            still.advance(1)
            await fleet.start(REQUEST, key=number)
        assert len(still.due) == 1
        assert not others()
        still.advance(550)
        await settle()
        assert fleet.stats().expired == 50
        assert len(still.due) == 1


def test_timers_forget_what_was_cancelled(still: FakeClock) -> None:
    """Alarms ring in their order, dropped ones do not, and many dropped ones are let go of."""
    timers, rung = Timers(still), list[int]()
    alarms = [timers.at(2000 - n, rung.append, n) for n in range(1000)]
    assert len(still.due) == 1
    list(map(timers.cancel, alarms[:990] * 2))
    kept = [weakref.ref(alarm) for alarm in alarms]
    last = alarms[999]
    del alarms
    gc.collect()
    assert sum(one() is not None for one in kept) <= 10 + MIN_CANCELLED
    still.advance(5)
    assert rung == [999, 998, 997, 996, 995]
    still.advance(5000)
    assert rung == list(range(999, 989, -1))
    assert not still.due
    timers.cancel(last)
    timers.clear()


# Renewal.


class Handover:
    """An ``on_renewed`` that remembers, and may wait or fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[LiveSession, LiveSession]] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, old: LiveSession, new: LiveSession) -> None:
        self.calls.append((old, new))
        await self.go.wait()
        if self.error is not None:
            raise self.error


async def test_renewal_hands_over(
    scripted: ScriptedClient, still: FakeClock, events: Events
) -> None:
    """Shortly before its end a session is replaced, and stopped when the callback returned."""
    hand = Handover()
    async with SessionFleet(scripted, clock=still, on_event=events) as fleet:
        old = await fleet.start(REQUEST, key=1, renew=True, on_renewed=hand)
        still.advance(567)
        await settle()
        assert not hand.calls
        still.advance(1)
        await settle()
        ((first, new),) = hand.calls
        assert first is old
        assert fleet.live[1] is new
        assert new.remaining == 598
        assert (fleet.stats().live, fleet.stats().free) == (2, 48)
        hand.go.set()
        await settle()
        assert scripted.stopped == ["s1"]
        assert dict(fleet.live) == {1: new}
        still.advance(570)
        await settle()
        assert len(hand.calls) == 2
    assert not scripted.live
    assert ("expired", 1) not in events.kinds


async def test_a_plain_function_may_take_over(scripted: ScriptedClient, still: FakeClock) -> None:
    """The callback may be a plain function, and may stop the old session itself."""
    seen: list[str] = []
    stops: list[asyncio.Task[Any]] = []

    def take(old: LiveSession, new: LiveSession) -> None:
        stops.append(asyncio.create_task(old.stop()))
        seen.append(new.session.id)

    async with SessionFleet(scripted, clock=still, renew_before=1000) as fleet:
        await fleet.start(REQUEST, key=1, renew=True, on_renewed=take)
        still.advance(300)  # at most half of its time
        await settle()
        assert seen == ["s2"]
        assert list(scripted.live) == ["s2"]
        assert fleet.live[1].session.id == "s2"
    await asyncio.gather(*stops)


async def test_a_callback_that_raises(
    scripted: ScriptedClient, still: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """If the callback raises, the replacement is stopped, and the old session goes on."""
    hand = Handover()
    hand.go.set()
    hand.error = KeyError("browser gone")
    async with SessionFleet(scripted, clock=still) as fleet:
        old = await fleet.start(REQUEST, key=1, renew=True, on_renewed=hand)
        still.advance(570)
        await settle()
        assert dict(fleet.live) == {1: old}
        assert scripted.stopped == ["s2"]
        still.advance(30)
        assert (await old.ended()).reason == "its time was over"
        assert fleet.stats().free == 50
    assert "on_renewed raised for 1" in caplog.text


@pytest.mark.parametrize("ended", ["old", "new", "both"])
async def test_a_callback_that_raises_too_late(
    scripted: ScriptedClient, still: FakeClock, ended: str
) -> None:
    """Where either session was ended during the callback, nothing is left when it raises."""
    hand = Handover()
    hand.error = KeyError("browser gone")
    async with SessionFleet(scripted, clock=still) as fleet:
        old = await fleet.start(REQUEST, key=1, renew=True, on_renewed=hand)
        still.advance(570)
        await settle()
        if ended in {"old", "both"}:
            await old.stop()
        if ended in {"new", "both"}:
            await fleet.stop(1)
        hand.go.set()
        await settle()
        assert not scripted.live
        assert not fleet.live
        assert fleet.stats().free == 50


async def test_no_place_for_a_renewal(
    scripted: ScriptedClient, still: FakeClock, events: Events
) -> None:
    """The overlap needs a slot: without one the session ends at its time."""
    async with SessionFleet(scripted, max_live=1, clock=still, on_event=events) as fleet:
        live = await fleet.start(REQUEST, key=1, renew=True, on_renewed=Handover())
        still.advance(570)
        await settle()
        assert fleet.stats().waiting == 1
        still.advance(30)
        await live.ended()
        await settle()
        stats = fleet.stats()
        assert (stats.waiting, stats.free, stats.live) == (0, 1, 0)
    assert scripted.most == 1


async def test_a_renewal_that_is_refused(
    scripted: ScriptedClient, still: FakeClock, events: Events
) -> None:
    """A refused replacement makes an event, and its slot is free."""
    async with SessionFleet(scripted, clock=still, on_event=events) as fleet:
        live = await fleet.start(REQUEST, key=1, renew=True, on_renewed=Handover())
        scripted.start_errors.append(PermissionDeniedError("full", status=403))
        still.advance(570)
        await settle()
        assert fleet.live[1] is live
        assert fleet.stats().free == 49
    assert ("refused", 1) in events.kinds


async def test_a_renewal_of_unknown_outcome(scripted: ScriptedClient, still: FakeClock) -> None:
    """A replacement that may be live keeps its slot, and the old session keeps its key."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1, renew=True, on_renewed=Handover())
        scripted.start_errors.append(StartOutcomeUnknownError("lost"))
        still.advance(570)
        await settle()
        assert fleet.live[1] is live
        assert (fleet.stats().free, fleet.stats().unknown) == (48, 1)
    assert [(end.key, end.reason) for end in fleet.report.unresolved] == [(1, "lost")]


async def test_the_budget_bounds_renewal(scripted: ScriptedClient, still: FakeClock) -> None:
    """A renewal that could exceed the budget is refused."""
    async with SessionFleet(scripted, budget_seconds=1000, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1, renew=True, on_renewed=Handover())
        still.advance(570)
        await settle()
        assert fleet.stats().refused == 1
        assert fleet.live[1] is live
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("how", ["stop", "expire", "drain", "leave"])
async def test_a_replacement_that_comes_too_late(
    scripted: ScriptedClient, still: FakeClock, how: str
) -> None:
    """A replacement that arrives after its session's end is stopped, and its slot is free."""
    hand, drains = Handover(), list[asyncio.Task[DrainReport]]()
    async with SessionFleet(scripted, max_live=2, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1, renew=True, on_renewed=hand)
        scripted.starts_go.clear()
        still.advance(570)
        await settle()
        if how == "stop":
            await live.stop()
        elif how == "expire":
            still.advance(30)
            await live.ended()
        elif how == "drain":
            drains.append(asyncio.create_task(fleet.drain()))
            await settle()
        if how != "leave":
            scripted.starts_go.set()
            await settle()
            assert fleet.stats().free == 2
        else:
            asyncio.get_running_loop().call_later(0, scripted.starts_go.set)
    for drain in drains:
        assert len((await drain).stopped) == 2
    assert not scripted.live
    assert not hand.calls
    assert not others()


async def test_a_stopped_session_is_not_renewed(scripted: ScriptedClient, still: FakeClock) -> None:
    """A session whose stop is in progress when its renewal is due is not renewed."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1, renew=True, on_renewed=Handover())
        scripted.stops_go.clear()
        stop = asyncio.create_task(live.stop())
        await settle()
        still.advance(570)
        scripted.stops_go.set()
        await stop
    assert len(scripted.requests) == 1


async def test_renewals_do_not_hold_on_to_the_past(
    scripted: ScriptedClient, still: FakeClock
) -> None:
    """A conversation that was renewed often holds one session, not the chain of all."""
    seen: list[weakref.ref[LiveSession]] = []
    async with SessionFleet(scripted, clock=still) as fleet:
        await fleet.start(
            REQUEST, key=1, renew=True, on_renewed=lambda old, _: seen.append(weakref.ref(old))
        )
        for _ in range(5):
            still.advance(570)
            await settle()
        gc.collect()
        assert [ref() for ref in seen] == [None] * 5


async def test_a_stop_that_fails_when_the_timer_was_early(scripted: ScriptedClient) -> None:
    """A stop in progress at an end that came slightly early is the last; nothing stays held."""
    clock = EarlyClock()
    async with SessionFleet(scripted, clock=clock) as fleet:
        live = await fleet.start(REQUEST, key=1)
        scripted.stops_go.clear()
        scripted.stop_errors.append(EquosError("no"))
        stop = asyncio.create_task(live.stop())
        await settle()
        clock.advance(600 - 1e-6)
        scripted.stops_go.set()
        with pytest.raises(EquosError, match="no"):
            await stop
        assert (await live.ended()).outcome == "failed"
        assert fleet.stats().free == 50


async def test_the_fleets_clock_is_its_clients(still: FakeClock) -> None:
    """Without a ``clock`` a fleet uses its client's."""
    scripted = ScriptedClient(clock=still)
    async with SessionFleet(scripted) as fleet:
        live = await fleet.start(REQUEST, key=1)
        still.advance(600)
        assert (await live.ended()).reason == "its time was over"


class Stop(BaseException):
    """An exception that ends a program, as some libraries raise it."""


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Stop()])
async def test_a_callback_that_raises_what_is_no_exception(
    scripted: ScriptedClient,
    still: FakeClock,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    """For example CancelledError: the old session goes on, and the new one is stopped."""

    def hand_over(old: LiveSession, new: LiveSession) -> None:
        raise error

    async with SessionFleet(scripted, clock=still) as fleet:
        old = await fleet.start(REQUEST, key=1, renew=True, on_renewed=hand_over)
        still.advance(570)
        await settle()
        assert dict(fleet.live) == {1: old}
        assert list(scripted.live) == ["s1"]
    assert "on_renewed raised for 1" in caplog.text


def test_a_callback_that_ends_the_program() -> None:
    """An exception that ends the program does so, and no session is left."""

    def hand_over(old: LiveSession, new: LiveSession) -> None:
        raise SystemExit(3)

    async def main(endpoint: str) -> None:
        clock = FakeClock()
        async with (
            EquosClient("key", endpoint=endpoint) as client,
            SessionFleet(client, clock=clock) as fleet,
        ):
            await fleet.start(REQUEST, key=1, renew=True, on_renewed=hand_over)
            clock.advance(570)
            await asyncio.Event().wait()

    with EquosEmulator() as emulator:
        with pytest.raises(SystemExit):
            asyncio.run(main(emulator.endpoint))
        assert emulator.ended_count == 2
        assert emulator.live_sessions == {}


async def test_a_callback_that_never_returns(scripted: ScriptedClient, still: FakeClock) -> None:
    """Leaving does not wait for it, and stops both sessions."""
    async with SessionFleet(scripted, clock=still) as fleet:
        await fleet.start(REQUEST, key=1, renew=True, on_renewed=Handover())
        still.advance(570)
        await settle()
        assert len(scripted.live) == 2
    await settle()
    assert scripted.live == {}
    assert others() == set()


async def test_renewals_come_before_newcomers(scripted: ScriptedClient, still: FakeClock) -> None:
    """A renewal gets the next slot before new starts."""
    hand = Handover()
    async with SessionFleet(scripted, clock=still, max_live=2) as fleet:
        await fleet.start(REQUEST, key=1, renew=True, on_renewed=hand)
        other = await fleet.start(REQUEST, key=2)
        newcomers = [asyncio.create_task(fleet.start(REQUEST, key=key)) for key in (3, 4)]
        await settle()
        still.advance(570)
        await settle()
        assert fleet.stats().waiting == 3
        await other.stop()
        await settle()
        assert [pair[0].key for pair in hand.calls] == [1]
        assert not any(newcomer.done() for newcomer in newcomers)
        for newcomer in newcomers:
            newcomer.cancel()
