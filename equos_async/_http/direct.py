"""The direct wire through aiohttp: its pool, its writer and its parser, without its session.

A session also looks after cookies, redirects, proxies, netrc, traces, middlewares and headers to
add. No request of ours has any of that, and looking takes a third of what a request costs
(``nox -s bench``). :mod:`.gate` decides which requests come this way.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import TimerNoop
from aiohttp.http import StreamWriter
from multidict import CIMultiDict
from yarl import URL

from .exchange import Exchange

_NO_TIMER: Final = TimerNoop()  # the client has timers of its own


class DirectWire:
    """Carries requests over the connections of a connector."""

    def __init__(self, connector: aiohttp.BaseConnector, timeout: aiohttp.ClientTimeout) -> None:
        self._connector = connector
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._targets: dict[str, aiohttp.ClientRequest] = {}

    async def carry(self, exchange: Exchange) -> None:
        """Send a request, and read its answer.

        Raises:
            Exception: It went wrong; of aiohttp, of the system, or ``SendRefusedError``.
        """
        request = exchange.request
        path = "/" + request.url.split("/", 3)[3]
        origin = request.url.removesuffix(path)
        target = self._targets.get(origin) or self._target(origin)
        connection = await self._connector.connect(target, [], self._timeout)
        try:
            protocol = cast("ResponseHandler", connection.protocol)
            protocol.set_response_params(timer=_NO_TIMER, read_until_eof=True)
            writer = StreamWriter(protocol, self._loop)
            # In the session's order, so that the server sees no difference.
            headers = CIMultiDict(Host=target.headers["Host"])
            headers.extend(request.headers)
            headers["Content-Length"] = str(len(request.body))
            if self._connector.force_close:
                headers["Connection"] = "close"
            await writer.write_headers(f"{request.method} {path} HTTP/1.1", headers)
            await exchange.write(writer)
            head, content = await protocol.read()
            while 100 <= head.code <= 199 and head.code != 101:
                head, content = await protocol.read()
            await exchange.read(head.code, head.headers, content)
        except BaseException:
            connection.close()
            raise
        connection.release()

    def _target(self, origin: str) -> aiohttp.ClientRequest:
        """What tells the connector where to; it is never sent itself."""
        url = URL(origin, encoded=True)
        target = self._targets[origin] = aiohttp.ClientRequest("GET", url, loop=self._loop)
        return target
