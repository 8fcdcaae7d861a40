"""The sessions and conversations of the emulator: live, ended, and the seconds billed."""

from __future__ import annotations

import heapq
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from .clock import EmulatorClock
from .entries import Entry, Kind, Utterance
from .records import KEPT, EmulatedSession, Resource


class Books:
    """All sessions and conversations of one emulator; its methods may be called from any thread.

    Args:
        clock: The source of time.
        starting_for: Seconds that a session is ``starting`` before it is ``running``.
    """

    def __init__(self, clock: EmulatorClock, starting_for: float) -> None:
        self.clock = clock
        self.starting_for = starting_for
        self.ended_count: int = 0
        self._opened = 0
        self._lock = threading.RLock()
        self._billed = 0.0
        self._live: dict[str, Entry] = {}
        self._ends: list[tuple[float, str]] = []
        self._ended: OrderedDict[str, Entry] = OrderedDict()

    def open(
        self,
        kind: Kind,
        wanted: Mapping[str, Any],
        *,
        size: int = 0,
        limit: int | None = None,
        lag: float = 0.0,
    ) -> Entry | None:
        """Start a session or a conversation.

        Args:
            kind: Which of the two.
            wanted: The fields of the request.
            size: The size of the request's body, in bytes.
            limit: How many may be live.
            lag: Seconds until look-ups find it.

        Returns:
            Its entry; None if ``limit`` are live already.
        """
        with self._lock:
            self._expire()
            if limit is not None and len(self._live) >= limit:
                return None
            self._opened += 1
            entry = Entry(
                id=str(uuid.uuid4()),
                number=self._opened,
                kind=kind,
                wanted=wanted,
                size=size,
                started_at=self.clock.now(),
                max_duration=wanted.get(kind.seconds, kind.default_seconds),
                listed_at=self.clock.now() + lag,
            )
            self._live[entry.id] = entry
            if entry.max_duration is not None:
                heapq.heappush(self._ends, (entry.started_at + entry.max_duration, entry.id))
            return entry

    def close(self, entry_id: str, kind: Kind | None = None) -> Entry | None:
        """End a session or conversation; None if none with this id and kind is live."""
        with self._lock:
            self._expire()
            entry = self._live.get(entry_id)
            if entry is None or kind not in {None, entry.kind}:
                return None
            del self._live[entry_id]
            return self._end(entry, self.clock.now())

    def join(self, entry_id: str) -> bool:
        """Record that a participant joined; False if nothing with this id is live."""
        with self._lock:
            self._expire()
            entry = self._live.get(entry_id)
            if entry is not None and entry.joined_at is None:
                self._live[entry_id] = evolve(entry, joined_at=self.clock.now())
            return entry is not None

    def say(self, entry_id: str, author: str, content: str) -> bool:
        """Add a line to the transcript; False if nothing with this id is live."""
        with self._lock:
            self._expire()
            entry = self._live.get(entry_id)
            if entry is not None:
                one = Utterance(str(uuid.uuid4()), author, content, self.clock.now())
                self._live[entry_id] = evolve(entry, said=(*entry.said, one))
            return entry is not None

    def find(self, entry_id: str, kind: Kind) -> Entry | None:
        """Find an entry by its id, as a look-up does."""
        with self._lock:
            self._expire()
            entry = self._live.get(entry_id) or self._ended.get(entry_id)
            if entry is None or entry.kind is not kind or entry.listed_at > self.clock.now():
                return None
            return entry

    def listed(self, kind: Kind, client: str | None) -> list[Entry]:
        """The entries of a list, live and ended, in the order of their starts."""
        with self._lock:
            self._expire()
            now = self.clock.now()
            known = [
                entry
                for entry in (*self._ended.values(), *self._live.values())
                if entry.kind is kind and entry.listed_at <= now
            ]
        found = (entry for entry in known if client is None or entry.client == client)
        return sorted(found, key=lambda entry: entry.number)

    def live(self, resource: Resource | None = None) -> dict[str, EmulatedSession]:
        """The live sessions and conversations, by id, oldest first."""
        with self._lock:
            self._expire()
            return self._told(self._live, resource)

    def ended(self, resource: Resource | None = None) -> dict[str, EmulatedSession]:
        """The newest ended sessions and conversations, by id, oldest first."""
        with self._lock:
            self._expire()
            return self._told(self._ended, resource)

    @property
    def billed_seconds(self) -> float:
        """The seconds that all of them have run so far."""
        with self._lock:
            self._expire()
            now = self.clock.now()
            return self._billed + sum(now - entry.started_at for entry in self._live.values())

    @property
    def counts(self) -> tuple[int, int]:
        """The number of live entries, and of all that have ended."""
        with self._lock:
            self._expire()
            return len(self._live), self.ended_count

    def _expire(self) -> None:
        """End the entries whose time is over, each at the end of its time."""
        now = self.clock.now()
        while self._ends and self._ends[0][0] <= now:
            at, entry_id = heapq.heappop(self._ends)
            entry = self._live.pop(entry_id, None)
            if entry is not None:
                self._end(entry, at)

    def _end(self, entry: Entry, at: float) -> Entry:
        ended = evolve(entry, ended_at=at)
        self._ended[entry.id] = ended.as_history()
        self._billed += at - entry.started_at
        self.ended_count += 1
        if len(self._ended) > KEPT:
            self._ended.popitem(last=False)
        return ended

    def _told(
        self, entries: Mapping[str, Entry], resource: Resource | None
    ) -> dict[str, EmulatedSession]:
        now = self.clock.now()
        return {
            entry.id: entry.told(now, self.starting_for)
            for entry in entries.values()
            if resource in {None, entry.kind.resource}
        }
