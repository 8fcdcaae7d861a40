"""One request: it goes out at most once, remembers whether any of it may have, takes its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from attrs import field, frozen
from multidict import CIMultiDict

MAX_BODY: Final = 1 << 20
"""Bytes of an answer, after decompression; a longer one is cut and its connection closed."""

_BODY_HEADERS: Final = CIMultiDict({"Content-Type": "application/json"})
_NO_HEADERS: Final[Mapping[str, str]] = {}


@frozen(kw_only=True, eq=False)
class Reply:
    """An answer's head and as much of its body as came within the bounds."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@frozen(kw_only=True, eq=False)
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
        withdrawn: Whether it must not leave any more.
        expired: Whether its sender was interrupted.
    """

    sent: bool = False
    withdrawn: bool = False
    expired: bool = False
    _sender: asyncio.Task[Any] | None = None
    _wire: asyncio.Transport | None = None
    _stuck: bool = False
    _status: int | None = None
    _answer_headers = _NO_HEADERS
    _room = MAX_BODY

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
        self.url = url
        self.is_foreign = is_foreign
        self._answer: list[bytes] = []

    @property
    def headers(self) -> CIMultiDict[str]:
        """What aiohttp adds to the request's own headers."""
        return _BODY_HEADERS

    @property
    def path(self) -> str:
        """The part of the URL that the request line names."""
        return "/" + self.url.split("/", 3)[3]

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
        self._wire = wire
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

    def let_go(self) -> None:
        """Nobody waits for it any more: what has not left by now must not leave later.

        A connection that still holds some of it would not close before the peer took it in,
        which may be never. Without a final answer, which 101 is not, it is of no use anyhow.
        """
        if self._wire is None:
            return
        unanswered = self._status is None or self._status < 200
        if unanswered or (self._stuck and self._wire.get_write_buffer_size() > 0):
            self._wire.abort()

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of an answer came."""
        # Asked now: later the connection may carry another request already.
        self._stuck = self._wire is not None and self._wire.get_write_buffer_size() > 0
        self._status = status
        self._answer_headers = headers

    def receive(self, chunk: bytes) -> None:
        """Keep a part of the answer's body."""
        self._answer.append(chunk[: self._room])
        self._room -= len(chunk)

    @property
    def wants_more(self) -> bool:
        """Whether the answer is still within its bound."""
        return self._room > 0

    def outcome(self, failure: Failure | None = None) -> Reply | Failure:
        """What is known when no more will come: a reply once there was a head, even if cut."""
        if self._status is None:
            return failure or Failure(sent=self.sent, reason="no answer")
        body = b"".join(self._answer)
        if 200 <= self._status <= 299 and self.is_foreign is not None and self.is_foreign(body):
            if self._wire is not None:
                self._wire.abort()  # whose answers come over it cannot be known any more
            return Failure(sent=True, reason="the answer belongs to another request")
        return Reply(status=self._status, headers=self._answer_headers, body=body)
