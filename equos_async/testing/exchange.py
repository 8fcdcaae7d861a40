"""Apply faults to one request, and write to its connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import web

from . import replies
from .clock import EmulatorClock
from .faults import Delay, Drop, Garbage, Hang, Mishap, Redirect, Reset, Status, Truncate
from .replies import Reply

_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with zero seconds: closing the socket sends a reset."""

_Silent = Hang | Truncate | Garbage | Drop | Reset


class Exchange:
    """One request that faults hit.

    Args:
        request: The request, read to its end.
        act: Carries the request out.
        at: When the request was read; delays count from there.
        clock: The clock for delays.
    """

    def __init__(
        self, request: web.Request, act: Callable[[], Reply], at: float, clock: EmulatorClock
    ) -> None:
        self._transport = request.transport
        self._work = act
        self._at = at
        self._clock = clock
        self._done: Reply | None = None
        self.gone: asyncio.Event = asyncio.Event()
        """Set when the caller has closed the connection."""

    async def run(self, faults: Sequence[Mishap]) -> Reply | None:
        """Apply the faults: delays one after the other, up to the first of another kind.

        Returns:
            The answer; None if the connection was closed without one.
        """
        for fault in faults:
            if fault.when == "after":
                self._act()
            if not isinstance(fault, Delay):
                return await self._happen(fault)
            self._at += fault.seconds
            await self._clock.sleep_until(self._at)
        return self._act()

    def _act(self) -> Reply:
        """Carry the request out, once."""
        if self._done is None:
            self._done = self._work()
        return self._done

    async def _happen(self, fault: Status | Redirect | _Silent) -> Reply | None:
        match fault:
            case Status():
                return _status_reply(fault)
            case Redirect(location=location, status=status):
                return Reply(status, headers={"Location": location})
            case Hang():
                await self.gone.wait()
            case Truncate(keep=keep):
                reply = self._act()
                self._close(_head(reply) + reply.body[:keep])
            case Garbage(data=data):
                self._close(data)
            case Drop():
                self._close()
            case _:
                self._reset()
        return None

    def _close(self, last_words: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(last_words)
            self._transport.close()

    def _reset(self) -> None:
        if self._transport is not None:
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._transport.abort()


def _head(reply: Reply) -> bytes:
    """The head of an answer, as the server writes it before a body that it will cut off."""
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines += [f"Content-Length: {len(reply.body)}", "", ""]
    return "\r\n".join(lines).encode()


def _status_reply(fault: Status) -> Reply:
    reply = replies.error(fault.status, fault.message)
    headers = {**reply.headers, **fault.headers}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    body = fault.body.encode() if isinstance(fault.body, str) else fault.body
    return Reply(fault.status, reply.body if body is None else body, headers)
