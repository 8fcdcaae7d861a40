"""An event loop in which nothing takes time, and connections that lead to a server in it.

Where nothing can go on, the time jumps to the next timer: a minute of looking takes a millisecond,
and every run with the same seed is the same. Nothing may come from outside, so there are neither
sockets nor threads. A loop in which nothing will ever happen again says so.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from attrs import frozen


class _Jumps(selectors.SelectSelector):
    """Waits for nothing: what it would wait has passed already."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.passes = 0
        self.planned: dict[int, Callable[[], object]] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.passes += 1
        action = self.planned.pop(self.passes, None)
        if action is not None:
            action()  # before any time passes
            return []
        assert timeout is not None, "nothing will ever happen again"
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a time of its own, in seconds from 0."""

    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)

    @property
    def passes(self) -> int:
        """How many passes it has made."""
        return self._jumps.passes

    def at_pass(self, number: int, action: Callable[[], object]) -> None:
        """Do something at a later pass, at whatever time."""
        self._jumps.planned[number] = action

    def time(self) -> float:
        return self._jumps.now

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Do something at a time."""
        self.call_at(when, action)

    @property
    def now(self) -> float:
        """The time, as the models call it."""
        return self._jumps.now


@frozen
class Asked:
    """One request, as a server reads it."""

    method: str
    path: str
    query: str
    body: bytes


@frozen
class Answer:
    """A server's answer, after which the connection closes.

    Attributes:
        status: The HTTP status.
        body: All of it.
        fields: Further lines of the head.
        heard: Called where the client still listened.
    """

    status: int
    body: bytes
    fields: str = ""
    heard: Callable[[], object] | None = None

    def __bytes__(self) -> bytes:
        head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.body)}\r\n"
        return f"{head}{self.fields}Connection: close\r\n\r\n".encode() + self.body


Serve = Callable[[Asked], Awaitable[Answer | None]]
"""Answers a request; None: the connection closes without an answer."""


class Pipe(asyncio.Transport):
    """The client's end of a connection: what it writes is read at once."""

    def __init__(self, protocol: asyncio.Protocol, serve: Serve) -> None:
        super().__init__()
        self._protocol = protocol
        self._serve = serve
        self._written = b""
        self._is_closing = False
        self._serving: asyncio.Task[None] | None = None

    def write(self, data: Any) -> None:
        self._written += bytes(data)
        head, blank, body = self._written.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        if blank and len(body) >= int(length or 0) and self._serving is None:
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
            path, _, query = path.partition("?")
            asked = Asked(method, path, query, body)
            self._serving = asyncio.get_running_loop().create_task(self._answer(asked))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._is_closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    async def _answer(self, asked: Asked) -> None:
        """Let the server act, whether or not the client still listens."""
        answer = await self._serve(asked)
        if not self._is_closing and answer is not None:
            self._protocol.data_received(bytes(answer))
            if answer.heard is not None:
                answer.heard()
        self.close()


class Pipes(aiohttp.BaseConnector):
    """A connector of an injected session, all of whose connections lead to one server."""

    def __init__(self, serve: Serve) -> None:
        super().__init__(limit=0, force_close=True)
        self._serve = serve

    async def _create_connection(
        self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        handler = ResponseHandler(asyncio.get_running_loop())
        handler.connection_made(Pipe(handler, self._serve))
        return handler


async def _end_of(tasks: set[asyncio.Task[Any]]) -> None:
    """Some of them have a grace."""
    await asyncio.gather(*tasks, return_exceptions=True)


def drop(loop: VirtualLoop) -> None:
    """Close a loop, with all that is left in it."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(_end_of(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
