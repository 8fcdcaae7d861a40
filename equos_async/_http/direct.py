"""The direct wire through aiohttp: its connector and its parser, without its session.

A session also looks after cookies, redirects, proxies, netrc, traces, middlewares and headers to
add. No request of ours has any of that, and looking takes a third of what a request costs
(``nox -s bench``). :mod:`.gate` decides which requests come this way.
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
"""Heads of requests that are kept ready; a client has two for each server."""


class Target:
    """One server: what the connector needs to know of it, and the fields that it is sent."""

    def __init__(self, origin: str, *, close: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.url = URL(origin, encoded=True)
        # What tells the connector where to; it is never sent itself.
        self.request = aiohttp.ClientRequest("GET", self.url, loop=loop)
        self.idle: dict[AnswerProtocol, float] = {}
        self._close = "\r\nConnection: close" if close else ""
        self._heads: dict[int, tuple[Mapping[str, str], str]] = {}

    def head(self, method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
        """The head of a request, in the session's order, so that the server sees no difference."""
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
        # They are kept with it, for the identity of what is gone may be another's later.
        found = self._heads[id(headers)] = (headers, fields)
        return found


class Connections(Protocol):
    """Where the direct wire has its connections from, and where it leaves them."""

    async def take(self, target: Target) -> AnswerProtocol:
        """A connection for one request."""
        ...

    def leave(self, target: Target, connection: AnswerProtocol) -> None:
        """The connection may carry another request."""
        ...

    def close(self) -> None:
        """Close what is idle."""
        ...


class DirectWire:
    """Carries requests over connections to the servers.

    Args:
        connections: Where they come from.
        close: Whether each connection is for one request.
        jar: Where the cookies of answers go.
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
            Exception: It went wrong; of aiohttp, of the system, or ``SendRefusedError``.
        """
        request = exchange.request
        scheme, _, host, path = request.url.split("/", 3)
        origin = f"{scheme}//{host}"
        target = self._targets.get(origin) or self._target(origin)
        data = target.head(request.method, f"/{path}", request.headers, len(request.body))
        connection = await self._connections.take(target)
        keep = False
        try:
            keep = await connection.carry(data + request.body, exchange) and not self._close
        finally:
            if keep:
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

    aiohttp's connector makes them and counts them as in use, but does not see them come and go:
    what a server does to an idle connection is acted on when it happens.

    Args:
        connector: Makes them.
        timeout: How long that may take.
        keepalive: Seconds that an idle one is kept.
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
        """The connection that was used last, or a new one."""
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
        """Close what was idle for too long, the oldest first, and come again for the rest."""
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
    """Connections of somebody else's connector, which has each one back after its request.

    Its limits, its keep-alive and its other users see no difference.

    Args:
        connector: Whose they are.
        timeout: How long it may take to make one.
    """

    def __init__(self, connector: aiohttp.BaseConnector, timeout: aiohttp.ClientTimeout) -> None:
        self._connector = connector
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._inspector = pool.Inspector()

    async def take(self, target: Target) -> AnswerProtocol:
        """One that may carry a request."""
        pooled = await pool.connect(
            self._connector.connect, self._inspector, target.request, [], self._timeout
        )
        return AnswerProtocol(pooled, self._loop)

    def leave(self, target: Target, connection: AnswerProtocol) -> None:
        """Hand it back; the connector knows where it leads to."""
        connection.give_back()
        connection.pooled.release()

    def close(self) -> None:
        """Nothing is kept here."""
