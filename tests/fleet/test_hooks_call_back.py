"""Hooks that call back into their fleet: nobody waits for itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from equos_async import (
    ClientClosedError,
    CreateSessionPassRequest,
    DrainReport,
    EquosError,
    LiveSession,
    SessionEnd,
    SessionFleet,
)
from tests.clocks import FakeClock, begin_tasks_at_once, settle
from tests.fleet.support import REQUEST, ScriptedClient, others

WAYS: dict[str, Callable[[SessionFleet[Any]], Awaitable[object]]] = {
    "aclose": SessionFleet.aclose,
    "drain": SessionFleet.drain,
    "wind_down": SessionFleet.wind_down,
}


@pytest.fixture(params=["lazy", "eager"])
async def beginning(request: pytest.FixtureRequest) -> None:
    """When tasks begin."""
    if request.param == "eager":
        begin_tasks_at_once()


def nothing(*_: object) -> None:
    """An ``on_renewed`` that has nothing to do."""


@pytest.mark.usefixtures("beginning")
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
async def test_on_end_closes_the_fleet(
    way: Callable[[SessionFleet[Any]], Awaitable[object]],
    scripted: ScriptedClient,
    still: FakeClock,
) -> None:
    """The clock stands still: no deadline is waited for, here and in the fleet's block."""
    reports: list[object] = []

    async def on_end(end: SessionEnd) -> None:
        reports.append(await way(fleet))

    async with SessionFleet(scripted, on_end=on_end, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1)
        await fleet.start(REQUEST, key=2)
        await live.stop()
        await settle()
    assert not scripted.live
    assert [type(report) for report in reports] == [DrainReport, DrainReport]
    assert not fleet.report.left
    assert not others()


async def test_a_hook_that_goes_on_when_the_fleet_is_closed(
    scripted: ScriptedClient, still: FakeClock
) -> None:
    """The fleet's block waits for it, although there is a report already."""
    told: list[object] = []
    closed, go = asyncio.Event(), asyncio.Event()

    async def on_end(end: SessionEnd) -> None:
        await fleet.aclose()
        closed.set()
        await go.wait()
        told.append(end.key)

    async with SessionFleet(scripted, on_end=on_end, clock=still) as fleet:
        live = await fleet.start(REQUEST, key=1)
        await live.stop()
        await closed.wait()
        asyncio.get_running_loop().call_soon(go.set)
    assert told == [1]


async def test_on_end_waits_for_other_calls_of_it(
    scripted: ScriptedClient, still: FakeClock
) -> None:
    """Only those that wait for a drain themselves are not waited for."""
    told: list[object] = []
    go = asyncio.Event()

    async def on_end(end: SessionEnd) -> None:
        if end.key == "closes":
            await fleet.drain()
            await fleet.drain()
        else:
            await go.wait()
        told.append(end.key)

    async with SessionFleet(scripted, on_end=on_end, clock=still) as fleet:
        for key in ("closes", "bills"):
            await fleet.start(REQUEST, key=key)
        drain = asyncio.create_task(fleet.drain())
        await settle()
        assert not told
        go.set()
        await drain
    assert sorted(map(str, told)) == ["bills", "closes"]


@pytest.mark.usefixtures("beginning")
@pytest.mark.parametrize("hook", ["renew", "on_renewed"])
async def test_a_renewal_closes_the_fleet(
    hook: str, scripted: ScriptedClient, still: FakeClock
) -> None:
    """It gets the true report, and both sessions are stopped."""
    reports: list[DrainReport] = []

    async def close(*_: object) -> CreateSessionPassRequest:
        reports.append(await fleet.aclose())
        return REQUEST

    fleet: SessionFleet[str] = SessionFleet(scripted, clock=still)
    await fleet.open()
    if hook == "renew":
        live = await fleet.start(REQUEST, key="a", renew=close, on_renewed=nothing)
        with pytest.raises(ClientClosedError):
            await live.renew()
    else:
        live = await fleet.start(REQUEST, key="a", renew=True, on_renewed=close)
        assert (await live.renew()).state == "ended"
    assert not scripted.live
    assert [one.left for one in reports] == [()]
    assert len(reports[0].stopped) == {"renew": 1, "on_renewed": 2}[hook]
    await settle()
    assert not others()


@pytest.mark.usefixtures("beginning")
async def test_a_renewal_stops_its_session(scripted: ScriptedClient) -> None:
    """The hook gets the answer of the stop; nothing is started after it."""
    answers: list[object] = []

    async def make(live: LiveSession) -> CreateSessionPassRequest:
        answers.append(await live.stop())
        return REQUEST

    async with SessionFleet(scripted) as fleet:
        live = await fleet.start(REQUEST, key="a", renew=make, on_renewed=nothing)
        with pytest.raises(EquosError, match="not live any more"):
            await live.renew()
        assert [answer is None for answer in answers] == [False]
        assert len(scripted.requests) == 1


@pytest.mark.usefixtures("beginning")
async def test_a_renewal_renews_its_session(scripted: ScriptedClient) -> None:
    """It would wait for itself: it is told so at once."""

    async def make(live: LiveSession) -> CreateSessionPassRequest:
        await live.renew()
        return REQUEST

    async with SessionFleet(scripted) as fleet:
        live = await fleet.start(REQUEST, key="a", renew=make, on_renewed=nothing)
        with pytest.raises(EquosError, match="by the renew function of the same session"):
            await live.renew()
        assert live.state == "live"


async def test_what_can_be_read_without_a_loop(scripted: ScriptedClient) -> None:
    """Another thread, a debugger or a notebook between two cells shows the fleet."""
    seen: list[str] = []

    async with SessionFleet(scripted) as fleet:
        live = await fleet.start(REQUEST, key="a")

        def look() -> None:
            seen.append(f"{live!r} {live.remaining:.0f} {live.state} {fleet.live!r}")
            seen.append(f"{fleet.stats().live} {fleet.health().free}")

        reader = threading.Thread(target=look)
        reader.start()
        await asyncio.to_thread(reader.join)
    assert seen == [
        "<LiveSession 'a' s1 live, 598 s left> 598 live <1 live, 'a'>",
        "1 49",
    ]
