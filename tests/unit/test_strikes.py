"""A signal handler raises while a request is on the wire: its answer is still read."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from equos_async._http import protocol
from equos_async._http.exchange import Exchange
from equos_async._http.request import Reply, SendGuard
from equos_async.testing import EquosEmulator
from tests.clocks import FakeClock, until
from tests.faults.server import Connection, RawServer, good
from tests.unit.test_transport import a_request, make_transport


class StruckGuard(SendGuard):
    """A handler strikes when the head of the answer is read."""

    def __init__(self) -> None:
        super().__init__()
        self.strikes = 1

    def answer(self) -> None:
        super().answer()
        if self.strikes:
            self.strikes -= 1
            raise KeyboardInterrupt


class StruckParser:
    """A handler strikes when the answer has been read."""

    def __init__(self, parser: Any) -> None:
        self.feed_data = parser.feed_data

    def feed_eof(self) -> None:
        """Look whether there is more."""
        raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["in its middle", "behind it"])
def test_reading_an_answer(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop was reading for a waiting task, which gets its answer when the loop runs again."""
    guard: SendGuard = StruckGuard()
    if where == "behind it":
        guard, make = SendGuard(), protocol.make_parser

        def make_struck(of: object, loop: asyncio.AbstractEventLoop) -> StruckParser:
            return StruckParser(make(of, loop))

        monkeypatch.setattr(protocol, "make_parser", make_struck)
    with EquosEmulator() as emulator, asyncio.Runner() as runner:
        url = f"{emulator.endpoint}/v3/health"
        transport = make_transport(FakeClock())
        task: asyncio.Task[Any] | None = None

        async def send() -> None:
            nonlocal task
            exchange = Exchange(a_request(url=url, method="GET", body=b""), guard)
            task = asyncio.create_task(transport.send(exchange, until=2000))
            await task

        with pytest.raises(KeyboardInterrupt):
            runner.run(send())

        async def see() -> Reply:
            assert task is not None
            reply = await task
            await transport.close()
            assert isinstance(reply, Reply)
            return reply

        assert runner.run(see()).status == 200


async def test_in_the_task_that_waits() -> None:
    """Its request is on the wire: another task reads the answer, and the connection is closed."""
    go = asyncio.Event()

    async def when_told(connection: Connection) -> None:
        await go.wait()
        await good(connection)

    async with RawServer([when_told]) as server:
        transport = make_transport(FakeClock())
        exchange = Exchange(
            a_request(url=f"{server.endpoint}/v3/session-passes/g-1/stop"), SendGuard()
        )
        sending: Coroutine[Any, Any, Any] = transport.send(exchange, until=2000)
        task = asyncio.ensure_future(sending)
        await until(lambda: server.requests)
        with pytest.raises(KeyboardInterrupt):
            sending.throw(KeyboardInterrupt())
        go.set()
        reply = await transport.resume(exchange)
        assert isinstance(reply, Reply)
        assert reply.status == 201
        with pytest.raises(RuntimeError):  # of asyncio, for the coroutine has ended
            await task
        await until(lambda: not server.tasks)
        await transport.close()
