"""Sessions that this client started, until it knows that they have ended."""

from __future__ import annotations

import math
from typing import Final

MAX_RUNNING: Final = 10_000
"""The number that are kept: the newest."""


class Running:
    """The time at which each session ends by itself, on the client's clock; ``inf``: never."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._ends

    def add(self, session_id: str, now: float, seconds: float | None) -> None:
        """A session was started."""
        self._ends[session_id] = math.inf if seconds is None else now + seconds
        if len(self._ends) > MAX_RUNNING:
            del self._ends[next(iter(self._ends))]

    def drop(self, session_id: str) -> None:
        """A session has ended."""
        self._ends.pop(session_id, None)

    def end_of(self, session_id: str) -> float:
        """The time at which it ends; ``inf`` if it is not known."""
        return self._ends.get(session_id, math.inf)
