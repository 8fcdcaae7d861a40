"""What the client tells those who watch it: plain values without a header, token or body.

The logger ``equos_async`` gets each event as one record. Its message is the event in words. Beside
it, flat and ready for a formatter that writes JSON, stand ``equos_event``, which is the event's
kind, and those of its other fields that are set, by their own names after ``equos_``:
``equos_operation``, ``equos_attempts``, ``equos_status``, ``equos_session_id``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from attrs import asdict, define, frozen

from .errors import Operation
from .waiting import Clock

logger: Final[logging.Logger] = logging.getLogger("equos_async")

MAX_UNRESOLVED: Final = 1000
MAX_REASON: Final = 300

EventKind = Literal["ended", "retry", "paused", "start_unknown", "orphan_stopped", "stop_failed"]

_LEVELS: dict[EventKind, int] = {
    "ended": logging.DEBUG,
    "retry": logging.DEBUG,
    "paused": logging.DEBUG,
    "orphan_stopped": logging.INFO,
    # Money is at stake: a session may be running that nobody will stop.
    "start_unknown": logging.WARNING,
    "stop_failed": logging.WARNING,
}


@frozen(kw_only=True)
class Event:
    """Something worth knowing, told in the context of the call that it is about.

    The context variables are those of whoever made the call: a tracer finds its caller's span.

    Attributes:
        kind: ``"ended"``: a caller got its answer, or an error, or was cancelled; once for each
            call, where it was not refused before it began. ``"retry"``: a call will be tried
            again. ``"paused"``: the server asked for time, and all starts wait.
            ``"start_unknown"``: a start may have made a session that nobody holds.
            ``"orphan_stopped"``: a session whose caller was gone has been stopped.
            ``"stop_failed"``: a session could not be stopped.
        operation: The call that it is about.
        attempts: Requests made for that call so far.
        reason: Why, in words.
        status: The latest answer's HTTP status, where one came.
        delay: Seconds until the next attempt, or until the pause ends.
        seconds: Since the call began, on the client's clock; with ``"ended"``, ``"retry"`` and
            ``"orphan_stopped"``.
        error: The class of what was raised, by name, where a call ended with that.
        method: The HTTP method; with ``"ended"`` and ``"orphan_stopped"``, as what follows.
        url: The URL, with ``{id}`` in the place of the session's id.
        retries: The call's retries, oldest first.
        session_id: The session, where known.
        name: The session's name as the caller gave it, where the call was a start.
        client: The caller's own identifier, where the call was a start that had one.
    """

    kind: EventKind
    operation: Operation
    attempts: int = 0
    reason: str = ""
    status: int | None = None
    delay: float | None = None
    seconds: float | None = None
    error: str | None = None
    method: str | None = None
    url: str | None = None
    retries: tuple[Event, ...] = ()
    session_id: str | None = None
    name: str | None = None
    client: str | None = None

    @property
    def level(self) -> int:
        """The logging level that fits; WARNING where money is at stake."""
        return _LEVELS[self.kind]

    def __str__(self) -> str:
        about = self.session_id if self.name is None else repr(self.name)
        seconds = self.seconds if self.delay is None else self.delay
        time = "" if seconds is None else f", {seconds:.2f} s"
        return (
            f"{self.kind.replace('_', ' ')}{time}: {self.operation} of {about}, "
            f"attempt {self.attempts}: {self.reason}"
        )


@frozen(kw_only=True)
class Unresolved:
    """A session that may be running and that nobody holds, for people to look at.

    Attributes:
        operation: ``"start"``: its outcome never became known. ``"stop"``: stopping it failed.
        reason: Why, in words.
        at: When that became clear, in UTC.
        session_id: The session, where known.
        name: Its name as the caller gave it, where the start was made here.
        client: The caller's own identifier, where the start had one.
        max_duration: Seconds after which the server ends it by itself, where the start said so.
    """

    operation: Operation
    reason: str
    at: datetime
    session_id: str | None = None
    name: str | None = None
    client: str | None = None
    max_duration: float | None = None


@define(eq=False)
class Subject:
    """The session that a call is about; each call has one, known by its identity."""

    operation: Operation
    session_id: str | None = None
    name: str | None = None
    client: str | None = None
    max_duration: float | None = None


class Reporter:
    """Tells what happens, to the log and to the client's hook, and keeps what is unresolved."""

    def __init__(self, on_event: Callable[[Event], object] | None, clock: Clock) -> None:
        self._on_event = on_event
        self._clock = clock
        self._hook_failed = False
        self._unresolved: dict[object, Unresolved] = {}

    @property
    def heard(self) -> bool:
        """Whether anybody wants to know of what is in order; if not, it costs nothing."""
        return self._on_event is not None or logger.isEnabledFor(logging.DEBUG)

    @property
    def unresolved(self) -> tuple[Unresolved, ...]:
        """The newest of what may be running and is in nobody's hands, oldest first."""
        return tuple(self._unresolved.values())

    def unknown(self, subject: Subject, attempts: int, reason: str, status: int | None) -> None:
        """A start's outcome is unknown; told once a call."""
        if subject not in self._unresolved:
            self._keep(subject, subject, reason)
            self.emit("start_unknown", subject, attempts, reason, status=status)

    def stop_failed(self, subject: Subject, attempts: int, reason: str) -> None:
        """A session could not be stopped."""
        self._keep(subject.session_id, subject, reason)
        self.emit("stop_failed", subject, attempts, reason)

    def resolved(self, subject: Subject) -> None:
        """The outcome of a start is known after all, or a session is stopped after all."""
        self._unresolved.pop(subject.session_id or subject, None)

    def _keep(self, key: object, subject: Subject, reason: str) -> None:
        self._unresolved[key] = Unresolved(
            operation=subject.operation,
            reason=reason[:MAX_REASON],
            at=datetime.fromtimestamp(self._clock.wall(), UTC),
            session_id=subject.session_id,
            name=subject.name,
            client=subject.client,
            max_duration=subject.max_duration,
        )
        if len(self._unresolved) > MAX_UNRESOLVED:
            del self._unresolved[next(iter(self._unresolved))]

    def emit(
        self, kind: EventKind, subject: Subject, attempts: int, reason: str, **details: Any
    ) -> Event:
        """Log an event and hand it to the hook, whose failure is no reason for a call to fail."""
        details.setdefault("session_id", subject.session_id)
        event = Event(
            kind=kind,
            operation=subject.operation,
            attempts=attempts,
            reason=reason[:MAX_REASON],
            name=subject.name,
            client=subject.client,
            **details,
        )
        if logger.isEnabledFor(event.level):
            logger.log(event.level, "%s", event, extra=_flat(event))
        if self._on_event is None:
            return event
        try:
            self._on_event(event)
        except Exception:
            if not self._hook_failed:
                self._hook_failed = True
                logger.exception("on_event raised; the calls go on, and this is not logged again")
        return event


def _flat(event: Event) -> dict[str, object]:
    """An event's fields for a log record, where ``name`` is a name that is taken."""
    fields = asdict(event, recurse=False, filter=lambda _, value: value not in (None, "", ()))
    fields["event"] = fields.pop("kind")
    fields.pop("retries", None)  # each was a record of its own
    return {f"equos_{name}": value for name, value in fields.items()}
