"""Renewal on demand, and with a request that is made for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from attrs import evolve

from equos_async import (
    ClientClosedError,
    ConfigurationError,
    CreateSessionPassRequest,
    EquosError,
    LiveSession,
    SessionFleet,
)
from tests.clocks import FakeClock, begin_tasks_at_once, settle
from tests.fleet.support import REQUEST, Events, ScriptedClient, others


@pytest.fixture(params=["lazy", "eager"])
async def beginning(request: pytest.FixtureRequest) -> None:
    """When tasks begin."""
    if request.param == "eager":
        begin_tasks_at_once()


class Maker:
    """A ``renew`` function that remembers, and may wait or fail."""

    def __init__(self) -> None:
        self.asked: list[LiveSession] = []
        self.go = asyncio.Event()
        self.go.set()
        self.error: BaseException | None = None

    async def __call__(self, live: LiveSession) -> CreateSessionPassRequest:
        self.asked.append(live)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return evolve(REQUEST, additional_ctx=f"after {live.session_id}", max_duration=None)


def nothing(*_: object) -> None:
    """An ``on_renewed`` that has nothing to do."""


async def test_a_request_is_made_for_it(scripted: ScriptedClient, still: FakeClock) -> None:
    """Each replacement carries on what the one before it said; its time is as before."""
    make = Maker()
    async with SessionFleet(scripted, clock=still) as fleet:
        first = await fleet.start(REQUEST, key="a", renew=make, on_renewed=nothing)
        for _ in range(2):
            still.advance(568)
            await settle()
        assert [one.session_id for one in make.asked] == ["s1", "s2"]
        assert make.asked[0] is first
        told = [request.additional_ctx for request in scripted.requests]
        assert told == [None, "after s1", "after s2"]
        assert {request.max_duration for request in scripted.requests} == {600}
        assert list(scripted.live) == ["s3"]


async def test_on_demand(scripted: ScriptedClient, still: FakeClock, events: Events) -> None:
    """The new session has the key and its whole time, and the old one is stopped."""
    async with SessionFleet(scripted, clock=still, on_event=events) as fleet:
        old = await fleet.start(REQUEST, key="a")
        still.advance(100)
        new = await old.renew()
        assert (new, new.key, new.remaining) == (fleet.live["a"], "a", 598)
        assert (await old.ended()).outcome == "renewed"
        with pytest.raises(EquosError, match="not live any more"):
            await old.renew()
        assert not others()
    assert events.kinds[:3] == [("started", "a"), ("started", "a"), ("stopped", "a")]


async def test_on_demand_joins_what_is_under_way(scripted: ScriptedClient) -> None:
    """Two calls make one session; that one of them is cancelled is no matter."""
    async with SessionFleet(scripted) as fleet:
        old = await fleet.start(REQUEST, key="a")
        scripted.starts_go.clear()
        both = [asyncio.create_task(old.renew()) for _ in range(2)]
        await settle()
        both[0].cancel()
        await settle()
        scripted.starts_go.set()
        assert (await both[1]).session_id == "s2"
        assert len(scripted.requests) == 2


async def test_it_comes_before_newcomers(scripted: ScriptedClient) -> None:
    """The slot that is free next is its own."""
    async with SessionFleet(scripted, max_live=2) as fleet:
        old = await fleet.start(REQUEST, key="a")
        other = await fleet.start(REQUEST, key="b")
        newcomer = asyncio.create_task(fleet.start(REQUEST, key="c"))
        await settle()
        renewal = asyncio.create_task(old.renew())
        await settle()
        await other.stop()
        assert (await renewal).session_id == "s3"
        assert (await newcomer).session_id == "s4"


async def test_a_start_that_is_refused(
    scripted: ScriptedClient, still: FakeClock, events: Events
) -> None:
    """The caller and an event are told; the old session goes on, and can be renewed again."""
    async with SessionFleet(scripted, clock=still, on_event=events) as fleet:
        old = await fleet.start(REQUEST, key="a")
        scripted.start_errors.append(EquosError("no"))
        with pytest.raises(EquosError, match="no"):
            await old.renew()
        assert (old.state, fleet.stats().free) == ("live", 49)
        failed = events.all[-1]
        assert (failed.kind, failed.session_id, failed.reason) == ("renewal_failed", "s1", "no")
        await old.renew()
        assert dict(fleet.live) != {"a": old}


@pytest.mark.usefixtures("beginning")
@pytest.mark.parametrize(
    "error",
    [RuntimeError("secret"), asyncio.CancelledError("secret")],
    ids=["error", "cancelled"],
)
async def test_a_maker_that_raises(
    error: BaseException,
    scripted: ScriptedClient,
    still: FakeClock,
    events: Events,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged, and told without its text; the old session ends at its time."""
    make = Maker()
    make.error = error
    async with SessionFleet(scripted, clock=still, on_event=events) as fleet:
        old = await fleet.start(REQUEST, key="a", renew=make, on_renewed=nothing)
        with pytest.raises(EquosError, match=f"renew raised {type(error).__name__}$"):
            await old.renew()
        assert "its old session goes on" in caplog.text
        assert events.kinds[1:] == [("renewal_failed", "a")]
        still.advance(568)
        await settle()
        assert len(make.asked) == 2, "it is tried again at its time"
        still.advance(30)
        assert (await old.ended()).outcome == "expired"


