"""Each way out of a program gives what is on the wire its moment."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import aiohttp
import pytest

from equos_async import (
    ClientClosedError,
    CreateSessionPassRequest,
    EquosClient,
    Event,
    SessionFleet,
    StartOutcomeUnknownError,
)
from equos_async.clock import Clock
from equos_async.testing import Delay, Drop, EquosEmulator, Status
from tests.clocks import FakeClock, eventually, settle, until
from tests.conftest import API_KEY, KEY
from tests.faults.loops import LOOPS, Loop
from tests.faults.server import Connection, RawServer, good
from tests.faults.test_cancellation import only_starts, slow

Behave = Any
on_each_loop = pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)


def gated(go: asyncio.Event) -> Behave:
    """A start that is carried out, and answered when a test says."""

    async def behave(connection: Connection) -> None:
        body = connection.act()
        await go.wait()
        await connection.reply(connection.good_status, body)

    return only_starts(behave)


async def good_after(go: asyncio.Event, connection: Connection) -> None:
    """As the contract says, once something has happened."""
    await go.wait()
    await good(connection)


class TestClosing:
    async def test_a_bare_start_that_is_answered(self, request_: CreateSessionPassRequest) -> None:
        """Its caller could not stop it any more: it is refused, and its session ended."""
        go = asyncio.Event()
        async with RawServer(always=gated(go)) as server:
            client = EquosClient(KEY, endpoint=server.endpoint)
            start = asyncio.create_task(client.start_session(request_))
            await until(lambda: server.requests)
            closing = asyncio.create_task(client.aclose())
            await settle()
            go.set()
            with pytest.raises(ClientClosedError) as caught:
                await start
            assert await closing == ()
            assert (server.made, server.live) == ([caught.value.session_id], set())

    async def test_a_start_whose_answer_its_caller_has_not_seen(
        self, request_: CreateSessionPassRequest
    ) -> None:
        """The client begins to close between the answer and the caller's turn."""

        def close(event: Event) -> None:
            if event.kind == "ended" and event.operation == "start":
                closing: Any = client.aclose()
                closing.send(None)  # its first step, before the caller's turn
                closing.close()

        async with RawServer() as server:
            client = EquosClient(KEY, endpoint=server.endpoint, on_event=close)
            with pytest.raises(ClientClosedError) as caught:
                await client.start_session(request_)
            assert caught.value.session_id == "s-0"
            await client.aclose()
            assert (server.made, server.live) == (["s-0"], set())

    async def test_each_caller_has_a_deadline_of_its_own(self) -> None:
        """The shorter one returns with what is still under way; the longer one sees it done."""
        go, clock = asyncio.Event(), FakeClock()
        async with RawServer([partial(good_after, go)]) as server:
            server.live.add("g-1")
            client = EquosClient(KEY, endpoint=server.endpoint, clock=clock)
            stop = asyncio.create_task(client.stop_session("g-1"))
            await until(lambda: server.requests)
            first = asyncio.create_task(client.aclose(deadline=5))
            await settle()
            second = asyncio.create_task(client.aclose(deadline=1))
            await settle()
            clock.advance(1)
            (pending,) = await second
            assert (pending.session_id, pending.reason) == ("g-1", "it is still under way")
            assert not first.done()
            go.set()
            assert await first == ()
            assert await stop is not None
            assert await client.aclose(deadline=0) == ()

    async def test_its_timers_ring_in_any_order(self, request_: CreateSessionPassRequest) -> None:
        """Of two for one time uvloop may ring the second first: the client gives up all the same.

        Here the first of each two is late.
        """

        class Uneven(FakeClock):
            def __init__(self) -> None:
                super().__init__()
                self.seen = set[float]()

            def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Any:
                late = 0.0 if when in self.seen else 0.001
                self.seen.add(when)
                return super().call_at(when + late, callback, *args)

        clock = Uneven()
        async with RawServer(always=gated(asyncio.Event())) as server:
            client = EquosClient(KEY, endpoint=server.endpoint, clock=clock)
            start = asyncio.create_task(client.start_session(request_))
            await until(lambda: server.requests)
            closing = asyncio.create_task(client.aclose(deadline=5))
            await settle()
            clock.advance(5)
            assert await closing == client.unresolved
            assert [left.name for left in client.unresolved] == [request_.name]
            with pytest.raises(StartOutcomeUnknownError):
                await start

    async def test_a_longer_deadline_holds_for_the_calls(self) -> None:
        """A later closer with a later deadline gives the calls more time."""
        go, clock = asyncio.Event(), FakeClock()
        async with RawServer([partial(good_after, go)]) as server:
            server.live.add("g-1")
            client = EquosClient(KEY, endpoint=server.endpoint, clock=clock)
            stop = asyncio.create_task(client.stop_session("g-1"))
            await until(lambda: server.requests)
            first = asyncio.create_task(client.aclose(deadline=1))
            await settle()
            second = asyncio.create_task(client.aclose(deadline=5))
            await settle()
            clock.advance(1)
            assert len(await first) == 1
            go.set()
            assert await second == ()
            assert await stop is not None


