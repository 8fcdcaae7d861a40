"""``on_end``: once for every session that was live, however it ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from attrs import evolve

from equos_async import (
    APIConnectionError,
    ConfigurationError,
    LiveSession,
    PermissionDeniedError,
    SessionEnd,
    SessionFleet,
    SessionLedger,
    StartOutcomeUnknownError,
)
from equos_async.testing import EquosEmulator
from tests.clocks import FakeClock, settle, until
from tests.fleet.support import REQUEST, MemoryLedger, ScriptedClient
from tests.kinds import KINDS, Kind


class Bill:
    """An ``on_end`` that remembers."""

    def __init__(self) -> None:
        self.ends: list[SessionEnd] = []

    def __call__(self, end: SessionEnd) -> None:
        self.ends.append(end)

    @property
    def outcomes(self) -> list[tuple[object, str]]:
        """What it was called for."""
        return [(end.key, end.outcome) for end in self.ends]


@pytest.fixture
def bill() -> Bill:
    """One of a test."""
    return Bill()


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
async def test_what_a_bill_needs(kind: Kind, emulator: EquosEmulator, bill: Bill) -> None:
    """Its key and client, how long it ran, and the server's last answer."""
    before = datetime.now(UTC)
    request = evolve(kind.request, client="tenant-42")
    async with (
        kind.client(emulator.endpoint) as client,
        SessionFleet(client, on_end=bill) as fleet,
    ):
        live = await fleet.start(request, key=7)
        assert bill.ends == []
        ended = await live.stop()
    (end,) = bill.ends
    assert (end.key, end.session_id, end.outcome) == (7, live.session_id, "stopped")
    assert (end.name, end.client, end.resource) == ("support call", "tenant-42", kind.word)
    assert end.last is ended
    assert end.last is not None
    assert end.started_at is not None
    assert end.ended_at is not None
    assert before <= end.started_at <= end.ended_at <= datetime.now(UTC)
    assert (end.ended_at - end.started_at).total_seconds() == pytest.approx(end.seconds, abs=1e-5)


async def test_all_ways(scripted: ScriptedClient, still: FakeClock, bill: Bill) -> None:
    """Each has an outcome of its own; what never was live is not told."""
    async with SessionFleet(scripted, clock=still, on_end=bill) as fleet:
        await (await fleet.start(REQUEST, key="a")).stop()
        gone = await fleet.start(REQUEST, key="b")
        scripted.live.clear()
        await gone.stop()
        await fleet.start(evolve(REQUEST, max_duration=5), key="c")
        still.advance(5)
        await settle()
        await fleet.start(REQUEST, key="d")
        await fleet.start(REQUEST, key="d", if_taken="replace")
        scripted.start_errors = [
            PermissionDeniedError("no", status=403),
            StartOutcomeUnknownError("?"),
        ]
        for key, error in (("e", PermissionDeniedError), ("f", StartOutcomeUnknownError)):
            with pytest.raises(error):
                await fleet.start(REQUEST, key=key)
        await fleet.start(evolve(REQUEST, max_duration=5), key="g")
        scripted.stop_errors = [APIConnectionError("down")] * 2
        with pytest.raises(APIConnectionError):
            await fleet.stop("g")
        assert ("g", "failed") not in bill.outcomes
        still.advance(5)
        await settle()
    assert bill.outcomes == [
        ("a", "stopped"),
        ("b", "already_ended"),
        ("c", "expired"),
        ("d", "replaced"),
        ("g", "failed"),
        ("d", "stopped"),
    ]
    assert [end.key for end in fleet.report.unresolved] == ["f"]


async def test_a_renewal(scripted: ScriptedClient, still: FakeClock, bill: Bill) -> None:
    """The old one is renewed; the new one has an end of its own."""

    def hand_over(_: LiveSession, __: LiveSession) -> None:
        """Nothing is to be moved."""

    async with SessionFleet(scripted, clock=still, on_end=bill, renew_before=10) as fleet:
        await fleet.start(REQUEST, key="k", renew=True, on_renewed=hand_over)
        still.advance(590)
        await settle()
    assert bill.outcomes == [("k", "renewed"), ("k", "stopped")]


async def test_a_caller_that_is_gone(scripted: ScriptedClient, bill: Bill) -> None:
    """Its session was live for a moment, and is billed."""
    scripted.starts_go.clear()
    async with SessionFleet(scripted, on_end=bill) as fleet:
        start = asyncio.create_task(fleet.start(REQUEST, key="k"))
        await settle()
        start.cancel()
        await settle()
        scripted.starts_go.set()
    assert bill.outcomes == [("k", "stopped")]


async def test_what_is_left_at_the_end(scripted: ScriptedClient, bill: Bill) -> None:
    """It is reported as unresolved, and not again when it ends later."""
    async with SessionFleet(scripted, on_end=bill, drain_deadline=0.05) as fleet:
        await fleet.start(REQUEST, key="slow")
        await fleet.start(REQUEST, key="down")
        scripted.stop_errors = [APIConnectionError("down")]
        with pytest.raises(APIConnectionError):
            await fleet.stop("down")
        scripted.stop_errors = [APIConnectionError("down")] * 2
        scripted.stops_go.clear()
    assert bill.outcomes == [("slow", "unresolved"), ("down", "unresolved")]
    scripted.stop_errors = []
    scripted.stops_go.set()
    await until(lambda: not scripted.live)
    await settle()
    assert len(bill.ends) == 2


