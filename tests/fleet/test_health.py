"""A fleet's health, and the sentence of each event."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from equos_async import (
    EquosClient,
    EquosError,
    FleetEvent,
    FleetHealth,
    LedgerError,
    OverloadedError,
    SessionFleet,
    SQLiteLedger,
    StartOutcomeUnknownError,
)
from equos_async.fleet.values import FleetEventKind
from equos_async.testing import EquosEmulator, Status
from tests.clocks import WALL, FakeClock, eventually, settle
from tests.fleet.support import REQUEST, ScriptedClient


async def test_a_fleet_that_works(scripted: ScriptedClient) -> None:
    """From before it is open until after it is closed."""
    fleet = SessionFleet(scripted, max_live=1)
    quiet = FleetHealth(accepting=False, free=1, waiting=0, paused_until=None, ledger=None)
    assert fleet.health() == quiet
    async with fleet:
        await fleet.start(REQUEST, key="a")
        waiting = asyncio.create_task(fleet.start(REQUEST, key="b"))
        await settle()
        busy = FleetHealth(accepting=True, free=0, waiting=1, paused_until=None, ledger=None)
        assert fleet.health() == busy
        waiting.cancel()
    assert fleet.health() == quiet


async def test_a_pause(emulator: EquosEmulator, still: FakeClock) -> None:
    """It says until when the server wants no starts."""
    emulator.faults.start.add(Status(429, retry_after=20))
    async with (
        EquosClient("key", endpoint=emulator.endpoint, clock=still, settle=None) as client,
        SessionFleet(client) as fleet,
    ):
        with pytest.raises(EquosError):
            await fleet.start(REQUEST, key="a", wait=False, deadline=10)
        with pytest.raises(OverloadedError):
            await fleet.start(REQUEST, key="a", wait=False, deadline=10)
        assert fleet.health().paused_until == datetime.fromtimestamp(WALL + 20, UTC)
        still.advance(20)
        assert fleet.health().paused_until is None


class BrokenLedger(SQLiteLedger):
    """A ledger that fails while a test wants it to."""

    is_broken = False

    async def renew(self, worker: str, *, lease: float) -> dict[str, str | None]:
        if self.is_broken:
            raise LedgerError("gone")
        return {**await super().renew(worker, lease=lease)}


async def test_a_ledger(scripted: ScriptedClient, tmp_path: Path) -> None:
    """It says whether the ledger answered last time."""
    async with (
        BrokenLedger(tmp_path / "ledger.db") as ledger,
        SessionFleet(scripted, ledger=ledger, lease=0.2) as fleet,
    ):
        assert fleet.health().ledger is True
        ledger.is_broken = True
        await eventually(lambda: fleet.health().ledger is False)
        ledger.is_broken = False
        await eventually(lambda: fleet.health().ledger is True)


def event(kind: FleetEventKind, session_id: str | None = None, reason: str = "") -> FleetEvent:
    """An event of three live sessions."""
    return FleetEvent(
        kind=kind, key="guild-1", live=3, waiting=1, session_id=session_id, reason=reason
    )


@pytest.mark.parametrize("kind", get_args(FleetEventKind))
def test_an_event_is_a_sentence(kind: FleetEventKind) -> None:
    """It names the key, and says what happened and how many there are."""
    told = str(event(kind, "s1", "why"))
    assert "'guild-1'" in told
    assert told.endswith(": why; 3 live, 1 waiting")
    assert "{" not in told


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (event("started", "s1"), "session s1 of 'guild-1' is live"),
        (event("failed", "s1", "503"), "session s1 of 'guild-1' could not be stopped: 503"),
        (
            event("unknown"),
            "the outcome of the start for 'guild-1' is unknown, and a session may be running",
        ),
    ],
)
def test_the_sentences(one: FleetEvent, told: str) -> None:
    """The sentences as they are logged."""
    assert str(one) == f"{told}; 3 live, 1 waiting"


async def test_a_hundred_lost_starts(
    scripted: ScriptedClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is one record with its fields; the report on the way out is short."""
    caplog.set_level(logging.DEBUG)
    told = "the connection was lost after the start had been sent: a billed session may exist"
    scripted.start_errors += [StartOutcomeUnknownError(told) for _ in range(100)]
    async with SessionFleet(scripted, max_live=100) as fleet:
        for number in range(100):
            with pytest.raises(StartOutcomeUnknownError):
                await fleet.start(REQUEST, key=f"guild-{number}-{'x' * 1000}")
    records = [vars(one) for one in caplog.records if "equos_event" in vars(one)]
    unknown = [one for one in records if one["equos_event"] == "unknown"]
    assert len(unknown) == 100
    assert unknown[0]["equos_key"].startswith("guild-0-")
    assert unknown[0]["equos_resource"] == "session"
    assert (unknown[-1]["equos_live"], unknown[-1]["equos_waiting"]) == (0, 0)
    report = str(fleet.report)
    assert "100 left" in report
    assert "and 90 more" in report
    assert len(report) < 3500
    assert len(repr(fleet.report)) < 3500
