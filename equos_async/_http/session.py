"""The wire through ``ClientSession.request``, which works with whatever is set up there.

Proxies, traces, test doubles and monitors see each request, and a session of the caller's own
keeps its pool, its cookies and its TLS settings.
"""

from __future__ import annotations

from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict
from yarl import URL

from .exchange import Exchange

# Where a row has no Content-Type, there is no body, and aiohttp must not invent one.
_NEVER_ADDED: Final = ("Content-Type",)


class SessionWire:
    """Carries requests through an aiohttp session.

    Args:
        session: The session.
        options: What to tell it with each request.
    """

    def __init__(self, session: aiohttp.ClientSession, **options: Any) -> None:
        self._session = session
        self._options: dict[str, Any] = {
            "allow_redirects": False,
            "skip_auto_headers": _NEVER_ADDED,
            **options,
        }

    async def carry(self, exchange: Exchange) -> None:
        """Send a request, and read its answer.

        Raises:
            Exception: It went wrong; of aiohttp, of the system, or from the session's set-up.
        """
        request = exchange.request
        response = await self._session.request(
            request.method,
            URL(request.url, encoded=True),
            data=_Body(exchange),
            headers=request.headers,
            **self._options,
        )
        try:
            await exchange.read(response.status, response.headers, response.content)
        finally:
            # Hands the connection back, or closes it where the body was not read to its end.
            response.release()


class _Body(aiohttp.Payload):
    """The body as aiohttp asks for it.

    aiohttp lets the headers leave with the first bytes of the body, so the moment at which it
    asks for the body, even for an empty one, is the moment at which the request is sent. The base
    class would make a dictionary of headers for each body, and keep a value of its own.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def headers(self) -> CIMultiDict[str]:
        """The request's own: there have to be some, and what is there is not added again."""
        return self._exchange.request.headers

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self._exchange.request.body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text, for who asks aiohttp for it."""
        return self._exchange.request.body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Called by aiohttp where no length is known."""
        await self._exchange.write(writer)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Called by aiohttp when headers and body are about to leave."""
        await self._exchange.write(writer, content_length)
