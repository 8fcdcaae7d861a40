"""A raw TCP (and TLS) server that does what it is told, and keeps its own books.

It knows no HTTP library: it reads requests byte by byte and writes what a script says. A session
exists from the moment at which the script acts on a start, whatever becomes of the answer.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from tests.unit.test_wire import CONVERSATION, SESSION, dump


class Connection:
    """One connection, with the request that was read from it."""

    def __init__(
        self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.method = ""
        self.path = ""
        self.body = b""
        self.head = b""

    async def read_request(self) -> bool:
        """Read one request; False where the client closed the connection instead."""
        try:
            self.head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        self.method, self.path, _ = self.head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        length = self.head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        self.body = await self.reader.readexactly(int(length or 0))
        self.server.requests += 1
        self.server.paths.append(self.path)
        return True

    def act(self) -> bytes:
        """Do what the request asks for; the good answer's body."""
        thing = CONVERSATION if self.word == "conversation" else SESSION
        if self.is_start:
            session_id = f"s-{len(self.server.made)}"
            self.server.made.append(session_id)
            self.server.live.add(session_id)
            return dump({self.word: {**thing, "id": session_id}})
        if self.method == "GET":
            return dump({**thing, "id": unquote(self.path.split("/")[-1])})
        session_id = unquote(self.path.split("/")[-2])
        self.server.live.discard(session_id)
        return dump({**thing, "id": session_id, "status": "ended"})

    @property
    def word(self) -> str:
        """What the request is about."""
        return "conversation" if "/conversations" in self.path else "session"

    @property
    def is_start(self) -> bool:
        """Whether it asks for another one."""
        return self.method == "POST" and not self.path.endswith("/stop")

    @property
    def good_status(self) -> int:
        """What the contract says for a request that is done."""
        return 201 if self.method == "POST" else 200

    async def send(self, data: bytes) -> None:
        """Write bytes, also to a client that is gone."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            self.writer.close()

    async def reply(self, status: int, body: bytes, headers: str = "") -> None:
        """Write a well-formed answer."""
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        await self.send(head.encode() + body)

    def close(self) -> None:
        """Send FIN."""
        self.writer.close()

    def reset(self) -> None:
        """Send RST."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Return when the client has closed the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


Behaviour = Callable[[Connection], Awaitable[None]]


async def good(connection: Connection) -> None:
    """As the contract says."""
    await connection.reply(connection.good_status, connection.act())


class RawServer:
    """Serves one behaviour of the script for each request (or connection), then good ones.

    Attributes:
        script: What happens to the next requests.
        always: What happens to all others.
        on_accept: What happens to the next connections, before anything is read.
        live: The sessions that exist.
        made: All sessions that ever did.
        requests: How many requests were read.
        paths: Their paths.
        tasks: What serves its connections.
        too_late: Set by a test when a client's time is over.
    """

    def __init__(
        self,
        script: Sequence[Behaviour] = (),
        *,
        always: Behaviour = good,
        on_accept: Sequence[Behaviour] = (),
        context: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self.script = list(script)
        self.always = always
        self.on_accept = list(on_accept)
        self.context = context
        self.receive_buffer = receive_buffer
        self.live: set[str] = set()
        self.made: list[str] = []
        self.requests = 0
        self.accepted = 0
        self.paths: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.too_late = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def endpoint(self) -> str:
        """The base URL."""
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self.context, backlog=1024
        )
        (listening,) = self._server.sockets
        if self.receive_buffer is not None:  # of each connection
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        self.port = listening.getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self.accepted += 1
        connection = Connection(self, reader, writer)
        try:
            if self.on_accept:
                await self.on_accept.pop(0)(connection)
            while not writer.is_closing() and await connection.read_request():
                behaviour = self.script.pop(0) if self.script else self.always
                await behaviour(connection)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.transport.abort()


def error_body(status: int, message: object) -> bytes:
    """NestJS."""
    return json.dumps({"statusCode": status, "message": message}).encode()
