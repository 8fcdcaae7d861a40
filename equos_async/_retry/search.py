"""Starts whose answer was lost: the state of each, and when to search for them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum
from typing import Final

from attrs import define, field, frozen

from equos_async._marker import start_of

MAX_WAIT: Final = 60.0
"""The longest time between looks, and between the stops of one session, in seconds."""

MAX_CLIENTS: Final = 3
"""Up to so many different clients the list is read by a filter for each; for more, as a whole."""

GRACE: Final = 600.0
"""Seconds for which a failed last look is repeated after its time: longer than an outage."""

MAX_LOST: Final = 10_000
"""The number of attempts that are searched for at once: the newest."""


class Fate(Enum):
    """The state of an attempt whose answer was lost."""

    LOST = "it may have started a session"
    ANSWERED = "its answer came: the caller has the session, or it was refused"
    RESOLVED = "the user has dealt with it; the session of a late answer is stopped all the same"
    ENDING = "its session is being stopped"
    FAILED = "not all of its known sessions could be stopped"
    ENDED = "the end of all its known sessions is confirmed"


@define(eq=False)
class LostAttempt:
    """One attempt of a start, from the loss of its answer on.

    A late answer and a look both change this state before they act, without an await in between. So
    a session that a caller has got is never ended, and a session that is being ended is returned to
    no caller.

    Attributes:
        marker: The marker of the attempt's session.
        client: The request's ``client``, by which lists can be filtered.
        sent_at: The time of its send, on the client's clock.
        lost_at: The time when its answer was given up.
        looked_at: The time when the last complete look for it began.
        fate: Its state.
        sessions: The ids of its sessions, each with whether its end is confirmed.
    """

    marker: str
    client: str | None
    sent_at: float
    lost_at: float
    looked_at: float = field(init=False)
    fate: Fate = Fate.LOST
    sessions: dict[str, bool] = field(factory=dict[str, bool])
    _ending: set[str] = field(factory=set[str], init=False)

    def __attrs_post_init__(self) -> None:
        self.looked_at = self.lost_at

    def take(self) -> bool:
        """A late answer arrived: an acceptance for a waiting caller, or a refusal.

        Returns:
            Whether it counts. If not, its session is searched for and ended.
        """
        if self.fate is not Fate.LOST:
            return False
        self.fate = Fate.ANSWERED
        return True

    def resolve(self) -> bool:
        """The user has dealt with its session.

        Returns:
            Whether that changed anything: False if the session is being ended here.
        """
        if self.fate is Fate.LOST:
            self.fate = Fate.RESOLVED
        return self.fate is not Fate.ENDING

    def find(self, session_id: str) -> bool:
        """A session was found by its marker, or by an answer that no caller takes.

        Returns:
            Whether to end it now: no caller has it, and it is not being ended yet.
        """
        if self.fate is Fate.ANSWERED or session_id in self.sessions:
            return False
        self.fate = Fate.ENDING
        self.sessions[session_id] = False
        self._ending.add(session_id)
        return True

    def confirm(self, session_id: str) -> None:
        """The server showed a session as ended, by the answer to a stop or by a look-up.

        An empty answer to a stop proves nothing: the session may still be in creation.
        """
        self.sessions[session_id] = True
        self._is_done_with(session_id)

    def fail(self, session_id: str) -> None:
        """A session of it could not be ended, which was reported."""
        self._is_done_with(session_id)

    def _is_done_with(self, session_id: str) -> None:
        self._ending.discard(session_id)
        if not self._ending:
            self.fate = Fate.ENDED if all(self.sessions.values()) else Fate.FAILED

    def look_at(self, look_for: float) -> float | None:
        """When to look for it next: 1, 2, 4, … s after the loss; None: not any more.

        The last look is at the end of the time, for a session that is listed just before.
        """
        end = self.lost_at + look_for
        if self.looked_at >= end:
            return None
        wait = 1.0
        while self.lost_at + wait <= self.looked_at:
            wait = 2 * wait if wait < MAX_WAIT / 2 else MAX_WAIT * (wait // MAX_WAIT + 1)
        return min(self.lost_at + wait, end)


def ending_wait(stops: int) -> float:
    """Seconds until the next stop, after so many stops that were not confirmed."""
    return min(MAX_WAIT, 2.0 ** min(stops - 1, 10))


def filters(clients: Iterable[str | None]) -> tuple[str | None, ...]:
    """The filters by which the list has to be read for these attempts; None: no filter."""
    different = set(clients)
    if None in different or len(different) > MAX_CLIENTS:
        return (None,)
    return tuple(sorted(one for one in different if one is not None))


@frozen(eq=False)
class Look:
    """One look for all lost attempts.

    Attributes:
        began: Its start, on the client's clock.
        attempts: The attempts.
        clients: The filters for reading the list, one after the other.
        since: When the earliest attempt was sent: older items do not matter.
    """

    began: float
    attempts: tuple[LostAttempt, ...]
    clients: tuple[str | None, ...]
    since: float


class Search:
    """All lost starts of one resource, by marker.

    Args:
        look_for: Seconds for which each is searched for, also after something was found.

    Attributes:
        lost: The attempts, by marker.
    """

    def __init__(self, look_for: float) -> None:
        self._look_for = look_for
        self._rest_until = -math.inf
        self._failures = 0
        self._at_once = False
        self.lost: dict[str, LostAttempt] = {}

    def add(self, attempt: LostAttempt) -> LostAttempt | None:
        """Search for an attempt from now on; returns the one that is not searched for any more."""
        self.lost[attempt.marker] = attempt
        return self.lost.pop(next(iter(self.lost))) if len(self.lost) > MAX_LOST else None

    def hurry(self) -> None:
        """Make one look without waiting: the client is being closed."""
        self._at_once = True

    def next_at(self) -> float:
        """The time of the next look; inf: there is nothing to search for."""
        self._tidy()
        if not self.lost:
            return math.inf
        if self._at_once:
            return -math.inf
        times = [one.look_at(self._look_for) for one in self.lost.values()]
        return max(self._rest_until, min(time for time in times if time is not None))

    def begin(self, now: float) -> Look:
        """Begin the look that is due; attempts that are lost during it wait for the next one."""
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
        """Take a session from the list; returns its attempt if the session is to be ended now."""
        marker = marker or ""
        # Of a start of another process only what its attempts' markers begin with is known.
        attempt = self.lost.get(marker) or self.lost.get(start_of(marker))
        if attempt is None or attempt.fate is Fate.RESOLVED or not attempt.find(session_id):
            return None
        return attempt

    def finish(self, look: Look, now: float, *, pages: int) -> None:
        """A look succeeded; the next one is at least a second later for each page that was read."""
        self._failures = 0
        self._rest_until = now + pages
        for attempt in look.attempts:
            attempt.looked_at = look.began

    def fail(self, now: float, *, pages: int, retry_after: float | None) -> None:
        """A look failed; it is repeated for a limited time."""
        self._failures += 1
        self._rest_until = now + max(pages, ending_wait(self._failures), retry_after or 0.0)
        for attempt in self.lost.values():
            if self._rest_until > attempt.lost_at + self._look_for + GRACE:
                attempt.looked_at = math.inf

    def give_up(self) -> tuple[LostAttempt, ...]:
        """The server refuses to list; returns the attempts whose callers need not wait any more."""
        given_up = tuple(self.lost.values())
        self.lost.clear()
        return given_up

    def _tidy(self) -> None:
        """Remove attempts that were answered, or searched for long enough."""
        over = [
            marker
            for marker, one in self.lost.items()
            if one.fate in {Fate.ANSWERED, Fate.RESOLVED} or one.look_at(self._look_for) is None
        ]
        for marker in over:
            del self.lost[marker]
