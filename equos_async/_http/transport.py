"""Send one request over the right wire, and return a reply or a failure, both values.

aiohttp's exceptions are not passed on, because they do not say what matters: for example, a total
timeout looks the same while the request waits for the pool and after the server has acted. The send
guard says instead whether a request may have been sent.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from equos_async._validate import Proxy
from equos_async.clock import Clock, Deadlines
from equos_async.errors import ConfigurationError
from equos_async.events import logger

from . import gate, pool
from .deadlines import Watch
from .direct import DirectWire, KeptConnections, LentConnections, read_on
from .exchange import Exchange, Wire
from .lookups import Lookups, default_resolver
from .request import Failure, Reply, Request, SendRefusedError
from .session import HEAD_BOUNDS, SessionWire

# Errors that no retry can help: the wrong peer, or a session that cannot send at all. All other
# errors of aiohttp before the request was sent are retried.
_FATAL: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
_NETWORK: Final = (
    aiohttp.ClientError,
    HttpProcessingError,
    OSError,
    TimeoutError,
    SendRefusedError,
)
_FROM_A_THREAD: Final = ": from another thread use asyncio.run_coroutine_threadsafe"


class Transport:
    """The aiohttp session of one client, made at first use and bound to that event loop.

    Args:
        clock: The clock for the times of :meth:`send`.
        connect_timeout: Seconds for a connection to be made.
        keepalive: Seconds that an idle connection is kept; 0 for a new one for each request.
        trust_env: Whether proxies are taken from the environment.
        proxy: The proxy, if the transport creates the session.
        tls: The TLS settings, if the transport creates the session; None: the defaults.
        http_session: The user's session; None: the transport creates one.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        connect_timeout: float,
        keepalive: float,
        trust_env: bool,
        proxy: Proxy | None = None,
        tls: ssl.SSLContext | None = None,
        http_session: aiohttp.ClientSession | None,
    ) -> None:
        # The client has its own timers for attempts: `total` would be rounded up to a second. The
        # threshold prevents that for the others.
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=connect_timeout,
            sock_connect=connect_timeout,
            ceil_threshold=float("inf"),
        )
        self._deadlines = Deadlines[Watch](clock, Watch.ring)
        self._keepalive = keepalive
        self._trust_env = trust_env and proxy is None
        self._proxy = proxy
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own: aiohttp.ClientSession | None = None
        self._direct: DirectWire | None = None
        self._session_wire: SessionWire | None = None
        self._injected = http_session
        self._gate: gate.Gate | None = None
        self._lookups = Lookups()
        self._proxied: dict[str, SessionWire | None] = {}

    @property
    def is_open(self) -> bool:
        """Whether the transport has created a session that must be closed."""
        return self._own is not None and not self._own.closed

    @property
    def direct(self) -> bool:
        """Whether requests may use the direct wire; decided with the first request."""
        return self._direct is not None

    def bind(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, which must be the same at every use.

        Raises:
            ConfigurationError: The client was used in another loop before.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError(
                "this client belongs to another event loop"
                + (", which is closed: " if self._loop.is_closed() else f"{_FROM_A_THREAD}, or ")
                + "create one client for each loop, and so for each asyncio.run"
            )
        return loop

    async def send(
        self,
        exchange: Exchange,
        *,
        until: float,
        listen_until: float | None = None,
        overdue: Callable[[], None] | None = None,
    ) -> Reply | Failure:
        """Send a request over a wire, and return the result.

        An unsent request is withdrawn and ended at ``until``. A sent one is ended then as well,
        unless ``listen_until`` is later. To end it earlier, withdraw the guard, and then cancel
        the task.

        Args:
            exchange: A new one for each attempt.
            until: The end of the attempt's time, on the client's clock.
            listen_until: The time until which the answer to a sent request is awaited.
            overdue: Called once if the answer to a sent request is awaited beyond ``until``.

        Raises:
            asyncio.CancelledError: The task was cancelled from outside.
            BaseException: A signal handler raised it here; :meth:`resume` continues the request.
        """
        guard = exchange.guard
        watch = Watch(self._deadlines, guard, until, listen_until, overdue)
        try:
            await (await self._choose(exchange.request)).carry(exchange)
            exchange.let_go()
        except (Exception, asyncio.CancelledError, GeneratorExit) as error:
            exchange.let_go()
            if watch.has_ended(error):
                return exchange.outcome(
                    Failure(sent=guard.sent, reason="no answer in time", timed_out=True)
                )
            if not isinstance(error, Exception):
                raise
            if not guard.sent and self._injected is not None and self._injected.closed:
                error = RuntimeError("http_session is closed: close the client before it")
            return exchange.outcome(failure_of(error, sent=guard.sent))
        finally:
            watch.stop()
        return exchange.outcome()

    async def resume(self, exchange: Exchange) -> Reply | Failure:
        """Continue a :meth:`send` that a signal handler ended; an unsent request is not sent."""
        try:
            await read_on(exchange)
        finally:
            exchange.let_go()
        return exchange.outcome()

    async def close(self) -> None:
        """Close the session, unless it is the user's."""
        self._deadlines.clear()
        if self._own is not None:
            await self._own.close()  # also closes idle connections, and waits for that
        if self._direct is not None:
            self._direct.close()
        await self._lookups.close()

    async def _choose(self, request: Request) -> Wire:
        through = self._session_wire or self._open()
        if self._trust_env and self._own is not None:
            proxied = await self._find_proxied(self._own, request.url)
            if proxied is not None:
                return proxied
        if self._direct is not None and self._gate is not None and self._gate.admits(request):
            return self._direct
        return through

    def _open(self) -> SessionWire:
        if self._injected is not None:
            self._session_wire = self._open_through(self._injected)
        else:
            self._session_wire = self._open_own()
        return self._session_wire

    def _open_through(self, session: aiohttp.ClientSession) -> SessionWire:
        """Use the user's session."""
        checks, connector = gate.Gate(session), session.connector
        if checks.is_plain and connector is not None and gate.find_misfit() is None:
            lent = LentConnections(connector, self._timeout)
            jar = session.cookie_jar
            self._direct = DirectWire(lent, close=connector.force_close, jar=jar)
            self._gate = checks
        # The client's own session is made with these; a user's gets them with each request.
        return SessionWire(
            session,
            inspector=pool.Inspector(),
            timeout=self._timeout,
            raise_for_status=False,
            middlewares=(),
            **HEAD_BOUNDS,
        )

    def _open_own(self) -> SessionWire:
        connector = pool.Connector(
            limit=0,
            keepalive_timeout=self._keepalive or None,
            force_close=not self._keepalive,
            resolver=default_resolver() or self._lookups,
            ssl=True if self._tls is None else self._tls,
        )
        # Without `trust_env`, because such a session reads the environment in threads of the loop's
        # executor, which may be busy, and refuses our Authorization if a netrc has another one.
        own = self._own = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            **cast("Any", HEAD_BOUNDS),
        )
        if self._proxy is not None:
            return _through(own, URL(self._proxy.url, encoded=True), self._proxy.authorization)
        misfit = gate.find_misfit()
        if misfit is None:
            kept = KeptConnections(connector, self._timeout, self._keepalive)
            self._direct = DirectWire(kept, close=not self._keepalive)
            self._gate = gate.Gate(own)
        else:
            logger.info("requests take the slower way through aiohttp's session: %s", misfit)
        return SessionWire(own)

    async def _find_proxied(self, own: aiohttp.ClientSession, url: str) -> SessionWire | None:
        """The wire through the proxy that the environment names; read once for each server."""
        origin = "/".join(url.split("/", 3)[:3])
        if origin not in self._proxied:
            found = await self._lookups.find_proxy(URL(origin, encoded=True))
            wire = None
            if found is not None:
                wire = _through(own, *found)
            self._proxied[origin] = wire
        return self._proxied[origin]


