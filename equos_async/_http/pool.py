"""The connection pool: it returns no connection that the server closed or sent data on."""

from __future__ import annotations

import asyncio
import select
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

MAX_UNASKED: Final = 32
"""Number of connections with unrequested data that one request skips before it gives up."""


def watch(connection: asyncio.BaseTransport) -> Callable[[], bool]:
    """Return a function that says whether a socket has unread bytes or an unread end.

    A selector is made for many sockets and for waiting; this checks one socket at once.
    """
    sock = connection.get_extra_info("socket")
    if sock is None:  # of a connector that uses none
        return lambda: False
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return lambda: bool(poll.poll(0))
    return lambda: bool(select.select([sock], [], [], 0)[0])  # any number on Windows


class Inspector:
    """Decides which connections of a connector may carry a request."""

    def __init__(self) -> None:
        # The connections that were handed out before.
        self._watches = weakref.WeakKeyDictionary[asyncio.BaseProtocol, Callable[[], bool]]()

    def passes(self, connection: Connection) -> bool:
        """Whether the server has neither closed the connection nor sent unrequested data on it."""
        handler, transport = connection.protocol, connection.transport
        if handler is None or transport is None or handler.should_close:
            return False  # it was lost meanwhile, or the server sent data
        return self.is_quiet(handler, transport)

    def is_quiet(self, handler: asyncio.BaseProtocol, transport: asyncio.BaseTransport) -> bool:
        """Whether a connection that carried a request holds nothing unread; True for a new one."""
        holds_unread = self._watches.get(handler)
        if holds_unread is None:
            self._watches[handler] = watch(transport)
            return True  # data on a new TLS connection may be the rest of its handshake
        return not holds_unread()


class Connector(aiohttp.TCPConnector):
    """A pool that never returns a connection that the server closed or sent unrequested data on.

    aiohttp would give such an answer to the next request as its own (aio-libs/aiohttp#13656).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]
        self._inspector = Inspector()

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        return await connect(super().connect, self._inspector, req, traces, timeout)


async def connect(
    dial: Callable[..., Awaitable[Connection]], inspector: Inspector, *args: Any
) -> Connection:
    """Get a connection that may carry a request; close those that may not."""
    for _ in range(MAX_UNASKED):
        connection = await dial(*args)
        if inspector.passes(connection):
            return connection
        connection.close()
    raise aiohttp.ClientConnectionError("the server sent data before any request")
