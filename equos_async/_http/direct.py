"""The express way through aiohttp: its pool, its writer and its parser, without its session.

A session also looks after cookies, redirects, proxies, netrc, traces, middlewares and headers to
add. No request of ours has any of that, and looking takes a third of what a request costs
(``nox -s bench``). The parts are public names of aiohttp, but how they fit together is not
documented. So this way is taken with the releases that it was tested with, where nobody listens to
the session, and with bodies that leave at once; all else goes through the session.
"""

from __future__ import annotations

import asyncio
from types import FunctionType
from typing import Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import TimerNoop
from aiohttp.http import StreamWriter
from multidict import CIMultiDict
from yarl import URL

from .request import Request

TESTED: Final = frozenset({"3.14.4", "3.14.5"})
"""The releases of aiohttp whose parts fit together as they do here."""

MAX_BODY: Final = 32 << 10
"""Bytes; the server may answer a larger body before it has read it, so that one has to listen."""

_NO_TIMER: Final = TimerNoop()  # the client has timers of its own
_METHODS: Final = ("request", "_request")
_SESSION_MODULE: Final = aiohttp.client.__dict__


def is_plain(session: aiohttp.ClientSession, size: int) -> bool:
    """Whether the session would do nothing more for a request than what is done here.

    Test doubles (aioresponses, say) and monitors put methods of theirs in the place of a
    session's, which may happen at any time, also before this module is imported, or add traces
    to it.
    """
    return (
        size <= MAX_BODY
        and aiohttp.__version__ in TESTED
        and not session.trust_env
        and not session.trace_configs
        and all(_is_own(getattr(type(session), name)) for name in _METHODS)
    )


def _is_own(method: object) -> bool:
    """Whether a session's method is aiohttp's, and no wrapper, whatever it passes itself off as."""
    return type(method) is FunctionType and method.__globals__ is _SESSION_MODULE


class Express:
    """Carries requests to one host, over the connections of a connector."""

    def __init__(
        self,
        connector: aiohttp.BaseConnector,
        url: URL,
        *,
        headers: CIMultiDict[str],
        timeout: aiohttp.ClientTimeout,
    ) -> None:
        self._connector = connector
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        # It tells the connector where to, and is never sent itself.
        self._where = aiohttp.ClientRequest("GET", url, loop=self._loop)
        # In the session's order, with a place for the length.
        self._headers = CIMultiDict({"Host": self._where.headers["Host"]})
        self._headers.extend(headers)
        self._headers["Content-Length"] = ""
        if connector.force_close:
            self._headers["Connection"] = "close"

    async def carry(self, request: Request) -> None:
        """Send a request, and let it take its answer.

        Raises:
            OSError: Also aiohttp's ``ClientError`` and ``HttpProcessingError``: it went wrong.
        """
        connection = await self._connector.connect(self._where, [], self._timeout)
        try:
            protocol = cast("ResponseHandler", connection.protocol)
            protocol.set_response_params(timer=_NO_TIMER, read_until_eof=True)
            writer = StreamWriter(protocol, self._loop)
            headers = self._headers.copy()
            headers["Content-Length"] = str(request.size)
            await writer.write_headers(f"{request.method} {request.path} HTTP/1.1", headers)
            await request.write(writer)
            head, content = await protocol.read()
            while 100 <= head.code <= 199 and head.code != 101:
                head, content = await protocol.read()
            request.answered(head.code, head.headers)
            while request.wants_more and not content.at_eof():
                request.receive(await content.readany())
        except BaseException:
            connection.close()
            raise
        connection.release()
