"""Sessions and requests as the emulator reports them: frozen values, safe to print."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Operation = Literal["start", "stop", "read"]
Resource = Literal["session", "conversation"]

KEPT = 10_000
"""How many ended sessions and how many requests are kept; counts include all."""

KEPT_TEXT = 256
"""How many characters of a caller's text are kept after a session has ended."""


@frozen
class EmulatedSession:
    """A session or a conversation of the emulator.

    Times are seconds on the emulator's clock.

    Attributes:
        id: Its id.
        name: The name in its request.
        client: The ``client`` in its request.
        started_at: When it was started.
        max_duration: Seconds after which it ends by itself; of a conversation ``maxSeconds``.
        status: ``starting``, ``running`` or ``ended``, when it was read.
        ended_at: When it ended.
        seconds: How long it has been running; this is billed.
        resource: ``session`` or ``conversation``.
        number: Its place in the order of starts, from 1.
        joined_at: When a participant first joined; see :meth:`EquosEmulator.join`.
    """

    id: str
    name: str
    client: str | None
    started_at: float
    max_duration: float | None
    status: str
    ended_at: float | None
    seconds: float
    resource: Resource
    number: int
    joined_at: float | None


@frozen
class EmulatorRequest:
    """A request that the emulator read; never its headers or its body.

    Attributes:
        number: Its place in the order in which requests were read, from 1.
        operation: ``start``, ``stop`` or ``read``; None if it was none of these.
        method: The HTTP method.
        path: The path, without a query.
        at: When it was read, in seconds on the emulator's clock.
        name: The name in the body of a start.
        session_id: The id in the path of a stop or a look-up.
        status: The status of its answer; None: not answered yet, or never.
        resource: ``session`` or ``conversation``.
    """

    number: int
    operation: Operation | None
    method: str
    path: str
    at: float
    name: str | None = None
    session_id: str | None = None
    status: int | None = None
    resource: Resource | None = None


def shorten(text: str) -> str:
    """A text, shortened for the records of what has ended."""
    return text if len(text) <= KEPT_TEXT else text[: KEPT_TEXT - 1] + "…"
