"""A program ends before its clients: what a loop in a thread can stop is, the rest is told."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from equos_async import ConfigurationError, EquosClient, SessionFleet
from equos_async._calls import remains
from equos_async._shown import MAX_NAMED
from equos_async.testing import Delay, EquosEmulator
from tests.clocks import eventually
from tests.conftest import KEY, REQUEST


class Threaded:
    """An event loop that runs in a thread, as a synchronous program has it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.go_on = threading.Event()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Any) -> Any:
        """Do something there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def block(self) -> None:
        """It does something else until it is ended."""
        self.loop.call_soon_threadsafe(self.go_on.wait)

    def end(self) -> None:
        """It runs no more."""
        if self._thread.is_alive():
            self.go_on.set()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()


@pytest.fixture
def threaded() -> Iterator[Threaded]:
    """A loop in a thread."""
    threaded = Threaded()
    yield threaded
    threaded.end()
    threaded.loop.run_until_complete(threaded.loop.shutdown_asyncgens())
    threaded.loop.close()


@pytest.fixture
def server() -> Iterator[EquosEmulator]:
    """A server for clients of any loop."""
    with EquosEmulator() as emulator:
        yield emulator


def hold(client: EquosClient) -> AbstractAsyncContextManager[object]:
    """A block, for nobody to leave."""
    return client.session(REQUEST)


def test_a_loop_in_a_thread(
    threaded: Threaded, server: EquosEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    """What it holds is stopped, and what it has sent is awaited; there is nothing to tell."""
    server.faults.start.add(Delay(0.1))
    client = EquosClient(KEY, endpoint=server.endpoint)
    start = asyncio.run_coroutine_threadsafe(hold(client).__aenter__(), threaded.loop)
    while not server.request_count:
        threaded.run(asyncio.sleep(0))
    kept = hold(client)
    threaded.run(kept.__aenter__())
    remains.at_exit()
    assert (server.live_sessions, len(server.ended_sessions)) == ({}, 2)
    assert (client.unresolved, caplog.messages) == ((), [])
    assert start.done()


@pytest.mark.parametrize("ends", ["interrupted", "stopped", "late"])
def test_a_loop_that_does_not_answer(
    ends: str,
    threaded: Threaded,
    server: EquosEmulator,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not waited for beyond Ctrl-C, its own end, or its time; what it leaves is told."""
    wait = futures.wait

    def waits(*args: Any) -> Any:
        if ends == "interrupted":
            raise KeyboardInterrupt
        threaded.end()
        return wait(*args)

    client = EquosClient(KEY, endpoint=server.endpoint)
    kept = hold(client)
    threaded.run(kept.__aenter__())
    threaded.block()
    with monkeypatch.context() as patch:
        patch.setattr(futures, "wait", waits)
        if ends == "late":
            patch.setattr(remains, "SHUTDOWN_GRACE", -1.0)
        remains.at_exit()
        remains.at_exit()  # it is told once
    (session_id,) = server.live_sessions
    assert caplog.messages == [f"the program ended, and may leave running: session {session_id}"]
    assert vars(caplog.records[0])["equos_session_ids"] == [session_id]
    threaded.end()
    threaded.loop.run_until_complete(client.aclose())


def leave(server: EquosEmulator, *, is_closing: bool, told: Callable[[object], None]) -> None:
    """Close a loop under a client's calls."""

    async def main() -> None:
        client = EquosClient(KEY, endpoint=server.endpoint)
        blocks = [hold(client) for _ in range(MAX_NAMED + 2)]
        under_way.extend(asyncio.ensure_future(block.__aenter__()) for block in blocks)
        await eventually(lambda: server.request_count == len(blocks))
        if is_closing:
            under_way.append(asyncio.ensure_future(client.aclose()))
            await asyncio.sleep(0)

    under_way: list[asyncio.Future[Any]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: told(context["message"]))
    loop.run_until_complete(main())
    loop.close()


@pytest.mark.parametrize("is_closing", [False, True])
def test_a_loop_that_is_closed(
    is_closing: bool,
    server: EquosEmulator,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its client is collected, and names some of what was under way."""
    complaints: list[str] = []  # of Python and aiohttp, which tell of each part of it

    def complain(unraisable: Any) -> None:
        complaints.append(str(unraisable.exc_value))

    monkeypatch.setattr(sys, "unraisablehook", complain)
    server.faults.start.add(Delay(60), times=None)
    leave(server, is_closing=is_closing, told=lambda one: complaints.append(str(one)))
    while gc.collect():  # here, and not in another test
        pass
    assert not any("ignored GeneratorExit" in one for one in complaints), complaints
    (told,) = [one for one in caplog.messages if "may leave running" in one]
    assert told.startswith("the event loop was closed, and may leave running: ")
    assert told.count("the session of the start 'support call'") == MAX_NAMED
    assert told.endswith(" and 2 more")


async def new_session() -> aiohttp.ClientSession:
    """A session to lend."""
    return aiohttp.ClientSession()


def test_a_fork(
    threaded: Threaded, server: EquosEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    """What the parent holds is not the child's; a client that was not used yet is."""
    session = threaded.run(new_session())
    client = EquosClient(KEY, endpoint=server.endpoint, http_session=session)
    unused = EquosClient(KEY, endpoint=server.endpoint)
    kept = hold(client)
    threaded.run(kept.__aenter__())
    fleet: SessionFleet[str] = SessionFleet(client)
    threaded.run(fleet.open())
    threaded.run(fleet.start(REQUEST, key="a"))
    remains.after_fork()
    remains.at_exit()
    del fleet
    gc.collect()
    assert len(server.live_sessions) == 2
    kept_too = hold(unused)
    threaded.run(kept_too.__aenter__())
    remains.at_exit()
    assert len(server.live_sessions) == 2
    assert caplog.messages == []
    with pytest.raises(ConfigurationError, match=r"in use before os\.fork"):
        threaded.run(client.aclose())
    assert len(server.live_sessions) == 2
    threaded.run(session.close())
