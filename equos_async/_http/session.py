"""The wire through ``ClientSession.request``, with everything that is set up in the session.

Proxies, traces, test doubles and monitors see each request, and a session of the caller's own
keeps its pool, its cookies and its TLS settings.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.hdrs import AUTHORIZATION, CONTENT_TYPE
from multidict import CIMultiDict
from yarl import URL

from .exchange import Exchange
from .pool import Inspector
from .request import MAX_FIELD, MAX_FIELDS

_PARAMETERS: Final = inspect.signature(aiohttp.ClientSession.__init__).parameters
HEAD_BOUNDS: Final = {
    name: bound
    for name, bound in {
        "max_line_size": MAX_FIELD,
        "max_field_size": MAX_FIELD,
        "max_headers": MAX_FIELDS,
    }.items()
    if name in _PARAMETERS  # older releases have no bound on the number of fields
}
"""The limits on the head of an answer, as arguments of a session and its requests."""

# A request without Content-Type has no body, and aiohttp must not add the header. The argument
# costs time, so only such requests have it.
_NEVER_ADDED: Final = (CONTENT_TYPE,)


class SessionWire:
    """Sends requests through an aiohttp session.

    Args:
        session: The session.
        inspector: Checks its connections, unless its connector does that itself.
        options: Arguments for each request.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        inspector: Inspector | None = None,
        **options: Any,
    ) -> None:
        self._session = session
        self._inspector = inspector
        self._options: dict[str, Any] = {"allow_redirects": False, **options}
        self._bare: dict[str, Any] = {**self._options, "skip_auto_headers": _NEVER_ADDED}

    async def carry(self, exchange: Exchange) -> None:
        """Send a request, and read its answer.

        Raises:
            Exception: The request failed: an error of aiohttp, the system or the session's set-up.
        """
        request = exchange.request
        headers = request.headers
        options = self._options if CONTENT_TYPE in headers else self._bare
        if self._session.trust_env or self._session.auth is not None:
            headers, options = self._apart(headers, options)
        response = await self._session.request(
            request.method,
            URL(request.url, encoded=True),
            data=_Body(exchange, self._inspector),
            headers=headers,
            **options,
        )
        try:
            await exchange.read(response.status, response.headers, response.content)
        finally:
            # Returns the connection, or closes it if the body was not read to its end.
            if exchange.is_cut:
                response.close()
            else:
                response.release()

    def _apart(
        self, headers: CIMultiDict[str], options: dict[str, Any]
    ) -> tuple[CIMultiDict[str], dict[str, Any]]:
        """Replace the session's Authorization with ours, after the session's own checks.

        A session with credentials of its own, or from a netrc file, refuses a request with an
        Authorization header. Credentials of a netrc file are also not sent beside our other key.
        """
        session = self._session
        wanted = headers.get(AUTHORIZATION)
        if wanted is None:
            if session.auth is not None:
                return headers, options
            wanted = session.headers.get(AUTHORIZATION)
        headers = headers.copy()
        headers.pop(AUTHORIZATION, None)

        async def authorize(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            request.headers.pop(AUTHORIZATION, None)
            if wanted is not None:
                request.headers[AUTHORIZATION] = wanted
            return await handler(request)

        return headers, {**options, "middlewares": (authorize,)}


class _Body(aiohttp.Payload):
    """The body as aiohttp asks for it.

    aiohttp sends the headers with the first bytes of the body. So the request counts as sent when
    aiohttp asks for the body, even for an empty one. The base class would make a dictionary of
    headers for each body, and keep a value of its own.
    """

    def __reduce__(self) -> tuple[type[aiohttp.BytesPayload], tuple[bytes]]:
        """A recorder may copy the body: the copy is plain bytes, and does not report a send."""
        return aiohttp.BytesPayload, (self._exchange.request.body,)

    def __init__(self, exchange: Exchange, inspector: Inspector | None) -> None:
        self._exchange = exchange
        self._inspector = inspector

    @property
    def headers(self) -> CIMultiDict[str]:
        """The request's own headers: aiohttp needs some here, and does not add these again."""
        return self._exchange.request.headers

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self._exchange.request.body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text, if aiohttp is asked for it."""
        return self._exchange.request.body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Called by aiohttp if no length is known."""
        self._inspect(writer)
        await self._exchange.write(writer)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Called by aiohttp right before it sends headers and body."""
        self._inspect(writer)
        await self._exchange.write(writer, content_length)

    def _inspect(self, writer: AbstractStreamWriter) -> None:
        """Look at the connection before anything is written to it.

        Raises:
            aiohttp.ClientConnectionError: The server closed it while it was idle.
        """
        protocol: Any = getattr(writer, "protocol", None)
        transport = getattr(protocol, "transport", None)
        if self._inspector is None or transport is None:
            return
        if not self._inspector.is_quiet(protocol, transport):
            raise aiohttp.ClientConnectionError("the server had closed the idle connection")
