"""Unused sessions are ended, and all sessions shortly before the server's end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from equos_async import ConfigurationError, EquosClient, EquosError, LiveSession, SessionFleet
from equos_async.testing import EquosEmulator, Status
from tests.clocks import FakeClock, settle, until
from tests.fleet.support import REQUEST, ScriptedClient
from tests.kinds import CONVERSATION, TALK


async def test_nobody_joins(scripted: ScriptedClient, still: FakeClock) -> None:
    """It is ended in time, and not before."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key="a", join_within=60)
        still.advance(59)
        await settle()
        assert live.state == "live"
        still.advance(1)
        end = await live.ended()
        assert (end.outcome, end.reason, end.seconds) == (
            "never_joined",
            "nobody joined it in time",
            60,
        )
        assert scripted.stopped == ["s1"]


async def test_somebody_joins(scripted: ScriptedClient, still: FakeClock) -> None:
    """A touched session goes on to its end."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key="a", join_within=60)
        still.advance(59)
        live.touch()
        still.advance(538)
        await settle()
        assert live.state == "live"
        still.advance(1)
        assert (await live.ended()).outcome == "expired"
        live.touch()  # too late, and no error


async def test_a_touch_of_what_needs_none(scripted: ScriptedClient, still: FakeClock) -> None:
    """Programs may call it for any session."""
    async with SessionFleet(scripted, clock=still) as fleet:
        (await fleet.start(REQUEST, key="a")).touch()
        assert len(still.due) == 1


async def test_idle(scripted: ScriptedClient, still: FakeClock) -> None:
    """It counts from the last touch, and first from the start."""
    async with SessionFleet(scripted, clock=still) as fleet:
        first = await fleet.start(REQUEST, key="a", idle_after=120)
        other = await fleet.start(REQUEST, key="b", idle_after=120)
        for _ in range(15):
            still.advance(20)
            first.touch()
            await settle()
        assert (await other.ended()).outcome == "idle"
        assert (await other.ended()).seconds == 120
        still.advance(119)
        await settle()
        assert first.state == "live"
        assert len(still.due) == 1
        still.advance(1)
        end = await first.ended()
        assert (end.outcome, end.seconds) == ("idle", 420)
        assert [end.outcome for end in (await fleet.drain()).stopped] == []


async def test_idle_after_it_was_joined(scripted: ScriptedClient, still: FakeClock) -> None:
    """With both settings, idle time counts from the first touch."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key="a", join_within=60, idle_after=10)
        still.advance(50)
        await settle()
        live.touch()
        still.advance(9)
        await settle()
        assert live.state == "live"
        still.advance(1)
        assert (await live.ended()).outcome == "idle"


