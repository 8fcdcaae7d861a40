"""Leaving, draining, signals: nothing is forgotten, and nothing takes for ever."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest

from equos_async import (
    ClientClosedError,
    ConfigurationError,
    DrainReport,
    EquosClient,
    EquosError,
    LiveSession,
    RateLimitError,
    SessionFleet,
    StartOutcomeUnknownError,
)
from equos_async.testing import EquosEmulator, Hang, Status
from tests.clocks import FakeClock, SkippingClock, settle
from tests.fleet.support import REQUEST, Events, MemoryLedger, ScriptedClient, others


async def fail_in(
    fleet: SessionFleet, *keys: object, signals: bool = False, error: type[BaseException] = KeyError
) -> None:
    """A body that starts some sessions and raises."""
    async with fleet:
        if signals:
            fleet.stop_on_signals()
        for key in keys:
            await fleet.start(REQUEST, key=key)
        raise error


async def test_drain_stops_all_and_the_fleet_goes_on(
    client: EquosClient, emulator: EquosEmulator
) -> None:
    """drain() stops all sessions and reports them by key, and the fleet stays usable."""
    async with SessionFleet(client) as fleet:
        ids = {n: (await fleet.start(REQUEST, key=n)).session.id for n in range(20)}
        report = await fleet.drain()
        assert {end.key: end.session_id for end in report.stopped} == ids
        assert not emulator.live_sessions
        await fleet.start(REQUEST, key=0)
    assert len(fleet.report.stopped) == 1


async def test_the_report_tells_all_outcomes(
    client: EquosClient, emulator: EquosEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The report has stopped, already ended, failed and unresolved sessions, by key and id."""
    async with SessionFleet(client, drain_deadline=0.5) as fleet:
        keys = {(await fleet.start(REQUEST, key=k)).session.id: k for k in ("a", "b", "c", "d")}
        ids = {key: session_id for session_id, key in keys.items()}
        await client.stop_session(ids["b"])
        emulator.faults.stop.add(
            Status(404), when=lambda one: getattr(one, "session_id", "") == ids["c"]
        )
        emulator.faults.stop.add(
            Hang(), times=None, when=lambda one: getattr(one, "session_id", "") == ids["d"]
        )
    report = fleet.report
    outcomes = (report.stopped, report.already_ended, report.failed, report.unresolved)
    assert [[end.key for end in ends] for ends in outcomes] == [["a"], ["b"], ["c"], ["d"]]
    assert [end.session_id for ends in outcomes for end in ends] == list(ids.values())
    assert [end.key for end in report.left] == ["c", "d"]
    assert f"'c' (session {ids['c']}) failed: 404: fault" in caplog.text
    assert "unresolved: its stop was not answered in time" in caplog.text
    await client.aclose(deadline=0)


