"""The direct wire through aiohttp: its connector and its parser, without its session.

A session also handles cookies, redirects, proxies, netrc, traces, middlewares and default headers.
Our requests have none of these, and the checks take a third of the CPU of a request
(``nox -s bench``). :mod:`.gate` decides which requests use this wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol, cast

import aiohttp
from aiohttp.abc import AbstractCookieJar
from multidict import CIMultiDictProxy
from yarl import URL

from . import pool
from .exchange import Exchange
from .protocol import AnswerProtocol

MAX_HEADS: Final = 64
"""Number of prepared request heads that are kept; a client has two for each server."""


class Target:
    """One server: the connector's key for it, and the header fields of its requests."""

    def __init__(self, origin: str, *, close: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.url = URL(origin, encoded=True)
        # Tells the connector the server; it is never sent.
        self.request = aiohttp.ClientRequest("GET", self.url, loop=loop)
        self.idle: dict[AnswerProtocol, float] = {}
        self._close = "\r\nConnection: close" if close else ""
        self._heads: dict[int, tuple[Mapping[str, str], str]] = {}

    def head(self, method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
        """The head of a request, in the session's order, so that servers see no difference."""
        _, fields = self._heads.get(id(headers)) or self._fields(headers)
        return (
            f"{method} {path} HTTP/1.1\r\n{fields}Content-Length: {length}{self._close}\r\n\r\n"
        ).encode()

    def _fields(self, headers: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
        lines = [("Host", self.request.headers["Host"]), *headers.items()]
        fields = "".join(f"{name}: {value}\r\n" for name, value in lines)
        if fields.count("\n") > len(lines) or fields.count("\r") > len(lines) or "\0" in fields:
            raise ValueError("a header of the request contains a line break")
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        # The headers are kept, because after their deletion other headers may have the same id.
        found = self._heads[id(headers)] = (headers, fields)
        return found


async def read_on(exchange: Exchange) -> None:
    """Read the rest of an answer whose reader a signal handler's exception ended."""
    connection = exchange.connection
    protocol = None if connection is None else connection.get_protocol()
    if isinstance(protocol, AnswerProtocol):
        try:
            await protocol.read(exchange)
        finally:
            protocol.pooled.close()


class Connections(Protocol):
    """The source of the direct wire's connections."""

    async def take(self, target: Target) -> AnswerProtocol:
        """Get a connection for one request."""
        ...

    def leave(self, target: Target, connection: AnswerProtocol) -> None:
        """Give back a connection that may carry another request."""
        ...

    def close(self) -> None:
        """Close the idle connections."""
        ...


class DirectWire:
    """Sends requests over connections to the servers.

    Args:
        connections: The source of connections.
        close: Whether each connection is used for one request only.
        jar: Stores the cookies of answers.
    """

    def __init__(
        self, connections: Connections, *, close: bool, jar: AbstractCookieJar | None = None
    ) -> None:
        self._connections = connections
        self._jar = jar
        self._close = close
        self._loop = asyncio.get_running_loop()
        self._targets: dict[str, Target] = {}

    async def carry(self, exchange: Exchange) -> None:
        """Send a request, and read its answer.

        Raises:
            Exception: The request failed: an error of aiohttp or of the system, or
            ``SendRefusedError``.
        """
        request = exchange.request
        scheme, _, host, path = request.url.split("/", 3)
        origin = f"{scheme}//{host}"
        target = self._targets.get(origin) or self._target(origin)
        data = target.head(request.method, f"/{path}", request.headers, len(request.body))
        connection = await self._connections.take(target)
        keep = False
        try:
            keep = await connection.carry(data + request.body, exchange)
        except (Exception, asyncio.CancelledError, GeneratorExit):  # else reading goes on
            connection.pooled.close()
            raise
        if keep and not self._close:
            self._connections.leave(target, connection)
        else:
            connection.pooled.close()
        if self._jar is not None and "Set-Cookie" in exchange.headers:
            cookies = cast("CIMultiDictProxy[str]", exchange.headers).getall("Set-Cookie")
            self._jar.update_cookies_from_headers(cookies, URL(request.url, encoded=True))

    def close(self) -> None:
        """Close the connections that are idle."""
        self._connections.close()

    def _target(self, origin: str) -> Target:
        target = self._targets[origin] = Target(origin, close=self._close, loop=self._loop)
        return target


class KeptConnections:
    """The idle connections of one client.

    aiohttp's connector makes them and counts them as in use. They are kept here, so that data or a
    close of the server on an idle connection is handled when it arrives.

    Args:
        connector: Makes the connections.
        timeout: The time limit for making one.
        keepalive: Seconds that an idle connection is kept.
    """

    def __init__(
        self, connector: aiohttp.BaseConnector, timeout: aiohttp.ClientTimeout, keepalive: float
    ) -> None:
        self._connector = connector
        self._timeout = timeout
        self._keepalive = keepalive
        self._loop = asyncio.get_running_loop()
        self._targets: set[Target] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    async def take(self, target: Target) -> AnswerProtocol:
        """Get the most recently used connection, or a new one."""
        idle = target.idle
        while idle:
            connection, since = idle.popitem()
            fresh = self._loop.time() - since <= self._keepalive
            if fresh and connection.is_open and not connection.is_readable():
                return connection
            connection.pooled.close()
        pooled = await self._connector.connect(target.request, [], self._timeout)
        return AnswerProtocol(pooled, self._loop)

    def leave(self, target: Target, connection: AnswerProtocol) -> None:
        """Keep a connection for a while."""
        target.idle[connection] = self._loop.time()
        self._targets.add(target)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._keepalive, self._sweep)

    def close(self) -> None:
        """Close all that are idle."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for target in self._targets:
            while target.idle:
                target.idle.popitem()[0].pooled.close()

    def _sweep(self) -> None:
        """Close the connections that were idle for too long; set a timer for the rest."""
        self._sweeping = None
        since = self._loop.time() - self._keepalive
        for target in self._targets:
            for connection, left in tuple(target.idle.items()):
                if left > since and connection.is_open:
                    continue
                del target.idle[connection]
                connection.pooled.close()
        if any(target.idle for target in self._targets):
            self._sweeping = self._loop.call_later(self._keepalive, self._sweep)


class LentConnections:
    """Connections of the user's own connector; each is returned after its request.

    The connector's limits, its keep-alive and its other users see no difference.

    Args:
        connector: The user's connector.
        timeout: The time limit for making a connection.
    """

    def __init__(self, connector: aiohttp.BaseConnector, timeout: aiohttp.ClientTimeout) -> None:
        self._connector = connector
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._inspector = pool.Inspector()

    async def take(self, target: Target) -> AnswerProtocol:
        """Get a connection that may carry a request."""
        pooled = await pool.connect(
            self._connector.connect, self._inspector, target.request, [], self._timeout
        )
        return AnswerProtocol(pooled, self._loop)

    def leave(self, target: Target, connection: AnswerProtocol) -> None:
        """Return it to the connector, which knows its server."""
        connection.give_back()
        connection.pooled.release()

    def close(self) -> None:
        """Do nothing: no connection is kept here."""
