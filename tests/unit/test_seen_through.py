"""A stop that failed is asked for again, until it is confirmed or the session is over."""

from __future__ import annotations

import asyncio
from typing import Self

import pytest
from attrs import evolve

from equos_async import (
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    Event,
    NotFoundError,
    RetryPolicy,
)
from tests.clocks import FakeClock, settle, until
from tests.conftest import KEY, REQUEST
from tests.faults.server import Behaviour, Connection, RawServer, good

ONCE = RetryPolicy(stop_attempts=1)


class Fault:
    """Stops that are answered with a status, until it is mended."""

    def __init__(self, status: int) -> None:
        self.status = status

    async def __call__(self, connection: Connection) -> None:
        if self.status == 200 or connection.is_start:
            await good(connection)
        else:
            await connection.reply(self.status, b"{}")


class World:
    """A server, a client of it whose stop has failed, and its time."""

    def __init__(self, always: Behaviour, policy: RetryPolicy = ONCE) -> None:
        self.server = RawServer(always=always)
        self.clock = FakeClock(chance=1)
        self.events: list[Event] = []
        self.policy = policy

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        self.client = EquosClient(
            KEY,
            endpoint=self.server.endpoint,
            clock=self.clock,
            retry=self.policy,
            on_event=self.events.append,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        closing = asyncio.create_task(self.client.aclose(deadline=1))
        await settle()
        self.clock.advance(1)
        await closing
        await self.server.__aexit__(None, None, None)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events if event.kind != "ended"]

    async def answered(self) -> None:
        """Give the server time to answer: it is a real one, and knows nothing of the clock."""
        await settle(2000)

    async def fail(self, request: CreateSessionPassRequest = REQUEST) -> str:
        """Start a session whose stop fails."""
        started = await self.client.start_session(request)
        with pytest.raises(EquosError):
            await self.client.stop_session(started.session.id)
        await self.answered()
        return started.session.id

    async def ask(self, seconds: float) -> None:
        """Let time pass until the server has been asked once more."""
        before = self.server.requests
        self.clock.advance(seconds - 0.01)
        await settle()
        assert self.server.requests == before
        self.clock.advance(0.02)
        await until(lambda: self.server.requests > before)
        await self.answered()


async def test_it_is_asked_again_until_it_is_confirmed() -> None:
    """After 1, 2, 4 seconds and so on; then the entry is removed, and an event says so."""
    fault = Fault(503)
    async with World(fault) as world:
        session_id = await world.fail()
        await world.ask(1)
        await world.ask(2)
        assert [one.session_id for one in world.client.unresolved] == [session_id]
        fault.status = 200
        await world.ask(4)
        await until(lambda: not world.client.unresolved)
        assert world.server.live == set()
        assert world.kinds == ["stop_failed", "stopped_late"]
        late = world.events[-1]
        assert (late.session_id, late.attempts, late.status) == (session_id, 4, 200)
        assert late.seconds == pytest.approx(7, abs=0.1)


async def test_the_longest_wait_is_a_minute() -> None:
    """Then it is asked once a minute."""
    async with World(Fault(503)) as world:
        await world.fail(evolve(REQUEST, max_duration=None))
        for wait in (1, 2, 4, 8, 16, 32, 60, 60):
            await world.ask(wait)


async def test_it_ends_with_the_session() -> None:
    """The server has ended it by itself by then."""
    async with World(Fault(503)) as world:
        await world.fail(evolve(REQUEST, max_duration=2))
        await world.ask(1)
        world.clock.advance(3600)
        await world.answered()
        requests = world.server.requests
        world.clock.advance(3600)
        await world.answered()
        assert world.server.requests == requests
        assert len(world.client.unresolved) == 1


async def test_another_stop_settles_it() -> None:
    """It is not asked for again when a later stop was confirmed."""
    fault = Fault(503)
    async with World(fault) as world:
        session_id = await world.fail()
        with pytest.raises(EquosError):  # one that fails as well is not asked for twice
            await world.client.stop_session(session_id)
        fault.status = 200
        await world.client.stop_session(session_id)
        requests = world.server.requests
        world.clock.advance(60)
        await world.answered()
        assert (world.server.requests, world.client.unresolved) == (requests, ())


async def test_a_refusal_for_an_unknown_session_is_final() -> None:
    """An id that was not started here, and that the server refuses, may be a mistake."""
    async with World(Fault(404)) as world:
        with pytest.raises(NotFoundError):
            await world.client.stop_session("no-such-session")
        world.clock.advance(60)
        await world.answered()
        assert world.server.requests == 1


async def test_a_refusal_for_a_known_session_is_not() -> None:
    """The key may be corrected on the server, and a proxy may work again."""
    fault = Fault(401)
    async with World(fault) as world:
        await world.fail()
        fault.status = 200
        await world.ask(1)
        assert world.server.live == set()


async def test_closing_asks_at_once_and_more_often() -> None:
    """Until its deadline; then it is reported, as it was."""
    fault = Fault(503)
    async with World(fault) as world:
        await world.fail()
        for wait in (1, 2, 4):
            await world.ask(wait)
        before = world.server.requests
        world.clock.advance(1)  # the gate before retries opens
        closing = asyncio.create_task(world.client.aclose(deadline=5))
        await until(lambda: world.server.requests > before)
        await world.answered()
        fault.status = 200
        world.clock.advance(2)  # and not 8
        assert await closing == ()
        assert world.server.live == set()


async def test_closing_gives_up_at_its_deadline() -> None:
    """It waits for what may be mended, not for what was refused."""
    async with World(Fault(503)) as world:
        await world.fail()
        closing = asyncio.create_task(world.client.aclose(deadline=5))
        await world.answered()
        for _ in range(5):
            assert not closing.done()
            world.clock.advance(1)
            await world.answered()
        assert len(await closing) == 1
    async with World(Fault(403)) as world:
        await world.fail()
        assert len(await world.client.aclose(deadline=5)) == 1


async def test_a_shutdown_asks_at_once() -> None:
    """The task that rests is cancelled: it asks once more, within its grace."""
    fault = Fault(503)
    async with World(fault) as world:
        before = asyncio.all_tasks()
        await world.fail()
        (resting,) = asyncio.all_tasks() - before - world.server.tasks
        fault.status = 200
        resting.cancel()
        await asyncio.wait([resting])
        assert world.server.live == set()
        assert world.kinds == ["stop_failed", "stopped_late"]


async def test_a_shutdown_without_an_answer() -> None:
    """After its grace it is over."""
    async with World(Fault(503)) as world:
        before = asyncio.all_tasks()
        await world.fail()
        (resting,) = asyncio.all_tasks() - before - world.server.tasks
        resting.cancel()
        await world.answered()
        for _ in range(30):
            resting.cancel()
            world.clock.advance(0.5)
            await settle(50)
        assert resting.done()
        assert len(world.client.unresolved) == 1


async def test_a_stop_that_is_told_to_come_back_too_late() -> None:
    """It is tried once more before its deadline, and given up for its caller then."""

    async def later(connection: Connection) -> None:
        await connection.reply(503, b"", "Retry-After: 90\r\n")

    async with World(later, RetryPolicy()) as world:
        stop = asyncio.create_task(world.client.stop_session("g-1"))
        await until(lambda: "retry" in world.kinds)
        await settle()
        await world.ask(50)
        with pytest.raises(EquosError) as caught:
            await stop
        assert caught.value.attempts == 2
