"""Stop a key's session from any worker: it ends, its holder lets go, and one worker tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from equos_async import (
    APIConnectionError,
    ClientClosedError,
    ConfigurationError,
    EquosError,
    KeyInUseError,
    LedgerError,
    LedgerRow,
    LiveSession,
    RedisLedger,
    SessionEnd,
    SessionFleet,
    SQLiteLedger,
    StartOutcomeUnknownError,
)
from equos_async.ledger.protocol import NOBODY
from equos_async.testing import EquosEmulator
from tests.clocks import FakeClock, eventually, until
from tests.fleet.support import REQUEST, Events, MemoryLedger, ScriptedClient
from tests.kinds import KINDS, Kind
from tests.ledger.conftest import RedisServer

UNTIL_TOLD = 1.0
"""Seconds in which a worker hears what concerns a session that is on its way: nothing shows it."""

Engine = SQLiteLedger | RedisLedger
Join = Callable[..., SessionFleet]


@pytest.fixture(params=["sqlite", "redis"])
async def engine(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[[], Engine]]:
    """Each call: another worker's view of one ledger."""
    is_redis = request.param == "redis"
    redis: RedisServer | None = request.getfixturevalue("redis") if is_redis else None
    async with AsyncExitStack() as stack:

        def view() -> Engine:
            one = RedisLedger(redis.url) if redis else SQLiteLedger(tmp_path / "ledger.db")
            stack.push_async_callback(one.aclose)
            return one

        yield view


@pytest.fixture
def ends() -> list[SessionEnd]:
    """What the ``on_end`` of all workers was called with."""
    return []


@pytest.fixture
def join(engine: Callable[[], Engine], scripted: ScriptedClient, ends: list[SessionEnd]) -> Join:
    """Another worker of the ledger."""

    def fleet(**settings: Any) -> SessionFleet:
        settings = {"client": scripted, "on_end": ends.append, **settings}
        return SessionFleet(ledger=engine(), **settings)

    return fleet


def outcomes(ends: list[SessionEnd]) -> list[tuple[object, str]]:
    """What was told."""
    return [(end.key, end.outcome) for end in ends]


async def test_a_live_session(join: Join, scripted: ScriptedClient, ends: list[SessionEnd]) -> None:
    """It has ended when stop() returns, its key is free, and its holder has let go of it."""
    events = Events()
    # Renewed so seldom that nobody learns of anything in that way.
    async with (
        join(on_event=events, max_live=1, lease=3600) as mine,
        join(max_live=1, lease=3600) as theirs,
    ):
        live = await mine.start(evolve(REQUEST, client="tenant"), key="a")
        await eventually(lambda: mine.worker is not None)
        assert await theirs.stop("a") is not None
        assert scripted.stopped == ["s1"], "stopped once"
        assert ends[0].outcome == "stopped_elsewhere"
        assert (ends[0].key, ends[0].session_id, ends[0].client) == ("a", "s1", "tenant")
        assert ends[0].last is not None
        assert str(theirs.worker) in ends[0].reason
        again = await theirs.start(REQUEST, key="a")
        end = await asyncio.wait_for(live.ended(), 60)
        assert (end.outcome, end.reason) == ("stopped_elsewhere", "another worker stopped it")
        assert mine.live == {}
        assert mine.stats().stopped_elsewhere == 1
        assert events.kinds == [("started", "a"), ("stopped_elsewhere", "a")]
        assert await mine.stop("a") is not None
        await asyncio.wait_for(again.ended(), 60)
    assert outcomes(ends) == [("a", "stopped_elsewhere")] * 2
    assert scripted.stopped == ["s1", "s2"]


