"""Starts whose answer was lost: what became of each, and when to look for them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum
from typing import Final

from attrs import define, field, frozen

from equos_async._marker import start_of

MAX_WAIT: Final = 60.0
"""Seconds between looks, and between the stops of one session, at most."""

MAX_CLIENTS: Final = 3
"""So many different ones are looked for by a filter each; for more the whole list is read."""

GRACE: Final = 600.0
"""Seconds after its time in which a last look that failed is tried again: an outage is shorter."""

MAX_LOST: Final = 10_000
"""So many are looked for at once: the newest."""


class Fate(Enum):
    """What became of an attempt whose answer was lost."""

    LOST = "it may have begun something"
    ANSWERED = "its answer came: the caller has what it began, or it was refused"
    RESOLVED = "somebody else saw to it; what a late answer names is ended all the same"
    ENDING = "what it began is being ended"
    FAILED = "what it began could not be ended"
    ENDED = "all that it is known to have begun is confirmed to be over"


@define(eq=False)
class LostAttempt:
    """One attempt of a start whose answer was lost, from then on.

    A late answer and a look meet here. Each takes the state before it acts, without an await in
    between, so that what a caller has got is never ended, and what is being ended is handed to
    nobody.

    Attributes:
        marker: What it began carries this.
        client: The request's client, by which lists can be filtered.
        sent_at: When it was sent, on the client's clock.
        lost_at: When its answer was given up.
        looked_at: When the last whole look for it began.
        fate: What became of it.
        sessions: The ids of what it began, each with whether its end is confirmed.
    """

    marker: str
    client: str | None
    sent_at: float
    lost_at: float
    looked_at: float = field(init=False)
    fate: Fate = Fate.LOST
    sessions: dict[str, bool] = field(factory=dict[str, bool])

    def __attrs_post_init__(self) -> None:
        self.looked_at = self.lost_at

    def take(self) -> bool:
        """A late answer came, an acceptance for a caller who waits or a refusal.

        Returns:
            Whether it counts. Else what it may have brought is to be found, and ended.
        """
        if self.fate is not Fate.LOST:
            return False
        self.fate = Fate.ANSWERED
        return True

    def resolve(self) -> bool:
        """Somebody else saw to what it may have begun.

        Returns:
            Whether that was needed: false where it is being ended here.
        """
        if self.fate is Fate.LOST:
            self.fate = Fate.RESOLVED
        return self.fate is not Fate.ENDING

    def find(self, session_id: str) -> bool:
        """Something carries its marker, or came with an answer that no caller takes.

        Returns:
            Whether it is to be ended now: it is in nobody's hands, and is not being ended yet.
        """
        if self.fate is Fate.ANSWERED or session_id in self.sessions:
            return False
        self.fate = Fate.ENDING
        self.sessions[session_id] = False
        return True

    def confirm(self, session_id: str) -> None:
        """The server showed something as ended: a stop's answer or a look-up by id did.

        An empty answer to a stop is no such proof: what is still being created gives one, too.
        """
        self.sessions[session_id] = True
        if all(self.sessions.values()):
            self.fate = Fate.ENDED

    def fail(self) -> None:
        """Something of it could not be ended, and that was reported."""
        self.fate = Fate.FAILED

    def look_at(self, look_for: float) -> float | None:
        """When to look for it next: 1, 2, 4, … s after the loss; None: long enough.

        The last look is at the end of the time, for what is listed just before that.
        """
        end = self.lost_at + look_for
        if self.looked_at >= end:
            return None
        wait = 1.0
        while self.lost_at + wait <= self.looked_at:
            wait = 2 * wait if wait < MAX_WAIT / 2 else MAX_WAIT * (wait // MAX_WAIT + 1)
        return min(self.lost_at + wait, end)


def ending_wait(stops: int) -> float:
    """Seconds until something is stopped again whose end was not confirmed by so many stops."""
    return min(MAX_WAIT, 2.0 ** min(stops - 1, 10))


def filters(clients: Iterable[str | None]) -> tuple[str | None, ...]:
    """The filters by which a list is read, so that all of these are in it; None: by none."""
    different = set(clients)
    if None in different or len(different) > MAX_CLIENTS:
        return (None,)
    return tuple(sorted(one for one in different if one is not None))


@frozen(eq=False)
class Look:
    """One look for all that is lost.

    Attributes:
        began: When, on the client's clock.
        attempts: What is looked for.
        clients: The filters to read the list by, one after the other.
        since: When the earliest of them was sent: nothing older is of interest.
    """

    began: float
    attempts: tuple[LostAttempt, ...]
    clients: tuple[str | None, ...]
    since: float


class Search:
    """All starts of one resource whose answers were lost, by their markers.

    Args:
        look_for: Seconds for which each is looked for, also after something was found.

    Attributes:
        lost: What is looked for, by marker.
    """

    def __init__(self, look_for: float) -> None:
        self._look_for = look_for
        self._rest_until = -math.inf
        self._failures = 0
        self._at_once = False
        self.lost: dict[str, LostAttempt] = {}

    def add(self, attempt: LostAttempt) -> None:
        """Look for an attempt from now on."""
        self.lost[attempt.marker] = attempt
        if len(self.lost) > MAX_LOST:
            del self.lost[next(iter(self.lost))]

    def hurry(self) -> None:
        """Look once without waiting: the client is being closed."""
        self._at_once = True

    def next_at(self) -> float:
        """When to look next; inf: there is nothing to look for."""
        self._tidy()
        if not self.lost:
            return math.inf
        if self._at_once:
            return -math.inf
        times = [one.look_at(self._look_for) for one in self.lost.values()]
        return max(self._rest_until, min(time for time in times if time is not None))

    def begin(self, now: float) -> Look:
        """The look that is due; what is lost while it is read waits for the next one."""
        self._at_once = False
        self._tidy()
        attempts = tuple(self.lost.values())
        return Look(
            began=now,
            attempts=attempts,
            clients=filters(one.client for one in attempts),
            since=min((one.sent_at for one in attempts), default=now),
        )

    def find(self, marker: str | None, session_id: str) -> LostAttempt | None:
        """Take what a list shows: the attempt that began it, where it is to be ended now."""
        marker = marker or ""
        # Of a start of another process only what its attempts' markers begin with is known.
        attempt = self.lost.get(marker) or self.lost.get(start_of(marker))
        if attempt is None or attempt.fate is Fate.RESOLVED or not attempt.find(session_id):
            return None
        return attempt

    def finish(self, look: Look, now: float, *, pages: int) -> None:
        """A look went through; it rests a second for each page that the server had to read."""
        self._failures = 0
        self._rest_until = now + pages
        for attempt in look.attempts:
            attempt.looked_at = look.began

    def fail(self, now: float, *, pages: int, retry_after: float | None) -> None:
        """A look did not go through; it is tried again, and not for ever."""
        self._failures += 1
        self._rest_until = now + max(pages, ending_wait(self._failures), retry_after or 0.0)
        for attempt in self.lost.values():
            if self._rest_until > attempt.lost_at + self._look_for + GRACE:
                attempt.looked_at = math.inf

    def give_up(self) -> tuple[LostAttempt, ...]:
        """Looking is refused for good; those whose callers may be told at once."""
        given_up = tuple(self.lost.values())
        self.lost.clear()
        return given_up

    def _tidy(self) -> None:
        """Let go of what was answered, and of what was looked for long enough."""
        over = [
            marker
            for marker, one in self.lost.items()
            if one.fate in {Fate.ANSWERED, Fate.RESOLVED} or one.look_at(self._look_for) is None
        ]
        for marker in over:
            del self.lost[marker]
