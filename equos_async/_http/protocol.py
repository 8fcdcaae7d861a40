"""One HTTP/1.1 connection: write a request, and read its answer (RFC 9112).

aiohttp's parser, which is written in C, finds the ends of heads, lengths and chunks. This module
decides what they mean for the connection:

- An answer ends as its length or its last chunk says. Without both it ends with the connection
  (section 6.3). If the connection ends before that, the answer is cut.
- Answers with status 1xx come before the final one and are skipped (RFC 9110, section 15.2). 101
  is not skipped: after it the server uses another protocol.
- A connection is used again only after a whole answer that does not close it: not after
  ``Connection: close``, HTTP/1.0 without ``keep-alive``, or an answer that was cut by a limit
  (section 9.3), and not after chunks in HTTP/1.0, which has none (section 6.1).
- Bytes after an answer, and bytes without a request, end the connection as well: they would be read
  as the answer to the next request (section 9.2). Empty lines directly after an answer are skipped,
  because no answer begins with one.
- When the server closes its side, nothing more is sent (section 9.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

import aiohttp
from aiohttp.connector import Connection as Pooled
from aiohttp.helpers import TimerNoop
from aiohttp.http import HttpProcessingError, HttpResponseParser, HttpVersion11

from .exchange import MAX_ANSWER, Exchange
from .pool import watch
from .request import MAX_FIELD, MAX_FIELDS

_NO_TIMER: Final = TimerNoop()  # the client has timers of its own


def make_parser(protocol: object, loop: asyncio.AbstractEventLoop) -> HttpResponseParser:
    """A parser for all answers of one connection.

    Its limit is for one step of decompression. The protocol empties the stream after each piece
    of data, so a stream that holds twice the limit is longer than what is read of an answer.
    """
    return HttpResponseParser(
        cast("Any", protocol),
        loop,
        MAX_ANSWER,
        timer=_NO_TIMER,
        payload_exception=aiohttp.ClientPayloadError,
        read_until_eof=True,
        max_line_size=MAX_FIELD,
        max_field_size=MAX_FIELD,
        max_headers=MAX_FIELDS,
    )


class Flow:
    """The flow control that aiohttp's stream of a body expects from its protocol."""

    _reading_paused = False  # older releases of aiohttp read it before they resume
    is_full = False

    def pause_reading(self) -> None:
        """The stream holds more than is read of an answer."""
        self.is_full = True

    def resume_reading(self, resume_parser: bool = True) -> None:
        """The stream was emptied, or is complete. Nothing has to be resumed."""