async def test_a_session_that_was_marked(
    join: Join, scripted: ScriptedClient, ends: list[SessionEnd]
) -> None:
    """A webhook may reach any worker: nothing is sent, the holder lets go, and one tells of it."""
    async with join(max_live=1) as mine, join(max_live=1) as theirs:
        live = await mine.start(evolve(REQUEST, client="tenant"), key="a")
        assert not await theirs.mark_ended("another")
        assert await theirs.mark_ended("s1")
        assert not await theirs.mark_ended("s1")
        end = await asyncio.wait_for(live.ended(), 60)
        assert end.outcome == "stopped_elsewhere"
        assert scripted.stopped == []
        assert (ends[0].session_id, ends[0].client, ends[0].last) == ("s1", "tenant", None)
        assert f"on worker {theirs.worker}" in ends[0].reason
        await theirs.start(REQUEST, key="a")
    assert outcomes(ends) == [("a", "marked_ended"), ("a", "stopped")]


async def test_a_session_that_two_workers_mark(
    scripted: ScriptedClient, ends: list[SessionEnd], tmp_path: Path
) -> None:
    """The worker that removes its row reports its end; the other one does not."""

    class Slower(SQLiteLedger):
        async def rows(self) -> Sequence[LedgerRow]:
            found = await super().rows()
            for one in found:
                await super().remove(one.id, worker="the quicker one")
            return found

    path = tmp_path / "ledger.db"
    async with (
        SQLiteLedger(path) as ledger,
        Slower(path) as slower,
        SessionFleet(scripted, ledger=ledger) as mine,
        SessionFleet(scripted, ledger=slower, on_end=ends.append) as theirs,
    ):
        await mine.start(REQUEST, key="a")
        assert await theirs.mark_ended("s1")
    assert ends == []


@pytest.mark.parametrize("is_marked", [False, True], ids=["stop", "mark_ended"])
@pytest.mark.parametrize("lost", ["the step", "the answer"])
async def test_an_engine_that_fails_at_the_end(
    lost: str, is_marked: bool, scripted: ScriptedClient, ends: list[SessionEnd], tmp_path: Path
) -> None:
    """The session has ended: its row is removed when the engine is back, and one tells of it."""

    class Moody(SQLiteLedger):
        fails = False

        async def remove(self, row_id: str, *, worker: str | None = None) -> bool | None:
            if not self.fails:
                return await super().remove(row_id, worker=worker)
            self.fails = False
            if lost == "the answer":
                await super().remove(row_id, worker=worker)
            raise LedgerError("the engine is down")

    path, clock = tmp_path / "ledger.db", FakeClock()
    async with (
        SQLiteLedger(path) as ledger,
        Moody(path) as moody,
        SessionFleet(scripted, ledger=ledger, on_end=ends.append) as mine,
        SessionFleet(scripted, ledger=moody, on_end=ends.append, clock=clock) as theirs,
    ):
        live = await mine.start(REQUEST, key="a")
        moody.fails = True
        with pytest.raises(LedgerError):
            await (theirs.mark_ended("s1") if is_marked else theirs.stop("a"))
        async with asyncio.timeout(60):
            while not ends:
                clock.advance(1)
                await asyncio.sleep(0.001)
        assert (await live.ended()).outcome == "stopped_elsewhere"
    assert outcomes(ends) == [("a", "marked_ended" if is_marked else "stopped_elsewhere")]
    assert scripted.stopped == ([] if is_marked else ["s1"])


async def test_an_engine_that_is_back_as_the_fleet_closes(
    scripted: ScriptedClient, ends: list[SessionEnd], tmp_path: Path
) -> None:
    """Its row is removed on the way out."""

    class Moody(SQLiteLedger):
        fails = True

        async def remove(self, row_id: str, *, worker: str | None = None) -> bool | None:
            fails, self.fails = self.fails, False
            if fails:
                raise LedgerError("the engine is down")
            return await super().remove(row_id, worker=worker)

    path = tmp_path / "ledger.db"
    async with SQLiteLedger(path) as ledger, Moody(path) as moody:
        async with SessionFleet(scripted, ledger=ledger) as mine:
            live = await mine.start(REQUEST, key="a")
            async with SessionFleet(
                scripted, ledger=moody, on_end=ends.append, clock=FakeClock()
            ) as theirs:
                with pytest.raises(LedgerError):
                    await theirs.stop("a")
            assert (await live.ended()).outcome == "stopped_elsewhere"
    assert outcomes(ends) == [("a", "stopped_elsewhere")]


