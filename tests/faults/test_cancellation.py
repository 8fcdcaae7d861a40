"""Cancellation at any time and in any way leaves no session without a holder or a report.

The sweeps count steps of the event loop, not seconds, so that they hit every await.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp
import anyio
import pytest

from equos_async import (
    APITimeoutError,
    ClientClosedError,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    Event,
    StartOutcomeUnknownError,
    Timeouts,
)
from tests.clocks import FakeClock, settle, until
from tests.conftest import KEY
from tests.faults.server import Behaviour, Connection, RawServer, error_body, good
from tests.faults.test_matrix import ends
from tests.kinds import CONVERSATION, SESSION, Kind
from tests.unit.test_wire import dump

STEPS = 40
TIMEOUTS = Timeouts(start_attempt=0.1, stop_attempt=0.5, deadline=2)
"""For servers that do not answer, each of which is waited for in vain."""

AMPLE = Timeouts(start_attempt=10, stop_attempt=10, deadline=20)
"""For servers that do, on a machine that may be busy."""


async def slow(connection: Connection) -> None:
    """The answer takes a while."""
    body = connection.act()
    await asyncio.sleep(0.02)
    await connection.reply(connection.good_status, body)


async def broken(connection: Connection) -> None:
    """A failure after the server has acted, which the caller cannot see."""
    connection.act()
    await connection.reply(500, error_body(500, "Internal server error"))


SERVERS = {
    "at once": good,
    "slow": slow,
    "hang": ends("hang", act=True),
    "reset": ends("rst", act=True),
    "500": broken,
}

# Seconds that closing may take: what will be answered is waited for, what hangs is not.
PATIENCE = {"at once": 30, "slow": 30, "hang": 0.05, "reset": 30, "500": 30}

Work = Callable[[], Awaitable[None]]


async def steps(number: int) -> None:
    """Let the loop take a number of steps."""
    for _ in range(number):
        await asyncio.sleep(0)


async def by_cancel(work: Work, number: int) -> None:
    """``Task.cancel``."""
    task = asyncio.ensure_future(work())
    await steps(number)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


async def by_two_cancels(work: Work, number: int) -> None:
    """Twice, a step apart."""
    task = asyncio.ensure_future(work())
    await steps(number)
    task.cancel()
    await steps(1)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


async def by_timeout(work: Work, number: int) -> None:
    """``asyncio.timeout``."""

    async def expire(timeout: asyncio.Timeout) -> None:
        await steps(number)
        with suppress(RuntimeError):  # the work was done first
            timeout.reschedule(asyncio.get_running_loop().time())

    timeout = asyncio.timeout(30)
    expiring = asyncio.ensure_future(expire(timeout))
    with suppress(TimeoutError, EquosError):
        async with timeout:
            await work()
    await expiring


async def by_sibling(work: Work, number: int) -> None:
    """A sibling in a TaskGroup fails."""

    async def fail() -> None:
        await steps(number)
        raise ZeroDivisionError

    with suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(_coroutine(work))


async def _coroutine(work: Work) -> None:
    await work()


async def by_anyio(work: Work, number: int) -> None:
    """An anyio scope, which cancels again and again until it is left."""

    async def cancel(scope: anyio.CancelScope) -> None:
        await steps(number)
        scope.cancel()

    scope = anyio.move_on_after(30)
    cancelling = asyncio.ensure_future(cancel(scope))
    with suppress(EquosError), scope:
        await work()
    await cancelling


WAYS = {
    "cancel": by_cancel,
    "cancel twice": by_two_cancels,
    "timeout": by_timeout,
    "sibling": by_sibling,
    "anyio": by_anyio,
}


# Each way of sessions; one of conversations, for what they are made of is the same.
KINDS = [(way, SESSION) for way in WAYS] + [("cancel", CONVERSATION)]
with_kinds = pytest.mark.parametrize(
    ("way", "kind"), KINDS, ids=[f"{way}-{kind.word}" for way, kind in KINDS]
)


def only_starts(behave: Behaviour) -> Behaviour:
    """A fault of starts; stops work."""

    async def choose(connection: Connection) -> None:
        await (behave if connection.is_start else good)(connection)

    return choose


def judge(server: RawServer, client: EquosClient, held: set[str], *, answered: bool) -> None:
    """What is open is in the caller's hands, or reported; nothing was sent twice."""
    orphans = server.live - held
    if answered:
        assert orphans == set()
        assert client.unresolved == ()
    assert len(orphans) <= len(client.unresolved)
    assert len(server.made) <= 1


