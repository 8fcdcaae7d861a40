"""``client.resolve``: the client lets go of a session that the user has dealt with."""

from __future__ import annotations

import asyncio
import pickle
from typing import cast

import pytest

from equos_async import (
    ConfigurationError,
    EquosClient,
    EquosError,
    Event,
    RetryPolicy,
    SessionFleet,
    Settle,
    SQLiteLedger,
    StartOutcomeUnknownError,
    StartUnreadableError,
    Timeouts,
    Unresolved,
)
from equos_async._retry import search
from equos_async.testing import Delay, Drop, EquosEmulator, Hang, Lag, Status, Truncate
from tests.clocks import FakeClock, settle, until
from tests.conftest import KEY, REQUEST
from tests.settling.clock import SPEED, FastClock
from tests.settling.world import SETTLED, World, world

SESSION = SETTLED["session"]
SHORT = Timeouts(start_attempt=2, deadline=40)


async def lose(here: World) -> Unresolved:
    """Make a start of unknown outcome."""
    with pytest.raises(StartOutcomeUnknownError):
        await here.start()
    return here.client.unresolved[-1]


async def test_with_a_client_key_alone() -> None:
    """It is taken off once, by its id, also after a journey through a pickle."""
    async with EquosEmulator() as emulator, EquosClient(KEY, endpoint=emulator.endpoint) as client:
        emulator.faults.start.add(Drop("after"), times=2)
        for _ in range(2):
            with pytest.raises(StartOutcomeUnknownError):
                await client.start_session(REQUEST)
        first, second = client.unresolved
        assert first.id != second.id
        assert first.resource == "session"
        assert client.resolve(pickle.loads(pickle.dumps(first)))
        assert client.unresolved == (second,)
        assert not client.resolve(first)


