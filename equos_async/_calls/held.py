"""The sessions of open blocks and fleets, which the client stops if it is closed first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from equos_async._api.operations import Resource

from .call import Target
from .watch import Watch


class Held:
    """Sessions that a block or a fleet will stop, by id; each is removed when its stop begins."""

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
        """Remove a session in order to stop it; False if its stop has begun already."""
        return self._held.pop(session_id, None) is not None

    def take_all(self) -> Iterator[tuple[str, Resource[Any, Any, Any], Watch | None]]:
        """Remove all sessions in order to stop them."""
        while self._held:
            session_id, (resource, watch) = self._held.popitem()
            yield session_id, resource, watch

    def targets(self) -> list[Target]:
        """The targets of the stops."""
        return [Target("stop", kind.word, one) for one, (kind, _) in self._held.items()]
