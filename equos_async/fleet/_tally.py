"""Count what happens in a fleet, and report it as events and numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, get_args

from equos_async._emitter import Emitter
from equos_async.clock import Clock
from equos_async.errors import ResourceName
from equos_async.events import MAX_REASON

from ._records import Records
from ._session import SessionRecord
from ._states import State
from .values import FleetEvent, FleetEventKind, FleetStats, GroupStats


class Tally:
    """Counts the events of one fleet, and the seconds of its sessions.

    Args:
        records: The fleet's sessions.
        clock: The source of time.
        on_event: Called with each event.
    """

    def __init__(
        self,
        records: Records[SessionRecord],
        clock: Clock,
        on_event: Callable[[FleetEvent[Any]], object] | None,
    ) -> None:
        self.waiting: Callable[[], int] = lambda: 0
        self._records: Final = records
        self._clock = clock
        self._emitter = Emitter(on_event, "the fleet's on_event")
        self._counts: dict[FleetEventKind, int] = dict.fromkeys(get_args(FleetEventKind), 0)
        self._seconds_ended = 0.0
        self._sum_began = 0.0

    def began(self, record: SessionRecord) -> None:
        """Count a session that has become live."""
        self._sum_began += record.began

    def ended(self, record: SessionRecord, seconds: float) -> None:
        """Count a live session that has ended."""
        self._sum_began -= record.began
        self._seconds_ended += seconds

    def tell(
        self,
        kind: FleetEventKind,
        record: SessionRecord,
        reason: str = "",
        *,
        session_id: str | None = None,
    ) -> None:
        """Count and report an event of a session of this fleet."""
        self.emit(
            kind,
            record.key,
            session_id=session_id or record.session_id,
            resource=record.resource.word,
            group=record.group,
            reason=reason,
        )

    def emit(
        self,
        kind: FleetEventKind,
        key: Hashable,
        *,
        session_id: str | None = None,
        resource: ResourceName | None = None,
        group: str | None = None,
        reason: str = "",
    ) -> None:
        """Count and report an event."""
        self._counts[kind] += 1
        self._emitter.emit(
            FleetEvent(
                kind=kind,
                key=key,
                live=self._running,
                waiting=self.waiting(),
                session_id=session_id,
                resource=resource,
                group=group,
                reason=reason[:MAX_REASON],
            )
        )

    def stats(
        self, *, free: int, budget_left: float | None, groups: Mapping[str, GroupStats]
    ) -> FleetStats:
        """The numbers now."""
        live = self._running
        counts = self._counts
        return FleetStats(
            live=live,
            starting=self._records.count(State.STARTING),
            waiting=self.waiting(),
            free=free,
            started=counts["started"],
            stopped=counts["stopped"],
            expired=counts["expired"],
            refused=counts["refused"],
            failed=counts["failed"],
            unknown=counts["unknown"],
            lost=counts["lost"],
            reaped=counts["reaped"],
            stopped_elsewhere=counts["stopped_elsewhere"],
            seconds_live=self._seconds_ended + live * self._clock.now() - self._sum_began,
            budget_left=budget_left,
            groups=groups,
        )

    @property
    def _running(self) -> int:
        return self._records.count(State.LIVE, State.STOPPING)
