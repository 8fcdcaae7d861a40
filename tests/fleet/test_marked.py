"""For webhooks: find a session by its id, and mark it as ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from equos_async import EquosError, LiveSession, SessionEnd, SessionFleet, SQLiteLedger
from equos_async.testing import EquosEmulator
from tests.clocks import FakeClock, eventually, settle
from tests.fleet.support import REQUEST, Events, ScriptedClient
from tests.kinds import KINDS, Kind

Ledgers = tuple[SQLiteLedger, SQLiteLedger]


@pytest.fixture
async def ledgers(tmp_path: Path) -> AsyncIterator[Ledgers]:
    """Two workers' views of one ledger."""
    path = tmp_path / "ledger.db"
    async with SQLiteLedger(path) as mine, SQLiteLedger(path) as theirs:
        yield mine, theirs


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
async def test_by_session_id(kind: Kind, emulator: EquosEmulator) -> None:
    """A session or conversation is found by its id while it is live."""
    async with kind.client(emulator.endpoint) as client, SessionFleet(client) as fleet:
        live = await fleet.start(kind.request, key="a")
        assert fleet.by_session_id(live.session_id) is live
        assert fleet.by_session_id("another") is None
        await live.stop()
        assert fleet.by_session_id(live.session_id) is None


async def test_both_sides_of_a_renewal(scripted: ScriptedClient, still: FakeClock) -> None:
    """The session that is replaced is found, too, though its key has gone."""
    hand = asyncio.Event()

    async def take(_: LiveSession, __: LiveSession) -> None:
        await hand.wait()

    async with SessionFleet(scripted, clock=still) as fleet:
        old = await fleet.start(REQUEST, key=1, renew=True, on_renewed=take)
        still.advance(570)
        await settle()
        assert (fleet.by_session_id("s1"), fleet.by_session_id("s2")) == (old, fleet.live[1])
        hand.set()
        await settle()
        assert fleet.by_session_id("s1") is None


async def test_mark_ended(scripted: ScriptedClient, events: Events) -> None:
    """Nothing is sent; the slot and the key are free, and the end is reported."""
    ends: list[SessionEnd] = []
    async with SessionFleet(scripted, max_live=1, on_event=events, on_end=ends.append) as fleet:
        live = await fleet.start(REQUEST, key="a")
        assert await fleet.mark_ended("s1")
        assert (live.state, fleet.stats().free, dict(fleet.live)) == ("ended", 1, {})
        assert not await fleet.mark_ended("s1")
        assert await live.stop() is None
        await fleet.start(REQUEST, key="a", wait=False)
        assert scripted.stopped == []
        assert [(end.session_id, end.outcome) for end in ends] == [("s1", "marked_ended")]
        assert ends[0].reason == events.all[1].reason == "mark_ended() was called for it"
        report = await fleet.drain()
    assert [end.session_id for end in report.stopped] == ["s2"]
    assert events.kinds[:2] == [("started", "a"), ("stopped", "a")]


async def test_mark_ended_while_it_is_stopped(scripted: ScriptedClient) -> None:
    """The stop goes on; its failure does not matter any more."""
    async with SessionFleet(scripted) as fleet:
        live = await fleet.start(REQUEST, key="a")
        scripted.stops_go.clear()
        scripted.stop_errors.append(EquosError("no"))
        stop = asyncio.create_task(live.stop())
        await settle()
        marked = asyncio.create_task(fleet.mark_ended("s1"))
        await settle()
        assert live.state == "stopping"
        scripted.stops_go.set()
        assert await marked
        assert await stop is None
        assert (await live.ended()).outcome == "stopped"


async def test_a_drain_counts_what_was_marked(scripted: ScriptedClient) -> None:
    """For a report it had ended already."""
    async with SessionFleet(scripted) as fleet:
        await fleet.start(REQUEST, key="a")
        marked = asyncio.create_task(fleet.mark_ended("s1"))
        await asyncio.sleep(0)
        report = await fleet.drain()
        assert await marked
    assert [end.outcome for end in report.already_ended] == ["marked_ended"]


async def test_two_sessions_with_one_id(scripted: ScriptedClient) -> None:
    """A server that says the same id twice: the later one stays found when the first has ended."""
    async with SessionFleet(scripted) as fleet:
        first = await fleet.start(REQUEST, key="a")
        scripted.requests.clear()
        second = await fleet.start(REQUEST, key="b")
        assert first.session_id == second.session_id
        await first.stop()
        assert fleet.by_session_id("s1") is second


async def test_the_row_goes_as_well(scripted: ScriptedClient, ledgers: Ledgers) -> None:
    """With a ledger the key is free for other workers, after a stop and after a mark."""
    async with (
        SessionFleet(scripted, ledger=ledgers[0]) as fleet,
        SessionFleet(scripted, ledger=ledgers[1]) as elsewhere,
    ):
        live = await fleet.start(REQUEST, key="a")
        assert await fleet.mark_ended(live.session_id)
        await (await elsewhere.start(REQUEST, key="a")).stop()
        await fleet.start(REQUEST, key="a")
        await fleet.stop("a")
        await elsewhere.start(REQUEST, key="a")


@pytest.mark.parametrize("sent", [False, True])
async def test_the_key_of_a_start_that_was_called_off(
    sent: bool, scripted: ScriptedClient, ledgers: Ledgers
) -> None:
    """When ``stop`` returns, another worker can have the key, whatever the start's result was."""
    async with (
        SessionFleet(scripted, ledger=ledgers[0], max_live=2) as fleet,
        SessionFleet(scripted, ledger=ledgers[1], max_live=2) as elsewhere,
    ):
        await fleet.start(REQUEST, key="b")
        scripted.starts_go.clear()
        if not sent:
            fleet.resize(1)
        start = asyncio.create_task(fleet.start(REQUEST, key="a"))
        await eventually(lambda: fleet.stats().starting + fleet.stats().waiting)
        stop = asyncio.create_task(fleet.stop("a"))
        await settle()
        scripted.starts_go.set()
        await stop
        live = await elsewhere.start(REQUEST, key="a", wait=False)
        with pytest.raises(EquosError, match="stop"):
            await start
        assert dict(elsewhere.live) == {"a": live}
