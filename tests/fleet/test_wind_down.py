"""An end that cuts no session short: ``wind_down`` and ``stop_on_signals(grace=…)``."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from attrs import evolve

from equos_async import (
    APIConnectionError,
    ClientClosedError,
    ConfigurationError,
    DrainReport,
    LiveSession,
    SessionFleet,
)
from tests.clocks import FakeClock, settle, until
from tests.fleet.support import REQUEST, ScriptedClient, others

SHORT = evolve(REQUEST, max_duration=10)


async def test_what_runs_goes_on(scripted: ScriptedClient, still: FakeClock) -> None:
    """To its end, to its stop, or to the end of the grace; nothing new begins."""
    async with SessionFleet(scripted, max_live=4, clock=still) as fleet:
        assert fleet.accepting
        for key in ("expires", "stopped", "stays"):
            await fleet.start(SHORT if key == "expires" else REQUEST, key=key)
        scripted.starts_go.clear()
        starting = asyncio.create_task(fleet.start(REQUEST, key="starting"))
        waiting = asyncio.create_task(fleet.start(REQUEST, key="waiting"))
        await settle()
        down = asyncio.create_task(fleet.wind_down(30))
        await settle()
        assert not fleet.accepting
        with pytest.raises(ClientClosedError):
            await waiting
        with pytest.raises(ClientClosedError):
            await fleet.start(REQUEST, key="new")
        scripted.starts_go.set()
        await starting
        await fleet.stop("stopped")
        still.advance(10)
        await settle()
        assert set(fleet.live) == {"stays", "starting"}
        assert not down.done()
        still.advance(20)
        report = await down
        assert report is fleet.report
        assert [end.key for end in report.stopped] == ["stopped", "expires", "stays", "starting"]
        assert scripted.live == {}
        assert await fleet.wind_down() is report
    assert fleet.report is report
    assert not others()


async def test_nothing_runs(scripted: ScriptedClient) -> None:
    """Then it is over at once."""
    async with SessionFleet(scripted) as fleet:
        assert await fleet.wind_down() == DrainReport()


async def test_before_it_is_entered(scripted: ScriptedClient) -> None:
    """It accepts nothing, and never will."""
    fleet = SessionFleet(scripted)
    assert not fleet.accepting
    await fleet.wind_down(0)
    with pytest.raises(ClientClosedError):
        await fleet.open()


async def test_a_stop_that_fails_meanwhile(scripted: ScriptedClient, still: FakeClock) -> None:
    """It is asked again at the end of the grace, and told once."""
    async with SessionFleet(scripted, clock=still) as fleet:
        await fleet.start(REQUEST, key="k")
        down = asyncio.create_task(fleet.wind_down(30))
        await settle()
        scripted.stop_errors = [APIConnectionError("down")]
        with pytest.raises(APIConnectionError):
            await fleet.stop("k")
        report = await down
    assert (len(report.stopped), len(report.failed)) == (1, 0)


async def test_a_drain_meanwhile(scripted: ScriptedClient) -> None:
    """It stops all now, with which the winding down is over."""
    async with SessionFleet(scripted) as fleet:
        await fleet.start(REQUEST, key="k")
        down = asyncio.create_task(fleet.wind_down())
        await settle()
        assert len((await fleet.drain()).stopped) == 1
        assert [end.key for end in (await down).stopped] == ["k"]


async def test_more_than_once(scripted: ScriptedClient, still: FakeClock) -> None:
    """By a program and its framework: each gets the whole report, at the end of the first grace."""
    async with SessionFleet(scripted, clock=still) as fleet:
        for key in ("first", "second", "third"):
            await fleet.start(REQUEST, key=key)
        scripted.stops_go.clear()
        closings = [asyncio.create_task(fleet.wind_down())]
        await settle()
        for key, closing in (("first", fleet.wind_down(30)), ("second", fleet.aclose())):
            stop = asyncio.create_task(fleet.stop(key))
            await settle()
            scripted.stops_go.set()
            await stop
            scripted.stops_go.clear()
            closings.append(asyncio.create_task(closing))
            await settle()
        still.advance(20)
        await settle()
        reports = [closing.result() for closing in closings]
        scripted.stops_go.set()
    assert {tuple(end.key for end in one.stopped) for one in reports} == {("first", "second")}
    assert {tuple(end.key for end in one.unresolved) for one in reports} == {("third",)}


async def test_closed_by_two_tasks(scripted: ScriptedClient) -> None:
    """A report has all sessions, also if some had ended when the later one came."""
    async with SessionFleet(scripted) as fleet:
        for key in range(3):
            await fleet.start(REQUEST, key=key)
        closing = asyncio.create_task(fleet.aclose())
        await until(lambda: scripted.stopped)
        scripted.stops_go.clear()
        again = asyncio.create_task(fleet.aclose())
        await settle()
        scripted.stops_go.set()
        assert len((await again).stopped) == len((await closing).stopped) == 3
    assert len(fleet.report.stopped) == 3


async def test_a_caller_that_is_cancelled(scripted: ScriptedClient) -> None:
    """What runs goes on until the block is left; nothing is started any more."""
    async with SessionFleet(scripted) as fleet:
        await fleet.start(REQUEST, key="k")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await fleet.wind_down()
        assert set(fleet.live) == {"k"}
        assert not fleet.accepting
    assert len(fleet.report.stopped) == 1


@pytest.mark.parametrize("when", ["before", "starting", "handing over"])
async def test_renewals(scripted: ScriptedClient, still: FakeClock, when: str) -> None:
    """None begins any more, one on its way is called off, a hand-over comes to its end."""
    moving, moved = asyncio.Event(), asyncio.Event()

    async def hand_over(_: LiveSession, __: LiveSession) -> None:
        moving.set()
        await moved.wait()

    async with SessionFleet(scripted, clock=still, renew_before=10) as fleet:
        await fleet.start(REQUEST, key="k", renew=True, on_renewed=hand_over)
        if when == "starting":
            scripted.starts_go.clear()
        if when != "before":
            still.advance(590)
            await settle()
        down = asyncio.create_task(fleet.wind_down(700))
        await settle()
        assert moving.is_set() is (when == "handing over")
        scripted.starts_go.set()
        moved.set()
        await settle()
        still.advance(600 if when == "before" else 10)
        await settle()
        if when == "handing over":
            assert fleet.live["k"].session_id == "s2"
            still.advance(600)
        report = await down
    ended = {"before": ["s1"], "starting": ["s2", "s1"], "handing over": ["s1", "s2"]}[when]
    assert [end.session_id for end in report.stopped] == ended
    assert scripted.live == {}


def interrupt() -> None:
    """What a deployment does."""
    os.kill(os.getpid(), signal.SIGTERM)


async def test_a_signal_with_a_grace(scripted: ScriptedClient, still: FakeClock) -> None:
    """The block goes on until nothing runs any more, and ends then."""
    told: list[bool] = []
    async with SessionFleet(scripted, clock=still) as fleet:
        fleet.stop_on_signals(signal.SIGTERM, grace=60)
        await fleet.start(SHORT, key="k")
        interrupt()
        await settle()
        told.append(fleet.accepting)
        still.advance(10)
        await asyncio.Event().wait()
    assert told == [False]
    assert [(end.key, end.outcome) for end in fleet.report.stopped] == [("k", "expired")]


async def test_a_second_signal(scripted: ScriptedClient) -> None:
    """It ends the block at once, and a third one gives up."""
    scripted.stops_go.clear()
    async with SessionFleet(scripted) as fleet:
        fleet.stop_on_signals(signal.SIGTERM, grace=60)
        await fleet.start(REQUEST, key="k")
        interrupt()
        await settle()
        interrupt()
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop().call_soon(interrupt)
    assert [end.key for end in fleet.report.unresolved] == ["k"]
    scripted.stops_go.set()
    await settle()


async def test_a_wrong_grace(scripted: ScriptedClient) -> None:
    """It is refused, and changes nothing."""
    before = signal.getsignal(signal.SIGTERM)
    async with SessionFleet(scripted) as fleet:
        with pytest.raises(ConfigurationError, match="grace"):
            fleet.stop_on_signals(grace=-1)
        with pytest.raises(ConfigurationError, match="grace"):
            await fleet.wind_down(-1)
        assert fleet.accepting
        assert signal.getsignal(signal.SIGTERM) is before