@with_kinds
@pytest.mark.parametrize("behave", SERVERS)
async def test_a_cancelled_start(behave: str, way: str, kind: Kind) -> None:
    """Cancelled at each step, its session is stopped, or its outcome is reported."""
    for number in range(STEPS):
        async with RawServer(always=only_starts(SERVERS[behave])) as server:
            timeouts = TIMEOUTS if behave == "hang" else AMPLE
            client = kind.client(server.endpoint, timeouts=timeouts)
            held: set[str] = set()

            async def start(client: EquosClient = client, held: set[str] = held) -> None:
                held.add(await kind.started_id(client))

            await WAYS[way](start, number)
            await client.aclose(deadline=PATIENCE[behave])
            judge(server, client, held, answered=behave in {"at once", "slow"})


@with_kinds
@pytest.mark.parametrize("behave", ["at once", "slow"])
async def test_a_cancelled_block(behave: str, way: str, kind: Kind) -> None:
    """Cancelled at each step, before, in and after its body, it leaves nothing."""
    for number in range(STEPS):
        async with RawServer(always=only_starts(SERVERS[behave])) as server:
            client = kind.client(server.endpoint, timeouts=AMPLE)

            async def block(client: EquosClient = client) -> None:
                async with kind.block(client, kind.request):
                    await steps(5)

            await WAYS[way](block, number)
            await client.aclose(deadline=30)
            judge(server, client, set(), answered=True)


@with_kinds
async def test_a_cancelled_stop_goes_on(way: str, kind: Kind) -> None:
    """The session is stopped, even if no caller waits for that any more."""
    for number in range(1, STEPS):
        async with RawServer() as server:
            server.live.add("g-1")
            client = kind.client(server.endpoint, timeouts=AMPLE)

            async def stop(client: EquosClient = client) -> None:
                await kind.stop(client, "g-1")

            await WAYS[way](stop, number)
            await client.aclose(deadline=30)
            assert server.live == set()
            assert client.unresolved == ()


async def test_cancelled_with_a_lent_session() -> None:
    """A start and a stop that go through a session of the user's: all the same."""
    for number in range(STEPS):
        async with (
            RawServer(always=only_starts(good)) as server,
            aiohttp.ClientSession() as lent,
        ):
            client = SESSION.client(server.endpoint, timeouts=AMPLE, http_session=lent)
            held: set[str] = set()

            async def pair(client: EquosClient = client, held: set[str] = held) -> None:
                held.add(await SESSION.started_id(client))
                await SESSION.stop(client, *held)
                held.clear()

            await by_cancel(pair, number)
            await client.aclose(deadline=30)
            judge(server, client, held, answered=True)
            assert not lent.closed