class TestCoroutinesThatAreClosed:
    async def leave(self, start: Callable[[], Any], server: RawServer) -> None:
        """Let a coroutine wait for a start that was sent, and close it."""
        coroutine = start()
        future = coroutine.send(None)
        assert isinstance(future, asyncio.Future)
        await until(lambda: server.requests)
        coroutine.close()

    async def test_after_it_was_sent(self, request_: CreateSessionPassRequest) -> None:
        """Its caller is gone: the session is ended."""
        async with RawServer(always=only_starts(slow)) as server:
            async with EquosClient(KEY, endpoint=server.endpoint) as client:
                await self.leave(lambda: client.start_session(request_), server)
            assert (server.made, server.live) == (["s-0"], set())
            assert client.unresolved == ()

    async def test_before_it_was_sent(self, request_: CreateSessionPassRequest) -> None:
        """Nothing goes out."""
        async with RawServer() as server:
            async with EquosClient(KEY, endpoint=server.endpoint) as client:
                coroutine: Any = client.start_session(request_)
                coroutine.send(None)
                coroutine.close()
                await settle()
            assert server.requests == 0

    async def test_collected(self, request_: CreateSessionPassRequest) -> None:
        """The same for a client that was garbage-collected."""
        async with RawServer(always=only_starts(slow)) as server:
            async with EquosClient(KEY, endpoint=server.endpoint) as client:
                coroutine: Any = client.start_session(request_)
                coroutine.send(None)
                await until(lambda: server.requests)
                del coroutine
                gc.collect()
            assert (server.made, server.live) == (["s-0"], set())

    async def test_a_block(self, request_: CreateSessionPassRequest) -> None:
        """It cannot wait for its stop, which is done all the same."""

        async def block(client: EquosClient) -> None:
            async with client.session(request_):
                await asyncio.get_running_loop().create_future()

        async with RawServer() as server:
            async with EquosClient(KEY, endpoint=server.endpoint) as client:
                coroutine: Any = block(client)
                future = coroutine.send(None)
                await asyncio.wait([future])
                coroutine.send(None)
                assert server.live == {"s-0"}
                coroutine.close()
            assert server.live == set()

    @on_each_loop
    def test_when_its_loop_is_closed(self, loop: Loop, request_: CreateSessionPassRequest) -> None:
        """There is nothing that could be done, and nothing breaks."""
        kept: list[Any] = []

        async def main() -> None:
            async with RawServer(always=only_starts(slow)) as server:
                client = EquosClient(KEY, endpoint=server.endpoint)
                coroutine: Any = client.start_session(request_)
                coroutine.send(None)
                await until(lambda: server.requests)
                kept.append(coroutine)
                await client.aclose(deadline=0)

        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(main())
        kept.pop().close()


class TestCallersThatAreGone:
    async def test_cancelled_before_the_first_step(
        self, request_: CreateSessionPassRequest
    ) -> None:
        """Nothing is sent, on an idle connection neither."""
        async with RawServer() as server:
            async with EquosClient(KEY, endpoint=server.endpoint) as client:
                await client.stop_session((await client.start_session(request_)).session.id)
                before = server.requests
                for _ in range(10):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0):
                            await client.start_session(request_)
                    task = asyncio.create_task(client.start_session(request_))
                    if asyncio.get_running_loop().get_task_factory() is None:
                        await asyncio.sleep(0)  # its first step; an eager one has had it
                    task.cancel()
                    await asyncio.wait([task])
                    await settle()
                assert server.requests == before


