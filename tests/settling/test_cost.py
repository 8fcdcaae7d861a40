"""The cost of a lost start for its caller, other callers and the server, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import pytest

from equos_async import Limits, Settle, StartOutcomeUnknownError
from equos_async.testing.faults import Delay, Drop, Fault, Status
from tests.clocks import FakeClock, until
from tests.settling.world import SETTLED, World, world

SESSION = SETTLED["session"]
SETTLED_OR_NOT: dict[tuple[str, int], tuple[Fault, ...]] = {
    ("settled", logging.INFO): (Delay(0),),
    ("settling_off", logging.WARNING): (Status(403),),
}
"""What is logged, and how looks are answered then."""


def lose(here: World, times: int = 1) -> None:
    """The server acts on the next starts, and its answers are lost."""
    here.emulator.faults.start.add(Drop("after"), times=times)


async def test_a_second_and_a_half() -> None:
    """A second until the look, half a second at most until the start is sent again.

    A client that closes then does not wait for the looks that are still to come.
    """
    clock = FakeClock()
    async with world(SESSION, clock=clock) as here:
        lose(here)
        starting = asyncio.create_task(here.start())
        await until(lambda: 1.0 in clock.due)
        clock.advance(1.0)
        await until(lambda: here.told("settled"))
        await until(lambda: here.told("retry"))
        clock.advance(0.5)
        session_id = await starting
        assert list(here.emulator.live) == [session_id]
        await here.kind.stop(here.client, session_id)
    sent = [one.operation for one in here.emulator.requests]
    assert sent[:5] == ["start", "read", "stop", "start", "stop"]


async def test_no_permit() -> None:
    """During the search another start is sent; the lost one is unknown in time."""
    clock = FakeClock()
    limits = Limits(start_connections=1)
    settle = Settle(patience=0.5)
    async with world(SESSION, clock=clock, limits=limits, settle=settle) as here:
        lose(here)
        starting = asyncio.create_task(here.start())
        await until(lambda: 1.0 in clock.due)
        other = await here.start()
        assert here.told("start_unknown") == []
        assert here.client.unresolved == ()
        clock.advance(0.5)
        with pytest.raises(StartOutcomeUnknownError):
            await starting
        assert here.told("start_unknown") == ["start_unknown"]
        await here.kind.stop(here.client, other)


async def test_a_pause_of_looks_is_none_of_starts() -> None:
    """During a pause of look-ups starts go on; the next look comes after it."""
    clock = FakeClock()
    async with world(SESSION, clock=clock, settle=Settle(patience=0)) as here:
        lose(here)
        with pytest.raises(StartOutcomeUnknownError):
            await here.start()
        here.emulator.faults.read.add(Status(429, retry_after=40), times=1)
        clock.advance(1.0)
        await until(lambda: here.told("paused"))
        other = await here.start()
        clock.advance(39.0)
        assert here.looks == 1
        clock.advance(2.0)
        await until(lambda: not here.client.unresolved)
        assert list(here.emulator.live) == [other]
        await here.kind.stop(here.client, other)


async def test_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A find is logged as INFO; that no search is possible, as a WARNING."""
    caplog.set_level(logging.INFO, logger="equos_async")
    clock = FakeClock()
    async with world(SESSION, clock=clock, settle=Settle(patience=0)) as here:
        for told, status in SETTLED_OR_NOT.items():
            lose(here)
            here.emulator.faults.read.add(*status, times=1)
            with pytest.raises(StartOutcomeUnknownError):
                await here.start()
            clock.advance(1.0)
            await until(partial(is_logged, caplog, told))
    assert levels(caplog) == list(SETTLED_OR_NOT)


def is_logged(caplog: pytest.LogCaptureFixture, told: tuple[str, int]) -> bool:
    """Whether it was."""
    return told in levels(caplog)


def levels(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """The log records about settling."""
    kinds = ((getattr(one, "equos_event", ""), one.levelno) for one in caplog.records)
    return [(kind, level) for kind, level in kinds if kind in {"settled", "settling_off"}]