class Asked:
    """A key that is asked for, takes its time, and is another one each time."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self) -> str:
        self.times += 1
        number = self.times
        await steps(3)
        return f"key-number-{number}"


def only_newer_keys(behave: Behaviour) -> Behaviour:
    """The first key was revoked."""

    async def choose(connection: Connection) -> None:
        if b"key-number-1\r\n" in connection.head:
            await connection.reply(401, error_body(401, "Unauthorized"))
        else:
            await behave(connection)

    return choose


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_while_the_key_is_asked_for(
    way: str, request_: CreateSessionPassRequest
) -> None:
    """Before the first attempt, and after a 401, at each step: nothing is left."""
    for number in range(2 * STEPS):
        async with RawServer(always=only_newer_keys(good)) as server:
            client = EquosClient(Asked(), endpoint=server.endpoint, timeouts=AMPLE)
            held: set[str] = set()

            async def start(client: EquosClient = client, held: set[str] = held) -> None:
                held.add((await client.start_session(request_)).session.id)

            before = asyncio.all_tasks()
            await WAYS[way](start, number)
            await client.aclose(deadline=30)
            judge(server, client, held, answered=True)
            await settle(3)
            assert asyncio.all_tasks() - before - server.tasks == set()


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_look_leaves_nothing(way: str) -> None:
    """What only reads is cut off wherever it is."""
    for number in range(STEPS):
        async with RawServer(always=slow_look) as server:
            client = EquosClient(api_key=Asked(), endpoint=server.endpoint, timeouts=AMPLE)

            async def look(client: EquosClient = client) -> None:
                async for _ in client.sessions():
                    pass

            before = asyncio.all_tasks()
            await WAYS[way](look, number)
            await client.aclose(deadline=0)
            await settle(3)
            assert client.unresolved == ()
            assert asyncio.all_tasks() - before - server.tasks == set()


async def slow_look(connection: Connection) -> None:
    """A part of a list that takes a while, and is not the last."""
    await asyncio.sleep(0.005)
    ids = connection.server.requests
    page = {"sessions": [{"id": f"s-{ids}"}], "total": 3}
    await connection.reply(200, dump(page))


@pytest.mark.parametrize("behave", SERVERS)
async def test_cancelled_and_closed(behave: str, request_: CreateSessionPassRequest) -> None:
    """The client closes in the tick of the cancellation."""
    for number in range(STEPS):
        async with RawServer(always=only_starts(SERVERS[behave])) as server:
            timeouts = TIMEOUTS if behave == "hang" else AMPLE
            client = EquosClient(KEY, endpoint=server.endpoint, timeouts=timeouts)
            task = asyncio.create_task(client.start_session(request_))
            await steps(number)
            task.cancel()
            await client.aclose(deadline=PATIENCE[behave])
            held = set[str]()
            with suppress(asyncio.CancelledError, EquosError):
                held.add((await task).session.id)
            judge(server, client, held, answered=behave in {"at once", "slow"})


class CancelWithTheAnswer:
    """An ``on_event`` that cancels a caller between its answer being there and its being seen.

    A call's end is told before its caller wakes up.
    """

    def __init__(self) -> None:
        self.starting: list[asyncio.Task[object]] = []
        self.then: Callable[[], object] = list[object]

    def __call__(self, event: Event) -> None:
        if event.kind == "ended" and self.starting:
            self.starting.pop().cancel()
            self.then()


async def _begin(client: EquosClient, block: Any, request: CreateSessionPassRequest) -> object:
    return await (client.start_session(request) if block is None else block.__aenter__())


@pytest.mark.parametrize("in_block", [False, True])
async def test_result_and_cancellation_in_one_tick(
    in_block: bool, request_: CreateSessionPassRequest
) -> None:
    """The caller never sees a result that is there: its session is stopped."""
    cancel = CancelWithTheAnswer()
    async with RawServer() as server:
        async with EquosClient(KEY, endpoint=server.endpoint, on_event=cancel) as client:
            block = client.session(request_)
            task = asyncio.create_task(_begin(client, block if in_block else None, request_))
            cancel.starting.append(task)
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (server.made, server.live, server.requests) == (["s-0"], set(), 2)


async def test_result_and_cancellation_in_the_tick_of_giving_up(
    request_: CreateSessionPassRequest,
) -> None:
    """No caller gets the session, and there is no time to stop it: it is reported."""
    cancel, clock, go = CancelWithTheAnswer(), FakeClock(), asyncio.Event()

    async def held(connection: Connection) -> None:
        await go.wait()
        await good(connection)

    async with RawServer([held]) as server:
        client = EquosClient(KEY, endpoint=server.endpoint, on_event=cancel, clock=clock)
        task = asyncio.create_task(_begin(client, None, request_))
        await until(lambda: server.requests)
        closing = asyncio.create_task(client.aclose(deadline=1))
        await settle()
        cancel.starting.append(task)
        cancel.then = partial(clock.advance, 1)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        (unresolved,) = await closing
        assert unresolved.session_id == "s-0"


async def test_error_and_cancellation_in_one_tick(request_: CreateSessionPassRequest) -> None:
    """The caller is cancelled, the error is reported, and asyncio logs no unretrieved exception."""
    cancel = CancelWithTheAnswer()
    async with RawServer(always=only_starts(broken)) as server:
        async with EquosClient(KEY, endpoint=server.endpoint, on_event=cancel) as client:
            task = asyncio.create_task(_begin(client, None, request_))
            cancel.starting.append(task)
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(client.unresolved) == 1


async def test_three_hundred_random_cancels(request_: CreateSessionPassRequest) -> None:
    """One client, many callers, cancelled at random: nothing is left."""
    chance = random.Random(7)
    held: set[str] = set()
    async with RawServer(always=only_starts(slow)) as server:
        async with EquosClient(KEY, endpoint=server.endpoint) as client:

            async def start() -> None:
                held.add((await client.start_session(request_)).session.id)

            patient, *tasks = [asyncio.create_task(start()) for _ in range(301)]
            while any(not task.done() for task in tasks):
                await steps(chance.randrange(3))
                chance.choice(tasks).cancel()
                await asyncio.sleep(0.0005)
            await asyncio.gather(patient, *tasks, return_exceptions=True)
        assert server.live == held
        assert client.unresolved == ()
        assert 0 < len(held) < 300


async def test_closing_that_is_cancelled_goes_on(request_: CreateSessionPassRequest) -> None:
    """Its caller is gone, the stop that it waits for is done all the same."""
    async with RawServer(always=slow) as server:
        server.live.add("g-1")
        client = EquosClient(KEY, endpoint=server.endpoint)
        stop = asyncio.create_task(client.stop_session("g-1"))
        await until(lambda: server.requests)
        closing = asyncio.create_task(client.aclose())
        await settle(3)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert await stop is not None
        await client.aclose()
        assert repr(client).endswith("closed>")


async def test_closing_ends_in_the_tick_of_an_attempt() -> None:
    """Both ran out of time: an attempt's end is not taken for the end of the whole stop."""
    async with RawServer(always=ends("hang", act=False)) as server:
        clock = FakeClock()
        client = EquosClient(KEY, endpoint=server.endpoint, clock=clock)
        stop = asyncio.create_task(client.stop_session("g-1"))
        await until(lambda: server.requests)
        closing = asyncio.create_task(client.aclose(deadline=client.timeouts.stop_attempt))
        await settle()
        clock.advance(client.timeouts.stop_attempt)
        async with asyncio.timeout(30):
            await closing
        with pytest.raises(APITimeoutError, match="the client closed"):
            await stop
        assert server.requests == 1


