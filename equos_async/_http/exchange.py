"""One exchange over a connection: the request is written, its answer is read within bounds.

Both wires use this, so the rules are the same on both: what counts as sent, how much is read, and
when a connection must not be used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from .request import Failure, Reply, Request, SendGuard

MAX_ANSWER: Final = 1 << 20
"""Bytes of an answer, after decompression; a longer one is cut and its connection closed.

A request may allow more.
"""

_NO_HEADERS: Final[Mapping[str, str]] = {}


class Wire(Protocol):
    """A way for a request to the server and for its answer back."""

    async def carry(self, exchange: Exchange) -> None:
        """Write the request, and let the exchange read the answer.

        Raises:
            Exception: It went wrong; the exchange keeps what was read until then.
        """
        ...


class Exchange:
    """What is known of one request that is under way.

    Attributes:
        request: What is to be sent.
        guard: Lets it out at most once.
        headers: Of the answer; empty until its head came.
        is_stuck: Whether some of the request had not left when the answer began.
    """

    __slots__ = (
        "_answer",
        "_connection",
        "_room",
        "_status",
        "guard",
        "headers",
        "is_stuck",
        "request",
    )

    def __init__(self, request: Request, guard: SendGuard) -> None:
        self.request = request
        self.guard = guard
        self._connection: asyncio.Transport | None = None
        self.is_stuck = False
        self._status: int | None = None
        self.headers = _NO_HEADERS
        self._answer: list[bytes] = []
        self._room = request.max_answer or MAX_ANSWER

    @property
    def is_cut(self) -> bool:
        """Whether there is more of the answer than is read."""
        return self._room < 0

    def leave(self, connection: asyncio.Transport | None) -> None:
        """The request is about to be written to a connection, now and in one go.

        Raises:
            SendRefusedError: The request was withdrawn, or sent before; do not write it.
            aiohttp.ClientConnectionError: The connection closed first; do not write it.
        """
        if connection is None or connection.is_closing():
            raise aiohttp.ClientConnectionError("the connection closed before the request left")
        self.guard.send()
        self._connection = connection

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of the answer came."""
        # Asked now: later the connection may carry another request already.
        self.is_stuck = self._holds_unsent_bytes()
        self._status = status
        self.headers = headers
        if status >= 200:
            self.guard.answer()

    def take(self, chunk: bytes) -> None:
        """A part of the body came, of which as much is kept as there is room for."""
        self._answer.append(chunk if len(chunk) <= self._room else chunk[: self._room])
        self._room -= len(chunk)

    async def write(self, writer: AbstractStreamWriter, limit: int | None = None) -> None:
        """Write the body, with which the headers leave that were given to the writer before.

        Args:
            writer: aiohttp's, for one connection.
            limit: How many bytes to write at most.

        Raises:
            SendRefusedError: The request was withdrawn, or sent before; nothing was written.
            aiohttp.ClientConnectionError: The connection closed first; nothing was written.
        """
        self.leave(getattr(writer, "transport", None))
        await writer.write(self.request.body[:limit])

    async def read(
        self, status: int, headers: Mapping[str, str], content: aiohttp.StreamReader
    ) -> None:
        """Take the head of an answer, and read its body to its end or to the bound."""
        self.begin(status, headers)
        while not self.is_cut and not content.at_eof():
            self.take(await content.readany())

    def outcome(self, failure: Failure | None = None) -> Reply | Failure:
        """What is known when no more will come: a reply once there was a head, even if cut."""
        if self._status is None:
            return failure or Failure(sent=self.guard.sent, reason="no answer")
        body = b"".join(self._answer)
        is_foreign = self.request.is_foreign
        if 200 <= self._status <= 299 and is_foreign is not None and is_foreign(body):
            if self._connection is not None:
                self._connection.abort()  # whose answers come over it cannot be known any more
            return Failure(sent=True, reason="the answer belongs to another request")
        return Reply(status=self._status, headers=self.headers, body=body)

    def let_go(self) -> None:
        """It is over: what has not left by now must not leave later.

        A connection that still holds some of it would not close before the peer took it in,
        which may be never. Without a final answer, which 101 is not, it is of no use anyhow.
        """
        self.guard.withdraw()
        if self._connection is None:
            return
        if not self.guard.answered or (self.is_stuck and self._holds_unsent_bytes()):
            self._connection.abort()

    def _holds_unsent_bytes(self) -> bool:
        return self._connection is not None and self._connection.get_write_buffer_size() > 0