async def test_a_maker_that_gives_up_in_our_words(scripted: ScriptedClient) -> None:
    """An error of ours goes to the caller as it is; a wrong request is one, too."""
    make = Maker()
    make.error = EquosError("not now")
    async with SessionFleet(scripted) as fleet:
        old = await fleet.start(REQUEST, key="a", renew=make, on_renewed=nothing)
        with pytest.raises(EquosError, match="not now"):
            await old.renew()
        wrong: Any = str
        other = await fleet.start(REQUEST, key="b", renew=wrong, on_renewed=nothing)
        with pytest.raises(ConfigurationError, match="request must be"):
            await other.renew()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_maker_that_ends_the_program(error: type[BaseException]) -> None:
    """What ends the program does."""

    async def main() -> None:
        make = Maker()
        make.error = error()
        async with SessionFleet(ScriptedClient()) as fleet:
            old = await fleet.start(REQUEST, key="a", renew=make, on_renewed=nothing)
            await old.renew()

    with pytest.raises(error):
        asyncio.run(main())


async def test_a_hand_over_that_raises(scripted: ScriptedClient, events: Events) -> None:
    """The caller's error says that the new session was stopped."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    async with SessionFleet(scripted, on_event=events) as fleet:
        old = await fleet.start(REQUEST, key="a", renew=True, on_renewed=fail)
        with pytest.raises(EquosError, match="on_renewed raised RuntimeError$"):
            await old.renew()
        await settle()
        assert (dict(fleet.live), scripted.stopped) == ({"a": old}, ["s2"])
    assert ("renewal_failed", "a") in events.kinds


async def test_a_hand_over_that_ends_the_new_session_and_raises(scripted: ScriptedClient) -> None:
    """Nothing holds the key any more, so the old session is stopped, too."""

    async def fail(_: LiveSession, new: LiveSession) -> None:
        await new.stop()
        raise RuntimeError

    async with SessionFleet(scripted) as fleet:
        old = await fleet.start(REQUEST, key="a", renew=True, on_renewed=fail)
        with pytest.raises(EquosError, match="on_renewed raised RuntimeError$"):
            await old.renew()
        await old.ended()
        assert (dict(fleet.live), scripted.stopped) == ({}, ["s2", "s1"])


@pytest.mark.parametrize("way", ["stop", "close"])
async def test_it_ends_while_the_request_is_made(way: str, scripted: ScriptedClient) -> None:
    """The caller of ``renew`` gets an error, and nothing is sent."""
    make = Maker()
    make.go.clear()
    async with SessionFleet(scripted) as fleet:
        old = await fleet.start(REQUEST, key="a", renew=make, on_renewed=nothing)
        renewal = asyncio.create_task(old.renew())
        await settle()
        await (old.stop() if way == "stop" else fleet.aclose())
        with pytest.raises(EquosError, match="before its replacement was live"):
            await renewal
        assert len(scripted.requests) == 1


async def test_a_timer_that_is_late(scripted: ScriptedClient, still: FakeClock) -> None:
    """A session whose time is over is not renewed, though the loop has been too busy to end it."""
    async with SessionFleet(scripted, clock=still) as fleet:
        live = await fleet.start(REQUEST, key="a")
        still.time += 600
        with pytest.raises(EquosError, match="the session of 'a' is not live any more"):
            await live.renew()
        still.advance(0)
        assert (await live.ended()).outcome == "expired"
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("way", ["stop", "replace"])
async def test_its_key_is_stopped_while_it_hands_over(
    way: str, scripted: ScriptedClient, still: FakeClock
) -> None:
    """Both sessions end; the old one does not wait until ``on_renewed`` has returned."""
    moved = asyncio.Event()

    async def move(_: LiveSession, __: LiveSession) -> None:
        await moved.wait()

    async with SessionFleet(scripted, clock=still) as fleet:
        old = await fleet.start(REQUEST, key="a", renew=True, on_renewed=move)
        still.advance(570)
        await settle()
        assert fleet.live["a"] is not old
        if way == "stop":
            await fleet.stop("a")
            assert not scripted.live
        else:
            await fleet.start(REQUEST, key="a", if_taken="replace")
            assert list(scripted.live) == ["s3"]
        moved.set()
        await settle()
        assert sorted(scripted.stopped) == ["s1", "s2"], "each is stopped once"
    assert not others()


async def test_nothing_is_renewed_any_more(
    scripted: ScriptedClient, still: FakeClock, events: Events
) -> None:
    """Once a fleet winds down, neither on demand, nor by itself, nor what was just being made."""
    make = Maker()
    make.go.clear()
    async with SessionFleet(scripted, clock=still, on_event=events) as fleet:
        old = await fleet.start(REQUEST, key="a", renew=make, on_renewed=nothing)
        other = await fleet.start(REQUEST, key="b", renew=make, on_renewed=nothing)
        renewal = asyncio.create_task(old.renew())
        await settle()
        winding = asyncio.create_task(fleet.wind_down())
        await settle()
        make.go.set()
        with pytest.raises(ClientClosedError):
            await renewal
        with pytest.raises(ClientClosedError):
            await other.renew()
        still.advance(568)
        await settle()
        still.advance(30)
        assert len((await winding).stopped) == 2
        assert len(scripted.requests) == 2


async def test_renew_is_true_or_a_function(scripted: ScriptedClient) -> None:
    """What is neither is refused before anything is sent."""
    async with SessionFleet(scripted) as fleet:
        with pytest.raises(ConfigurationError, match="renew must be a bool or callable"):
            await fleet.start(REQUEST, key="a", renew=cast("Any", 30), on_renewed=nothing)
        with pytest.raises(ConfigurationError, match="pass renew and on_renewed together"):
            await fleet.start(REQUEST, key="a", renew=Maker())
        assert scripted.requests == []