async def test_no_stop_is_taken_when_the_time_to_close_is_over() -> None:
    """A caller that does not give up does not keep a client open that has."""
    async with RawServer(always=ends("hang", act=False)) as server:
        clock = FakeClock()
        client = EquosClient(KEY, endpoint=server.endpoint, clock=clock)

        async def insist() -> None:
            with pytest.raises(APITimeoutError):
                await client.stop_session("g-1")
            await client.stop_session("g-1")

        stop = asyncio.create_task(insist())
        await until(lambda: server.requests)
        closing = asyncio.create_task(client.aclose(deadline=1))
        await settle()
        clock.advance(1)
        async with asyncio.timeout(30):
            await closing
        with pytest.raises(ClientClosedError):
            await stop


class TestShutdown:
    """The event loop shuts down under the client, as ``asyncio.run`` does on Ctrl-C."""

    def run(self, main: Callable[[RawServer], Awaitable[None]], server: RawServer) -> None:
        """Run a program, and then what ``asyncio.run`` does at its end, around a live server."""

        async def program() -> None:
            async with server:
                await main(server)
                me = asyncio.current_task()
                theirs = server.tasks | {me}
                ours = [task for task in asyncio.all_tasks() if task not in theirs]
                for task in ours:
                    task.cancel()
                await asyncio.gather(*ours, return_exceptions=True)

        asyncio.run(program())

    def test_a_stop_in_flight_is_finished(self) -> None:
        """It survives its task's cancellation, over another connection."""
        server = RawServer([slow])
        server.live.add("g-1")
        clients: list[EquosClient] = []

        async def main(server: RawServer) -> None:
            client = EquosClient(KEY, endpoint=server.endpoint)
            clients.append(client)
            stopping = asyncio.create_task(client.stop_session("g-1"))
            await until(lambda: server.requests)
            stopping.cancel()
            closing = asyncio.create_task(client.aclose())
            await settle(2)
            closing.cancel()

        self.run(main, server)
        assert server.live == set()
        assert server.requests == 2
        assert clients[0].unresolved == ()
        assert repr(clients[0]).endswith("closed>")

    def test_a_stop_that_is_cancelled_again_and_again(self) -> None:
        """A handler of a signal cancels all tasks, and ``asyncio.run`` again: one grace for all.

        When it is over, the session is reported.
        """
        server = RawServer(always=ends("hang", act=False))
        events: list[Event] = []
        clock = FakeClock()

        async def main(server: RawServer) -> None:
            client = EquosClient(KEY, endpoint=server.endpoint, on_event=events.append, clock=clock)
            before = asyncio.all_tasks()
            stopping = asyncio.create_task(client.stop_session("g-1"))
            await until(lambda: server.requests)
            (carrying,) = asyncio.all_tasks() - before - server.tasks - {stopping}
            carrying.cancel()
            await until(lambda: server.requests == 2)
            for _ in range(3):
                carrying.cancel()
                await settle(3)
            assert not stopping.done()
            clock.advance(10)
            with pytest.raises((asyncio.CancelledError, APITimeoutError)):
                await stopping
            (left,) = await client.aclose()
            assert (left.operation, left.session_id) == ("stop", "g-1")

        self.run(main, server)
        (failed,) = [event for event in events if event.kind == "stop_failed"]
        assert failed.attempts == 2

    def test_a_start_in_flight_is_ended(self, request_: CreateSessionPassRequest) -> None:
        """Its answer is awaited, although every task is cancelled; its session is ended."""
        server = RawServer([slow])
        tasks: list[asyncio.Task[object]] = []

        async def main(server: RawServer) -> None:
            client = EquosClient(KEY, endpoint=server.endpoint)
            tasks.append(asyncio.create_task(client.start_session(request_)))
            await until(lambda: server.requests)
            tasks.append(asyncio.create_task(client.aclose()))
            await settle(2)

        self.run(main, server)
        assert (server.made, server.live) == (["s-0"], set())

    def test_a_start_in_flight_that_is_not_answered(
        self, request_: CreateSessionPassRequest
    ) -> None:
        """After its grace its outcome is unknown, and says so."""
        server = RawServer([ends("hang", act=True)])
        clients: list[EquosClient] = []
        clock = FakeClock()

        async def main(server: RawServer) -> None:
            client = EquosClient(KEY, endpoint=server.endpoint, clock=clock)
            clients.append(client)
            before = asyncio.all_tasks()
            starting = asyncio.create_task(client.start_session(request_))
            await until(lambda: server.requests)
            (call,) = asyncio.all_tasks() - before - server.tasks - {starting}
            closing = asyncio.create_task(client.aclose(deadline=60))
            await settle(2)
            call.cancel()
            await settle(2)
            assert not starting.done()
            clock.advance(10)
            with pytest.raises(StartOutcomeUnknownError, match="the event loop shut down"):
                await starting
            await closing

        self.run(main, server)
        assert [one.name for one in clients[0].unresolved] == ["support call"]

    def test_a_stop_that_has_not_begun(self) -> None:
        """A task that is cancelled before its first step would run no code: it begins."""
        server = RawServer()
        server.live.add("g-1")
        clients: list[EquosClient] = []

        async def main(server: RawServer) -> None:
            client = EquosClient(KEY, endpoint=server.endpoint)
            clients.append(client)
            before = asyncio.all_tasks()
            stopping = asyncio.create_task(client.stop_session("g-1"))
            await steps(1)
            (call,) = asyncio.all_tasks() - before - {stopping}
            call.cancel()
            assert await stopping is not None
            await client.aclose()

        self.run(main, server)
        assert clients[0].unresolved == ()
        assert (server.requests, server.live) == (1, set())


