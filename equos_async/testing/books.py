"""The books: which sessions are live, which ended, and what they cost."""

from __future__ import annotations

import heapq
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from .clock import EmulatorClock
from .records import KEPT, EmulatedSession, shorten


@frozen
class Entry:
    """A live session: what the start asked for, and what the server added to it."""

    id: str
    wanted: Mapping[str, Any] = field(repr=False)
    started_at: float
    max_duration: float | None
    ended_at: float | None = None

    def status(self, now: float, starting_for: float) -> str:
        """The word that the API has for its state."""
        if self.ended_at is not None:
            return "ended"
        return "starting" if now - self.started_at < starting_for else "running"


class Books:
    """All sessions of one emulator. Its methods may be called from any thread.

    Args:
        clock: The source of time.
        starting_for: Seconds that a session is ``starting`` before it is ``running``.
    """

    def __init__(self, clock: EmulatorClock, starting_for: float) -> None:
        self.clock = clock
        self.starting_for = starting_for
        self.ended_count: int = 0
        self._lock = threading.RLock()
        self._billed = 0.0
        self._live: dict[str, Entry] = {}
        self._ends: list[tuple[float, str]] = []
        self._ended: OrderedDict[str, EmulatedSession] = OrderedDict()

    def open(self, wanted: Mapping[str, Any], limit: int | None = None) -> Entry | None:
        """Open a session, or None where ``limit`` sessions are live already."""
        with self._lock:
            self._expire()
            if limit is not None and len(self._live) >= limit:
                return None
            entry = Entry(str(uuid.uuid4()), wanted, self.clock.now(), wanted.get("maxDuration"))
            self._live[entry.id] = entry
            if entry.max_duration is not None:
                heapq.heappush(self._ends, (entry.started_at + entry.max_duration, entry.id))
            return entry

    def close(self, session_id: str) -> Entry | None:
        """End a session, or None where none of that id is live."""
        with self._lock:
            self._expire()
            entry = self._live.pop(session_id, None)
            return None if entry is None else self._end(entry, self.clock.now())

    @property
    def live(self) -> dict[str, EmulatedSession]:
        """The live sessions by id, oldest first."""
        with self._lock:
            self._expire()
            return {entry.id: self._told(entry) for entry in self._live.values()}

    @property
    def ended(self) -> dict[str, EmulatedSession]:
        """The newest sessions that ended, by id, oldest first."""
        with self._lock:
            self._expire()
            return dict(self._ended)

    @property
    def billed_seconds(self) -> float:
        """What all sessions cost so far."""
        with self._lock:
            self._expire()
            now = self.clock.now()
            return self._billed + sum(now - entry.started_at for entry in self._live.values())

    @property
    def counts(self) -> tuple[int, int]:
        """How many sessions are live, and how many ended in all."""
        with self._lock:
            self._expire()
            return len(self._live), self.ended_count

    def _expire(self) -> None:
        """End the sessions whose time is over, at the time when it was."""
        now = self.clock.now()
        while self._ends and self._ends[0][0] <= now:
            at, session_id = heapq.heappop(self._ends)
            entry = self._live.pop(session_id, None)
            if entry is not None:
                self._end(entry, at)

    def _end(self, entry: Entry, at: float) -> Entry:
        ended = evolve(entry, ended_at=at)
        told = self._told(ended)
        client = None if told.client is None else shorten(told.client)
        self._ended[ended.id] = evolve(told, name=shorten(told.name), client=client)
        self._billed += told.seconds
        self.ended_count += 1
        if len(self._ended) > KEPT:
            self._ended.popitem(last=False)
        return ended

    def _told(self, entry: Entry) -> EmulatedSession:
        now = self.clock.now()
        return EmulatedSession(
            id=entry.id,
            name=entry.wanted["name"],
            client=entry.wanted.get("client"),
            started_at=entry.started_at,
            max_duration=entry.max_duration,
            status=entry.status(now, self.starting_for),
            ended_at=entry.ended_at,
            seconds=(now if entry.ended_at is None else entry.ended_at) - entry.started_at,
        )
