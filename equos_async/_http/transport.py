"""One pooled aiohttp session: a request goes in, a reply or a failure comes out, both values.

aiohttp's exceptions end here, because they do not tell what matters: a total timeout, say, looks
the same while waiting for the pool and after the server has acted. Whether a request may have left
is told by the request's own body instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast

import aiohttp
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from equos_async._version import __version__
from equos_async.errors import ConfigurationError

from . import pool
from .direct import Express, is_plain
from .request import Failure, Reply, Request

# What no repetition can help: the wrong peer, or a session that cannot send at all. Everything
# else of aiohttp that comes before the request was sent is worth another attempt.
_FATAL: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
_NETWORK: Final = (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError)


class Transport:
    """The aiohttp session of one client, made at first use and bound to that event loop."""

    def __init__(
        self,
        *,
        headers: Mapping[str, str],
        connect_timeout: float,
        keepalive: float,
        trust_env: bool,
        http_session: aiohttp.ClientSession | None,
    ) -> None:
        self._headers = CIMultiDict(headers)
        self._headers["User-Agent"] = f"equos-async/{__version__}"
        # Timers of the client's own bound each attempt; `total` would be rounded up by a second,
        # and without a threshold so would these.
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=connect_timeout,
            sock_connect=connect_timeout,
            ceil_threshold=float("inf"),
        )
        self._keepalive = keepalive
        self._trust_env = trust_env
        self._injected = http_session is not None
        self._session = http_session
        self._express: Express | None = None  # for a session of its own
        self._loop: asyncio.AbstractEventLoop | None = None
        # A session of its own is made with these; another has to be told with each request.
        self._options: dict[str, Any] = (
            {
                "headers": self._headers,
                "timeout": self._timeout,
                "raise_for_status": False,
                "middlewares": (),
            }
            if self._injected
            else {}
        )

    @property
    def is_open(self) -> bool:
        """Whether there is a session of its own to be closed."""
        return not self._injected and self._session is not None and not self._session.closed

    def bind(self) -> asyncio.AbstractEventLoop:
        """The running loop, which has to be the same at every use.

        Raises:
            ConfigurationError: The client was used in another loop before.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError(
                "this client belongs to another event loop: make one client for each loop"
            )
        return loop

    async def send(self, request: Request) -> Reply | Failure:
        """Put a request on the wire and return what comes of it.

        Raises:
            asyncio.CancelledError: The task was cancelled by another than ``request.expire``.
        """
        task = cast("asyncio.Task[None]", asyncio.current_task())
        cancelled = task.cancelling()  # what it has survived so far
        request.sending(task)
        try:
            await self._exchange(request)
        except asyncio.CancelledError:
            # Two may come as one in the same tick: `request.expire`'s is taken back here, and
            # another's (of `aclose`, whose time is over as well) still counts.
            if not request.expired or task.uncancel() > cancelled:
                raise
            return request.outcome(
                Failure(sent=request.sent, reason="no answer in time", timed_out=True)
            )
        except Exception as error:  # whatever it is, only `sent` decides what it means
            return request.outcome(_failure(error, request.sent))
        finally:
            request.sending(None)
            request.let_go()
        return request.outcome()

    async def _exchange(self, request: Request) -> None:
        session = self._session or self._open(request.url)
        if self._express is not None and is_plain(session, request.size):
            await self._express.carry(request)
            return
        response = await session.request(
            request.method,
            URL(request.url, encoded=True),
            data=request,
            allow_redirects=False,
            **self._options,
        )
        try:
            request.answered(response.status, response.headers)
            while request.wants_more and not response.content.at_eof():
                request.receive(await response.content.readany())
        finally:
            # Hands the connection back, or closes it where the body was not read to its end.
            response.release()

    def _open(self, url: str) -> aiohttp.ClientSession:
        connector = pool.Connector(
            limit=0, keepalive_timeout=self._keepalive or None, force_close=not self._keepalive
        )
        self._express = Express(
            connector, URL(url, encoded=True), headers=self._headers, timeout=self._timeout
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._trust_env,
        )
        return self._session

    async def close(self) -> None:
        """Close a session of its own; an injected one belongs to somebody else."""
        if self._session is not None and not self._injected:
            await self._session.close()


def _failure(error: Exception, sent: bool) -> Failure:
    # Errors that are not the network's come before anything is sent, from a session that was
    # closed or set up in a way that does not fit: to try again would not help.
    words = " ".join(str(error).split())[:300]
    return Failure(
        sent=sent,
        reason=f"{type(error).__name__}: {words}" if words else type(error).__name__,
        timed_out=isinstance(error, TimeoutError),
        fatal=isinstance(error, _FATAL) or not isinstance(error, _NETWORK),
    )
