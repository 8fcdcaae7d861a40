"""What the emulator tells about sessions and requests: frozen values, safe to print."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Operation = Literal["start", "stop", "read"]
Resource = Literal["session", "conversation"]

KEPT = 10_000
"""How many ended sessions and how many requests are remembered; the counts go on."""

KEPT_TEXT = 256
"""How many characters of a caller's text are remembered once it is only history."""


@frozen
class EmulatedSession:
    """A session or a conversation in the emulator's books.

    Times are seconds on the emulator's clock.

    Attributes:
        id: What it is stopped by.
        name: What its start called it.
        client: For whom it was started, where the start said so.
        started_at: When it was started.
        max_duration: Seconds after which it ends by itself; a conversation's ``maxSeconds``.
        status: ``starting``, ``running`` or ``ended``, at the time of asking.
        ended_at: When it ended.
        seconds: How long it has been running, which is what is billed.
        resource: ``session`` or ``conversation``.
        number: Its place in the order of starts, from 1.
        joined_at: When somebody joined it; see :meth:`EquosEmulator.join`.
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
        operation: ``start``, ``stop`` or ``read``; None where it was none of these.
        method: The HTTP method.
        path: The path, without a query.
        at: When it was read, in seconds on the emulator's clock.
        name: The name of the session that a start asks for.
        session_id: The id of the session that a stop or a look-up names.
        status: How it was answered; None: not yet, or never.
        resource: What it was about: ``session`` or ``conversation``.
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
    """A text as history keeps it: bounded, whatever a caller sent."""
    return text if len(text) <= KEPT_TEXT else text[: KEPT_TEXT - 1] + "…"