def _through(own: aiohttp.ClientSession, proxy: URL, authorization: str | None) -> SessionWire:
    """The wire through a proxy; aiohttp sends these headers to the proxy only."""
    headers = {} if authorization is None else {"Authorization": authorization}
    return SessionWire(own, proxy=proxy, proxy_headers=headers)


def failure_of(error: Exception, *, sent: bool) -> Failure:
    """The failure that an exception of an exchange stands for."""
    # Errors that are not of the network are raised before anything is sent, by a session that was
    # closed or has unsuitable settings: a retry would not help.
    words = _words_of(error)
    return Failure(
        sent=sent,
        reason=f"{type(error).__name__}: {words}" if words else type(error).__name__,
        timed_out=isinstance(error, TimeoutError),
        fatal=isinstance(error, _FATAL) or not isinstance(error, _NETWORK) or _is_refusal(error),
    )


def _is_refusal(error: Exception) -> bool:
    """Whether a proxy refuses the request for good, for example because of a wrong login."""
    if not isinstance(error, aiohttp.ClientHttpProxyError):
        return False
    return 400 <= error.status <= 499 and error.status not in {408, 421, 425, 429}


_QUOTING: Final = (
    aiohttp.ClientPayloadError,
    aiohttp.ClientResponseError,
    aiohttp.ServerDisconnectedError,
    HttpProcessingError,
)
"""Errors whose text may contain a part of the answer, such as a token."""

MAX_REASON: Final = 2000
"""Characters of a reason; it is masked and shortened further before it is shown."""


def _words_of(error: Exception) -> str:
    """An exception's text in one line, in whole words, because half a key cannot be masked."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered with status {error.status}"
    if isinstance(error, _QUOTING):
        return _QUOTED_INSTEAD[isinstance(error, aiohttp.ServerDisconnectedError)]
    words, room = list[str](), MAX_REASON
    for word in str(error).split():
        room -= len(word) + 1
        if room < 0:
            break
        words.append(word)
    return " ".join(words)


_QUOTED_INSTEAD: Final = ("the answer breaks the rules of HTTP", "the server disconnected")
