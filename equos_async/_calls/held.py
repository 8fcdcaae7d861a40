"""The sessions of open blocks and fleets, which the client stops if it is closed first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from equos_async._api.operations import Resource

from .call import Target
from .watch import Watch

Stop: TypeAlias = Callable[[Resource[Any, Any, Any], str, Watch | None], None]
"""Launches the stop of a session, of which a watch is to learn, if there is one."""


class Held:
    """Sessions that a block or a fleet will stop, by id, until that is launched."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Resource[Any, Any, Any], Watch | None]] = {}

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._held

    def add(
        self, session_id: str, resource: Resource[Any, Any, Any], watch: Watch | None = None
    ) -> None:
        """Add a session; its watch is told if the client stops it."""
        self._held[session_id] = resource, watch
        if watch is not None:
            watch.hand_over(partial(self.take, session_id))

    def take(self, session_id: str) -> bool:
        """Remove a session whose stop was launched; False if that was done already."""
        return self._held.pop(session_id, None) is not None

    def end(self, session_id: str, launch: Stop) -> None:
        """Stop a session that is here; it stays until that is launched, as a signal may strike."""
        if session_id in self._held:
            resource, watch = self._held[session_id]
            launch(resource, session_id, watch)
            self.take(session_id)

    def end_all(self, launch: Stop, *, also_left: bool) -> None:
        """Stop all sessions, the last one first.

        Args:
            launch: Launches a stop.
            also_left: Whether those, too, whose owners are about to stop them.
        """
        for session_id, (_, watch) in tuple(reversed(self._held.items())):
            if also_left or watch is None or not watch.is_left:
                self.end(session_id, launch)

    def clear(self) -> None:
        """Forget all."""
        self._held.clear()

    def targets(self) -> list[Target]:
        """The targets of the stops."""
        return [Target("stop", kind.word, one) for one, (kind, _) in self._held.items()]
