"""One pooled aiohttp session: a request goes in, a reply or a failure comes out, both values.

This is the only file that knows aiohttp. Its exceptions end here, because they do not tell what
matters: a total timeout, say, looks the same while waiting for the pool and after the server has
acted. Whether a request may have left is told by the request's own body instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from attrs import field, frozen
from multidict import CIMultiDict
from yarl import URL

from ._version import __version__
from .errors import ConfigurationError

MAX_BODY: Final = 1 << 20
"""Bytes of an answer, after decompression; a longer one is cut and its connection closed."""

MAX_UNASKED: Final = 32
"""Connections on which the server spoke unasked that one request skips before it gives up."""

# What no repetition can help: the wrong peer, or a session that cannot send at all. Everything
# else of aiohttp that comes before the request was sent is worth another attempt.
_FATAL: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
_NETWORK: Final = (aiohttp.ClientError, OSError, TimeoutError)

_BODY_HEADERS: Final = CIMultiDict({"Content-Type": "application/json"})
_NO_HEADERS: Final[Mapping[str, str]] = {}


@frozen(kw_only=True)
class Reply:
    """An answer's head and as much of its body as came within the bounds."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@frozen(kw_only=True)
class Failure:
    """No answer came.

    Attributes:
        sent: Whether any of the request may have left.
        reason: The cause in words, from the HTTP library or the system.
        timed_out: Whether time ran out.
        fatal: Whether no repetition can help.
    """

    sent: bool
    reason: str = field(repr=False)  # a broken status line may echo the key, masked later
    timed_out: bool = False
    fatal: bool = False


class Request(aiohttp.Payload):
    """A request that goes on the wire at most once, and knows whether it may have.

    aiohttp lets the headers leave with the first bytes of the body, so the moment at which it
    asks for the body is the moment at which the request stops being unsent.

    The base class would make a dictionary of headers for each request; this one shares them, and
    keeps its state itself.

    Attributes:
        sent: Whether any of the request may have left.
    """

    def __init__(
        self,
        method: str,
        url: str,
        body: bytes,
        is_foreign: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Make a request.

        Args:
            method: The HTTP method.
            url: The full URL, percent-encoded.
            body: JSON.
            is_foreign: Tells of a 2xx answer's body whether it answers another request.
        """
        self.body = body
        self.method = method
        self.url: URL = URL(url, encoded=True)
        self.is_foreign = is_foreign
        self.sent: bool = False
        self.withdrawn: bool = False
        self.expired: bool = False
        self._sender: asyncio.Task[Any] | None = None
        self._drop: Callable[[], None] = _nothing
        self._status: int | None = None
        self._answer_headers = _NO_HEADERS
        self._answer: list[bytes] = []
        self._room = MAX_BODY

    @property
    def headers(self) -> CIMultiDict[str]:
        """What aiohttp adds to the request's own headers."""
        return _BODY_HEADERS

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text, for who asks aiohttp for it."""
        return self.body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Called by aiohttp where no length is known."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Called by aiohttp when headers and body are about to leave."""
        wire: asyncio.Transport | None = getattr(writer, "transport", None)
        if wire is None or wire.is_closing():
            raise aiohttp.ClientConnectionError("the connection closed before the request left")
        if self.withdrawn or self.sent:
            raise aiohttp.ClientConnectionError("the request was withdrawn, or sent before")
        self.sent = True
        self._drop = wire.abort
        await writer.write(self.body[:content_length])

    def withdraw(self) -> None:
        """From now on it cannot be sent any more.

        Before Python 3.12 aiohttp writes in a task of its own, which outlives the cancellation
        of the sender by a step: withdraw first, then cancel.
        """
        self.withdrawn = True

    def expire(self) -> None:
        """Its time is over: withdraw it, and let the sender return with what there is."""
        self.withdraw()
        if self._sender is not None:
            self.expired = True
            self._sender.cancel()

    def sending(self, task: asyncio.Task[Any] | None) -> None:
        """The task that :meth:`expire` interrupts, while there is one."""
        self._sender = task

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of an answer came."""
        self._status = status
        self._answer_headers = headers

    def receive(self, chunk: bytes) -> bool:
        """Keep a part of the answer's body; False where that is all that will be kept."""
        self._answer.append(chunk[: self._room])
        self._room -= len(chunk)
        return self._room > 0

    def outcome(self, failure: Failure | None = None) -> Reply | Failure:
        """What is known when no more will come: a reply once there was a head, even if cut."""
        if self._status is None:
            return failure or Failure(sent=self.sent, reason="no answer")
        body = b"".join(self._answer)
        if 200 <= self._status <= 299 and self.is_foreign is not None and self.is_foreign(body):
            self._drop()  # whose answers come over it cannot be known any more
            return Failure(sent=True, reason="the answer belongs to another request")
        return Reply(status=self._status, headers=self._answer_headers, body=body)


def _nothing() -> None:
    """There is no connection to drop."""


class _Connector(aiohttp.TCPConnector):
    """A pool that never hands out a connection on which the server spoke unasked.

    aiohttp would give such an answer to the next request as its own (aio-libs/aiohttp#13656).
    """

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        for _ in range(MAX_UNASKED):
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        raise aiohttp.ClientConnectionError("the server speaks before it is asked")


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
        request.sending(task)
        try:
            response = await self._open().request(
                request.method, request.url, data=request, allow_redirects=False, **self._options
            )
            try:
                request.answered(response.status, response.headers)
                while not response.content.at_eof():
                    if not request.receive(await response.content.readany()):
                        break
            finally:
                # Hands the connection back, or closes it where the body was not read to its end.
                response.release()
        except asyncio.CancelledError:
            if not request.expired:
                raise
            task.uncancel()  # the client's own task, and its own cancellation
            return request.outcome(
                Failure(sent=request.sent, reason="no answer in time", timed_out=True)
            )
        except Exception as error:  # whatever it is, only `sent` decides what it means
            return request.outcome(_failure(error, request.sent))
        finally:
            request.sending(None)
        return request.outcome()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(
                    limit=0,
                    keepalive_timeout=self._keepalive or None,
                    force_close=not self._keepalive,
                ),
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