class TestTheLoopShutsDown:
    async def hold(
        self, client: EquosClient, request: CreateSessionPassRequest, held: set[str]
    ) -> None:
        """Hold a session, and stop it in the end, by hand."""
        started = await client.start_session(request)
        held.add(started.session.id)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await client.stop_session(started.session.id)

    async def hold_three(
        self,
        client: EquosClient,
        request: CreateSessionPassRequest,
        on_the_wire: Callable[[], bool] = bool,
    ) -> None:
        """Hold sessions in a group, or be about to, and call ``sys.exit`` in the event loop."""
        held = set[str]()
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(self.hold(client, request, held))
            await eventually(lambda: len(held) == 3 or on_the_wire())
            asyncio.get_running_loop().call_soon(sys.exit, 3)

    async def shut_down(self, *, newest_first: bool = False) -> None:
        """What ``asyncio.run`` does at its end, there in any order."""
        tasks = sorted(
            asyncio.all_tasks() - {asyncio.current_task()},
            key=lambda task: task.get_name().rjust(20),  # an eager one of Python 3.13 is "None"
            reverse=newest_first,
        )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()

    @on_each_loop
    @pytest.mark.parametrize("newest_first", [True, False])
    def test_stops_that_begin_then(
        self, loop: Loop, newest_first: bool, request_: CreateSessionPassRequest
    ) -> None:
        """Their callers are cancelled twice, as children of a group are, and wait no more."""
        with EquosEmulator() as emulator, asyncio.Runner(loop_factory=loop) as runner:
            emulator.faults.stop.add(Delay(0.1), times=None)
            client = EquosClient(KEY, endpoint=emulator.endpoint)
            with pytest.raises(SystemExit, match="3"):
                runner.run(self.hold_three(client, request_))
            assert len(emulator.live_sessions) == 3
            runner.run(self.shut_down(newest_first=newest_first))
            assert emulator.live_sessions == {}
            runner.run(client.aclose())

    @on_each_loop
    @pytest.mark.parametrize("delay", [0.0, 0.5], ids=["live", "on the wire"])
    def test_through_a_lent_session(
        self, loop: Loop, delay: float, request_: CreateSessionPassRequest
    ) -> None:
        """Its owner has not closed it: what goes through it is given the same moment."""

        async def lend() -> aiohttp.ClientSession:
            return aiohttp.ClientSession()

        def is_sent(emulator: EquosEmulator) -> bool:
            return delay > 0 and emulator.request_count == 3

        with EquosEmulator() as emulator, asyncio.Runner(loop_factory=loop) as runner:
            emulator.faults.start.add(Delay(delay), times=None)
            emulator.faults.stop.add(Delay(0.1), times=None)
            lent = runner.run(lend())
            client = EquosClient(KEY, endpoint=emulator.endpoint, http_session=lent)
            with pytest.raises(SystemExit, match="3"):
                runner.run(self.hold_three(client, request_, lambda: is_sent(emulator)))
            runner.run(self.shut_down())
            assert (client.unresolved, emulator.live_sessions) == ((), {})
            assert len(emulator.ended_sessions) == 3
            runner.run(client.aclose())
            runner.run(lent.close())

    @on_each_loop
    @pytest.mark.parametrize("newest_first", [True, False])
    def test_the_client_is_closed_then(
        self, loop: Loop, newest_first: bool, request_: CreateSessionPassRequest
    ) -> None:
        """An asynchronous generator of the caller's own may do that, while its stops go on."""

        async def closing(client: EquosClient) -> AsyncGenerator[None, None]:
            try:
                yield
            finally:
                await client.aclose()

        async def main() -> None:
            generator = closing(client)
            kept.append(generator)
            await anext(generator)
            await self.hold_three(client, request_)

        kept: list[AsyncGenerator[None, None]] = []
        with EquosEmulator() as emulator, asyncio.Runner(loop_factory=loop) as runner:
            emulator.faults.stop.add(Delay(0.1), times=None)
            client = EquosClient(KEY, endpoint=emulator.endpoint)
            with pytest.raises(SystemExit, match="3"):
                runner.run(main())
            runner.run(self.shut_down(newest_first=newest_first))
            assert len(emulator.ended_sessions) == 3

    @on_each_loop
    @pytest.mark.parametrize("operation", ["unsent start", "start", "refused start", "stop"])
    def test_a_signal_meets_a_call(
        self, loop: Loop, operation: str, request_: CreateSessionPassRequest
    ) -> None:
        """What a handler raises in a step of its task leaves the loop once.

        A stop is sent anew; the session that an answer names is ended.
        """
        met: list[type[BaseException]] = []
        callers: list[asyncio.Task[Any] | None] = [None]

        class Struck(Clock):
            """A signal comes when the client reads the time for an answer, or before it sends."""

            def now(self) -> float:
                is_there = emulator.request_count or operation == "unsent start"
                if is_there and not met and asyncio.current_task() not in callers:
                    met.append(KeyboardInterrupt)
                    raise KeyboardInterrupt
                return super().now()

        async def call() -> None:
            callers.append(asyncio.current_task())
            try:
                if operation == "stop":
                    await client.stop_session("s-1")
                else:
                    await client.start_session(request_)
            except BaseException as error:
                met.append(type(error))
                raise

        with EquosEmulator() as emulator, asyncio.Runner(loop_factory=loop) as runner:
            if operation == "refused start":
                emulator.faults.start.add(Status(422))
            client = EquosClient(KEY, endpoint=emulator.endpoint, clock=Struck())
            with pytest.raises(KeyboardInterrupt):
                runner.run(call())
            runner.run(self.shut_down())
            assert met == [KeyboardInterrupt, asyncio.CancelledError]
            assert (client.unresolved, emulator.live_sessions) == ((), {})
            runner.run(client.aclose())

    @pytest.mark.parametrize("reading", range(1, 4))
    def test_a_signal_meets_a_lost_start(
        self, reading: int, request_: CreateSessionPassRequest
    ) -> None:
        """It is looked for then, or is about to be: what is not found is told."""
        readings, callers = 0, list[asyncio.Task[Any] | None]()

        class Struck(Clock):
            """A signal comes at one of the client's readings of the time after the loss."""

            def now(self) -> float:
                nonlocal readings
                if emulator.request_count and asyncio.current_task() not in callers:
                    readings += 1
                    if readings == reading:
                        raise KeyboardInterrupt
                return super().now()

        async def call() -> None:
            callers.append(asyncio.current_task())
            await client.start_session(request_)

        with EquosEmulator() as emulator, asyncio.Runner() as runner:
            emulator.faults.start.add(Drop("after"))
            client = EquosClient(KEY, api_key=API_KEY, endpoint=emulator.endpoint, clock=Struck())
            with pytest.raises(KeyboardInterrupt):
                runner.run(call())
            runner.run(self.shut_down())
            assert len(emulator.live_sessions) <= len(client.unresolved)
            runner.run(client.aclose(deadline=0))

    @on_each_loop
    def test_a_signal_meets_a_stop_before_it_begins(
        self, loop: Loop, request_: CreateSessionPassRequest
    ) -> None:
        """Its caller is gone, and it is sent all the same."""
        struck = False

        class Struck(Clock):
            """A signal comes when the client reads the time for a new call."""

            def now(self) -> float:
                nonlocal struck
                if struck:
                    struck = False
                    raise KeyboardInterrupt
                return super().now()

        async def call() -> None:
            nonlocal struck
            started = await client.start_session(request_)
            struck = True
            await client.stop_session(started.session.id)

        with EquosEmulator() as emulator, asyncio.Runner(loop_factory=loop) as runner:
            client = EquosClient(KEY, endpoint=emulator.endpoint, clock=Struck())
            with pytest.raises(KeyboardInterrupt):
                runner.run(call())
            assert len(emulator.live_sessions) == 1
            runner.run(self.shut_down())
            assert (client.unresolved, emulator.live_sessions) == ((), {})
            runner.run(client.aclose())

    @on_each_loop
    @pytest.mark.parametrize("holder", ["block", "fleet"])
    def test_what_is_held_is_never_left(
        self, loop: Loop, holder: str, request_: CreateSessionPassRequest
    ) -> None:
        """A block that was entered by hand, and a fleet that was opened only, are over then."""
        kept: list[object] = []

        async def main() -> None:
            if holder == "block":
                block = client.session(request_)
                kept.append(block)
                await block.__aenter__()
                return
            fleet = SessionFleet(client)
            kept.append(fleet)
            await fleet.open()
            await fleet.start(request_, key="1")

        with EquosEmulator() as emulator, asyncio.Runner(loop_factory=loop) as runner:
            client = EquosClient(KEY, endpoint=emulator.endpoint)
            runner.run(main())
            runner.run(self.shut_down())
            assert (emulator.live_sessions, len(emulator.ended_sessions)) == ({}, 1)
            runner.run(client.aclose())

    @on_each_loop
    def test_stops_that_are_in_their_grace(self, loop: Loop) -> None:
        """They are awaited, even if no caller waits for them."""

        async def main() -> None:
            stop = asyncio.create_task(client.stop_session("s-1"))
            await eventually(lambda: emulator.request_count)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.get_running_loop().shutdown_asyncgens()
            assert stop.cancelled()
            assert [one.status for one in emulator.requests][-1] == 200

        with EquosEmulator() as emulator, asyncio.Runner(loop_factory=loop) as runner:
            emulator.faults.stop.add(Delay(0.3), times=None)
            client = EquosClient(KEY, endpoint=emulator.endpoint)
            runner.run(main())
            runner.run(client.aclose())

    async def test_it_was_closed_under_a_start(
        self, request_: CreateSessionPassRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its answer can no longer arrive: it is unresolved."""
        async with RawServer(always=only_starts(slow)) as server:
            async with EquosClient(KEY, endpoint=server.endpoint) as client:
                starting = asyncio.create_task(client.start_session(request_))
                await until(lambda: server.requests)
                with monkeypatch.context() as patch:
                    patch.setattr(asyncio.get_running_loop(), "is_closed", lambda: True)
                    (left,) = client.unresolved
                assert (left.operation, left.reason) == ("start", "the event loop was closed")
                starting.cancel()
