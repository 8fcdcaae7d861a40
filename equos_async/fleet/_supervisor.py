"""The tasks that start, end and expire the sessions of a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from equos_async._api.operations import OVER
from equos_async._calls.watch import WATCH, Watch
from equos_async._inside import end, look_at_once, stops_of
from equos_async.client import EquosClient
from equos_async.clock import Clock, Timers, set_unless_done
from equos_async.errors import EquosError, StartOutcomeUnknownError
from equos_async.ledger.protocol import NOBODY

from ._admission import Admission, closed_error
from ._drain import START_LATE, STOP_LATE, Drain
from ._ends import Ends
from ._no_ledger import NoRows
from ._opening import Opening
from ._pace import Pace
from ._records import Records
from ._renewal import Renewals
from ._rows import called_off
from ._session import LiveSession, SessionRecord, error_of
from ._states import Reason, State
from ._tally import Tally
from ._unknown import Unknowns
from ._watchdog import Watchdog
from ._writer import RowWriter
from .values import (
    AnyEnded,
    AnyRequest,
    AnyStarted,
    DrainReport,
    EndOutcome,
    FleetEventKind,
    FleetStats,
    SessionEnd,
)

LAST_DATE: Final = 253_402_300_799.0
"""The end of the year 9999, the last that a datetime can hold, in seconds since the epoch."""

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
"""What an end is called that came about for a reason of its own."""

_EVENTS: Final[dict[Reason, FleetEventKind]] = {
    Reason.EXPIRED: "expired",
    Reason.ELSEWHERE: "stopped_elsewhere",
}
"""What is told of it, where that is not simply ``"stopped"``."""


class FleetSupervisor:
    """The fleet's records and the tasks that outlive a cancelled caller.

    A task only waits for the client. What its result means is written down by its done callback,
    which runs before anybody who waits for it, and even where the task never ran a line.

    Args:
        client: What starts and stops the sessions.
        records: The fleet's sessions.
        admission: What they hold.
        rows: What writes them down.
        tally: Who tells.
        ends: Who is told of each end.
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
        self.closing: bool = False
        self.clock = clock
        self._client = client
        self._records = records
        self._admission = admission
        self._rows = rows
        self._tally = tally
        self._ends = ends
        ends.settled = self._check_drains
        self._opening = Opening(
            client,
            admission=admission,
            rows=rows,
            requeue_refused=requeue_refused,
            settled=self._settled,
            stop_before_end=stop_before_end,
            clock=clock,
        )
        self._renew_before = renew_before
        self._timers = Timers(clock)
        self._unknowns = Unknowns(
            client,
            records=records,
            admission=admission,
            tally=tally,
            timers=self._timers,
            clock=clock,
            told=self._settle,
        )
        self._drains: set[Drain] = set()
        self._pace = Pace(self.stop, stops_of(client))
        self._grace: Drain | None = None
        self._is_over = False
        self._renewals = Renewals(
            records, self.fulfil, self.stop, tally.tell, lambda: admission.closed
        )
        self._watchdog = Watchdog(client, self._timers, clock, stop=self.stop, renew=self._renew)

    # Starting.

    async def fulfil(self, record: SessionRecord, request: AnyRequest, *, wait: bool) -> None:
        """Wait for a slot, then for the session."""
        claimed = partial(self._claimed, record)
        await self._admission.admit(record, request, wait=wait, claimed=claimed)
        answer = record.answer = asyncio.get_running_loop().create_future()
        record.task = asyncio.create_task(self._opening.open(record, request, wait=wait))
        record.task.add_done_callback(partial(self._opened, record, answer))
        try:
            await answer
        except (asyncio.CancelledError, GeneratorExit):
            if not answer.cancel() and not answer.cancelled():  # it is not where it is closed
                answer.exception()  # it came in the tick of the cancellation
            self._leave(record)
            raise

    async def join(self, record: SessionRecord) -> None:
        """Wait for a start that is under way, which from now on outlives its first caller.

        Where that one goes while it waits for a slot, there is nothing then.

        Raises:
            EquosError: It failed, or was called off.
        """
        if record.decided is None:
            record.decided = asyncio.get_running_loop().create_future()
        record.callers += 1
        try:
            error = await asyncio.shield(record.decided)
        except (asyncio.CancelledError, GeneratorExit):
            self._leave(record)
            raise
        if error is not None:
            raise error

    def _leave(self, record: SessionRecord) -> None:
        """One of those who wait for a start is gone; the last takes it with them."""
        record.callers -= 1
        if record.callers == 0:
            self.stop(record)  # where it arrived in the tick of the cancellation
            self._withdraw(record)

    async def call_off(self, key: Hashable, why: EquosError) -> None:
        """Let a start that is under way end in an error; its session is stopped when it comes."""
        record = self._records.holder(key)
        if record is None or not record.is_under_way:
            return
        entry = record.entry
        self._turn_away(record, why)
        if record.task is not None:
            await asyncio.wait([record.task])
        if record.state is State.ENDED:
            await self._rows.remove(entry)  # or other workers find its key in use

    def _turn_away(self, record: SessionRecord, why: EquosError) -> None:
        """Let a start end in an error, at once where nothing was sent."""
        self._admission.turn_away(record, why)
        self._withdraw(record)

    def _withdraw(self, record: SessionRecord) -> None:
        """Send nothing more of a start, unless it was sent: then its session is stopped."""
        if not record.is_under_way or record.task is None:
            return
        if record.watch is None or record.watch.is_unsent:
            record.task.cancel()
        else:
            record.watch.is_called_off = True

    def _opened(
        self,
        record: SessionRecord,
        answer: asyncio.Future[None],
        task: asyncio.Task[AnyStarted],
    ) -> None:
        """A start's task is over: a done callback."""
        error = error_of(task, StartOutcomeUnknownError)
        if error is None:
            self._arrived(record, answer, task.result())
            return
        if task.cancelled() and (record.watch is None or record.watch.is_withdrawn):
            told = "it was cancelled before it was sent"
            error = record.unwanted or EquosError(told, operation="start")
        if isinstance(error, EquosError) and not isinstance(error, StartOutcomeUnknownError):
            record.watch = record.task = None
            self._admission.release(record, 0.0)
            self._tally.tell("refused", record, str(error))
            self._settle(record, None)
        else:
            self._unknowns.keep(record, error)
        record.decide(error)
        if not answer.done():
            answer.set_exception(error)

    def _arrived(
        self,
        record: SessionRecord,
        answer: asyncio.Future[None],
        started: AnyStarted,
    ) -> None:
        """A session is there: put it into the hands of whoever waits, or stop it."""
        if record.watch is not None and record.watch.is_settled:
            # Its client was closed while its row was written, and has ended it.
            record.is_confirmed, record.unwanted = True, record.unwanted or closed_error()
        is_over = record.resource.status_of(started) in OVER
        if is_over and record.replaces is not None:  # the old one is better
            told = "the server answered that it has ended"
            record.unwanted = record.unwanted or EquosError(told, operation="start")
        unwanted, wanted = record.unwanted, record.callers > 0 and record.unwanted is None
        self._live(record, started, wanted=wanted)
        self._tally.tell("started", record)
        for drain in self._drains:
            drain.arrived(record)
        record.decide(unwanted)
        if wanted:
            set_unless_done(answer, None)
            if not is_over:
                return
        self.stop(record, Reason.OVER if wanted else Reason.ASKED)
        if not answer.done() and unwanted is not None:
            unwanted.session_id = record.session_id
            answer.set_exception(unwanted)

    def _live(self, record: SessionRecord, started: AnyStarted, *, wanted: bool) -> None:
        """Write down that a session is live, and let go of what only its start needed."""
        record.started = started
        record.began = self.clock.now()
        record.ends = self._opening.ends(record, started)
        left = record.ends - record.began
        record.expires = min(self.clock.wall() + left, LAST_DATE)
        if record.hand_over is not None:
            record.renew_at = record.ends - min(self._renew_before, left / 2)
        if record.presence is not None:
            record.presence.seen = record.began
        self._tally.began(record)
        self._records.move(record, State.LIVE)
        if record.replaces is not None and wanted:
            self._records.hand_key(record.replaces, record)
            record.replaces.renewing = None  # the end of one is not the other's any more
        # Each would hold the one before it, and its caller's frame.
        record.answer = record.task = record.replaces = record.unwanted = None
        self._watchdog.watch(record)

    def _settled(self, record: SessionRecord) -> None:
        """Nothing runs of it, other than was told or asked: the client has seen to it.

        It has learned how an unknown start ended, has gone on asking for a stop that failed, or was
        closed before the fleet.
        """
        if record.state is State.UNKNOWN:
            self._unknowns.settled(record)
        elif record.state is State.LIVE or record.is_to_stop:
            record.is_confirmed = True
            self._mark(record, record.reason)
            self._run(record, self._forget(record))

    # Watching.

    def _renew(self, record: SessionRecord) -> None:
        with suppress(EquosError):  # it is too late for it
            self.renew(record)

    def renew(self, record: SessionRecord) -> asyncio.Task[LiveSession[Any]]:
        """Set out to replace a session, as :meth:`Renewals.begin`."""
        return self._renewals.begin(record)

    def _claimed(self, record: SessionRecord, by: str) -> None:
        """Another worker has stopped it, or is about to: make sure of it, and let go."""
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
        """Another worker has ended it, or called its start off."""
        if record.is_under_way:
            self._turn_away(record, called_off())
            return
        self._let_go(record, Reason.ELSEWHERE)

    async def mark_ended(self, record: SessionRecord) -> None:
        """Let go of a live session that is known to have ended; a stop under way goes on."""
        self._let_go(record, Reason.MARKED)
        await asyncio.wait([cast("asyncio.Task[AnyEnded | None]", record.task)])

    def _let_go(self, record: SessionRecord, reason: Reason) -> None:
        record.is_confirmed = True  # whatever becomes of a stop that is under way
        if record.state is State.LIVE or record.is_to_stop:
            self._mark(record, reason)
            record.reason = reason
            self._run(record, self._forget(record))

    # Stopping.

    def stop(
        self, record: SessionRecord, reason: Reason = Reason.ASKED
    ) -> asyncio.Task[AnyEnded | None]:
        """Set out to stop a session, unless that is under way or done."""
        self._mark(record, reason)
        if record.is_to_stop:
            self._run(record, self._end_it(record))
        return cast("asyncio.Task[AnyEnded | None]", record.task)

    def _mark(self, record: SessionRecord, reason: Reason) -> None:
        """Let a live session be one that is to be stopped."""
        if record.state is not State.LIVE:
            return
        if record.reason is not Reason.LOST:
            record.reason = reason
        if record.renewing is not None:
            record.renewing.cancel()
            record.renewing = None
        self._records.move(record, State.STOPPING)

    def _run(self, record: SessionRecord, work: Coroutine[Any, Any, AnyEnded | None]) -> None:
        if record.watch is not None:
            record.watch.release()
        record.watch = None
        record.task = asyncio.create_task(work)
        record.task.add_done_callback(partial(self._stopped, record))

    async def _end_it(self, record: SessionRecord) -> AnyEnded | None:
        """Stop a session, and have its row gone when this returns."""
        over = partial(self._pace.over, record)
        record.watch = Watch(record.key, partial(self._settled, record), rests=over)
        WATCH.set(record.watch)
        ended = None
        try:
            ended = await end(self._client, record.resource, record.resource.id_of(record.response))
        except EquosError:
            if not record.is_confirmed:  # else another worker has stopped it meanwhile
                raise
        finally:
            WATCH.set(None)
            over()
        await self._rows.remove(record.entry)
        return ended

    async def _forget(self, record: SessionRecord) -> None:
        """Have the row gone of a session that is over."""
        await self._rows.remove(record.entry)

    def _stopped(self, record: SessionRecord, task: asyncio.Task[AnyEnded | None]) -> None:
        """The task of a stop is over: a done callback."""
        is_awaited = any(record in drain.pending for drain in self._drains)
        if task.cancelled() and record.watch is None and is_awaited:
            # The loop's shutdown cancels what was made just before, which never ran a line.
            self._run(record, self._end_it(record))
            return
        record.watch = None
        self._pace.over(record)
        error = error_of(task, EquosError)
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
            self._settle(record, end)
        self._tally.tell("failed", record, end.reason)

    def _finish(self, record: SessionRecord, end: SessionEnd) -> None:
        """A session is over: let go of all that was held for it."""
        record.end, record.request = end, None
        self._watchdog.unwatch(record)
        self._tally.ended(record, end.seconds)
        removed = record.entry.removed  # whichever worker removes a row tells of its end
        self._admission.release(record, end.seconds)
        if record.over is not None:
            set_unless_done(record.over, end)
        is_ours = removed is not False if end.outcome != "lost" else removed is True
        if is_ours and not self._is_over:
            self._ends.tell(end)
        self._settle(record, end)

    # Draining.

    def close(self) -> None:
        """Take no more starts, and turn away those that wait."""
        self.closing = self._admission.closed = True
        for record in self._records.every(State.WAITING, State.STARTING):
            if self._records.holder(record.key) is record:  # a replacement is cancelled instead
                self._turn_away(record, closed_error())
        self._renewals.cancel()
        self._watchdog.cancel()

    def wind_down(self, seconds: float) -> asyncio.Future[None]:
        """Take no more starts, and let what there is go on to its end, for so long at most."""
        self._admission.closed = True
        for record in self._records.every(State.WAITING, State.STARTING):
            if record.replaces is not None and record.replaces.renewing is not None:
                record.replaces.renewing.cancel()
            elif record.state is State.WAITING:
                self._turn_away(record, closed_error())
        grace = self._grace = self._new_drain(seconds)
        running = self._records.every(State.STARTING, State.LIVE, State.STOPPING)
        grace.pending.update(dict.fromkeys(running, STOP_LATE))
        grace.check()
        return grace.done

    def _new_drain(self, seconds: float) -> Drain:
        until = self.clock.now() + seconds
        drain = Drain(self.clock.call_at, until, lambda: self._ends.are_told)
        self._drains.add(drain)
        return drain

    def drain(self, seconds: float, why: Callable[[], EquosError]) -> Drain:
        """Set out to stop everything; the drain's future is done when all is, or in time."""
        drain = self._new_drain(seconds)
        for record in self._records.every(State.UNKNOWN):
            last = cast("SessionEnd[Any]", record.end)
            if self._unknowns.is_looked_for(record):
                drain.pending[record] = last.reason
            else:
                drain.ends.append(last)
        for record in self._records.every(State.STARTING):
            drain.pending[record] = START_LATE
            self._turn_away(record, why())
        if drain.pending:
            look_at_once(self._client)
        live = self._records.every(State.LIVE)
        drain.pending.update(dict.fromkeys(live + self._records.every(State.STOPPING), STOP_LATE))
        for record in live:
            self._mark(record, Reason.ASKED)
        self._pace.add(live)
        if self.closing and self._grace is not None:
            running = {record.session_id for record in drain.pending} | {None}
            drain.ends += [end for end in self._grace.ends if end.session_id not in running]
        drain.check()
        return drain

    def conclude(self, drain: Drain) -> DrainReport[Any]:
        """Stop waiting for a drain, and say what is known of it."""
        self._drains.discard(drain)
        drain.timer.cancel()
        self._pace.hurry()
        report = drain.report()
        if self.closing and not self._is_over:
            self._timers.clear()
            # With a ledger it is told by whoever stops them, and removes their rows.
            self._is_over = self._rows.worker is None
            running = self._records.every(State.LIVE, State.STOPPING) if self._is_over else ()
            ids = {record.session_id for record in running}
            for end in report.left:  # those that failed when their time was over were told then
                if end.session_id in ids:
                    self._ends.tell(end)
        return report

    def give_up(self) -> None:
        """Wait no longer for any drain."""
        for drain in self._drains:
            set_unless_done(drain.done, None)

    def _check_drains(self) -> None:
        for drain in self._drains:
            drain.check()

    def _settle(self, record: SessionRecord, end: SessionEnd | None) -> None:
        for drain in self._drains:
            drain.settle(record, end)

    def stats(self) -> FleetStats:
        """The numbers now."""
        return self._tally.stats(
            free=self._admission.free,
            budget_left=self._admission.budget_left,
            groups=self._admission.groups,
        )
