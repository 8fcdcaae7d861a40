"""Hand each event to the log and to a hook that may fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from attrs import asdict, define

from .clock import Clock
from .errors import Operation
from .events import Event, EventKind, Unresolved, logger

MAX_UNRESOLVED: Final = 1000
MAX_REASON: Final = 300


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
