"""The sessions of blocks and fleets, which the client stops if it closes before them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from equos_async._api.operations import Resource

from .call import Target
from .watch import Watch


class Held:
    """Sessions whose holders stop them, by id, until a stop begins."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Resource[Any, Any, Any], Watch | None]] = {}

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._held

    def add(
        self, session_id: str, resource: Resource[Any, Any, Any], watch: Watch | None = None
    ) -> None:
        """Add a session of a holder; its watch learns if something else stops it."""
        self._held[session_id] = resource, watch
        if watch is not None:
            watch.hand_over(partial(self.take, session_id))

    def take(self, session_id: str) -> bool:
        """Take a session to stop it; False if it is not here, or a stop has begun."""
        return self._held.pop(session_id, None) is not None

    def take_all(self) -> Iterator[tuple[str, Resource[Any, Any, Any], Watch | None]]:
        """Take all sessions to stop them."""
        while self._held:
            session_id, (resource, watch) = self._held.popitem()
            yield session_id, resource, watch

    def targets(self) -> list[Target]:
        """The targets of the stops."""
        return [Target("stop", kind.word, one) for one, (kind, _) in self._held.items()]