class AnswerProtocol(Flow, asyncio.Protocol):
    """Takes over a connection that aiohttp's connector made.

    Args:
        pooled: The connection, as the connector returned it.
        loop: The running event loop.
    """

    def __init__(self, pooled: Pooled, loop: asyncio.AbstractEventLoop) -> None:
        self.pooled = pooled
        self._loop = loop
        self._handler = cast("asyncio.Protocol", pooled.protocol)
        self._transport = cast("asyncio.Transport", pooled.transport)
        self._parser = make_parser(self, loop)
        self._exchange: Exchange | None = None
        self._answered: asyncio.Future[None] | None = None
        self._problem: BaseException | None = None
        self._body: aiohttp.StreamReader | None = None
        self._head_room = MAX_ANSWER
        self._keep = False
        self._holds_unread: Callable[[], bool] | None = None
        self._transport.set_protocol(self)

    def pause_reading(self) -> None:
        """The stream holds more than is read of an answer: decompress nothing more."""
        super().pause_reading()
        with suppress(AttributeError):  # the parser of older aiohttp has no such method
            self._parser.pause_reading()

    @property
    def is_open(self) -> bool:
        """Whether a request may be written: the connection is not known to be closed."""
        return not self._transport.is_closing()

    def is_readable(self) -> bool:
        """Whether there are bytes or an end that the busy event loop has not read yet."""
        if self._holds_unread is None:
            self._holds_unread = watch(self._transport)
        return self._holds_unread()

    async def carry(self, data: bytes, exchange: Exchange) -> bool:
        """Write a request, read its answer, and return whether the connection may be used again.

        Raises:
            SendRefusedError: The request was withdrawn, or sent before; nothing was written.
            Exception: There was no answer, or not all of it.
        """
        exchange.leave(self._transport)
        self._exchange = exchange
        self._head_room = MAX_ANSWER
        self._answered = self._loop.create_future()
        self._transport.write(data)
        return await self.read(exchange)

    async def read(self, exchange: Exchange) -> bool:
        """Wait for the answer; again, for its rest, if a signal handler ended the first wait.

        Raises:
            Exception: No answer came, or not all of it.
        """
        if self._exchange is not exchange or self._answered is None:
            return False
        try:
            await self._answered
        except (asyncio.CancelledError, GeneratorExit):
            self._forget()
            raise
        problem = self._problem
        self._forget()
        if problem is not None:
            raise problem
        return self._keep and not exchange.is_stuck and not self._transport.is_closing()

    def _forget(self) -> None:
        self._answered = self._exchange = self._body = self._problem = None

    def give_back(self) -> None:
        """Return the connection to aiohttp's handler, as it was."""
        self._transport.set_protocol(self._handler)
        del self._parser  # it refers to this protocol

    # Called by the event loop.

    def data_received(self, data: bytes) -> None:
        """The server sent bytes."""
        if self._answered is None or self._answered.done():
            self._keep = False
            self._transport.close()  # there is no request for them
            return
        try:
            self._take(data)
        except (KeyboardInterrupt, SystemExit):  # raised by a signal handler
            if not self._answered.done():
                self._loop.call_soon(self._take_again, data)
            raise

    def _take_again(self, data: bytes) -> None:
        """Read data again that was read in part; usually it is the beginning of an answer."""
        self._body, self._parser = None, make_parser(self, self._loop)
        self.data_received(data)

    def _take(self, data: bytes) -> None:
        try:
            messages, _, _ = self._parser.feed_data(data)
        except Exception as error:
            self._finish(error)
            return
        for message, body in messages:
            if self._body is not None:
                self._keep = False  # a second answer; `_holds_nothing` finds the beginning of one
            elif message.code == 101 or message.code >= 200:
                self._begin(message, body)
        if self._body is not None:
            self._read(self._body)
            return
        self._head_room -= len(data)
        if self._head_room < 0:
            self._finish(aiohttp.ClientPayloadError("the head of the answer is too long"))

    def eof_received(self) -> None:
        """The server closed its side; returning None closes ours."""
        self._end(aiohttp.ServerDisconnectedError())

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is lost, also for aiohttp's connector."""
        if isinstance(exc, OSError):
            self._finish(aiohttp.ClientOSError(*exc.args))
        else:
            self._end(exc or aiohttp.ServerDisconnectedError())
        self.pooled.close()
        self._handler.connection_lost(exc)
        del self._parser

    # Reading an answer.

    def _begin(self, message: Any, body: aiohttp.StreamReader) -> None:
        """The head of the final answer is complete."""
        self._body = body
        faulty = message.chunked and message.version < HttpVersion11
        self._keep = not (message.should_close or faulty or message.code == 101)
        cast("Exchange", self._exchange).begin(message.code, message.headers)

    def _read(self, body: aiohttp.StreamReader) -> None:
        """Pass on the received part of the body."""
        if (error := body.exception()) is not None:
            self._finish(error)
            return
        exchange = cast("Exchange", self._exchange)
        exchange.take(body.read_nowait())
        if exchange.is_cut or self.is_full:
            self._keep = False
        elif not body.is_eof():
            return
        self._finish()
        if self._keep:
            self._keep = False  # if the next line raises, the connection is not kept
            self._keep = self._holds_nothing()

    def _holds_nothing(self) -> bool:
        """Whether the parser has not started another answer after a complete one.

        If it has not, it does nothing when it learns of the connection's end.
        """
        try:
            return self._parser.feed_eof() is None
        except HttpProcessingError:
            return False

    def _end(self, error: BaseException) -> None:
        """No more bytes will arrive; an answer without length and chunks ends here."""
        if self._answered is None or self._answered.done():
            return
        if self._body is None:
            self._finish(error)
            return
        try:
            self._parser.feed_eof()
        except Exception as problem:
            self._finish(problem)
            return
        self._keep = False
        self._read(self._body)
        self._finish()

    def _finish(self, problem: BaseException | None = None) -> None:
        if self._answered is not None and not self._answered.done():
            self._problem = problem
            self._answered.set_result(None)
