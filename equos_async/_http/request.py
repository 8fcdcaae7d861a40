"""One request as data, and the guard that lets it out at most once.

The values have no repr: it would show keys, tokens and what people said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from attrs import frozen
from multidict import CIMultiDict

CUT: Final = "its time is over"
"""The message of a cancellation with which the client itself ends an attempt."""

MAX_FIELD: Final = 64 << 10
"""Bytes of a field in the head of an answer, and of its status line."""

MAX_FIELDS: Final = 1000
"""Fields in the head of an answer."""


@frozen(kw_only=True, eq=False, repr=False)
class Request:
    """What is to be sent.

    Attributes:
        method: The HTTP method.
        url: The full URL, percent-encoded.
        headers: All headers but Host, Content-Length and Connection, which the wire adds. Many
            requests share them, so they are never changed.
        body: The bytes to send; none where it is empty.
        max_answer: Bytes that are read of an answer; None: as many as of most.
        is_foreign: Tells of the body of a 2xx answer whether it answers another request.
    """

    method: str
    url: str
    headers: CIMultiDict[str]
    body: bytes = b""
    max_answer: int | None = None
    is_foreign: Callable[[bytes], bool] | None = None


@frozen(kw_only=True, eq=False, repr=False)
class Reply:
    """An answer's head and as much of its body as came within the bounds."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@frozen(kw_only=True, eq=False, repr=False)
class Failure:
    """No answer came.

    Attributes:
        sent: Whether any of the request may have left.
        reason: The cause in words, from the HTTP library or the system. It may hold a part of the
            answer, and so the key, which is masked where it is shown.
        timed_out: Whether time ran out.
        fatal: Whether no repetition can help.
    """

    sent: bool
    reason: str
    timed_out: bool = False
    fatal: bool = False


class SendRefusedError(Exception):
    """The guard does not let the request out: it was withdrawn, or sent before."""


class _State(Enum):
    UNSENT = 1
    SENT = 2
    ANSWERED = 3
    WITHDRAWN = 4


_UNSENT, _SENT, _ANSWERED, _WITHDRAWN = _State  # an attribute of an enum is slow to look up


class SendGuard:
    """Lets one request out at most once, and knows whether it may have left.

    One guard serves one attempt. The wire calls :meth:`send` right before it writes the first
    byte, so an unsent request is one of which the server read nothing.
    """

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = _UNSENT

    @property
    def sent(self) -> bool:
        """Whether any of the request may have left."""
        return self._state is _SENT or self._state is _ANSWERED

    @property
    def answered(self) -> bool:
        """Whether the head of a final answer came after it was sent."""
        return self._state is _ANSWERED

    @property
    def withdrawn(self) -> bool:
        """Whether it was stopped before any of it left."""
        return self._state is _WITHDRAWN

    def send(self) -> None:
        """The wire is about to write: from now on the request counts as sent.

        Raises:
            SendRefusedError: It must not be written; nothing changed.
        """
        if self._state is not _UNSENT:
            raise SendRefusedError("the request was withdrawn or was already sent")
        self._state = _SENT

    def answer(self) -> None:
        """The head of a final answer came. A test double answers what it never wrote."""
        if self._state is _SENT:
            self._state = _ANSWERED

    def withdraw(self) -> None:
        """From now on an unsent request cannot be sent; one that was sent stays sent.

        Before Python 3.12 aiohttp writes in a task of its own, which outlives the cancellation
        of the sender by a step: withdraw first, then cancel.
        """
        if self._state is _UNSENT:
            self._state = _WITHDRAWN
