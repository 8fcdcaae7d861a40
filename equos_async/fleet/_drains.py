"""The drains of a fleet: each stops what there is, and the last tells what is left."""

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
    """Those that are under way: each is told what ends, and waits for its own part of it.

    Attributes:
        closing: Whether the fleet is at its end.
        is_over: Whether that is told, so that no end is told any more.

    Args:
        client: What stops the sessions.
        records: The fleet's sessions.
        rows: What writes them down.
        ends: Who is told of each end.
        unknowns: What keeps the starts of unknown outcome.
        pace: What begins the stops.
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
        self._grace: Drain | None = None

    def wait(self, seconds: float) -> asyncio.Future[None]:
        """Let what runs go on to its end, for so long at most; done when nothing runs any more."""
        grace = self._grace = self._new(seconds)
        running = self._records.every(State.STARTING, State.LIVE, State.STOPPING)
        grace.pending.update(dict.fromkeys(running, STOP_LATE))
        grace.check()
        return grace.done

    def begin(
        self,
        seconds: float,
        *,
        turn_away: Callable[[SessionRecord], None],
        mark: Callable[[SessionRecord], None],
    ) -> Drain:
        """Set out to stop everything; the drain's future is done when all is, or in time.

        Args:
            seconds: After which it waits no longer.
            turn_away: Called with each start that is under way.
            mark: Called with each live session, before its stop is begun.
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
        if self.closing and self._grace is not None:
            running = {record.session_id for record in drain.pending} | {None}
            drain.ends += [end for end in self._grace.ends if end.session_id not in running]
        drain.check()
        return drain

    def conclude(self, drain: Drain) -> DrainReport[Any]:
        """Stop waiting for a drain, and say what is known of it."""
        self._under_way.discard(drain)
        drain.timer.cancel()
        self._pace.hurry()
        report = drain.report()
        if self.closing and not self.is_over:
            self._timers.clear()
            # With a ledger it is told by whoever stops them, and removes their rows.
            self.is_over = self._rows.worker is None
            running = self._records.every(State.LIVE, State.STOPPING) if self.is_over else ()
            ids = {record.session_id for record in running}
            for end in report.left:  # those that failed when their time was over were told then
                if end.session_id in ids:
                    self._ends.tell(end)
        return report

    def give_up(self) -> None:
        """Wait no longer for any of them."""
        for drain in self._under_way:
            set_unless_done(drain.done, None)

    def arrived(self, record: SessionRecord) -> None:
        """A start that was on its way brought a session."""
        for drain in self._under_way:
            drain.arrived(record)

    def settle(self, record: SessionRecord, end: SessionEnd[Any] | None) -> None:
        """Something is over, or failed for now; None: there was nothing."""
        for drain in self._under_way:
            drain.settle(record, end)

    def is_awaited(self, record: SessionRecord) -> bool:
        """Whether any of them waits for the end of a session."""
        return any(record in drain.pending for drain in self._under_way)

    def _new(self, seconds: float) -> Drain:
        until = self._clock.now() + seconds
        drain = Drain(self._clock.call_at, until, lambda: self._ends.are_told)
        self._under_way.add(drain)
        return drain

    def _check(self) -> None:
        for drain in self._under_way:
            drain.check()
