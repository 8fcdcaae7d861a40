"""What the client tells those who watch it: plain values without a header, token or body.

The logger ``equos_async`` gets each event as one record. Its message is the event in words. Beside
it, flat and ready for a formatter that writes JSON, stand ``equos_event``, which is the event's
kind, and those of its other fields that are set, by their own names after ``equos_``:
``equos_operation``, ``equos_attempts``, ``equos_status``, ``equos_session_id``.
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
    # Money is at stake: a session may be running that nobody will stop.
    "start_unknown": logging.WARNING,
    "settling_off": logging.WARNING,
    "stop_failed": logging.WARNING,
    # Nobody can join what the server says is over.
    "not_live": logging.WARNING,
    # The contract changed under this release, or somebody in between changes answers.
    "unreadable_field": logging.WARNING,
}


@frozen(kw_only=True)
class Event:
    """Something worth knowing, told in the context of the call that it is about.

    The context variables are those of whoever made the call: a tracer finds its caller's span.

    Attributes:
        kind: ``"ended"``: a caller got its answer, or an error, or was cancelled; once for each
            call, where it was not refused before it began. ``"retry"``: a call will be tried
            again. ``"paused"``: the server asked for time, and all starts wait.
            ``"not_live"``: a start was answered with a session that is over already.
            ``"start_unknown"``: a start may have made a session that nobody holds.
            ``"settled"``: what such a start made was found and is confirmed to be ended.
            ``"settling_off"``: lost starts of this resource cannot be looked for, for the reason
            given. ``"orphan_stopped"``: a session whose caller was gone has been stopped.
            ``"stop_failed"``: a session could not be stopped; the client goes on trying.
            ``"stopped_late"``: a session has been stopped after that. ``"unreadable_field"``: a
            field of an answer held another type than the contract says, and is None; the reason
            is its path; once for each field of an operation.
        operation: The call that it is about.
        resource: ``"session"`` or ``"conversation"``; None of a call that is about neither.
        attempts: Requests made for that call so far.
        reason: Why, in words.
        status: The latest answer's HTTP status, where one came.
        delay: Seconds until the next attempt, or until the pause ends.
        seconds: Since the call began, on the client's clock; with ``"ended"``, ``"retry"``,
            ``"orphan_stopped"`` and ``"stopped_late"``.
        error: The class of what was raised, by name, where a call ended with that.
        method: The HTTP method; with ``"ended"`` and ``"orphan_stopped"``, as what follows.
        url: The URL, with ``{id}`` in the place of the session's id.
        retries: The call's retries, oldest first.
        request_id: The server's ``X-Request-Id`` for the last answer, where it sent one.
        session_id: The id of the session or conversation, where known.
        name: Its name as the caller gave it, where the call was a start.
        client: The caller's own identifier, where the call was a start that had one.
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
        """The logging level that fits; WARNING where money is at stake."""
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
    """A session or conversation that may be running and that nobody holds, for people to look at.

    Attributes:
        operation: ``"start"``: its outcome never became known. ``"stop"``: stopping it failed.
        reason: Why, in words.
        at: When that became clear, in UTC.
        resource: ``"session"`` or ``"conversation"``.
        session_id: Its id, where known.
        name: Its name as the caller gave it, where the start was made here.
        client: The caller's own identifier, where the start had one.
        max_duration: Seconds after which the server ends it by itself, where the start said so.
    """

    operation: OperationName
    reason: str
    at: datetime
    resource: ResourceName = "session"
    session_id: str | None = None
    name: str | None = None
    client: str | None = None
    max_duration: float | None = None