async def test_a_stop_that_fails(scripted: ScriptedClient, still: FakeClock) -> None:
    """It is not asked again by the fleet before its time is over."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key="a", idle_after=120)
        scripted.stop_errors.append(EquosError("no"))
        still.advance(120)
        await settle()
        assert (live.state, len(still.due)) == ("live", 1)
        still.advance(478)
        assert (await live.ended()).outcome == "expired"


async def test_a_replacement_is_used_by_whoever_joined(
    scripted: ScriptedClient, still: FakeClock
) -> None:
    """A replacement counts as joined, and its idle time begins again."""
    news: list[LiveSession] = []

    def take(_: LiveSession, new: LiveSession) -> None:
        news.append(new)

    async with SessionFleet(scripted, clock=still) as fleet:
        settings: dict[str, Any] = {"renew": True, "on_renewed": take}
        old = await fleet.start(REQUEST, key="a", join_within=60, idle_after=590, **settings)
        old.touch()
        still.advance(568)
        await settle()
        still.advance(60)
        await settle()
        assert [one.state for one in news] == ["live"]
        still.advance(508)
        await settle()
        assert (await news[0].ended()).outcome == "renewed"
        assert news[1].state == "live"


@pytest.mark.parametrize("name", ["join_within", "idle_after"])
async def test_times_are_positive(name: str, scripted: ScriptedClient) -> None:
    """Any other value is refused before anything is sent."""
    wrongs: list[Any] = [0, -1, float("nan"), "60"]
    async with SessionFleet(scripted) as fleet:
        for wrong in wrongs:
            with pytest.raises(ConfigurationError, match=name):
                await fleet.start(REQUEST, key="a", **{name: wrong})
        assert scripted.requests == []


def looks(emulator: EquosEmulator) -> int:
    """How often a server was asked for something."""
    return sum(one.operation == "read" for one in emulator.requests)


# A conversation, of which the server knows whether somebody has joined.


@pytest.fixture
async def talks(emulator: EquosEmulator) -> Any:
    """A client with a server key."""
    async with CONVERSATION.client(emulator.endpoint) as client:
        yield client


async def test_the_server_knows_of_nobody(
    emulator: EquosEmulator, talks: EquosClient, still: FakeClock
) -> None:
    """It is asked once, and then the conversation is ended."""
    async with SessionFleet(talks, clock=still) as fleet:
        live = await fleet.start(TALK, key="a", join_within=60)
        still.advance(60)
        assert (await live.ended()).outcome == "never_joined"
    assert looks(emulator) == 1


async def test_the_server_knows_of_somebody(
    emulator: EquosEmulator, talks: EquosClient, still: FakeClock
) -> None:
    """It goes on, without a further look-up; idle time counts from then."""
    async with SessionFleet(talks, clock=still) as fleet:
        live = await fleet.start(TALK, key="a", join_within=60, idle_after=100)
        emulator.join(live.session_id)
        still.advance(60)
        await until(lambda: still.due == [100])
        assert live.state == "live"
        still.advance(100)
        assert (await live.ended()).outcome == "idle"


async def test_nobody_can_be_asked(
    emulator: EquosEmulator, talks: EquosClient, still: FakeClock
) -> None:
    """A conversation is not cut off because the question failed."""
    emulator.faults.read.add(Status(403))
    async with SessionFleet(talks, clock=still) as fleet:
        live = await fleet.start(TALK, key="a", join_within=60, idle_after=100)
        still.advance(60)
        await until(lambda: still.due == [100])
        assert live.state == "live"


async def test_a_touch_while_the_server_is_asked(
    emulator: EquosEmulator, talks: EquosClient, still: FakeClock
) -> None:
    """A touch during the look-up counts."""
    async with SessionFleet(talks, clock=still) as fleet:
        live = await fleet.start(TALK, key="a", join_within=60, idle_after=100)
        still.advance(60)
        live.touch()
        await until(lambda: still.due == [100])
        assert live.state == "live"


@pytest.mark.parametrize("is_joined", [True, False])
async def test_a_stop_while_the_server_is_asked(
    is_joined: bool, emulator: EquosEmulator, talks: EquosClient, still: FakeClock
) -> None:
    """The stop counts, and no timer is left of the session."""
    async with SessionFleet(talks, clock=still) as fleet:
        live = await fleet.start(TALK, key="a", join_within=60)
        still.advance(60)
        if is_joined:
            live.touch()
        stop = asyncio.create_task(live.stop())
        await stop
        await until(lambda: looks(emulator))
        assert (await live.ended()).outcome == "stopped"
        await fleet.drain()
    assert not still.due


async def test_leaving_while_the_server_is_asked(talks: EquosClient, still: FakeClock) -> None:
    """After the fleet there is no look-up."""
    async with SessionFleet(talks, clock=still) as fleet:
        await fleet.start(TALK, key="a", join_within=60)
        still.advance(60)
    assert [end.outcome for end in fleet.report.stopped] == ["stopped"]


# Before the server's end.


@pytest.mark.parametrize(
    ("before", "seconds", "lived"), [(2, 600, 598), (2, 10, 9), (0, 10, 10), (100, 600, 540)]
)
async def test_the_server_is_never_first(
    before: float, seconds: float, lived: float, scripted: ScriptedClient, still: FakeClock
) -> None:
    """A session is stopped so many seconds before, at most a tenth of its time."""
    async with SessionFleet(scripted, clock=still, stop_before_end=before) as fleet:
        live = await fleet.start(evolve(REQUEST, max_duration=seconds), key="a")
        assert live.remaining == lived


async def test_it_counts_from_the_sending(emulator: EquosEmulator, still: FakeClock) -> None:
    """The time until the answer counts as the session's; the time before the sending does not."""
    emulator.faults.start.add(Status(429))
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still, settle=None) as client,
        SessionFleet(client) as fleet,
    ):
        start = asyncio.create_task(fleet.start(REQUEST, key="a"))
        await until(lambda: emulator.requests and emulator.requests[0].status == 429)
        await settle(200)
        still.advance(1)
        await until(lambda: emulator.live_sessions)
        still.advance(3)
        live = await start
        assert live.remaining == 595