PROGRAM = """
import asyncio
from tests.conftest import KEY
from tests.faults.server import RawServer
from tests.faults.test_cancellation import AMPLE, by_cancel, only_starts, slow
from equos_async import CreateSessionPassRequest, EquosClient, EquosParticipantIdentity

ADA = EquosParticipantIdentity(identity="user-7", name="Ada")
CALL = CreateSessionPassRequest(name="x", avatar="a", agent="b", consumer_identity=ADA)

async def main():
    for number in range(40):
        held = set()  # where the machine is so busy that the answer comes within these steps
        async with RawServer(always=only_starts(slow)) as server:
            async with EquosClient(KEY, endpoint=server.endpoint, timeouts=AMPLE) as client:

                async def start():
                    held.add((await client.start_session(CALL)).session.id)

                await by_cancel(start, number)
        assert server.live == held
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not tasks, tasks

asyncio.run(main(), debug=True)
"""


def test_nothing_is_left_behind_in_development_mode() -> None:
    """No pending task, nothing never retrieved, no warning, with all of Python's checks on."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
    )
    slow_steps = [line for line in done.stderr.splitlines() if "Executing <" not in line]
    assert (done.returncode, slow_steps) == (0, [])


async def test_a_start_is_listened_to_without_its_caller(
    request_: CreateSessionPassRequest,
) -> None:
    """Its answer comes after the attempt's time and before its deadline: its session is ended."""
    over = asyncio.Event()

    async def late(connection: Connection) -> None:
        body = connection.act()
        await over.wait()
        await connection.reply(201, body)

    clock = FakeClock()
    async with RawServer([late]) as server:
        client = EquosClient(KEY, endpoint=server.endpoint, clock=clock, timeouts=AMPLE)
        task = asyncio.create_task(client.start_session(request_))
        await until(lambda: server.requests)
        task.cancel()
        await asyncio.wait([task])
        clock.advance(AMPLE.start_attempt + 1)
        await settle()
        over.set()
        await client.aclose()
        assert (server.made, server.live) == (["s-0"], set())
        assert client.unresolved == ()
