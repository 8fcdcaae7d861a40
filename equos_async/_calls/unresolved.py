"""Sessions that may be running and that no caller holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from equos_async.clock import Clock
from equos_async.events import MAX_REASON, Unresolved

from .call import Call, Target

MAX_UNRESOLVED: Final = 1000
"""The number that are kept: the newest."""


class UnresolvedLog:
    """Starts of unknown outcome, and sessions that could not be stopped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: dict[str, tuple[Unresolved, Call[Any]]] = {}

    def __contains__(self, target: Target) -> bool:
        return target.id in self._found

    @property
    def all(self) -> tuple[Unresolved, ...]:
        """All entries, oldest first."""
        return tuple(found for found, _ in self._found.values())

    def add(self, call: Call[Any], reason: str) -> None:
        """Add the session of a call, which may be running."""
        self._found[call.target.id] = self.describe(call.target, reason), call
        if len(self._found) > MAX_UNRESOLVED:
            del self._found[next(iter(self._found))]

    def describe(self, target: Target, reason: str) -> Unresolved:
        """Describe the session of a call."""
        return Unresolved(
            operation=target.operation,
            reason=reason[:MAX_REASON],
            at=datetime.fromtimestamp(self._clock.wall(), UTC),
            resource=target.resource or "session",
            session_id=target.session_id,
            name=target.name,
            client=target.client,
            max_duration=target.max_duration,
            id=target.id,
        )

    def call_of(self, unresolved_id: str) -> Call[Any] | None:
        """The call of an entry."""
        _, call = self._found.get(unresolved_id, (None, None))
        return call

    def drop(self, target: Target) -> None:
        """Remove an entry whose outcome is known."""
        self._found.pop(target.id, None)