async def test_the_oldest_of_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client lets go of it by itself: nothing waits for it, the closing client neither."""
    monkeypatch.setattr(search, "MAX_LOST", 1)
    async with world(SESSION, settle=Settle(patience=0.1, look_for=1e9)) as here:
        here.emulator.faults.start.add(Drop("before"), times=2)
        oldest, other = await lose(here), await lose(here)
        assert here.client.resolve(other)
        assert await here.client.aclose(deadline=1e8) == (oldest,)


@pytest.mark.parametrize("wrong", [None, "an id", 7])
async def test_something_else(wrong: object) -> None:
    """It is refused."""
    async with EquosClient(KEY) as client:
        with pytest.raises(ConfigurationError, match="unresolved must be"):
            client.resolve(cast("Unresolved", wrong))


async def test_it_is_not_looked_for_any_more() -> None:
    """The user may hold its session: it is not stopped."""
    async with world(SESSION, settle=Settle(patience=1.5)) as here:
        here.emulator.faults.start.add(Lag(3.5 / SPEED), Drop("after"), times=1)
        unresolved = await lose(here)
        assert here.client.resolve(unresolved)
        assert here.client.unresolved == ()
        await FastClock().sleep(10)
        assert here.looks == 1
        assert len(here.emulator.live) == 1
        assert here.told("settled", "start_unknown") == ["start_unknown"]


async def test_a_look_that_is_on_its_way_ends_nothing() -> None:
    """Its answer arrives after the start was resolved."""
    async with world(SESSION, settle=Settle(patience=0)) as here:
        here.emulator.faults.start.add(Drop("after"), times=1)
        here.emulator.faults.read.add(Delay(1 / SPEED, "after"))
        unresolved = await lose(here)
        await until(lambda: here.looks)
        assert here.client.resolve(unresolved)
        await FastClock().sleep(5)
        assert len(here.emulator.live) == 1


async def test_while_it_is_being_ended() -> None:
    """The client does it already."""
    async with world(SESSION, settle=Settle(patience=1.5)) as here:
        here.emulator.faults.start.add(Lag(3.5 / SPEED), Drop("after"), times=1)
        here.emulator.faults.stop.add(Delay(2 / SPEED), times=1)
        unresolved = await lose(here)
        await until(lambda: any(one.operation == "stop" for one in here.emulator.requests))
        assert not here.client.resolve(unresolved)
        await until(lambda: not here.client.unresolved)
        assert here.emulator.live == {}
        assert not here.client.resolve(unresolved)


async def test_after_the_looking() -> None:
    """As with a client key alone."""
    async with world(SESSION, settle=Settle(patience=0, look_for=1)) as here:
        here.emulator.faults.start.add(Drop("before"), times=1)
        unresolved = await lose(here)
        await FastClock().sleep(3)
        assert here.client.resolve(unresolved)
        assert here.client.unresolved == ()


@pytest.mark.parametrize("settle", [None, Settle(patience=0)], ids=["not looked for", "looked for"])
async def test_a_late_answer_is_ended_all_the_same(settle: Settle | None) -> None:
    """No one else can have the session in its answer."""
    async with world(SESSION, settle=settle, timeouts=Timeouts(start_attempt=2)) as here:
        here.emulator.faults.start.add(Lag(60), Delay(6 / SPEED, "after"), times=1)
        assert here.client.resolve(await lose(here))
        await until(lambda: here.emulator.ended_count)
        assert here.client.unresolved == ()


@pytest.mark.parametrize("settle", [None, Settle(patience=0)], ids=["not looked for", "looked for"])
async def test_by_whoever_hears_of_it(settle: Settle | None) -> None:
    """The hook resolves it before the caller has its error, which the caller still gets."""

    def resolve(event: Event) -> None:
        if event.kind == "start_unknown":
            assert here.client.resolve(here.client.unresolved[-1])

    async with world(SESSION, settle=settle, on_event=resolve) as here:
        here.emulator.faults.start.add(Drop("before"), times=1)
        with pytest.raises(StartOutcomeUnknownError):
            await here.start()
        assert here.client.unresolved == ()
        await FastClock().sleep(2)
        assert here.looks == 0


async def test_a_stop_that_failed_is_not_asked_for_again() -> None:
    """It would be, for an hour: the key may no longer stop it."""
    async with world(SESSION, retry=RetryPolicy(stop_attempts=1)) as here:
        session_id = await here.start()
        here.emulator.faults.stop.add(Status(403), times=None)
        with pytest.raises(EquosError):
            await here.client.stop_session(session_id)
        (unresolved,) = here.client.unresolved
        assert unresolved.id == session_id
        before = asyncio.all_tasks()
        assert here.client.resolve(unresolved)
        await until(lambda: len(asyncio.all_tasks()) < len(before))
        asked = len(here.emulator.requests)
        await FastClock().sleep(5)
        assert len(here.emulator.requests) == asked
        assert here.client.unresolved == ()


async def test_other_stops_go_on() -> None:
    """Only one of them was resolved."""
    clock = FakeClock()
    async with world(SESSION, retry=RetryPolicy(stop_attempts=1), clock=clock) as here:
        held = [await here.start(), await here.start()]
        here.emulator.faults.stop.add(Status(503), times=2)
        for session_id in held:
            with pytest.raises(EquosError):
                await here.client.stop_session(session_id)
        other, resolved = here.client.unresolved
        await settle()
        assert here.client.resolve(resolved)
        clock.advance(2)
        await until(lambda: not here.client.unresolved)
        assert other.id in here.emulator.ended_sessions
        assert list(here.emulator.live) == [resolved.id]


class TestOfAFleet:
    """Its slot, its seconds and its row are free at once."""

    async def test_a_start(self, tmp_path: object) -> None:
        """While its late answer is still listened for."""
        async with (
            EquosEmulator() as emulator,
            EquosClient(
                KEY, endpoint=emulator.endpoint, timeouts=SHORT, clock=FastClock()
            ) as client,
            SQLiteLedger(f"{tmp_path}/ledger.db") as ledger,
            SessionFleet(client, max_live=1, budget_seconds=600, ledger=ledger) as fleet,
        ):
            emulator.faults.start.add(Hang("before"), times=1)
            with pytest.raises(StartOutcomeUnknownError):
                await fleet.start(REQUEST, key="a")
            assert fleet.stats().free == 0
            assert len(await ledger.rows()) == 1
            assert client.resolve(client.unresolved[0])
            assert fleet.stats().free == 1
            assert fleet.stats().budget_left == 600
            live = await fleet.start(REQUEST, key="b")
            assert [row.session_id for row in await ledger.rows()] == [live.session.id]

    async def test_a_stop(self) -> None:
        """The session of a failed stop is over, and its slot is free."""
        async with (
            EquosEmulator() as emulator,
            EquosClient(KEY, endpoint=emulator.endpoint, clock=FastClock()) as client,
            SessionFleet(client, max_live=1) as fleet,
        ):
            live = await fleet.start(REQUEST, key="a")
            emulator.faults.stop.add(Status(403), times=1)
            with pytest.raises(EquosError):
                await live.stop()
            assert client.resolve(client.unresolved[0])
            await live.ended()
            assert fleet.stats().free == 1

    @pytest.mark.parametrize("is_resolved", [True, False], ids=["resolved", "ended"])
    async def test_a_stop_that_failed_twice(self, *, is_resolved: bool) -> None:
        """The fleet's, and then another one of the same session: it is over for both."""
        async with (
            EquosEmulator() as emulator,
            EquosClient(KEY, endpoint=emulator.endpoint, clock=FastClock()) as client,
            SessionFleet(client, max_live=1) as fleet,
        ):
            live = await fleet.start(REQUEST, key="a")
            emulator.faults.stop.add(Status(403), times=None)
            for stop in (live.stop(), client.stop_session(live.session.id)):
                with pytest.raises(EquosError):
                    await stop
            if is_resolved:
                (unresolved,) = client.unresolved
                assert client.resolve(unresolved)
            else:
                emulator.faults.stop.clear()
                await client.stop_session(live.session.id)
            await until(lambda: fleet.stats().free)
            assert client.unresolved == ()

    async def test_an_answer_that_cannot_be_read(self) -> None:
        """Its id could, and its stop failed."""
        async with (
            EquosEmulator() as emulator,
            EquosClient(KEY, endpoint=emulator.endpoint, clock=FastClock()) as client,
            SessionFleet(client, max_live=1) as fleet,
        ):
            emulator.faults.start.add(Truncate(keep=100), times=1)
            emulator.faults.stop.add(Status(403), times=None)
            with pytest.raises(StartUnreadableError):
                await fleet.start(REQUEST, key="a")
            await until(lambda: client.unresolved)
            for unresolved in client.unresolved:
                assert client.resolve(unresolved)
            await until(lambda: fleet.stats().free)
