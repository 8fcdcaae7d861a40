"""One request as data, and the guard that permits one send at most.

The values have no repr, because it would show keys, tokens and texts of people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from attrs import frozen
from multidict import CIMultiDict

CUT: Final = "its time is over"
"""The message of the cancellation by which the client itself ends an attempt."""

MAX_FIELD: Final = 64 << 10
"""Largest number of bytes of a header field in an answer, and of its status line."""

MAX_FIELDS: Final = 1000
"""Largest number of header fields in an answer."""


@frozen(kw_only=True, eq=False, repr=False)
class Request:
    """A request.

    Attributes:
        method: The HTTP method.
        url: The full URL, percent-encoded.
        headers: All headers but Host, Content-Length and Connection, which the wire adds. Many
            requests share them, so they are never changed.
        body: The bytes to send; may be empty.
        max_answer: Bytes that are read of an answer; None: the usual limit.
        is_foreign: Decides from the body of a 2xx answer whether it belongs to another request.
    """

    method: str
    url: str
    headers: CIMultiDict[str]
    body: bytes = b""
    max_answer: int | None = None
    is_foreign: Callable[[bytes], bool] | None = None


@frozen(kw_only=True, eq=False, repr=False)
class Reply:
    """An answer's head and its body, up to the limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@frozen(kw_only=True, eq=False, repr=False)
class Failure:
    """There was no answer.

    Attributes:
        sent: Whether any part of the request may have been sent.
        reason: The cause in words, from the HTTP library or the system. It may contain a part of
            the answer, and so the key, which is masked before it is shown.
        timed_out: Whether a time limit ended it.
        fatal: Whether a repetition cannot help.
    """

    sent: bool
    reason: str
    timed_out: bool = False
    fatal: bool = False


class SendRefusedError(Exception):
    """The guard does not permit the send: the request was withdrawn, or sent before."""


class _State(Enum):
    UNSENT = 1
    SENT = 2
    ANSWERED = 3
    WITHDRAWN = 4


_UNSENT, _SENT, _ANSWERED, _WITHDRAWN = _State  # an attribute of an enum is slow to look up


class SendGuard:
    """Permits one send of one request, and knows whether it may have been sent.

    Each attempt has its own guard. The wire calls :meth:`send` right before it writes the first
    byte, so the server has read nothing of an unsent request.
    """

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = _UNSENT

    @property
    def sent(self) -> bool:
        """Whether any part of the request may have been sent."""
        return self._state is _SENT or self._state is _ANSWERED

    @property
    def answered(self) -> bool:
        """Whether the head of a final answer arrived after the send."""
        return self._state is _ANSWERED

    @property
    def withdrawn(self) -> bool:
        """Whether it was withdrawn before any part was sent."""
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
        """The head of a final answer arrived. A test double may answer without a send."""
        if self._state is _SENT:
            self._state = _ANSWERED

    def withdraw(self) -> None:
        """Forbid the send, if the request was not sent yet.

        Before Python 3.12 aiohttp writes in a separate task, which runs one step longer than the
        cancelled sender: withdraw first, then cancel.
        """
        if self._state is _UNSENT:
            self._state = _WITHDRAWN
