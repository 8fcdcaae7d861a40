"""The tasks that start, end and expire the sessions of a fleet."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Final, Literal, cast, get_args

from equos_async._emitter import Emitter
from equos_async.client import EquosClient
from equos_async.clock import Clock, Timers, set_unless_done
from equos_async.errors import (
    ClientClosedError,
    ConfigurationError,
    EquosError,
    FleetFullError,
    StartOutcomeUnknownError,
)
from equos_async.events import logger
from equos_async.models import CreateEquosSessionResponse, CreateSessionPassRequest, EquosSession

from ._admission import Slots
from ._drain import START_LATE, STOP_LATE, Drain
from ._records import Records
from ._session import HandOver, SessionRecord, granted
from ._states import Reason, State
from ._worker import LedgerWorker, NoWorker
from .values import DrainReport, FleetEvent, FleetEventKind, FleetStats, SessionEnd

LAST_DATE: Final = 253_402_300_799.0
"""The end of the year 9999, the last that a datetime can hold, in seconds since the epoch."""


def closed_error() -> ClientClosedError:
    """For a fleet that is at its end."""
    return ClientClosedError("the fleet is at its end", operation="start")


class FleetSupervisor:
    """The fleet's records and the tasks that outlive a cancelled caller.

    A task only waits for the client. What its result means is written down by its done callback,
    which runs before anybody who waits for it, and even where the task never ran a line.
    """

    def __init__(
        self,
        client: EquosClient,
        *,
        slots: int,
        budget: float,
        renew_before: float,
        on_event: Callable[[FleetEvent], object] | None,
        clock: Clock,
        make_worker: Callable[[Callable[..., None]], LedgerWorker | NoWorker],
    ) -> None:
        self.clock = clock
        self.slots: Slots = Slots(slots)
        self.records: Records[SessionRecord] = Records()
        self.closed: bool = False
        self._client = client
        self._max_live = slots
        self._renew_before = renew_before
        self._emitter = Emitter(on_event, "the fleet's on_event")
        self._timers = Timers(clock)
        self._drains: set[Drain] = set()
        self._renewals: set[asyncio.Task[None]] = set()
        self._counts: dict[FleetEventKind, int] = dict.fromkeys(get_args(FleetEventKind), 0)
        self._budget = budget
        self._committed = 0.0
        self._seconds_ended = 0.0
        self._sum_began = 0.0
        self.worker: LedgerWorker | NoWorker = make_worker(self.emit)

    # Starting.

    def reserve(self, record: SessionRecord) -> None:
        """Take a key, so that two starts at the same time cannot both have it."""
        if self.closed:
            raise closed_error()
        try:
            holder = self.records.holder(record.key)
        except TypeError:
            raise ConfigurationError(
                f"key must be hashable, which {type(record.key).__name__} is not"
            ) from None
        if holder is not None:
            raise ConfigurationError(f"key {record.key!r} has a session already: stop it first")
        self.records.add(record, holds_key=True)

    async def fulfil(
        self, record: SessionRecord, request: CreateSessionPassRequest, *, wait: bool
    ) -> None:
        """Wait for a slot, then for the session."""
        try:
            self._commit(record)
            await self._sign_up(record, request, wait=wait)
            await self._take_slot(record, wait=wait)
        except BaseException as error:
            self._forget(record)
            if isinstance(error, EquosError):
                self.emit("refused", record.key, reason=str(error))
            raise
        self.records.move(record, State.STARTING)
        answer = record.answer = asyncio.get_running_loop().create_future()
        record.task = asyncio.create_task(self._open(record, request))
        record.task.add_done_callback(partial(self._opened, record, answer))
        try:
            await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.exception() is None:
                self.stop(record)  # it arrived in the tick of the cancellation
            raise

    async def call_off(self, key: Hashable, why: EquosError) -> None:
        """Let a start that is under way end in an error; its session is stopped when it comes."""
        record = self.records.holder(key)
        if record is None or record.state not in {State.WAITING, State.STARTING}:
            return
        self._turn_away(record, why)
        if record.task is not None:
            await asyncio.wait([record.task])

    def _commit(self, record: SessionRecord) -> None:
        """Reserve all that a session may use of the session budget."""
        left = self._budget - self._committed
        if record.duration > left:
            raise FleetFullError(
                f"the fleet's budget has {left:g} s left; this may take {record.duration:g} s",
                operation="start",
            )
        record.seconds = record.duration
        self._committed += record.seconds

    async def _sign_up(
        self, record: SessionRecord, request: CreateSessionPassRequest, *, wait: bool
    ) -> None:
        """Have a slot and a row in the ledger when this returns."""
        record.entry = self.worker.entry(record.key, request, partial(self._claimed, record))
        deadline = self._client.timeouts.deadline if record.deadline is None else record.deadline
        try:
            await self.worker.place(
                record.entry,
                seconds=deadline + record.duration,
                wait=wait,
                waits=partial(self.emit, "waiting", record.key),
            )
        except asyncio.CancelledError:
            self.emit("waiting", record.key, reason="gave up")
            raise
        if record.unwanted is not None:
            raise record.unwanted

    async def _take_slot(self, record: SessionRecord, *, wait: bool) -> None:
        """Have a slot when this returns, and none where it raises."""
        if self.slots.take():
            return
        if not wait:
            raise FleetFullError(
                f"all {self._max_live} places of the fleet are taken", operation="start"
            )
        turn = self.slots.join(record)
        self.emit("waiting", record.key)
        try:
            await self.slots.wait(record, turn)
        except asyncio.CancelledError:
            self.emit("waiting", record.key, reason="gave up")
            raise
        if record.unwanted is not None:  # in the very tick in which its turn came
            self.slots.give()
            raise record.unwanted

    def _forget(self, record: SessionRecord) -> None:
        """Nothing came of a start: give its key, its seconds and its row back."""
        self.records.move(record, State.ENDED)
        self._committed -= record.seconds
        record.seconds = 0.0
        self.worker.drop(record.entry)

    async def _open(
        self, record: SessionRecord, request: CreateSessionPassRequest
    ) -> CreateEquosSessionResponse:
        """Start a session, and have it written down when this returns."""
        started = await self._client.start_session(request, deadline=record.deadline)
        session = started.session
        seconds = granted(record.duration, session.max_duration)
        await self.worker.record(record.entry, session.id, seconds)
        return started

    def _turn_away(self, record: SessionRecord, why: EquosError) -> None:
        """Let a start end in an error, at once where it waits for a slot."""
        self._unwant(record, why)
        self.slots.turn_away(record, why)
        self.worker.turn_away(record.entry, why)

    def _unwant(self, record: SessionRecord, why: EquosError) -> None:
        """Note why a start is to end in an error; the first reason stays."""
        record.unwanted = record.unwanted or why

    def _opened(
        self,
        record: SessionRecord,
        answer: asyncio.Future[None],
        task: asyncio.Task[CreateEquosSessionResponse],
    ) -> None:
        """A start's task is over: a done callback."""
        error = _error_of(task, StartOutcomeUnknownError)
        if error is None:
            self._arrived(record, answer, task.result())
            return
        if isinstance(error, EquosError) and not isinstance(error, StartOutcomeUnknownError):
            self._forget(record)
            self.slots.give()
            self.emit("refused", record.key, reason=str(error))
            self._settle(record, None)
        else:
            self._keep_unknown(record, error)
        if not answer.done():
            answer.set_exception(error)

    def _arrived(
        self,
        record: SessionRecord,
        answer: asyncio.Future[None],
        started: CreateEquosSessionResponse,
    ) -> None:
        """A session is there: put it into the hands of whoever waits, or stop it."""
        unwanted, wanted = record.unwanted, not answer.done() and record.unwanted is None
        self._live(record, started, wanted=wanted)
        self.emit("started", record.key, session_id=record.session_id)
        for drain in self._drains:
            drain.arrived(record)
        if wanted:
            answer.set_result(None)
            return
        self.stop(record)
        if not answer.done() and unwanted is not None:
            unwanted.session_id = record.session_id
            answer.set_exception(unwanted)

    def _live(
        self, record: SessionRecord, started: CreateEquosSessionResponse, *, wanted: bool
    ) -> None:
        """Write down that a session is live, and let go of what only its start needed."""
        duration = granted(record.duration, started.session.max_duration)
        # From here on, not from the server's own date: clocks differ, and the fleet's end must
        # not come before the server's.
        record.started = started
        record.began = self.clock.now()
        record.ends = record.began + duration
        record.expires = min(self.clock.wall() + duration, LAST_DATE)
        self._sum_began += record.began
        self.records.move(record, State.LIVE)
        if record.replaces is not None and wanted:
            self.records.hand_key(record.replaces, record)
            record.replaces.renewing = None  # the end of one is not the other's any more
        # Each would hold the one before it, and its caller's frame.
        record.answer = record.task = record.replaces = record.unwanted = None
        if record.hand_over is None:
            record.request = None
        self._watch(record)

    def _keep_unknown(self, record: SessionRecord, error: BaseException) -> None:
        """A session may be live that nobody holds: its slot and seconds stay taken."""
        record.answer = record.replaces = record.request = None
        record.end = SessionEnd(
            key=record.key, session_id=None, outcome="unresolved", reason=str(error)
        )
        self.records.move(record, State.UNKNOWN)
        until = self.clock.now() + record.duration
        record.timer = self._timers.at(until, self._resolve, record)
        session_id = error.session_id if isinstance(error, EquosError) else None
        self.emit("unknown", record.key, session_id=session_id, reason=str(error))
        self._settle(record, record.end)
        if session_id is not None:
            # An unreadable answer whose session the client set out to stop: ask until confirmed.
            record.task = asyncio.create_task(self._client.stop_session(session_id))
            record.task.add_done_callback(partial(self._stray_stopped, record))

    def _stray_stopped(self, record: SessionRecord, task: asyncio.Task[Any]) -> None:
        if _error_of(task, EquosError) is None and record.state is State.UNKNOWN:
            self._unset(record)
            self._committed -= record.seconds
            self._resolve(record)

    def _resolve(self, record: SessionRecord) -> None:
        """A session of unknown outcome is over by now, if there ever was one."""
        self.records.move(record, State.ENDED)
        self.slots.give()
        self.worker.drop(record.entry)

    # Watching and renewing.

    def _watch(self, record: SessionRecord) -> None:
        if record.request is None:
            record.timer = self._timers.at(record.ends, self._expire, record)
        else:
            lead = min(self._renew_before, (record.ends - record.began) / 2)
            record.timer = self._timers.at(record.ends - lead, self._renew, record)

    def _unset(self, record: SessionRecord) -> None:
        """Nothing is to be done about it at its time any more."""
        if record.timer is not None:
            self._timers.cancel(record.timer)
            record.timer = None

    def _expire(self, record: SessionRecord) -> None:
        """The time is over: stop it, for the server may have forgotten to."""
        record.timer = None
        if record.state is State.LIVE:
            record.reason = Reason.EXPIRED
        self.stop(record)

    def _claimed(self, record: SessionRecord, by: str) -> None:
        """Another worker has stopped it, or is about to: make sure of it, and let go."""
        if record.state is State.STARTING:
            late = f"this worker was late, and its place went to worker {by}"
            self._unwant(record, EquosError(late, operation="start"))
            return
        if record.reason is Reason.ASKED:
            record.reason, record.claimed_by = Reason.LOST, by
        self.emit("lost", record.key, session_id=record.session_id, reason=record.why)
        self.stop(record)

    def _renew(self, record: SessionRecord) -> None:
        record.timer = self._timers.at(record.ends, self._expire, record)
        request = cast("CreateSessionPassRequest", record.request)
        if record.state is not State.LIVE:
            return
        new = SessionRecord(
            owner=self,
            key=record.key,
            request=request,
            duration=record.duration,
            deadline=record.ends - self.clock.now(),
            hand_over=record.hand_over,
            replaces=record,
        )
        record.renewing = asyncio.create_task(self._replace(record, new, request))
        self._renewals.add(record.renewing)
        record.renewing.add_done_callback(self._renewals.discard)

    async def _replace(
        self, old: SessionRecord, new: SessionRecord, request: CreateSessionPassRequest
    ) -> None:
        self.records.add(new, holds_key=False)
        hand_over = cast("HandOver", old.hand_over)
        try:
            await self.fulfil(new, request, wait=True)
        except EquosError:
            return  # an event told it; the old session goes on to its end
        try:
            result = hand_over(old.handle, new.handle)
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("on_renewed raised for %r: its new session is stopped", old.key)
            self._swap_back(old, new)
            self.stop(new)
        else:
            self.stop(old)

    def _swap_back(self, old: SessionRecord, new: SessionRecord) -> None:
        in_place = self.records.holder(old.key) is new and new.state is State.LIVE
        if in_place and old.state is State.LIVE:
            self.records.hand_key(new, old)
        elif old.state is not State.ENDED:
            self.stop(old)  # the key's conversation was ended meanwhile

    # Stopping.

    def stop(self, record: SessionRecord) -> asyncio.Task[EquosSession | None]:
        """Set out to stop a session, unless that is under way or done."""
        if record.state is State.LIVE:
            if record.renewing is not None:
                record.renewing.cancel()
                record.renewing = None
            self.records.move(record, State.STOPPING)
            record.task = asyncio.create_task(self._close(record))
            record.task.add_done_callback(partial(self._stopped, record))
        return cast("asyncio.Task[EquosSession | None]", record.task)

    async def _close(self, record: SessionRecord) -> EquosSession | None:
        """Stop a session, and have its row gone when this returns."""
        ended = await self._client.stop_session(record.response.session.id)
        await self.worker.remove(record.entry)
        return ended

    def _stopped(self, record: SessionRecord, task: asyncio.Task[EquosSession | None]) -> None:
        """The task of a stop is over: a done callback."""
        error = _error_of(task, EquosError)
        if error is None:
            outcome: Literal["stopped", "already_ended"] = (
                "already_ended" if task.result() is None else "stopped"
            )
            self._finish(record, self._end(record, outcome, record.why))
            self.emit(
                "expired" if record.reason is Reason.EXPIRED else "stopped",
                record.key,
                session_id=record.session_id,
                reason=record.why,
            )
            return
        end = self._end(record, "failed", str(error))
        if record.timer is None or self.clock.now() >= record.ends:
            self._finish(record, end)
            self.worker.drop(record.entry)
        else:
            record.task = None  # it keeps its slot and its timer, and may be stopped again
            self.records.move(record, State.LIVE)
            self._settle(record, end)
        self.emit("failed", record.key, session_id=end.session_id, reason=end.reason)

    def _finish(self, record: SessionRecord, end: SessionEnd) -> None:
        """A session is over: let go of all that was held for it."""
        record.end = end
        self.records.move(record, State.ENDED)
        self._unset(record)
        self._sum_began -= record.began
        self._seconds_ended += end.seconds
        self._committed += end.seconds - record.seconds
        self.slots.give()
        if record.over is not None:
            set_unless_done(record.over, end)
        self._settle(record, end)

    def _end(
        self,
        record: SessionRecord,
        outcome: Literal["stopped", "already_ended", "failed"],
        reason: str,
    ) -> SessionEnd:
        return SessionEnd(
            key=record.key,
            session_id=record.session_id,
            outcome=outcome,
            seconds=self.clock.now() - record.began,
            reason=reason,
        )

    # Draining.

    def close(self) -> None:
        """Take no more starts, and turn away those that wait."""
        self.closed = True
        for record in self.records.every(State.WAITING, State.STARTING):
            if self.records.holder(record.key) is record:  # a replacement is cancelled instead
                self._turn_away(record, closed_error())
        for renewal in self._renewals:
            renewal.cancel()

    def drain(self, seconds: float, why: Callable[[], EquosError]) -> Drain:
        """Set out to stop everything; the drain's future is done when all is, or in time."""
        drain = Drain(self.clock.call_at, self.clock.now() + seconds)
        for record in self.records.every(State.UNKNOWN):
            drain.ends.append(cast("SessionEnd", record.end))
        for record in self.records.every(State.STARTING):
            drain.pending[record] = START_LATE
            self._unwant(record, why())
        for record in self.records.every(State.LIVE, State.STOPPING):
            drain.pending[record] = STOP_LATE
            self.stop(record)
        self._drains.add(drain)
        drain.check()
        return drain

    def conclude(self, drain: Drain) -> DrainReport:
        """Stop waiting for a drain, and say what is known of it."""
        self._drains.discard(drain)
        drain.timer.cancel()
        if self.closed:
            self._timers.clear()
        return drain.report()

    def give_up(self) -> None:
        """Wait no longer for any drain."""
        for drain in self._drains:
            set_unless_done(drain.done, None)

    def _settle(self, record: SessionRecord, end: SessionEnd | None) -> None:
        for drain in self._drains:
            drain.settle(record, end)

    # Telling.

    @property
    def _waiting(self) -> int:
        return self.slots.waiting + self.worker.waiting

    @property
    def _running(self) -> int:
        return self.records.count(State.LIVE, State.STOPPING)

    def stats(self) -> FleetStats:
        """The numbers now."""
        live = self._running
        counts = self._counts
        return FleetStats(
            live=live,
            starting=self.records.count(State.STARTING),
            waiting=self._waiting,
            free=self.slots.free,
            started=counts["started"],
            stopped=counts["stopped"],
            expired=counts["expired"],
            refused=counts["refused"],
            failed=counts["failed"],
            unknown=counts["unknown"],
            lost=counts["lost"],
            reaped=counts["reaped"],
            seconds_live=self._seconds_ended + live * self.clock.now() - self._sum_began,
            budget_left=None if math.isinf(self._budget) else self._budget - self._committed,
        )

    def emit(
        self,
        kind: FleetEventKind,
        key: Hashable,
        *,
        session_id: str | None = None,
        reason: str = "",
    ) -> None:
        """Count what happened and tell of it."""
        self._counts[kind] += 1
        self._emitter.emit(
            FleetEvent(
                kind=kind,
                key=key,
                live=self._running,
                waiting=self._waiting,
                session_id=session_id,
                reason=reason,
            )
        )


def _error_of(task: asyncio.Task[Any], cut_off: type[EquosError]) -> BaseException | None:
    """A task's error; a cancelled one was cut off by the event loop's end."""
    if task.cancelled():
        return cut_off("the event loop shut down before the answer came")
    return task.exception()
