"""A client that is closed before its fleet ends what that holds, and the fleet learns of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from equos_async import (
    ClientClosedError,
    EquosClient,
    Event,
    LedgerRow,
    RetryPolicy,
    SessionFleet,
)
from equos_async.testing import EquosEmulator, Status
from tests import wires
from tests.clocks import settle, until
from tests.fleet.support import REQUEST, Events, MemoryLedger
from tests.kinds import TALK


@pytest.fixture(params=wires.WIRES, autouse=True)
def _wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wire is closed under its fleet."""
    wires.take(request.param, monkeypatch)


def connect(emulator: EquosEmulator) -> EquosClient:
    """A client of both resources that asks once."""
    once = RetryPolicy(stop_attempts=1)
    return EquosClient("key", api_key="server", endpoint=emulator.endpoint, retry=once)


def stops(emulator: EquosEmulator) -> int:
    """How many stops came."""
    return sum(one.operation == "stop" for one in emulator.requests)


async def test_it_ends_what_the_fleet_holds(emulator: EquosEmulator, events: Events) -> None:
    """Sessions and conversations; slots and rows are free, and each end is reported once."""
    ends: list[Any] = []
    ledger, client = MemoryLedger(), connect(emulator)
    async with SessionFleet(
        client, max_live=2, ledger=ledger, on_end=ends.append, on_event=events
    ) as fleet:
        live = [await fleet.start(REQUEST, key=1), await fleet.start(TALK, key=2)]
        assert await client.aclose() == ()
        assert (emulator.live, client.unresolved) == ({}, ())
        assert [(await one.ended()).outcome for one in live] == ["stopped", "stopped"]
        assert (fleet.stats().free, ledger.held) == (2, {})
        with pytest.raises(ClientClosedError):
            await fleet.start(REQUEST, key=3)
    assert (fleet.report.left, stops(emulator)) == ((), 2)
    assert sorted(end.key for end in ends) == [1, 2]
    assert [kind for kind, _ in events.kinds if kind != "refused"].count("stopped") == 2


async def test_a_stop_that_fails(emulator: EquosEmulator) -> None:
    """Fleet and client report it: the session is not known to have ended."""
    emulator.faults.stop.add(Status(400), times=None)
    client = connect(emulator)
    async with SessionFleet(client) as fleet:
        live = await fleet.start(REQUEST, key=1)
        (left,) = await client.aclose()
        assert (left.session_id, live.state) == (live.session_id, "live")
    assert [end.outcome for end in fleet.report.left] == ["failed"]


async def test_what_the_fleet_ends_itself(emulator: EquosEmulator) -> None:
    """It is not stopped twice, whether its stop is over or in progress."""
    async with connect(emulator) as client, SessionFleet(client) as fleet:
        await (await fleet.start(REQUEST, key=1)).stop()
        live = await fleet.start(REQUEST, key=2)
        stopping = asyncio.create_task(live.stop())
        await until(lambda: live.state == "stopping")
        await client.aclose()
        assert await stopping is not None
    assert stops(emulator) == 2


async def test_a_fleet_that_was_never_left(emulator: EquosEmulator) -> None:
    """Its client sees to its sessions."""
    client = connect(emulator)
    fleet = SessionFleet(client)
    await fleet.open()
    await fleet.start(REQUEST, key=1)
    await client.aclose()
    assert emulator.live == {}
    await fleet.aclose()


async def test_before_a_caller_sees_its_answer(emulator: EquosEmulator) -> None:
    """The closing ends that session, and only once."""

    def close(event: Event) -> None:
        if event.kind == "ended" and event.operation == "start":
            closing: Any = client.aclose()
            closing.send(None)  # its first step, before the caller's turn
            closing.close()

    client = EquosClient("key", endpoint=emulator.endpoint, on_event=close)
    async with SessionFleet(client) as fleet:
        with pytest.raises(ClientClosedError):
            await fleet.start(REQUEST, key=1)
    await client.aclose()
    assert (emulator.live, stops(emulator)) == ({}, 1)


class HeldLedger(MemoryLedger):
    """A ledger that writes a session down when a test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def record(self, row: LedgerRow, *, seconds: float) -> str:
        self.asked.set()
        await self.go.wait()
        return await super().record(row, seconds=seconds)


async def test_while_a_row_is_written(emulator: EquosEmulator) -> None:
    """The caller of its start gets an error, and its row is removed."""
    ledger, client = HeldLedger(), connect(emulator)
    async with SessionFleet(client, max_live=1, ledger=ledger) as fleet:
        starting = asyncio.create_task(fleet.start(REQUEST, key=1))
        await ledger.asked.wait()
        await client.aclose()
        assert emulator.live == {}
        await settle()
        ledger.go.set()
        with pytest.raises(ClientClosedError) as caught:
            await starting
        assert caught.value.session_id in emulator.ended_sessions
        await until(lambda: fleet.stats().free)
        assert ledger.held == {}
    assert (fleet.report.left, stops(emulator)) == ((), 1)
