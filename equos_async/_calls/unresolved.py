"""What may be running on the server and is in no one's hands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from equos_async.clock import Clock
from equos_async.events import MAX_REASON, Unresolved

from .call import Call, Target

MAX_UNRESOLVED: Final = 1000
"""How many are kept: the newest."""


class UnresolvedLog:
    """Starts whose outcome never became known, and sessions that could not be stopped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: dict[str, tuple[Unresolved, Call[Any]]] = {}

    def __contains__(self, target: Target) -> bool:
        return target.id in self._found

    @property
    def all(self) -> tuple[Unresolved, ...]:
        """All that are known, oldest first."""
        return tuple(found for found, _ in self._found.values())

    def add(self, call: Call[Any], reason: str) -> None:
        """What a call is about may be running."""
        self._found[call.target.id] = self.describe(call.target, reason), call
        if len(self._found) > MAX_UNRESOLVED:
            del self._found[next(iter(self._found))]

    def describe(self, target: Target, reason: str) -> Unresolved:
        """What would be kept."""
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
        """The call that one of them is about."""
        _, call = self._found.get(unresolved_id, (None, None))
        return call

    def drop(self, target: Target) -> None:
        """What became of it is known after all."""
        self._found.pop(target.id, None)
