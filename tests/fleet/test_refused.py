"""A start that the server refuses for now waits for another turn, until its deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from equos_async import (
    ClientClosedError,
    EquosClient,
    EquosError,
    LiveSession,
    RateLimitError,
    SessionFleet,
)
from equos_async.testing import EquosEmulator
from tests.clocks import FakeClock, settle
from tests.fleet.support import REQUEST, Events, ScriptedClient


def refusal(retry_after: float | None = None) -> RateLimitError:
    """What the client raises when it has given up."""
    return RateLimitError("full", status=429, attempts=3, retry_after=retry_after)


def start(fleet: SessionFleet, key: object, **settings: Any) -> asyncio.Task[LiveSession]:
    """Set out to start a session."""
    return asyncio.create_task(fleet.start(REQUEST, key=key, **settings))


async def test_a_server_that_frees_places_late(emulator: EquosEmulator) -> None:
    """Two seconds after each stop: of twenty starts none is refused."""
    clock = FakeClock()
    emulator.limit_concurrent = 10

    def free() -> None:
        emulator.limit_concurrent = (emulator.limit_concurrent or 0) + 1

    async with (
        EquosClient("pk_test", endpoint=emulator.endpoint, clock=clock) as client,
        SessionFleet(client, max_live=10) as fleet,
    ):
        for key in range(10):
            await fleet.start(REQUEST, key=key)
        starts = [start(fleet, key) for key in range(10, 20)]
        await settle()
        for key in range(10):
            await fleet.stop(key)
            emulator.limit_concurrent -= 1
            clock.call_at(clock.now() + 2, free)
        while not all(one.done() for one in starts):
            await settle(200)
            clock.advance(0.1)
        assert len([one.result() for one in starts]) == 10
        assert clock.now() - 1000 < 60


async def test_before_all_others(
    scripted: ScriptedClient, still: FakeClock, events: Events
) -> None:
    """Its own slot rests as long as the server asked; one that is freed meanwhile is used."""
    async with SessionFleet(scripted, max_live=2, clock=still, on_event=events) as fleet:
        await fleet.start(REQUEST, key="old")
        scripted.start_errors = [refusal(20)]
        starts = [start(fleet, key) for key in ("first", "second", "third")]
        await settle()
        stats = fleet.stats()
        assert (stats.free, stats.starting, stats.waiting) == (0, 0, 3)
        assert events.all[-1].reason == "the server refused it for now: 429: full"
        await fleet.stop("old")
        await settle()
        assert [one.done() for one in starts] == [True, False, False]
        still.advance(20)
        await settle()
        assert not starts[1].done()
        still.advance(4)
        await asyncio.wait([starts[1]])
        starts[2].cancel()
        await asyncio.wait([starts[2]])


@pytest.mark.parametrize(
    ("settings", "arguments", "error"),
    [
        ({"requeue_refused": False}, {}, refusal()),
        ({}, {"wait": False}, refusal()),
        ({}, {"deadline": 30}, refusal(30)),
    ],
)
async def test_it_fails_at_once(
    scripted: ScriptedClient, settings: Any, arguments: Any, error: EquosError
) -> None:
    """Where that is wanted, or the server asks for more time than there is."""
    scripted.start_errors = [error]
    async with SessionFleet(scripted, **settings) as fleet:
        with pytest.raises(RateLimitError):
            await fleet.start(REQUEST, key=1, **arguments)
        assert fleet.stats().free == 50


async def test_until_its_deadline(scripted: ScriptedClient, still: FakeClock) -> None:
    """Then it fails with what the server said; so it does where no slot is to be had."""
    async with SessionFleet(scripted, max_live=2, clock=still) as fleet:
        await fleet.start(REQUEST, key=0)
        scripted.start_errors = [refusal(20)]
        refused = start(fleet, 1, deadline=30)
        await settle()
        fleet.resize(1)
        still.advance(30)
        with pytest.raises(RateLimitError):
            await refused
        assert fleet.stats().free == 0
        await fleet.stop(0)
        assert fleet.stats().free == 1


async def test_a_slot_that_comes_too_late(scripted: ScriptedClient, still: FakeClock) -> None:
    """The loop was busy until its deadline: it fails with what the server said."""
    async with SessionFleet(scripted, clock=still) as fleet:
        scripted.start_errors = [refusal(20)]
        refused = start(fleet, 1, deadline=30)
        await settle()
        still.advance(31)
        with pytest.raises(RateLimitError):
            await refused
        assert fleet.stats().free == 50
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("way", ["cancel", "stop", "close"])
async def test_it_can_be_called_off(scripted: ScriptedClient, still: FakeClock, way: str) -> None:
    """As one that waits for its first turn."""
    async with SessionFleet(scripted, max_live=1, clock=still) as fleet:
        scripted.start_errors = [refusal()]
        refused = start(fleet, 1)
        await settle()
        assert fleet.stats().waiting == 1
        if way == "cancel":
            refused.cancel()
        elif way == "stop":
            await fleet.stop(1)
        else:
            await fleet.aclose()
        await asyncio.wait([refused])
        await settle()
        assert (fleet.stats().waiting, fleet.stats().starting) == (0, 0)
        if way == "close":
            assert isinstance(refused.exception(), ClientClosedError)
        still.advance(20)
        assert fleet.stats().free == 1
    assert len(scripted.requests) == 1
