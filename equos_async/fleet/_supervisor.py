"""The tasks that stop, expire and renew the sessions of a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from equos_async._calls.watch import WATCH, Watch
from equos_async._inside import check_loop, end, stops_of
from equos_async.client import EquosClient
from equos_async.clock import Clock, Timers, set_unless_done
from equos_async.errors import EquosError
from equos_async.ledger.protocol import NOBODY

from ._admission import Admission, closed_error
from ._drain import Drain
from ._drains import Drains
from ._ends import Ends
from ._no_ledger import NoRows
from ._opening import Opening
from ._pace import Pace
from ._records import Records
from ._renewal import Renewals, call_off
from ._rows import called_off
from ._session import LiveSession, SessionRecord, error_of
from ._starting import Starts
from ._states import Reason, State
from ._tally import Tally
from ._unknown import Unknowns
from ._watchdog import Watchdog
from ._writer import RowWriter
from .values import AnyEnded, EndOutcome, FleetEventKind, FleetStats, SessionEnd

_OUTCOMES: Final[dict[Reason, EndOutcome]] = {
    Reason.EXPIRED: "expired",
    Reason.IDLE: "idle",
    Reason.NEVER_JOINED: "never_joined",
    Reason.REPLACED: "replaced",
    Reason.RENEWED: "renewed",
    Reason.LOST: "lost",
    Reason.ELSEWHERE: "stopped_elsewhere",
    Reason.MARKED: "marked_ended",
}
"""The outcomes of ends with a reason of their own."""

_EVENTS: Final[dict[Reason, FleetEventKind]] = {
    Reason.EXPIRED: "expired",
    Reason.ELSEWHERE: "stopped_elsewhere",
}
"""The events of ends that are not simply ``"stopped"``."""


class FleetSupervisor:
    """The fleet's records and the tasks that outlive a cancelled caller.

    A task only waits for the client. Its done callback evaluates the result: it runs before any
    waiter, and also if the task was cancelled before its first line.

    Attributes:
        starts: The starts of sessions.
        drains: The drains; they know whether the fleet is closing.

    Args:
        client: Starts and stops the sessions.
        records: The fleet's sessions.
        admission: Keys, budget, rows and slots.
        rows: Writes the rows.
        tally: Reports events.
        ends: Calls the ``on_end`` hook.
        requeue_refused: Whether a start that the server refuses with 429 is attempted again.
        renew_before: Seconds before a session's end at which its replacement is started.
        stop_before_end: Seconds before the server's end of a session at which it is stopped.
        clock: The source of time.
    """

    def __init__(
        self,
        client: EquosClient,
        *,
        records: Records[SessionRecord],
        admission: Admission,
        rows: NoRows | RowWriter,
        tally: Tally,
        ends: Ends,
        requeue_refused: bool,
        renew_before: float,
        stop_before_end: float,
        clock: Clock,
    ) -> None:
        self.clock = clock
        self._client = client
        self._records = records
        self._admission = admission
        self._rows = rows
        self._tally = tally
        self._ends = ends
        self._timers = Timers(clock)
        self._pace = Pace(self.stop, stops_of(client))
        self._unknowns = Unknowns(
            client,
            records=records,
            admission=admission,
            tally=tally,
            timers=self._timers,
            clock=clock,
        )
        self.drains = Drains(
            client,
            records=records,
            rows=rows,
            ends=ends,
            unknowns=self._unknowns,
            pace=self._pace,
            timers=self._timers,
            clock=clock,
        )
        self._watchdog = Watchdog(client, self._timers, clock, stop=self.stop, renew=self._renew)
        self.starts = Starts(
            records=records,
            admission=admission,
            rows=rows,
            tally=tally,
            opening=Opening(
                client,
                admission=admission,
                rows=rows,
                requeue_refused=requeue_refused,
                settled=self._settled,
                stop_before_end=stop_before_end,
                clock=clock,
            ),
            unknowns=self._unknowns,
            drains=self.drains,
            watchdog=self._watchdog,
            renew_before=renew_before,
            clock=clock,
            claimed=self._claimed,
            stop=self.stop,
        )
        self._renewals = Renewals(
            records, self.starts.fulfil, self.stop, tally.tell, lambda: admission.closed
        )

    def _settled(self, record: SessionRecord) -> None:
        """The client has learned that a session does not run any more.

        It has learned the outcome of an unknown start, a repeated stop has succeeded, or the client
        was closed before the fleet.
        """
        if record.state is State.UNKNOWN:
            self._unknowns.settled(record)
        elif record.state is State.LIVE or record.is_to_stop:
            record.is_confirmed = True
            self._mark(record, record.reason)
            self._over(record)

    def check(self) -> None:
        """Check that this is the client's event loop, as :func:`check_loop`."""
        check_loop(self._client)

    # Watching.

    def _renew(self, record: SessionRecord) -> None:
        with suppress(EquosError):  # it cannot be renewed any more
            self.renew(record)

    def renew(self, record: SessionRecord) -> asyncio.Task[LiveSession[Any]]:
        """Begin to replace a session, as :meth:`Renewals.begin`."""
        return self._renewals.begin(record)

    def _claimed(self, record: SessionRecord, by: str) -> None:
        """Another worker has claimed a session: stop it here, too, and report it as lost."""
        if by == NOBODY:
            self._ended_elsewhere(record)
            return
        if record.state is State.STARTING:
            late = f"the lease of this worker had expired, and worker {by} took its place"
            record.unwanted = record.unwanted or EquosError(late, operation="start")
            return
        if record.reason is Reason.ASKED:
            record.reason, record.claimed_by = Reason.LOST, by
        self._tally.tell("lost", record, record.why)
        self.stop(record)

    def _ended_elsewhere(self, record: SessionRecord) -> None:
        """Another worker has stopped a session, or called its start off."""
        if record.is_under_way:
            self.starts.turn_away(record, called_off())
            return
        self._let_go(record, Reason.ELSEWHERE)

    async def mark_ended(self, record: SessionRecord) -> None:
        """End a live session that is known to be over; a stop in progress continues."""
        self._let_go(record, Reason.MARKED)
        await asyncio.wait([cast("asyncio.Task[AnyEnded | None]", record.task)])

    def _let_go(self, record: SessionRecord, reason: Reason) -> None:
        record.is_confirmed = True  # however a stop in progress ends
        if record.state is State.LIVE or record.is_to_stop:
            self._mark(record, reason)
            record.reason = reason
            self._over(record)

    # Stopping.

    def stop(
        self, record: SessionRecord, reason: Reason = Reason.ASKED
    ) -> asyncio.Task[AnyEnded | None]:
        """Begin to stop a session, unless that is in progress or done."""
        self._mark(record, reason)
        if record.is_to_stop:
            self._run(record, self._end_it(record))
        return cast("asyncio.Task[AnyEnded | None]", record.task)

    def _mark(self, record: SessionRecord, reason: Reason) -> None:
        """Mark a live session as one to stop."""
        if record.state is not State.LIVE:
            return
        if record.reason is not Reason.LOST:
            record.reason = reason
        if record.renewing is not None:
            call_off(record.renewing)
            record.renewing = None
        self._records.move(record, State.STOPPING)

    def _over(self, record: SessionRecord) -> None:
        """Forget a session that runs no more."""
        if record.watch is not None:
            record.watch.release()
            record.watch = None
        self._run(record, self._forget(record))

    def _run(self, record: SessionRecord, work: Coroutine[Any, Any, AnyEnded | None]) -> None:
        if record.watch is not None:
            record.watch.is_left = True
        record.task = asyncio.create_task(work)
        record.task.add_done_callback(partial(self._stopped, record))

    async def _end_it(self, record: SessionRecord) -> AnyEnded | None:
        """Stop a session, and remove its row."""
        over = partial(self._pace.over, record)
        watch = Watch(record.key, partial(self._settled, record), rests=over)
        watch.hand_over(partial(self._launched, record, watch))
        WATCH.set(watch)
        ended = None
        try:
            ended = await end(self._client, record.resource, record.resource.id_of(record.response))
        except EquosError:
            if not record.is_confirmed:  # if it is, another worker has stopped it meanwhile
                raise
        finally:
            WATCH.set(None)
            over()
        await self._rows.remove(record.entry)
        return ended

    def _launched(self, record: SessionRecord, watch: Watch) -> None:
        """The client has launched a stop, and held the session until now: a signal may strike."""
        held, record.watch = record.watch, watch
        if held is not None:
            held.release()

    async def _forget(self, record: SessionRecord) -> None:
        """Remove the row of a session that is over."""
        await self._rows.remove(record.entry)

    def _stopped(self, record: SessionRecord, task: asyncio.Task[AnyEnded | None]) -> None:
        """The task of a stop is over: a done callback."""
        error, is_launched = error_of(task, EquosError), False
        if record.watch is not None:
            is_launched = not record.watch.is_left
            record.watch.is_left = False
        is_cut = task.cancelled() or not isinstance(error, Exception | None)
        if is_cut and not is_launched and self.drains.is_awaited(record):
            # The loop's shutdown, or a signal's exception, has ended the task in its first step.
            self._run(record, self._end_it(record))
            return
        if is_launched:
            record.watch = None
        self._pace.over(record)
        if error is None or record.is_confirmed:
            last = None if error is not None else task.result()
            is_ours = record.is_confirmed or last is not None
            outcome = _OUTCOMES.get(record.reason, "stopped" if is_ours else "already_ended")
            self._finish(record, record.ended_as(outcome, record.why, last=last))
            self._tally.tell(_EVENTS.get(record.reason, "stopped"), record, record.why)
            return
        end = record.ended_as("failed", str(error))
        if record.timer is None or self.clock.now() >= record.ends:
            self._finish(record, end)
        else:
            record.task = None  # it keeps its slot and its timer, and may be stopped again
            self._records.move(record, State.LIVE)
            self.drains.settle(record, end)
        self._tally.tell("failed", record, end.reason)

    def _finish(self, record: SessionRecord, end: SessionEnd) -> None:
        """A session is over: return all that it has."""
        record.end, record.request = end, None
        self._watchdog.unwatch(record)
        self._tally.ended(record, end.seconds)
        removed = record.entry.removed  # the worker that removes a row reports the end
        self._admission.release(record, end.seconds)
        if record.over is not None:
            set_unless_done(record.over, end)
        is_ours = removed is not False if end.outcome != "lost" else removed is True
        if is_ours and not self.drains.is_over:
            self._ends.tell(end)
        self.drains.settle(record, end)

    # Draining.

    def close(self) -> None:
        """Accept no more starts, and end those that wait."""
        self.drains.closing = self._admission.closed = True
        for record in self._records.every(State.WAITING, State.STARTING):
            if self._records.holder(record.key) is record:  # replacements are cancelled below
                self.starts.turn_away(record, closed_error())
        self._renewals.cancel()
        self._watchdog.cancel()

    def wind_down(self, seconds: float) -> asyncio.Future[None]:
        """Accept no more starts, and wait for some seconds until the sessions end by themselves."""
        self._admission.closed = True
        for record in self._records.every(State.WAITING, State.STARTING):
            if record.replaces is not None and record.replaces.renewing is not None:
                call_off(record.replaces.renewing)
            elif record.state is State.WAITING:
                self.starts.turn_away(record, closed_error())
        return self.drains.wait(seconds)

    def drain(
        self, seconds: float, why: Callable[[], EquosError], *, is_final: bool = False
    ) -> Drain:
        """Begin to stop all sessions, as :meth:`Drains.begin`; ``why`` makes errors of starts."""
        return self.drains.begin(
            seconds,
            turn_away=lambda record: self.starts.turn_away(record, why()),
            mark=lambda record: self._mark(record, Reason.ASKED),
            is_final=is_final,
        )

    def stats(self) -> FleetStats:
        """The numbers now."""
        return self._tally.stats(
            free=self._admission.free,
            budget_left=self._admission.budget_left,
            groups=self._admission.groups,
        )