@pytest.mark.parametrize("ledger", [None, MemoryLedger()], ids=["alone", "ledger"])
async def test_who_waits_for_one(scripted: ScriptedClient, ledger: SessionLedger | None) -> None:
    """They do not wait for ever where the fleet closes without knowing, and may ask again."""
    async with SessionFleet(scripted, drain_deadline=0, ledger=ledger) as fleet:
        live = await fleet.start(REQUEST, key="a")
        waiting = asyncio.create_task(live.ended())
        scripted.stops_go.clear()
    assert (await waiting).outcome == "unresolved"
    assert await live.ended() is await waiting
    assert live.state == "stopping"
    scripted.stops_go.set()
    await live.stop()
    assert (await live.ended()).outcome == "stopped"


async def test_a_drain_as_the_fleet_closes(scripted: ScriptedClient) -> None:
    """Its own deadline is none of the fleet's: what is stopped later is told as stopped."""
    ends: list[SessionEnd] = []
    async with SessionFleet(scripted, on_end=ends.append) as fleet:
        live = await fleet.start(REQUEST, key="a")
        scripted.stops_go.clear()
        closing = asyncio.create_task(fleet.aclose())
        await until(lambda: live.state == "stopping")
        assert len((await fleet.drain(0)).unresolved) == 1
        scripted.stops_go.set()
        assert len((await closing).stopped) == 1
    assert [end.outcome for end in ends] == ["stopped"]


async def test_a_coroutine_function(scripted: ScriptedClient) -> None:
    """A drain waits for it, and so does the fleet's end."""
    billed: list[object] = []

    async def on_end(end: SessionEnd) -> None:
        await asyncio.sleep(0.02)
        billed.append(end.key)

    async with SessionFleet(scripted, on_end=on_end) as fleet:
        await fleet.start(REQUEST, key=1)
        await fleet.start(REQUEST, key=2)
        await fleet.drain()
        assert billed == [1, 2]
        await fleet.start(REQUEST, key=3)
    assert billed == [1, 2, 3]


async def test_one_that_takes_too_long(scripted: ScriptedClient) -> None:
    """A drain waits for it until its deadline, the end of a fleet a moment longer."""
    go = asyncio.Event()

    async def on_end(_: SessionEnd) -> None:
        await go.wait()

    async with SessionFleet(scripted, on_end=on_end, drain_deadline=0) as fleet:
        await fleet.start(REQUEST, key=1)
        report = await fleet.drain(0.05)
        assert len(report.stopped) == 1
        asyncio.get_running_loop().call_later(0.1, go.set)
    assert go.is_set()


async def test_hooks_that_fail(scripted: ScriptedClient, caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is logged with the end that was not told; all else goes on."""

    async def later(how: BaseException) -> None:
        await asyncio.sleep(0)
        raise how

    def on_end(end: SessionEnd) -> Any:
        if end.key == "now":
            raise asyncio.CancelledError
        return later(asyncio.CancelledError() if end.key == "cancelled" else OSError("disk"))

    async with SessionFleet(scripted, on_end=on_end) as fleet:
        for key in ("now", "later", "cancelled"):
            await fleet.start(REQUEST, key=key)
    assert len(fleet.report.stopped) == 3
    assert "on_end raised for 'now' (session s1) stopped" in caplog.text
    assert "on_end raised for 'later' (session s2) stopped" in caplog.text
    assert "OSError: disk" in caplog.text
    assert "on_end was cancelled for 'cancelled' (session s3) stopped" in caplog.text


def test_one_that_ends_the_program() -> None:
    """It does so from the event loop, when all is written down."""
    ended: list[str] = []

    def on_end(_: SessionEnd) -> None:
        raise SystemExit(3)

    async def main() -> None:
        async with SessionFleet(ScriptedClient(), on_end=on_end) as fleet:
            live = await fleet.start(REQUEST, key=1)
            try:
                await live.stop()
                await asyncio.Event().wait()
            finally:
                ended.append(live.state)

    with pytest.raises(SystemExit):
        asyncio.run(main())
    assert ended == ["ended"]


async def test_what_cannot_be_called(scripted: ScriptedClient) -> None:
    """It is refused."""
    with pytest.raises(ConfigurationError, match="on_end must be callable, not int"):
        SessionFleet(scripted, on_end=cast("Any", 7))


async def test_one_that_failed_while_the_fleet_winds_down(
    scripted: ScriptedClient, still: FakeClock, bill: Bill
) -> None:
    """It was told when its time was over; the report has it, too, and it is not told again."""
    async with SessionFleet(scripted, clock=still, on_end=bill) as fleet:
        await fleet.start(evolve(REQUEST, max_duration=5), key="k")
        scripted.stop_errors = [APIConnectionError("down")]
        winding_down = asyncio.create_task(fleet.wind_down())
        await settle()
        still.advance(5)
        report = await winding_down
    assert [end.outcome for end in report.failed] == ["failed"]
    assert bill.outcomes == [("k", "failed")]