async def test_a_webhook_that_hangs_up(
    scripted: ScriptedClient, ends: list[SessionEnd], tmp_path: Path
) -> None:
    """Whoever sent it does not wait: the session's end is told all the same."""

    class Slow(SQLiteLedger):
        async def remove(self, row_id: str, *, worker: str | None = None) -> bool | None:
            removed = await super().remove(row_id, worker=worker)
            hook.cancel()
            await asyncio.sleep(0)
            return removed

    path = tmp_path / "ledger.db"
    async with (
        SQLiteLedger(path) as ledger,
        Slow(path) as slow,
        SessionFleet(scripted, ledger=ledger) as mine,
        SessionFleet(scripted, ledger=slow, on_end=ends.append) as theirs,
    ):
        await mine.start(REQUEST, key="a")
        hook = asyncio.create_task(theirs.mark_ended("s1"))
        await asyncio.wait([hook])
        assert hook.cancelled()
        await eventually(lambda: ends)
    assert outcomes(ends) == [("a", "marked_ended")]


async def test_a_stop_that_takes_long(
    join: Join, scripted: ScriptedClient, ends: list[SessionEnd]
) -> None:
    """A bill has all seconds until it was confirmed."""
    clock = FakeClock()
    async with join() as mine, join(clock=clock) as theirs:
        await mine.start(REQUEST, key="a")
        scripted.stops_go.clear()
        stopping = asyncio.create_task(theirs.stop("a"))
        await eventually(lambda: scripted.asked)
        clock.advance(30)
        scripted.stops_go.set()
        await stopping
    (end,) = ends
    assert 30 <= end.seconds < 40
    assert end.started_at is not None
    assert end.ended_at is not None
    assert (end.ended_at - end.started_at).total_seconds() == pytest.approx(end.seconds)


async def test_an_engine_that_marks_nothing(scripted: ScriptedClient) -> None:
    """Without keys in it a ledger is of no help."""
    async with SessionFleet(scripted, ledger=MemoryLedger()) as fleet:
        assert not await fleet.mark_ended("s1")


async def test_nothing_there(join: Join, scripted: ScriptedClient) -> None:
    """No worker has the key."""
    async with join() as mine, join() as theirs:
        await mine.start(REQUEST, key="a")
        assert await theirs.stop("b") is None
        assert await theirs.stop(1) is None
        with pytest.raises(ConfigurationError, match="key must be a string or an integer"):
            await theirs.stop(("a", 1))
        assert scripted.stopped == []


async def test_it_stays_where_it_cannot_be_stopped(
    join: Join, scripted: ScriptedClient, ends: list[SessionEnd]
) -> None:
    """The error is raised, and its holder still has it."""
    async with join() as mine, join() as theirs:
        live = await mine.start(REQUEST, key="a")
        scripted.stop_errors.append(APIConnectionError("down"))
        with pytest.raises(APIConnectionError):
            await theirs.stop("a")
        assert (live.state, dict(mine.live)) == ("live", {"a": live})
        with pytest.raises(KeyInUseError, match="stop it, or if") as taken:
            await theirs.start(REQUEST, key="a")
        assert (taken.value.holder, taken.value.session_id) == (mine.worker, "s1")
    assert outcomes(ends) == [("a", "stopped")]


async def test_both_at_once(join: Join, scripted: ScriptedClient, ends: list[SessionEnd]) -> None:
    """Only the worker that removes the row reports the end."""
    async with join() as mine, join() as theirs, join() as third:
        for n in range(5):
            live = await mine.start(REQUEST, key=n)
            await asyncio.gather(live.stop(), theirs.stop(n), third.stop(n), theirs.stop(n))
            await live.ended()
    assert len(ends) == 5
    assert {end.key for end in ends} == set(range(5))


