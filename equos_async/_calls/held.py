"""What blocks and fleets hold: the client ends it when it closes before they do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from equos_async._api.operations import Resource

from .call import Target
from .watch import Watch


class Held:
    """What was begun for those who end it themselves, by id, until somebody sets out to end it."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Resource[Any, Any, Any], Watch | None]] = {}

    def add(
        self, session_id: str, resource: Resource[Any, Any, Any], watch: Watch | None = None
    ) -> None:
        """One is in its holder's hands; its watch is told if somebody else ends it."""
        self._held[session_id] = resource, watch
        if watch is not None:
            watch.hand_over(partial(self.take, session_id))

    def take(self, session_id: str) -> bool:
        """Set out to end one; false where that is nobody's, or somebody else did."""
        return self._held.pop(session_id, None) is not None

    def take_all(self) -> Iterator[tuple[str, Resource[Any, Any, Any], Watch | None]]:
        """Set out to end all."""
        while self._held:
            session_id, (resource, watch) = self._held.popitem()
            yield session_id, resource, watch

    def targets(self) -> list[Target]:
        """What is to be ended of them."""
        return [Target("stop", kind.word, one) for one, (kind, _) in self._held.items()]
