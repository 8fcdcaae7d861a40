"""A fleet's drain while its client looks for what it lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from equos_async import (
    EquosClient,
    EquosError,
    SessionFleet,
    Settle,
    SQLiteLedger,
    StartOutcomeUnknownError,
)
from equos_async.testing import Drop, EquosEmulator, Lag, Status
from tests.clocks import FakeClock, until
from tests.conftest import API_KEY, KEY, REQUEST
from tests.settling.clock import SPEED, ServerClock
from tests.settling.test_fleet import make


async def lose(fleet: SessionFleet) -> None:
    """A start whose caller gets ``StartOutcomeUnknownError``."""
    with pytest.raises(StartOutcomeUnknownError):
        await fleet.start(REQUEST, key=1)
    assert fleet.stats().unknown == 1


async def test_it_looks_at_once_and_nothing_is_left() -> None:
    """It stops what it finds before it reports, without a wait."""
    async with EquosEmulator(clock=ServerClock()) as emulator:
        emulator.faults.start.add(Drop("after"), times=1)
        client = EquosClient(
            KEY,
            api_key=API_KEY,
            endpoint=emulator.endpoint,
            settle=Settle(patience=0),
            clock=FakeClock(),
        )
        async with client, SessionFleet(client) as fleet:
            await lose(fleet)
            report = await fleet.drain(10)
            assert (report.left, emulator.live, client.unresolved) == ((), {}, ())
            assert [one.operation for one in emulator.requests] == ["start", "read", "stop"]


async def test_what_is_not_found_is_reported() -> None:
    """It is reported when the search has taken its time, before the drain's deadline."""
    async with EquosEmulator(clock=ServerClock()) as emulator:
        emulator.faults.start.add(Drop("before"), times=1)
        async with (
            make(emulator, Settle(patience=1.5, look_for=6)) as client,
            SessionFleet(client) as fleet,
        ):
            await lose(fleet)
            report = await fleet.drain(1e6)
            (left,) = report.left
            assert left.outcome == "unresolved"
            assert "no usable answer came" in left.reason
            assert await fleet.drain(1e6) == report  # nothing more is looked for


async def test_its_time_is_over_first() -> None:
    """Then it is reported as unresolved, and the search goes on."""
    async with EquosEmulator(clock=ServerClock()) as emulator:
        emulator.faults.start.add(Lag(20 / SPEED), Drop("after"), times=1)
        async with (
            make(emulator, Settle(patience=0, look_for=60)) as client,
            SessionFleet(client) as fleet,
        ):
            free = fleet.stats().free
            await lose(fleet)
            (left,) = (await fleet.drain(0)).left
            assert "no usable answer came" in left.reason
            await until(lambda: fleet.stats().free == free)
            assert emulator.live == {}


@pytest.mark.parametrize("lag", [4, 40])
async def test_a_start_that_is_looked_for_is_not_sent_again(lag: float) -> None:
    """Whether its caller still waits, or gets its error meanwhile."""
    async with EquosEmulator(clock=ServerClock()) as emulator:
        emulator.faults.start.add(Lag(lag / SPEED), Drop("after"), times=1)
        async with (
            make(emulator, Settle(patience=20, look_for=60)) as client,
            SessionFleet(client) as fleet,
        ):
            starting = asyncio.create_task(fleet.start(REQUEST, key=1))
            await until(lambda: any(one.operation == "read" for one in emulator.requests))
            report = await fleet.drain(1e6)
            assert report.left == ()
            with pytest.raises(EquosError):
                await starting
            assert emulator.live == {}
            assert sum(one.operation == "start" for one in emulator.requests) == 1


@pytest.mark.parametrize("drain", [1e4, 0], ids=["found by the drain", "found by the closing"])
async def test_no_row_is_left_of_what_was_found(tmp_path: Path, drain: float) -> None:
    """A fleet is left while its starts are searched for; then its client is closed."""
    path = tmp_path / "ledger.db"
    async with EquosEmulator(clock=ServerClock()) as emulator:
        emulator.faults.start.add(Drop("after"), times=3)
        emulator.faults.read.add(Status(500), times=None)
        async with (
            SQLiteLedger(path) as ledger,
            make(emulator, Settle(patience=1.5, look_for=1e4)) as client,
        ):
            async with SessionFleet(client, ledger=ledger, drain_deadline=drain) as fleet:
                starts = [fleet.start(REQUEST, key=key) for key in range(3)]
                told = await asyncio.gather(*starts, return_exceptions=True)
                assert {type(one) for one in told} == {StartOutcomeUnknownError}
                assert len(await ledger.rows()) == 3
                if drain:
                    emulator.faults.read.clear()
            assert len(fleet.report.left) == len(await ledger.rows()) == (0 if drain else 3)
            emulator.faults.read.clear()
        assert (emulator.live, client.unresolved) == ({}, ())
        async with SQLiteLedger(path) as ledger:
            assert await ledger.rows() == []
