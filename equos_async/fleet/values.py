"""The events, ends, reports and numbers of a fleet, as plain values."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, Generic, Literal

from attrs import field, frozen

from equos_async._shown import brief, keyed, named, shown
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

if TYPE_CHECKING:  # at run time only Python 3.13's own has a default
    from typing_extensions import TypeVar

    K = TypeVar("K", bound=Hashable, default=Hashable)
    K_co = TypeVar("K_co", bound=Hashable, default=Hashable, covariant=True)
else:
    from typing import TypeVar

    K = TypeVar("K", bound=Hashable)
    K_co = TypeVar("K_co", bound=Hashable, covariant=True)

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
    "stopped_elsewhere",
    "renewal_failed",
]


_LEVELS: dict[FleetEventKind, int] = {
    "waiting": logging.DEBUG,
    "started": logging.DEBUG,
    "stopped": logging.DEBUG,
    "expired": logging.INFO,
    "refused": logging.INFO,
    "reaped": logging.INFO,
    "stopped_elsewhere": logging.INFO,
    "renewal_failed": logging.INFO,
    # A session may be running without a stop, or another worker has claimed it.
    "failed": logging.WARNING,
    "unknown": logging.WARNING,
    "lost": logging.WARNING,
}


_SENTENCES: dict[FleetEventKind, str] = {
    "waiting": "the start for {key} waits for a slot",
    "started": "{it} is live",
    "stopped": "{it} has ended",
    "expired": "{it} was stopped at the end of its time",
    "refused": "the start for {key} failed, and nothing is running",
    "failed": "{it} could not be stopped",
    "unknown": "the outcome of the start for {key} is unknown, and a {what} may be running",
    "lost": "{it} was claimed by another worker",
    "reaped": "{it} was stopped here, because its worker had stalled",
    "stopped_elsewhere": "{it} was stopped by another worker",
    "renewal_failed": "{it} was not renewed, and goes on to its end",
}


@frozen(kw_only=True)
class FleetEvent(Generic[K_co]):
    """Something that changed in a fleet; ``live`` and ``waiting`` can feed a gauge.

    Attributes:
        kind: ``"waiting"``: a start began to wait for a slot, or gave up. ``"started"``: a session
            is live. ``"stopped"``: a session has ended. ``"expired"``: a session was stopped
            because its time was over. ``"refused"``: a start failed, and no session exists.
            ``"failed"``: a session could not be stopped. ``"unknown"``: the outcome of a start is
            unknown; a session may be running. ``"lost"``: another worker claimed a session, because
            this worker's lease had expired. ``"reaped"``: a session that a stalled worker left has
            been stopped. ``"stopped_elsewhere"``: another worker stopped a session of this fleet by
            its key. ``"renewal_failed"``: a session was not replaced, and goes on to its end.
        key: The session's key.
        live: Live sessions after the change, including those being stopped.
        waiting: Starts that wait for a slot after the change.
        session_id: The id of the session or conversation, if known.
        resource: Which of the two, ``"session"`` or ``"conversation"``, where known.
        group: Its group, if it has one.
        reason: Why, in words; may be empty.
    """

    kind: FleetEventKind
    key: K_co
    live: int
    waiting: int
    session_id: str | None = None
    resource: ResourceName | None = None
    group: str | None = None
    reason: str = ""

    @property
    def level(self) -> int:
        """The logging level; WARNING if a session may be running, and billed."""
        return _LEVELS[self.kind]

    def __str__(self) -> str:
        key, what = keyed(self.key), self.resource or "session"
        it = f"a {what}" if self.session_id is None else f"{what} {brief(self.session_id)}"
        sentence = _SENTENCES[self.kind].format(key=key, what=what, it=f"{it} of {key}")
        told = f": {shown(self.reason)}" if self.reason else ""
        return f"{sentence}{told}; {self.live} live, {self.waiting} waiting"


EndOutcome = Literal[
    "stopped",
    "already_ended",
    "expired",
    "idle",
    "never_joined",
    "replaced",
    "renewed",
    "lost",
    "reaped",
    "stopped_elsewhere",
    "marked_ended",
    "failed",
    "unresolved",
]

REPORTED: Final[Mapping[EndOutcome, str]] = {
    "stopped": "stopped",
    "already_ended": "already_ended",
    "expired": "stopped",
    "idle": "stopped",
    "never_joined": "stopped",
    "replaced": "stopped",
    "renewed": "stopped",
    "lost": "stopped",
    "reaped": "stopped",
    "stopped_elsewhere": "stopped",
    "marked_ended": "already_ended",
    "failed": "failed",
    "unresolved": "unresolved",
}
"""The field of a report for each outcome."""


@frozen(kw_only=True)
class SessionEnd(Generic[K_co]):
    """How a session ended, or what is known of one that may still be running.

    Attributes:
        key: The session's key.
        session_id: The id of the session or conversation, if known.
        outcome: ``"stopped"``: stopped on request, and the server confirmed it.
            ``"already_ended"``: to be stopped on request, but not running any more. ``"expired"``:
            its time was over. ``"idle"``: not touched for ``idle_after``. ``"never_joined"``: not
            joined in ``join_within``. ``"replaced"``: stopped for a later start with the same key.
            ``"renewed"``: its replacement took over. ``"lost"``: another worker claimed it in the
            ledger. ``"reaped"``: stopped here after its own worker had stalled.
            ``"stopped_elsewhere"``: stopped by its key on another worker than its own.
            ``"marked_ended"``: ``mark_ended`` was called for it.
            ``"failed"``: stopping it failed. ``"unresolved"``: no answer came before the deadline.
        seconds: How long it was live, by the fleet's clock; for a session of another worker, the
            time since its row was written.
        reason: Why, in words; may be empty.
        resource: Which of the two, ``"session"`` or ``"conversation"``, where known.
        name: The request's name.
        client: The request's ``client``, if it had one.
        group: Its group in the fleet, if it had one.
        started_at: When it became live, in UTC; None if it never did.
        ended_at: When it ended, in UTC.
        last: The server's answer to the stop, with the transcript; None if it sent no details.
    """

    key: K_co
    session_id: str | None
    outcome: EndOutcome
    seconds: float = 0.0
    reason: str = ""
    resource: ResourceName | None = None
    name: str = ""
    client: str | None = None
    group: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    last: AnyEnded | None = field(default=None, repr=False)

    def __str__(self) -> str:
        told = f": {shown(self.reason)}" if self.reason else ""
        session = brief(self.session_id or "unknown")
        return f"{keyed(self.key)} (session {session}) {self.outcome}{told}"


@frozen(kw_only=True, repr=False)
class DrainReport(Generic[K_co]):
    """How each session ended that a drain was to stop.

    As text it shows the numbers, and the first ten sessions that may still be running.
    """

    stopped: tuple[SessionEnd[K_co], ...] = ()
    already_ended: tuple[SessionEnd[K_co], ...] = ()
    failed: tuple[SessionEnd[K_co], ...] = ()
    unresolved: tuple[SessionEnd[K_co], ...] = ()

    @property
    def left(self) -> tuple[SessionEnd[K_co], ...]:
        """The failed and unresolved ones, which may still be running, and billed."""
        return self.failed + self.unresolved

    def __str__(self) -> str:
        left = self.left
        ended = f"{len(self.stopped)} stopped, {len(self.already_ended)} had ended"
        return "; ".join([f"{ended}, {len(left)} left", *named(left, _shortly)])

    def __repr__(self) -> str:
        return f"<DrainReport {self}>"


def _shortly(end: SessionEnd) -> str:
    told = str(end)
    return told if len(told) <= MAX_REASON else f"{told[:MAX_REASON]}..."


@frozen(kw_only=True)
class GroupStats:
    """The numbers of one group of a fleet at one moment.

    Attributes:
        taken: Slots that it has, those of starts that are under way included.
        waiting: Its starts that wait for a slot.
    """

    taken: int
    waiting: int


@frozen(kw_only=True)
class FleetHealth:
    """Whether a fleet can work now; for health and readiness probes.

    Attributes:
        accepting: Whether it accepts starts: it is open, and neither closing nor winding down.
        free: Free slots.
        waiting: Starts that wait for a slot.
        paused_until: When starts go on, in UTC, if the server has asked for a pause; None if not.
        ledger: Whether the ledger answered last time; None without one.
    """

    accepting: bool
    free: int
    waiting: int
    paused_until: datetime | None
    ledger: bool | None


@frozen(kw_only=True)
class FleetStats:
    """A fleet's numbers at one moment.

    Attributes:
        live: Live sessions, including those being stopped.
        starting: Starts in progress.
        waiting: Starts that wait for a slot.
        free: Free slots.
        started: Sessions started so far.
        stopped: Sessions that ended before their time.
        expired: Sessions that the fleet ended because their time was over.
        refused: Starts that failed, so that no session exists.
        failed: Failed attempts to stop a session.
        unknown: Starts of unknown outcome.
        lost: Sessions that another worker claimed in the ledger.
        reaped: Sessions of stalled workers that were stopped here.
        seconds_live: Seconds that all sessions together have run so far.
        budget_left: Seconds of the session budget that are left; None without a budget.
        groups: The numbers of each group that has slots, or starts that wait for one.
        stopped_elsewhere: Sessions of this fleet that other workers stopped by their keys.
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
    groups: Mapping[str, GroupStats] = field(factory=dict[str, GroupStats], hash=False)
    stopped_elsewhere: int = 0
