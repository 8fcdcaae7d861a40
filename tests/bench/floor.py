"""The least that an asyncio client with this library's answers can cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp

from equos_async._api.codec import Structured
from equos_async._api.operations import START_SESSION, STOP_SESSION, Operation
from equos_async._http.protocol import Flow, make_parser
from tests.bench.fleet_scale import REQUEST


class Connection(Flow, asyncio.Protocol):
    """Reads answers with aiohttp's parser, and looks for nothing that can go wrong."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = make_parser(self, self._loop)
        self._transport: asyncio.Transport | None = None
        self._body: aiohttp.StreamReader | None = None
        self._answer: asyncio.Future[bytes] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It may be used."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def send(self, request: bytes) -> asyncio.Future[bytes]:
        """Write a request; the body of its answer."""
        assert self._transport is not None
        self._answer = self._loop.create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """A part of an answer came."""
        messages, _, _ = self._parser.feed_data(data)
        for _, body in messages:
            self._body = body
        if self._body is not None and self._body.is_eof():
            self._answer.set_result(self._body.read_nowait())
            self._body = None

    def close(self) -> None:
        """It is not needed any more."""
        assert self._transport is not None
        self._transport.close()


@asynccontextmanager
async def floor(
    url: str, key: str, check: Callable[[str, str, str], None]
) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
    """The library's requests and models over that, without retries, timers, limits or tasks."""
    parts = urlsplit(url)
    idle: list[Connection] = []
    constant = (
        f"Host: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        "Accept: application/json\r\nContent-Type: application/json\r\n"
    )

    async def call(operation: Operation[Any], path: str, request: object) -> Any:
        if idle:
            connection = idle.pop()
        else:
            _, connection = await asyncio.get_running_loop().create_connection(
                Connection,
                parts.hostname or "",
                parts.port or 0,
                ssl=parts.scheme == "https" or None,
            )
        data = operation.body(request)
        assert data is not None
        head = (
            f"{operation.method} {path} HTTP/1.1\r\n{constant}Content-Length: {len(data)}\r\n\r\n"
        )
        answer = await connection.send(head.encode() + data)
        idle.append(connection)
        decoded = operation.decode(answer)
        assert isinstance(decoded, Structured)
        return decoded.value

    async def pair() -> None:
        started = await call(START_SESSION, "/v3/session-passes", REQUEST)
        session_id = started.session.id
        ended = await call(STOP_SESSION, f"/v3/session-passes/{session_id}/stop", None)
        check(session_id, ended.id, ended.status or "")

    try:
        yield pair
    finally:
        for connection in idle:
            connection.close()
