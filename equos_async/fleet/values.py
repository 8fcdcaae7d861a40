"""What a fleet tells: events, ends, reports and numbers, as plain values."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from datetime import datetime
from typing import Final, Literal

from attrs import field, frozen

from equos_async._shown import brief, shown
from equos_async.errors import ResourceName
from equos_async.events import MAX_REASON
from equos_async.models import (
    CreateEquosConversationRequest,
    CreateEquosConversationResponse,
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    EquosConversation,
    EquosSession,
)

AnyRequest = CreateSessionPassRequest | CreateEquosConversationRequest
AnyStarted = CreateEquosSessionResponse | CreateEquosConversationResponse
AnyEnded = EquosSession | EquosConversation

FleetEventKind = Literal[
    "waiting",
    "started",
    "stopped",
    "expired",
    "refused",
    "failed",
    "unknown",
    "lost",
    "reaped",
]


_LEVELS: dict[FleetEventKind, int] = {
    "waiting": logging.DEBUG,
    "started": logging.DEBUG,
    "stopped": logging.DEBUG,
    "expired": logging.INFO,
    "refused": logging.INFO,
    "reaped": logging.INFO,
    # A session may be running that nobody will stop, or one was taken away.
    "failed": logging.WARNING,
    "unknown": logging.WARNING,
    "lost": logging.WARNING,
}


@frozen(kw_only=True)
class FleetEvent:
    """Something that changed in a fleet; ``live`` and ``waiting`` are ready for a gauge.

    Attributes:
        kind: ``"waiting"``: the line of starts that wait for a place grew, or one gave up.
            ``"started"``: a session is live. ``"stopped"``: one is over. ``"expired"``: one is
            over because its time was. ``"refused"``: a start failed, and nothing exists.
            ``"failed"``: a session could not be stopped. ``"unknown"``: a start may have made a
            session that nobody holds. ``"lost"``: another worker claimed one in the ledger, for
            this one was late. ``"reaped"``: one that another worker left has been stopped.
        key: Whose session it is; None where that is not known.
        live: Live sessions after the change, those included that are being stopped.
        waiting: Starts that wait for a place after the change.
        session_id: The session or conversation, where known.
        resource: Which of the two, ``"session"`` or ``"conversation"``, where known.
        reason: Why, in words, where there is something to say.
    """

    kind: FleetEventKind
    key: Hashable
    live: int
    waiting: int
    session_id: str | None = None
    resource: ResourceName | None = None
    reason: str = ""

    @property
    def level(self) -> int:
        """The logging level that fits; WARNING where money is at stake."""
        return _LEVELS[self.kind]

    def __str__(self) -> str:
        session = "" if self.session_id is None else f" (session {brief(self.session_id)})"
        told = f": {shown(self.reason)}" if self.reason else ""
        numbers = f"{self.live} live, {self.waiting} waiting"
        return f"{self.kind} {brief(repr(self.key))}{session}{told}; {numbers}"


EndOutcome = Literal[
    "stopped",
    "already_ended",
    "expired",
    "replaced",
    "renewed",
    "lost",
    "reaped",
    "failed",
    "unresolved",
]

REPORTED: Final[Mapping[EndOutcome, str]] = {
    "stopped": "stopped",
    "already_ended": "already_ended",
    "expired": "stopped",
    "replaced": "stopped",
    "renewed": "stopped",
    "lost": "stopped",
    "reaped": "stopped",
    "failed": "failed",
    "unresolved": "unresolved",
}
"""Where a report has each outcome."""


@frozen(kw_only=True)
class SessionEnd:
    """How a session ended, or what is known of one that may not have ended.

    Attributes:
        key: Whose session it was.
        session_id: The id of the session or conversation, where known.
        outcome: ``"stopped"``: somebody asked for it, and the server confirmed.
            ``"already_ended"``: so, but it was not running any more. ``"expired"``: its time was
            over. ``"replaced"``: by a later start. ``"renewed"``: its replacement took over.
            ``"lost"``: another worker claimed it in the ledger. ``"reaped"``: another worker had
            left it. ``"failed"``: stopping it failed. ``"unresolved"``: no answer came in time.
        seconds: How long it was live, as the fleet counted; of a reaped one since its place was
            taken.
        reason: Why, in words, where there is something to say.
        resource: Which of the two, ``"session"`` or ``"conversation"``, where known.
        name: Its name as the caller gave it.
        client: The caller's own identifier, where there is one.
        started_at: When it was known to be live, in UTC; None where it never was.
        ended_at: When that was over, in UTC.
        last: What the server said of it when it was stopped, with what was talked about; None
            where it said nothing.
    """

    key: Hashable
    session_id: str | None
    outcome: EndOutcome
    seconds: float = 0.0
    reason: str = ""
    resource: ResourceName | None = None
    name: str = ""
    client: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    last: AnyEnded | None = field(default=None, repr=False)

    def __str__(self) -> str:
        told = f": {shown(self.reason)}" if self.reason else ""
        session = brief(self.session_id or "unknown")
        return f"{brief(repr(self.key))} (session {session}) {self.outcome}{told}"


MAX_TOLD: Final = 10
"""How many sessions that are left a report tells in words."""


@frozen(kw_only=True, repr=False)
class DrainReport:
    """What became of every session that a drain was to stop, by key and session id.

    In words it tells the numbers, and the first ten of those that are left.
    """

    stopped: tuple[SessionEnd, ...] = ()
    already_ended: tuple[SessionEnd, ...] = ()
    failed: tuple[SessionEnd, ...] = ()
    unresolved: tuple[SessionEnd, ...] = ()

    @property
    def left(self) -> tuple[SessionEnd, ...]:
        """The failed and the unresolved, which may still be running, and be billed."""
        return self.failed + self.unresolved

    def __str__(self) -> str:
        left = self.left
        ended = f"{len(self.stopped)} stopped, {len(self.already_ended)} had ended"
        told = [f"{ended}, {len(left)} left", *map(_shortly, left[:MAX_TOLD])]
        if len(left) > MAX_TOLD:
            told.append(f"and {len(left) - MAX_TOLD} more")
        return "; ".join(told)

    def __repr__(self) -> str:
        return f"<DrainReport {self}>"


def _shortly(end: SessionEnd) -> str:
    told = str(end)
    return told if len(told) <= MAX_REASON else f"{told[:MAX_REASON]}..."


@frozen(kw_only=True)
class FleetStats:
    """A fleet's numbers at one moment.

    Attributes:
        live: Sessions that are live, those included that are being stopped.
        starting: Starts that are on their way.
        waiting: Starts that wait for a place.
        free: Places that are free.
        started: Sessions started so far.
        stopped: Sessions that ended before their time.
        expired: Sessions that the fleet ended because their time was over.
        refused: Starts that failed, so that nothing exists.
        failed: Attempts to stop a session that failed.
        unknown: Starts whose outcome never became known.
        lost: Sessions that another worker claimed in the ledger.
        reaped: Sessions of other workers that were stopped here.
        seconds_live: What all sessions together ran so far.
        budget_left: Seconds that starts may still ask for; None without a budget.
    """

    live: int
    starting: int
    waiting: int
    free: int
    started: int
    stopped: int
    expired: int
    refused: int
    failed: int
    unknown: int
    lost: int
    reaped: int
    seconds_live: float
    budget_left: float | None
