"""The drains of a fleet: each stops the live sessions; the final one reports what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from equos_async._inside import look_at_once
from equos_async.client import EquosClient
from equos_async.clock import Clock, Timers, set_unless_done

from ._drain import START_LATE, STOP_LATE, Drain
from ._ends import Ends
from ._no_ledger import NoRows
from ._pace import Pace
from ._records import Records
from ._session import SessionRecord
from ._states import State
from ._unknown import Unknowns
from ._writer import RowWriter
from .values import DrainReport, SessionEnd


class Drains:
    """The drains in progress. Each is told of every end, and waits for its own sessions.

    Attributes:
        closing: Whether the fleet accepts no starts any more.
        is_over: Whether the final report was made, so that no further end is reported.

    Args:
        client: Stops the sessions.
        records: The fleet's sessions.
        rows: Writes the rows.
        ends: Calls the ``on_end`` hook.
        unknowns: Keeps the starts of unknown outcome.
        pace: Begins the stops.
        timers: The fleet's timers.
        clock: The source of time.
    """

    def __init__(
        self,
        client: EquosClient,
        *,
        records: Records[SessionRecord],
        rows: NoRows | RowWriter,
        ends: Ends,
        unknowns: Unknowns,
        pace: Pace,
        timers: Timers,
        clock: Clock,
    ) -> None:
        self.closing: bool = False
        self.is_over: bool = False
        self._client = client
        self._records = records
        self._rows = rows
        self._ends = ends
        ends.settled = self._check
        unknowns.told = self.settle
        self._unknowns = unknowns
        self._pace = pace
        self._timers = timers
        self._clock = clock
        self._under_way: set[Drain] = set()
        self._graces: list[Drain] = []
        self._last: Drain | None = None

    def wait(self, seconds: float) -> asyncio.Future[None]:
        """Wait for some seconds until no session runs any more; the future is done then."""
        grace = self._new(seconds)
        self._graces.append(grace)
        running = self._records.every(State.STARTING, State.LIVE, State.STOPPING)
        grace.pending.update(dict.fromkeys(running, STOP_LATE))
        self._carry_on(grace)
        grace.check()
        return grace.done

    def begin(
        self,
        seconds: float,
        *,
        turn_away: Callable[[SessionRecord], None],
        mark: Callable[[SessionRecord], None],
        is_final: bool,
    ) -> Drain:
        """Begin to stop all sessions; the drain's future is done when all have ended, or in time.

        Args:
            seconds: Seconds that it waits at most.
            turn_away: Called with each start in progress.
            mark: Called with each live session, before its stop begins.
            is_final: Whether the fleet closes with it.
        """
        drain = self._new(seconds)
        for record in self._records.every(State.UNKNOWN):
            last = cast("SessionEnd[Any]", record.end)
            if self._unknowns.is_looked_for(record):
                drain.pending[record] = last.reason
            else:
                drain.ends.append(last)
        for record in self._records.every(State.STARTING):
            drain.pending[record] = START_LATE
            turn_away(record)
        if drain.pending:
            look_at_once(self._client)
        live = self._records.every(State.LIVE)
        drain.pending.update(dict.fromkeys(live + self._records.every(State.STOPPING), STOP_LATE))
        for record in live:
            mark(record)
        self._pace.add(live)
        if is_final:
            self._carry_on(drain)
        drain.check()
        return drain

    def conclude(self, drain: Drain, *, is_final: bool = False) -> DrainReport[Any]:
        """End a drain, and return its report.

        Args:
            drain: The drain.
            is_final: Whether the fleet is closed now.
        """
        self._under_way.discard(drain)
        drain.timer.cancel()
        self._pace.hurry()
        report = drain.report()
        if is_final:
            self._close(report)
        return report

    def _close(self, report: DrainReport[Any]) -> None:
        """Say what is known of sessions that may be running, to all who wait for their ends."""
        self._timers.clear()
        for grace in self._graces:
            set_unless_done(grace.done, None)
        was_over = self.is_over
        # With a ledger, the worker that stops them and removes their rows reports their ends.
        self.is_over = self._rows.worker is None
        left = {end.session_id: end for end in report.left}
        running = self._records.every(State.LIVE, State.STOPPING)
        for record in [one for one in running if one.session_id in left]:
            end = left[record.session_id]
            set_unless_done(record.awaited, end)
            if self.is_over and not was_over:
                self._ends.tell(end)  # failures at the end of their time were reported before

    def give_up(self) -> None:
        """End all drains now."""
        for drain in self._under_way:
            set_unless_done(drain.done, None)

    def arrived(self, record: SessionRecord) -> None:
        """A start in progress was answered with a session."""
        for drain in self._under_way:
            drain.arrived(record)

    def settle(self, record: SessionRecord, end: SessionEnd[Any] | None) -> None:
        """A session has ended, or its stop failed for now; None: there was no session."""
        for drain in self._under_way:
            drain.settle(record, end)

    def is_awaited(self, record: SessionRecord) -> bool:
        """Whether a drain waits for the end of a session."""
        return any(record in drain.pending for drain in self._under_way)

    def _carry_on(self, drain: Drain) -> None:
        """Add all that has ended since the fleet began to close: wherever that was begun again."""
        earlier, self._last = self._last, drain
        if earlier is not None:
            running = {record.session_id for record in drain.pending} | {None}
            drain.ends += [end for end in earlier.ends if end.session_id not in running]

    def _new(self, seconds: float) -> Drain:
        until = self._clock.now() + seconds
        drain = Drain(self._clock.call_at, until, lambda: self._ends.are_told)
        self._under_way.add(drain)
        return drain

    def _check(self) -> None:
        for drain in self._under_way:
            drain.check()
