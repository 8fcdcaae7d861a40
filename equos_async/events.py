"""Events of a client and unresolved calls, as plain values without headers, tokens or bodies.

The logger ``equos_async`` gets each event as one record. The message describes the event in words.
For formatters that write JSON, the record also has the attribute ``equos_event`` (the kind) and one
attribute for each other field that is set, with the prefix ``equos_``: ``equos_operation``,
``equos_attempts``, ``equos_status``, ``equos_session_id``.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final, Literal

from attrs import frozen

from ._shown import brief, shown
from .errors import OperationName, ResourceName

logger: Final[logging.Logger] = logging.getLogger("equos_async")

MAX_REASON: Final = 300
"""Characters of a reason that are kept."""

EventKind = Literal[
    "ended",
    "retry",
    "paused",
    "not_live",
    "start_unknown",
    "settled",
    "settling_off",
    "orphan_stopped",
    "stop_failed",
    "stopped_late",
    "unreadable_field",
]
_LEVELS: dict[EventKind, int] = {
    "ended": logging.DEBUG,
    "retry": logging.DEBUG,
    "paused": logging.DEBUG,
    "settled": logging.INFO,
    "orphan_stopped": logging.INFO,
    "stopped_late": logging.INFO,
    # A session may be running, and billed, without a stop.
    "start_unknown": logging.WARNING,
    "settling_off": logging.WARNING,
    "stop_failed": logging.WARNING,
    # A session that has ended cannot be joined.
    "not_live": logging.WARNING,
    # The API has changed since this release, or something in between changes answers.
    "unreadable_field": logging.WARNING,
}


@frozen(kw_only=True)
class Event:
    """Something that happened in a client.

    The hook runs with the context variables of the task that made the call, so a tracer finds the
    caller's span.

    Attributes:
        kind: ``"ended"``: a call returned, raised or was cancelled; once for each call that was not
            refused before it began. ``"retry"``: a call will be tried again. ``"paused"``: the
            server asked for a pause, and all starts wait. ``"not_live"``: the answer to a start
            describes a session that has already ended. ``"start_unknown"``: the outcome of a start
            is unknown; a session may be running. ``"settled"``: the session of such a start was
            found, and its end is confirmed. ``"settling_off"``: sessions of lost starts of this
            resource cannot be searched for; ``reason`` says why. ``"orphan_stopped"``: a session
            whose caller was gone has been stopped. ``"stop_failed"``: a session could not be
            stopped; the client goes on trying. ``"stopped_late"``: such a session has been stopped
            after all. ``"unreadable_field"``: a field of an answer held a value of a wrong type,
            and is None; ``reason`` is its path; once for each field of an operation.
        operation: ``"start"``, ``"stop"`` or ``"read"``.
        resource: ``"session"`` or ``"conversation"``; None for a call that is about neither.
        attempts: Requests made for that call so far.
        reason: Why, in words.
        status: The HTTP status of the latest answer, if one came.
        delay: Seconds until the next attempt, or until the pause ends.
        seconds: Seconds since the call began, on the client's clock; with ``"ended"``, ``"retry"``,
            ``"orphan_stopped"`` and ``"stopped_late"``.
        error: The class name of the exception, if the call ended with one.
        method: The HTTP method. This field and those below are set with ``"ended"`` and
            ``"orphan_stopped"``.
        url: The URL, with ``{id}`` instead of the session's id.
        retries: The call's retries, oldest first.
        request_id: The server's ``X-Request-Id`` of the last answer, if it sent one.
        session_id: The id of the session or conversation, if known.
        name: The name in the request, if the call was a start.
        client: The request's ``client``, if the call was a start that had one.
    """

    kind: EventKind
    operation: OperationName
    resource: ResourceName | None = None
    attempts: int = 0
    reason: str = ""
    status: int | None = None
    delay: float | None = None
    seconds: float | None = None
    error: str | None = None
    method: str | None = None
    url: str | None = None
    retries: tuple[Event, ...] = ()
    request_id: str | None = None
    session_id: str | None = None
    name: str | None = None
    client: str | None = None

    @property
    def level(self) -> int:
        """The logging level; WARNING if a session may be running, and billed."""
        return _LEVELS[self.kind]

    def __str__(self) -> str:
        about = brief(str(self.session_id) if self.name is None else repr(self.name))
        seconds = self.seconds if self.delay is None else self.delay
        time = "" if seconds is None else f", {seconds:.2f} s"
        return (
            f"{self.kind.replace('_', ' ')}{time}: {self.operation} of {about}, "
            f"attempt {self.attempts}: {shown(self.reason)}"
        )


@frozen(kw_only=True)
class Unresolved:
    """A session or conversation that may be running, and that no caller holds.

    Attributes:
        operation: ``"start"``: the outcome of the start is unknown. ``"stop"``: the stop failed.
        reason: Why, in words.
        at: When that became clear, in UTC.
        resource: ``"session"`` or ``"conversation"``.
        session_id: Its id, if known.
        name: The name in the request, if this client made the start.
        client: The request's ``client``, if it had one.
        max_duration: Seconds after which the server ends it by itself, if the request said so.
        id: What :meth:`EquosClient.resolve` knows it by: the session's id, if that is known.
    """

    operation: OperationName
    reason: str
    at: datetime
    resource: ResourceName = "session"
    session_id: str | None = None
    name: str | None = None
    client: str | None = None
    max_duration: float | None = None
    id: str = ""
