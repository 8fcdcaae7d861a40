"""One exchange over a connection: write the request, read its answer up to a limit.

Both wires use this, so they have the same rules: when a request counts as sent, how much is read,
and when a connection must not be used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from .request import Failure, Reply, Request, SendGuard

MAX_ANSWER: Final = 1 << 20
"""Bytes of an answer, after decompression; a longer answer is cut and its connection closed.

A request may allow more.
"""

_NO_HEADERS: Final[Mapping[str, str]] = {}


class Wire(Protocol):
    """A way to send a request to the server and to read its answer."""

    async def carry(self, exchange: Exchange) -> None:
        """Write the request, and pass the answer to the exchange.

        Raises:
            Exception: The request failed; the exchange keeps what was read before.
        """
        ...


class Exchange:
    """The state of one request in progress.

    Attributes:
        request: The request.
        guard: Permits one send at most.
        headers: The answer's headers; empty until its head has arrived.
        is_stuck: Whether a part of the request was still unsent when the answer began.
    """

    __slots__ = (
        "_answer",
        "_room",
        "_status",
        "connection",
        "guard",
        "headers",
        "is_stuck",
        "request",
    )

    def __init__(self, request: Request, guard: SendGuard) -> None:
        self.request = request
        self.guard = guard
        self.connection: asyncio.Transport | None = None
        self.is_stuck = False
        self._status: int | None = None
        self.headers = _NO_HEADERS
        self._answer: list[bytes] = []
        self._room = request.max_answer or MAX_ANSWER

    @property
    def is_cut(self) -> bool:
        """Whether the answer is longer than what is read of it."""
        return self._room < 0

    def leave(self, connection: asyncio.Transport | None) -> None:
        """Mark the request as sent, right before it is written to a connection in one piece.

        Raises:
            SendRefusedError: The request was withdrawn, or sent before; do not write it.
            aiohttp.ClientConnectionError: The connection closed first; do not write it.
        """
        if connection is None or connection.is_closing():
            raise aiohttp.ClientConnectionError("the connection closed before the request left")
        self.guard.send()
        self.connection = connection

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of the answer has arrived."""
        # Now, because later the connection may carry another request.
        self.is_stuck = self._holds_unsent_bytes()
        self._status = status
        self.headers = headers
        self._answer = []  # the answer may be read again from its beginning
        self._room = self.request.max_answer or MAX_ANSWER
        if status >= 200:
            self.guard.answer()

    def take(self, chunk: bytes) -> None:
        """Add a part of the body, up to the limit."""
        self._answer.append(chunk if len(chunk) <= self._room else chunk[: self._room])
        self._room -= len(chunk)

    async def write(self, writer: AbstractStreamWriter, limit: int | None = None) -> None:
        """Write the body, together with the headers that the writer already has.

        Args:
            writer: aiohttp's writer for one connection.
            limit: The largest number of bytes to write.

        Raises:
            SendRefusedError: The request was withdrawn, or sent before; nothing was written.
            aiohttp.ClientConnectionError: The connection closed first; nothing was written.
        """
        self.leave(getattr(writer, "transport", None))
        await writer.write(self.request.body[:limit])

    async def read(
        self, status: int, headers: Mapping[str, str], content: aiohttp.StreamReader
    ) -> None:
        """Take the head of an answer, and read its body to its end or to the limit."""
        self.begin(status, headers)
        while not self.is_cut and not content.at_eof():
            self.take(await content.readany())

    def outcome(self, failure: Failure | None = None) -> Reply | Failure:
        """The result when nothing more will arrive: a reply if there was a head, even a cut one."""
        if self._status is None:
            return failure or Failure(sent=self.guard.sent, reason="no answer")
        body = b"".join(self._answer)
        is_foreign = self.request.is_foreign
        if 200 <= self._status <= 299 and is_foreign is not None and is_foreign(body):
            if self.connection is not None:
                self.connection.abort()  # its answers cannot be matched to requests any more
            return Failure(sent=True, reason="the answer belongs to another request")
        return Reply(status=self._status, headers=self.headers, body=body)

    def let_go(self) -> None:
        """End the exchange: what is unsent now must not be sent later.

        A connection with unsent bytes would close only when the peer has read them, perhaps never.
        Without a final answer (101 is none) the connection cannot be used again anyway.
        """
        self.guard.withdraw()
        if self.connection is None:
            return
        if not self.guard.answered or (self.is_stuck and self._holds_unsent_bytes()):
            self.connection.abort()

    def _holds_unsent_bytes(self) -> bool:
        return self.connection is not None and self.connection.get_write_buffer_size() > 0