async def test_its_holder_cannot_stop_it(
    engine: Callable[[], Engine],
    join: Join,
    ends: list[SessionEnd],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stop that fails while another worker's is confirmed is over all the same."""
    one, two, view, told = ScriptedClient(), ScriptedClient(), engine(), list[str]()
    record = view.record

    async def recorded(row: LedgerRow, *, seconds: float) -> str:
        told.append(await record(row, seconds=seconds))
        return told[-1]

    monkeypatch.setattr(view, "record", recorded)
    async with (
        SessionFleet(one, ledger=view, on_end=ends.append) as mine,
        join(client=two) as theirs,
    ):
        live = await mine.start(REQUEST, key="a")
        one.stops_go.clear()
        one.stop_errors.append(APIConnectionError("down"))
        stopping = asyncio.create_task(live.stop())
        await eventually(lambda: live.state == "stopping")
        await theirs.stop("a")
        await eventually(lambda: told[-1] == NOBODY)
        one.stops_go.set()
        assert await stopping is None
        assert live.state == "ended"
        assert mine.stats().live == 0
    assert outcomes(ends) == [("a", "stopped_elsewhere")]


async def test_a_start_in_the_queue(join: Join, scripted: ScriptedClient) -> None:
    """It is called off, and nothing is sent for it."""
    async with join(max_live=1) as mine, join(max_live=1) as theirs:
        await mine.start(REQUEST, key="a")
        waiting = asyncio.create_task(mine.start(REQUEST, key="b"))
        await eventually(lambda: mine.stats().waiting)
        assert await theirs.stop("b") is None
        with pytest.raises(EquosError, match="another worker came before the session was started"):
            await asyncio.wait_for(waiting, 30)
        assert mine.stats().waiting == 0
        assert len(scripted.requests) == 1


async def test_a_start_that_is_to_be_refused(join: Join, scripted: ScriptedClient) -> None:
    """Another worker has its key: that one's session is stopped, though a start was here."""
    async with join() as mine, join() as theirs:
        await mine.start(REQUEST, key="a")
        starting = asyncio.create_task(theirs.start(REQUEST, key="a"))
        await asyncio.sleep(0)
        assert await theirs.stop("a") is not None
        with pytest.raises(EquosError, match="before the session was live"):
            await starting
        assert scripted.live == {}


async def test_a_start_on_its_way(
    join: Join, scripted: ScriptedClient, ends: list[SessionEnd]
) -> None:
    """Its session is stopped when it comes, and its key is free when stop() returns."""
    async with join(max_live=1) as mine, join(max_live=1) as theirs:
        scripted.starts_go.clear()
        starting = asyncio.create_task(mine.start(REQUEST, key="a"))
        await eventually(lambda: scripted.requests)
        stopping = asyncio.create_task(theirs.stop("a"))
        await asyncio.sleep(UNTIL_TOLD)
        assert not stopping.done()
        scripted.starts_go.set()
        with pytest.raises(EquosError, match="another worker came before the session was started"):
            await asyncio.wait_for(starting, 30)
        await asyncio.wait_for(stopping, 30)
        assert scripted.live == {}
        assert await theirs.start(REQUEST, key="a", wait=False)
    assert len(ends) == 2


async def test_a_start_that_waits_for_its_own_fleet(
    engine: Callable[[], Engine], join: Join, scripted: ScriptedClient
) -> None:
    """It has its row, and no slot yet: it is called off there."""
    view = engine()
    async with join(max_live=1) as mine, join(max_live=1) as theirs:
        await mine.start(REQUEST, key="a")
        (row,) = await view.rows()
        await view.remove(row.id, worker=row.owner)  # as an engine that has lost it
        waiting = asyncio.create_task(mine.start(REQUEST, key="b"))
        await eventually(lambda: mine.stats().waiting)
        await theirs.stop("b")
        with pytest.raises(EquosError, match="another worker came before the session was started"):
            await asyncio.wait_for(waiting, 30)
        assert len(scripted.requests) == 1


async def test_a_start_of_unknown_outcome(
    engine: Callable[[], Engine], join: Join, scripted: ScriptedClient
) -> None:
    """A session may be running, and no worker can stop it: stop() says so in time."""
    clock = FakeClock()
    scripted.start_errors.append(StartOutcomeUnknownError("gone"))
    async with join() as mine, join(clock=clock) as theirs:
        with pytest.raises(StartOutcomeUnknownError):
            await mine.start(REQUEST, key="a")
        assert await mine.stop("a") is None
        stopping = asyncio.create_task(theirs.stop("a"))
        await eventually(lambda: any(0.04 < due < 0.06 for due in clock.due))
        clock.advance(60)
        with pytest.raises(EquosError, match=r"for key 'a' has no end: a session may be running"):
            await asyncio.wait_for(stopping, 30)
        assert mine.stats().live == 0


async def test_a_renewal_on_its_way(join: Join, scripted: ScriptedClient) -> None:
    """The old session is stopped, and its replacement is called off."""
    clock = FakeClock()

    def hand_over(old: LiveSession, new: LiveSession) -> None:
        raise AssertionError("it was called off")

    async with join(clock=clock) as mine, join() as theirs:
        live = await mine.start(REQUEST, key="a", renew=True, on_renewed=hand_over)
        scripted.starts_go.clear()
        clock.advance(570)
        await eventually(lambda: len(scripted.requests) == 2)
        stopping = asyncio.create_task(theirs.stop("a"))
        await asyncio.wait_for(live.ended(), 60)
        scripted.starts_go.set()
        await asyncio.wait_for(stopping, 30)
        await eventually(lambda: not scripted.live)


async def test_a_caller_that_is_cancelled(join: Join, scripted: ScriptedClient) -> None:
    """The stop goes on, as that of a fleet's own session does."""
    async with join() as mine, join() as theirs:
        live = await mine.start(REQUEST, key="a")
        scripted.stops_go.clear()
        stopping = asyncio.create_task(theirs.stop("a"))
        await eventually(lambda: scripted.asked)
        stopping.cancel()
        await asyncio.wait([stopping])
        scripted.stops_go.set()
        assert (await asyncio.wait_for(live.ended(), 60)).outcome == "stopped_elsewhere"


async def test_a_fleet_that_ends_meanwhile(join: Join, scripted: ScriptedClient) -> None:
    """The caller of a stop on another worker gets an error."""
    async with join() as mine:
        await mine.start(REQUEST, key="a")
        async with join() as theirs:
            scripted.stops_go.clear()
            stopping = asyncio.create_task(theirs.stop("a"))
            await eventually(lambda: scripted.asked)
        with pytest.raises(ClientClosedError, match="closed before the session was stopped"):
            await stopping
        scripted.stops_go.set()


async def test_rows_that_no_one_here_can_end(
    engine: Callable[[], Engine], join: Join, scripted: ScriptedClient
) -> None:
    """Another endpoint, or a resource that only a newer release knows."""
    other = engine()
    rows = {
        "abroad": LedgerRow(id="w/1", key="abroad", name="x", owner="w", endpoint="https://x.test"),
        "odd": LedgerRow(
            id="w/2", key="odd", name="x", owner="w", endpoint=scripted.endpoint, resource="odd"
        ),
    }
    await other.renew("w", lease=60)
    for row in rows.values():
        await other.record(evolve(row, session_id="s9"), seconds=600)
    async with join() as fleet:
        with pytest.raises(EquosError, match=r"session s9 of worker w is at https://x\.test"):
            await fleet.stop("abroad")
        with pytest.raises(EquosError, match="this release knows no 'odd' to end") as caught:
            await fleet.stop("odd")
        assert caught.value.session_id == "s9"
    assert scripted.stopped == []


async def test_a_ledger_that_fails(
    engine: Callable[[], Engine], join: Join, scripted: ScriptedClient, ends: list[SessionEnd]
) -> None:
    """It is said whether the session has ended; its own sessions are stopped all the same."""
    view = engine()
    row = LedgerRow(id="w/1", key="a", name="x", owner="w", endpoint=scripted.endpoint)
    await view.renew("w", lease=60)
    await view.record(evolve(row, session_id="s9"), seconds=600)
    theirs = engine()
    async with SessionFleet(scripted, ledger=theirs, on_end=ends.append) as fleet:
        scripted.stops_go.clear()
        stopping = asyncio.create_task(fleet.stop("a"))
        await eventually(lambda: scripted.asked)
        await theirs.aclose()
        scripted.stops_go.set()
        with pytest.raises(LedgerError, match="closed") as caught:
            await stopping
        assert (caught.value.operation, caught.value.session_id) == ("stop", "s9")
        assert scripted.stopped == ["s9"]
        with pytest.raises(LedgerError, match="closed"):
            await fleet.stop("b")
    assert ends == []


async def test_a_ledger_that_cannot(scripted: ScriptedClient) -> None:
    """With an engine without keys stop() is for this worker only, as without a ledger."""
    async with SessionFleet(scripted, ledger=MemoryLedger()) as fleet:
        await fleet.start(REQUEST, key="a")
        assert await fleet.stop("b") is None
        assert await fleet.stop("a") is not None


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
async def test_over_real_sockets(
    kind: Kind, emulator: EquosEmulator, engine: Callable[[], Engine], ends: list[SessionEnd]
) -> None:
    """Both resources, two clients, two workers: what was said last is there."""
    async with (
        kind.client(emulator.endpoint) as one,
        kind.client(emulator.endpoint) as two,
        SessionFleet(one, ledger=engine(), on_end=ends.append) as mine,
        SessionFleet(two, ledger=engine(), on_end=ends.append) as theirs,
    ):
        live = await mine.start(kind.request, key="a")
        ended = await theirs.stop("a")
        assert ended is not None
        assert ended.id == live.session_id
        await asyncio.wait_for(live.ended(), 60)
        assert emulator.live == {}
    assert [end.last for end in ends] == [ended]


async def test_a_person_stops_it(
    engine: Callable[[], Engine],
    join: Join,
    scripted: ScriptedClient,
    ends: list[SessionEnd],
) -> None:
    """By its id, and then by its row: its holder reports the end."""
    view = engine()
    async with join(max_live=1) as mine:
        live = await mine.start(REQUEST, key="a")
        (row,) = await view.rows()
        await scripted.stop_session(str(row.session_id))
        await view.remove(row.id)
        end = await asyncio.wait_for(live.ended(), 60)
        assert await mine.start(REQUEST, key="b", wait=False)
    assert ends[0] is end
    assert outcomes(ends) == [("a", "stopped_elsewhere"), ("b", "stopped")]


async def test_the_call_is_lost(tmp_path: Path, scripted: ScriptedClient) -> None:
    """A holder that was not told learns of it when it renews its lease."""

    class Deaf(SQLiteLedger):
        async def turns(self, worker: str) -> AsyncIterator[str]:
            await asyncio.get_running_loop().create_future()
            yield worker

    path, clock = tmp_path / "ledger.db", FakeClock()
    async with (
        Deaf(path) as one,
        SQLiteLedger(path) as two,
        SessionFleet(scripted, ledger=one, clock=clock) as mine,
        SessionFleet(scripted, ledger=two) as theirs,
    ):
        live = await mine.start(REQUEST, key="a")
        await theirs.stop("a")
        for _ in range(3):
            clock.advance(5)
            await until(lambda: live.state == "ended")
        assert (await live.ended()).outcome == "stopped_elsewhere"


async def test_the_stalled_worker_comes_first(
    engine: Callable[[], Engine], join: Join, ends: list[SessionEnd]
) -> None:
    """Its session was claimed, and it has stopped it before its claimer: one of them tells."""
    one, two, view = ScriptedClient(), ScriptedClient(), engine()
    async with join(client=one, clock=FakeClock()) as mine:
        live = await mine.start(REQUEST, key="a")
        await view.renew(str(mine.worker), lease=0)
        two.stops_go.clear()
        async with join(client=two, lease=0.3) as theirs:
            async with asyncio.timeout(60):
                while (await view.rows())[0].owner != theirs.worker:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await live.stop()
            two.stops_go.set()
            await eventually(lambda: theirs.stats().reaped == 1)
    assert outcomes(ends) == [("a", "stopped")]