async def test_two_who_close_tell_once(
    client: EquosClient, emulator: EquosEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that is left is one line in the log, and both have it in their reports."""
    emulator.faults.stop.add(Hang(), times=None)
    fleet = SessionFleet[str](client, drain_deadline=0.2)
    await fleet.open()
    await fleet.start(REQUEST, key="a")
    reports = await asyncio.gather(fleet.aclose(), fleet.aclose())
    assert [[end.key for end in one.left] for one in reports] == [["a"], ["a"]]
    assert caplog.text.count("sessions may still be running") == 1
    await client.aclose(deadline=0)


async def test_a_drain_of_nothing(scripted: ScriptedClient) -> None:
    """An empty fleet drains and ends at once."""
    async with SessionFleet(scripted) as fleet:
        assert await fleet.drain() == DrainReport()
        with pytest.raises(ConfigurationError, match="deadline must be a finite number"):
            await fleet.drain(-1)
    assert fleet.report == DrainReport()


async def test_a_failing_body_stops_all(scripted: ScriptedClient) -> None:
    """If the body raises, every session is stopped, and its exception is raised unchanged."""
    fleet = SessionFleet(scripted)
    with pytest.raises(KeyError) as caught:
        await fail_in(fleet, *range(5))
    assert not scripted.live
    assert len(fleet.report.stopped) == 5
    assert not hasattr(caught.value, "__notes__")


async def test_a_failing_body_keeps_its_exception(scripted: ScriptedClient) -> None:
    """Where a stop fails as well, that is a note of the body's exception."""
    scripted.stop_errors.append(EquosError("no"))
    with pytest.raises(KeyError) as caught:
        await fail_in(SessionFleet(scripted), "k")
    assert caught.value.__notes__ == ["0 stopped, 0 had ended, 1 left; 'k' (session s1) failed: no"]


async def test_a_drain_is_of_what_was_there(scripted: ScriptedClient) -> None:
    """A session that is started and stopped during a drain is not in its report."""
    async with SessionFleet(scripted) as fleet:
        await fleet.start(REQUEST, key=1)
        scripted.stops_go.clear()
        drain = asyncio.create_task(fleet.drain())
        await settle()
        scripted.stop_errors.append(EquosError("the stop of key 1"))
        live = await fleet.start(REQUEST, key=2)
        stop = asyncio.create_task(live.stop())
        await settle()
        scripted.stops_go.set()
        assert [end.key for end in (await drain).failed] == [1]
        await stop


async def test_drain_calls_off_what_is_on_its_way(scripted: ScriptedClient) -> None:
    """The session of a start in progress is stopped when it comes, and is in the report."""
    async with SessionFleet(scripted) as fleet:
        scripted.starts_go.clear()
        start = asyncio.create_task(fleet.start(REQUEST, key=1))
        await settle()
        drain = asyncio.create_task(fleet.drain())
        await settle()
        scripted.starts_go.set()
        with pytest.raises(EquosError, match=r"drain\(\) was called before"):
            await start
        (end,) = (await drain).stopped
        assert (end.key, end.session_id) == (1, "s1")


async def test_leaving_turns_the_line_away(scripted: ScriptedClient) -> None:
    """Leaving refuses those who wait and those on their way, and sends nothing new."""
    async with SessionFleet(scripted, max_live=2) as fleet:
        await fleet.start(REQUEST, key=1)
        scripted.starts_go.clear()
        starts = [asyncio.create_task(fleet.start(REQUEST, key=key)) for key in (2, 3, 4)]
        await settle()
        asyncio.get_running_loop().call_later(0, scripted.starts_go.set)
    results = await asyncio.gather(*starts, return_exceptions=True)
    assert [type(one) for one in results] == [ClientClosedError] * 3
    assert isinstance(results[0], ClientClosedError)
    assert results[0].session_id == "s2"
    assert len(scripted.requests) == 2
    assert not scripted.live
    assert {end.key for end in fleet.report.stopped} == {1, 2}


async def test_a_start_that_fails_in_a_drain(scripted: ScriptedClient) -> None:
    """A start that is refused, or lost, while a drain waits for it ends the wait."""
    async with SessionFleet(scripted) as fleet:
        scripted.starts_go.clear()
        scripted.start_errors += [RateLimitError("no"), StartOutcomeUnknownError("lost")]
        starts = [asyncio.create_task(fleet.start(REQUEST, key=key)) for key in (1, 2)]
        await settle()
        drain = asyncio.create_task(fleet.drain())
        await settle()
        scripted.starts_go.set()
        report = await drain
        assert [(end.key, end.reason) for end in report.unresolved] == [(2, "lost")]
        await asyncio.gather(*starts, return_exceptions=True)


async def test_a_drain_keeps_to_its_deadline(scripted: ScriptedClient, still: FakeClock) -> None:
    """At the deadline a drain reports what is open, and what hangs is still being tried."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1)
        scripted.stops_go.clear()
        scripted.starts_go.clear()
        start = asyncio.create_task(fleet.start(REQUEST, key=2))
        await settle()
        drain = asyncio.create_task(fleet.drain(5))
        await settle()
        still.advance(4.9)
        await settle()
        assert not drain.done()
        still.advance(0.1)
        report = await drain
        assert [(end.key, end.session_id) for end in report.unresolved] == [(2, None), (1, "s1")]
        scripted.starts_go.set()
        scripted.stops_go.set()
        assert (await live.ended()).outcome == "stopped"
        with pytest.raises(EquosError, match=r"drain\(\) was called before"):
            await start
    assert not scripted.live


async def test_anyio_cancels_and_nothing_is_left(scripted: ScriptedClient) -> None:
    """In a cancel scope that cancels every await the stops are still sent."""
    fleet = SessionFleet(scripted)
    with anyio.move_on_after(0) as scope:
        async with fleet:
            with anyio.CancelScope(shield=True):
                await fleet.start(REQUEST, key=1)
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    await settle()
    assert not scripted.live
    assert [end.key for end in fleet.report.unresolved] == [1]


async def test_a_second_cancellation_gives_up_and_tells(
    scripted: ScriptedClient, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a second Ctrl-C: the wait ends at once, and what is left is reported."""

    async def bot() -> None:
        async with fleet:
            await fleet.start(REQUEST, key="guild-1")
            await asyncio.Event().wait()

    fleet = SessionFleet(scripted)
    task = asyncio.create_task(bot())
    await settle()
    scripted.stops_go.clear()
    task.cancel()
    await settle()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "1 left; 'guild-1' (session s1) unresolved" in caplog.text
    scripted.stops_go.set()
    await settle()
    assert not scripted.live


# Signals.


async def test_a_signal_ends_the_block(scripted: ScriptedClient) -> None:
    """SIGTERM ends the body, and stops all sessions; the program continues after the block."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with SessionFleet(scripted) as fleet:
        fleet.stop_on_signals()
        await fleet.start(REQUEST, key=1)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
    assert not scripted.live
    assert len(fleet.report.stopped) == 1
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_a_second_signal_gives_up(
    scripted: ScriptedClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A second signal ends the wait at once, with a report, and restores the handlers."""
    before = signal.getsignal(signal.SIGINT)
    scripted.stops_go.clear()

    def again() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    async with SessionFleet(scripted) as fleet:
        fleet.stop_on_signals(signal.SIGINT)
        await fleet.start(REQUEST, key="k")
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop().call_soon(again)
    assert [end.key for end in fleet.report.unresolved] == ["k"]
    assert "'k' (session s1) unresolved" in caplog.text
    assert signal.getsignal(signal.SIGINT) is before
    scripted.stops_go.set()
    await settle()


async def test_the_first_signal_in_a_drain_is_waited_for(scripted: ScriptedClient) -> None:
    """A first signal while the fleet is being left changes nothing."""
    scripted.stops_go.clear()

    async def later() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await settle()
        scripted.stops_go.set()

    async with SessionFleet(scripted) as fleet:
        fleet.stop_on_signals()
        await fleet.start(REQUEST, key=1)
        task = asyncio.create_task(later())
    await task
    assert len(fleet.report.stopped) == 1


async def test_no_signal_changes_nothing(scripted: ScriptedClient) -> None:
    """Without a signal the body's exception, or a cancellation by others, is raised."""
    with pytest.raises(KeyError):
        await fail_in(SessionFleet(scripted), signals=True)
    with pytest.raises(asyncio.CancelledError):
        await fail_in(SessionFleet(scripted), signals=True, error=asyncio.CancelledError)


async def test_a_signal_and_another_cancellation(scripted: ScriptedClient) -> None:
    """A cancellation that is not the signal's own is not swallowed with it."""

    async def bot() -> None:
        async with SessionFleet(scripted) as fleet:
            fleet.stop_on_signals()
            os.kill(os.getpid(), signal.SIGTERM)
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.Event().wait()

    task = asyncio.create_task(bot())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_third_signal_is_not_the_fleets(scripted: ScriptedClient) -> None:
    """After the second signal the previous handlers apply, even if the body continues."""
    before = signal.getsignal(signal.SIGTERM)
    async with SessionFleet(scripted) as fleet:
        fleet.stop_on_signals(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        assert signal.getsignal(signal.SIGTERM) is not before
        os.kill(os.getpid(), signal.SIGTERM)
        await settle()
        assert signal.getsignal(signal.SIGTERM) is before
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_signals_are_installed_once(scripted: ScriptedClient) -> None:
    """A second call of stop_on_signals is refused."""
    async with SessionFleet(scripted) as fleet:
        fleet.stop_on_signals()
        with pytest.raises(ConfigurationError, match="called already"):
            fleet.stop_on_signals()


def test_signals_need_the_main_thread() -> None:
    """Outside the main thread stop_on_signals raises an error."""
    errors: list[Exception] = []

    async def bot() -> None:
        async with SessionFleet(ScriptedClient()) as fleet:
            try:
                fleet.stop_on_signals()
            except ConfigurationError as error:
                errors.append(error)

    thread = threading.Thread(target=asyncio.run, args=(bot(),))
    thread.start()
    thread.join()
    assert [str(error) for error in errors] == ["stop_on_signals works in the main thread only"]


async def test_a_handler_that_python_did_not_set(
    scripted: ScriptedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that was not set from Python cannot be put back: the default is."""
    installed: dict[signal.Signals, object] = {}

    def fake(one: signal.Signals, handler: object) -> None:
        installed[one] = handler

    monkeypatch.setattr(signal, "signal", fake)
    async with SessionFleet(scripted) as fleet:
        fleet.stop_on_signals(signal.SIGTERM)
    assert installed == {signal.SIGTERM: signal.SIG_DFL}


# Cancellation at every await.


async def _one(fleet: SessionFleet, _: FakeClock) -> None:
    await fleet.start(REQUEST, key=1)


async def _in_line(fleet: SessionFleet, _: FakeClock) -> None:
    one = await fleet.start(REQUEST, key=1)
    two = await fleet.start(REQUEST, key=2)
    async with asyncio.TaskGroup() as group:
        for key in (3, 4, 5):
            group.create_task(fleet.start(REQUEST, key=key))
        await one.stop()
        await two.stop()
        await fleet.stop(3)


async def _block(fleet: SessionFleet, _: FakeClock) -> None:
    async with await fleet.start(REQUEST, key=1) as live:
        await asyncio.sleep(0)
    await live.ended()


async def _drain(fleet: SessionFleet, _: FakeClock) -> None:
    await fleet.start(REQUEST, key=1)
    other = asyncio.ensure_future(fleet.start(REQUEST, key=2))
    try:
        await fleet.drain()
    finally:
        other.cancel()


def _take(_: LiveSession, __: LiveSession) -> None:
    pass


async def _renew(fleet: SessionFleet, clock: FakeClock) -> None:
    await fleet.start(REQUEST, key=1, renew=True, on_renewed=_take)
    clock.advance(570)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await fleet.stop(1)


@pytest.mark.parametrize("scenario", [_one, _in_line, _block, _drain, _renew])
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("make_ledger", [lambda: None, MemoryLedger], ids=["alone", "ledger"])
async def test_cancelled_anywhere_nothing_is_left(
    scenario: Callable[[SessionFleet, FakeClock], Awaitable[None]],
    twice: bool,
    make_ledger: Callable[[], MemoryLedger | None],
) -> None:
    """Cancelled at each step of the loop, once or twice, a fleet leaves no session or task."""
    for steps in range(300):
        client, clock, ledger = ScriptedClient(), FakeClock(), make_ledger()
        fleet = SessionFleet(client, max_live=2, clock=clock, ledger=ledger)

        async def bot(fleet: SessionFleet = fleet, clock: FakeClock = clock) -> None:
            async with fleet:
                await scenario(fleet, clock)

        task = asyncio.create_task(bot())
        for _ in range(steps):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        if twice:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await settle()
        stats = fleet.stats()
        assert not client.live, steps
        assert (stats.live, stats.starting, stats.waiting, stats.free) == (0, 0, 0, 2), steps
        assert client.most <= 2
        assert not others()
        assert ledger is None or ledger.held == {}, steps
        if done:
            return
    pytest.fail("the scenario did not end")


async def test_cancelled_starts_over_sockets(emulator: EquosEmulator) -> None:
    """Two hundred starts cancelled at random leave no session, and all slots are free."""
    clock = SkippingClock()
    async with EquosClient("pk_test", endpoint=emulator.endpoint, clock=clock) as client:
        async with SessionFleet(client, max_live=10) as fleet:
            tasks = [asyncio.create_task(fleet.start(REQUEST, key=key)) for key in range(200)]
            for index, task in enumerate(tasks):
                if clock.chance() < 0.5:
                    task.cancel()
                elif index % 2:
                    await settle(5)
                await asyncio.sleep(0)
                for key in list(fleet.live):
                    await fleet.stop(key)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert fleet.stats().free == 10
        assert not fleet.report.left
        assert not emulator.live_sessions
    assert not others()


def test_the_loop_shuts_down_under_a_fleet(caplog: pytest.LogCaptureFixture) -> None:
    """Tasks that the end of the loop cancels are written down as unknown, and as not stopped."""
    events = Events()

    async def main() -> None:
        client = ScriptedClient()
        fleet = await SessionFleet(client, on_event=events).__aenter__()
        live = await fleet.start(REQUEST, key=1)
        client.starts_go.clear()
        client.stops_go.clear()
        starting = asyncio.create_task(fleet.start(REQUEST, key=2))
        stopping = asyncio.create_task(live.stop())
        await settle()
        for task in others() - {starting, stopping}:
            task.cancel()
        results = await asyncio.gather(starting, stopping, return_exceptions=True)
        assert [type(one).__name__ for one in results] == [
            "StartOutcomeUnknownError",
            "CancelledError",
        ]

    def run() -> None:
        asyncio.run(main())
        gc.collect()  # the errors' tracebacks hold it

    with pytest.warns(ResourceWarning, match="was dropped with 2 sessions"):
        run()
    assert sorted(events.kinds) == [("failed", 1), ("started", 1), ("unknown", 2)]
    *records, last = caplog.records
    told = {(vars(one)["equos_event"], vars(one)["equos_key"]) for one in records}
    assert told == {("failed", 1), ("unknown", 2)}, "and nothing else, from asyncio, say"
    assert "was dropped with 2 sessions" in last.getMessage()
