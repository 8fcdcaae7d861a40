"""Sessions that were begun here and are not known to have ended."""

from __future__ import annotations

import math
from typing import Final

MAX_RUNNING: Final = 10_000
"""How many are kept: the newest."""


class Running:
    """When each of them ends by itself, on the client's clock; ``inf`` where it never does."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._ends

    def add(self, session_id: str, now: float, seconds: float | None) -> None:
        """One was begun."""
        self._ends[session_id] = math.inf if seconds is None else now + seconds
        if len(self._ends) > MAX_RUNNING:
            del self._ends[next(iter(self._ends))]

    def drop(self, session_id: str) -> None:
        """One has ended."""
        self._ends.pop(session_id, None)

    def end_of(self, session_id: str) -> float:
        """When it ends; ``inf`` where nothing is known of it."""
        return self._ends.get(session_id, math.inf)
