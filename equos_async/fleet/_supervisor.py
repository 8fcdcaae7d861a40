"""The state of a fleet: places, keys, budget and ends, and the tasks that start and stop."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Final, Literal, get_args

from equos_async._emitter import Emitter
from equos_async.client import EquosClient
from equos_async.clock import Agenda, Alarm, Clock, set_unless_done
from equos_async.errors import (
    ClientClosedError,
    ConfigurationError,
    EquosError,
    FleetFullError,
    StartOutcomeUnknownError,
)
from equos_async.events import logger
from equos_async.models import CreateEquosSessionResponse, CreateSessionPassRequest, EquosSession

from ._admission import Places
from ._drain import Drain
from ._session import Held, Order, granted
from ._worker import Entry, Registrar
from .values import DrainReport, FleetEvent, FleetEventKind, FleetStats, SessionEnd

LAST_DATE: Final = 253_402_300_799.0
"""The end of the year 9999, the last that a datetime can hold, in seconds since the epoch."""

TIME_OVER: Final = "its time was over"


def closed_error() -> ClientClosedError:
    """For a fleet that is at its end."""
    return ClientClosedError("the fleet is at its end", operation="start")


class Keeper:
    """The fleet's books and the tasks that outlive a cancelled caller.

    A task only waits for the client. What its result means is written down by its done callback,
    which runs before anybody who waits for it, and even where the task never ran a line.
    """

    def __init__(
        self,
        client: EquosClient,
        *,
        places: int,
        budget: float,
        renew_before: float,
        on_event: Callable[[FleetEvent], object] | None,
        clock: Clock,
    ) -> None:
        self.registrar: Registrar | None = None
        self.clock = clock
        self.places: Places = Places(places)
        self.keyed: dict[Hashable, Held] = {}
        self.closed: bool = False
        self._client = client
        self._max_live = places
        self._renew_before = renew_before
        self._emitter = Emitter(on_event, "the fleet's on_event")
        self._agenda = Agenda(clock)
        # Live, but not under their key: the old one in a renewal, or a new one nobody wants.
        self._unkeyed: set[Held] = set()
        self._reserved: dict[Hashable, Order] = {}
        self._starting: set[Order] = set()
        self._unknown: dict[Order, str] = {}
        self._drains: set[Drain] = set()
        self._renewals: set[asyncio.Task[None]] = set()
        self._counts: dict[FleetEventKind, int] = dict.fromkeys(get_args(FleetEventKind), 0)
        self._budget = budget
        self._committed = 0.0
        self._seconds_ended = 0.0
        self._sum_began = 0.0

    # Starting.

    def reserve(self, order: Order) -> None:
        """Take a key, so that two starts at the same time cannot both have it."""
        if self.closed:
            raise closed_error()
        try:
            taken = order.key in self.keyed or order.key in self._reserved
        except TypeError:
            raise ConfigurationError(
                f"key must be hashable, which {type(order.key).__name__} is not"
            ) from None
        if taken:
            raise ConfigurationError(f"key {order.key!r} has a session already: stop it first")
        self._reserved[order.key] = order

    async def fulfil(self, order: Order, *, wait: bool) -> Held:
        """Wait for a place, then for the session."""
        try:
            self._commit(order)
            if self.registrar is not None:
                await self._sign_up(order, self.registrar, wait=wait)
            await self._take_place(order, wait=wait)
        except BaseException as error:
            self._forget(order)
            if isinstance(error, EquosError):
                self.tell("refused", order.key, reason=str(error))
            raise
        self._starting.add(order)
        order.task = asyncio.create_task(self._open(order))
        order.task.add_done_callback(partial(self._opened, order))
        try:
            return await order.answer
        except asyncio.CancelledError:
            if not order.answer.cancelled() and order.answer.exception() is None:
                self.stop(order.answer.result())  # it arrived in the tick of the cancellation
            raise

    async def call_off(self, key: Hashable, why: EquosError) -> None:
        """Let a start that is under way end in an error; its session is stopped when it comes."""
        order = self._reserved.get(key)
        if order is None:
            return
        self._turn_away(order, why)
        if order.task is not None:
            await asyncio.wait([order.task])

    def _commit(self, order: Order) -> None:
        """Reserve all that a session may use of the budget."""
        left = self._budget - self._committed
        if order.duration > left:
            raise FleetFullError(
                f"the fleet's budget has {left:g} s left; this may take {order.duration:g} s",
                operation="start",
            )
        order.seconds = order.duration
        self._committed += order.seconds

    async def _sign_up(self, order: Order, registrar: Registrar, *, wait: bool) -> None:
        """Have a place and a row in the ledger when this returns."""
        order.entry = registrar.entry(order.key, order.request)
        deadline = self._client.timeouts.deadline if order.deadline is None else order.deadline
        try:
            await registrar.place(
                order.entry,
                seconds=deadline + order.duration,
                wait=wait,
                waits=partial(self.tell, "waiting", order.key),
            )
        except asyncio.CancelledError:
            self.tell("waiting", order.key, reason="gave up")
            raise
        if order.called_off is not None:
            raise order.called_off

    async def _take_place(self, order: Order, *, wait: bool) -> None:
        """Have a place when this returns, and none where it raises."""
        if self.places.take():
            return
        if not wait:
            raise FleetFullError(
                f"all {self._max_live} places of the fleet are taken", operation="start"
            )
        turn = self.places.join(order)
        self.tell("waiting", order.key)
        try:
            await self.places.wait(order, turn)
        except asyncio.CancelledError:
            self.tell("waiting", order.key, reason="gave up")
            raise
        if order.called_off is not None:  # in the very tick in which its turn came
            self.places.give()
            raise order.called_off

    def _forget(self, order: Order) -> None:
        """Nothing came of a start: give its key, its seconds and its row back."""
        if self._reserved.get(order.key) is order:
            del self._reserved[order.key]
        self._committed -= order.seconds
        order.seconds = 0.0
        self._drop(order.entry)

    def _drop(self, entry: Entry | None) -> None:
        if entry is not None and self.registrar is not None:
            self.registrar.drop(entry)

    async def _open(self, order: Order) -> CreateEquosSessionResponse:
        """Start a session, and have it written down when this returns."""
        started = await self._client.start_session(order.request, deadline=order.deadline)
        if order.entry is not None and self.registrar is not None:
            session = started.session
            seconds = granted(order.duration, session.max_duration)
            claimer = await self.registrar.record(order.entry, session.id, seconds)
            if claimer is not None:
                late = f"this worker was late, and its place went to worker {claimer}"
                self._unwanted(order, EquosError(late, operation="start"))
        return started

    def _turn_away(self, order: Order, why: EquosError) -> None:
        """Let a start end in an error, at once where it waits for a place."""
        self._unwanted(order, why)
        self.places.turn_away(order, why)
        if order.entry is not None and self.registrar is not None:
            self.registrar.turn_away(order.entry, why)

    def _unwanted(self, order: Order, why: EquosError) -> None:
        """Note why a start is to end in an error; the first reason stays."""
        order.called_off = order.called_off or why

    def _opened(self, order: Order, task: asyncio.Task[CreateEquosSessionResponse]) -> None:
        """A start's task is over: a done callback."""
        self._starting.discard(order)
        error = _error_of(task, StartOutcomeUnknownError)
        if error is None:
            self._arrived(order, task.result())
            return
        if isinstance(error, EquosError) and not isinstance(error, StartOutcomeUnknownError):
            self._forget(order)
            self.places.give()
            self.tell("refused", order.key, reason=str(error))
            self._settle(order, None)
        else:
            self._lose(order, error)
        if not order.answer.done():
            order.answer.set_exception(error)

    def _arrived(self, order: Order, started: CreateEquosSessionResponse) -> None:
        """A session is there: put it under its key, and into the hands of whoever waits."""
        held = self._hold(order, started)
        wanted = not order.answer.done() and order.called_off is None
        self._sum_began += held.began
        if order.replaces is None:
            del self._reserved[order.key]
            self.keyed[order.key] = held
        elif wanted:
            self._swap(order.replaces, held)
        else:
            self._unkeyed.add(held)
        self._watch(held)
        if held.entry is not None:
            held.entry.lost = partial(self._claimed, held)
        self.tell("started", held.key, session_id=started.session.id)
        for drain in self._drains:
            drain.replace(order, held)
        if wanted:
            order.answer.set_result(held)
            return
        self.stop(held)
        if not order.answer.done() and order.called_off is not None:
            order.called_off.session_id = started.session.id
            order.answer.set_exception(order.called_off)

    def _hold(self, order: Order, started: CreateEquosSessionResponse) -> Held:
        """The books' entry for a session that was just answered."""
        duration = granted(order.duration, started.session.max_duration)
        # From here on, not from the server's own date: clocks differ, and the fleet's end must
        # not come before the server's.
        began = self.clock.now()
        return Held(
            clock=self.clock,
            stop=self.stop,
            key=order.key,
            started=started,
            began=began,
            ends=began + duration,
            expires=min(self.clock.wall() + duration, LAST_DATE),
            asked=order.duration,
            seconds=order.seconds,
            # Not the order itself: each would hold the one before it.
            request=order.request if order.hand_over else None,
            hand_over=order.hand_over,
            entry=order.entry,
        )

    def _lose(self, order: Order, error: BaseException) -> None:
        """A session may be live that nobody holds: its place and seconds stay taken."""
        if self._reserved.get(order.key) is order:
            del self._reserved[order.key]
        self._unknown[order] = str(error)
        until = self.clock.now() + order.duration
        alarm = self._agenda.add(until, partial(self._found, order))
        session_id = error.session_id if isinstance(error, EquosError) else None
        self.tell("unknown", order.key, session_id=session_id, reason=str(error))
        self._settle(order, self._lost_end(order))
        if session_id is not None:
            # An unreadable answer whose session the client set out to stop: ask until confirmed.
            order.task = asyncio.create_task(self._client.stop_session(session_id))
            order.task.add_done_callback(partial(self._stray_stopped, order, alarm))

    def _stray_stopped(self, order: Order, alarm: Alarm, task: asyncio.Task[Any]) -> None:
        if _error_of(task, EquosError) is None and order in self._unknown:
            self._agenda.drop(alarm)
            self._committed -= order.seconds
            self._found(order)

    def _found(self, order: Order) -> None:
        """A session of unknown outcome is over by now, if there ever was one."""
        del self._unknown[order]
        self.places.give()
        self._drop(order.entry)

    # Watching and renewing.

    def _watch(self, held: Held) -> None:
        if held.request is None:
            held.alarm = self._agenda.add(held.ends, partial(self._expire, held))
        else:
            lead = min(self._renew_before, (held.ends - held.began) / 2)
            held.alarm = self._agenda.add(
                held.ends - lead, partial(self._renew, held, held.request)
            )

    def _expire(self, held: Held) -> None:
        """The time is over: stop it, for the server may have forgotten to."""
        if held.stopping is None:
            held.why = TIME_OVER
        self.stop(held)

    def _claimed(self, held: Held, by: str) -> None:
        """Another worker has stopped it, or is about to: make sure of it, and let go."""
        held.why = held.why or f"worker {by} claimed it, for this one was late"
        self.tell("lost", held.key, session_id=held.started.session.id, reason=held.why)
        self.stop(held)

    def _renew(self, held: Held, request: CreateSessionPassRequest) -> None:
        held.alarm = self._agenda.add(held.ends, partial(self._expire, held))
        if held.stopping is not None:
            return
        left = held.ends - self.clock.now()
        order = Order(held.key, request, held.asked, left, held.hand_over, held)
        held.renewing = asyncio.create_task(self._replace(held, order))
        self._renewals.add(held.renewing)
        held.renewing.add_done_callback(self._renewals.discard)

    async def _replace(self, old: Held, order: Order) -> None:
        try:
            new = await self.fulfil(order, wait=True)
        except EquosError:
            return  # told by an event; the old session goes on to its end
        try:
            result = order.hand_over(old.handle, new.handle) if order.hand_over else None
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("on_renewed raised for %r: its new session is stopped", old.key)
            self._swap_back(old, new)
            self.stop(new)
        else:
            self.stop(old)

    def _swap(self, old: Held, new: Held) -> None:
        """Put a replacement under its key. From here on the end of one is not the other's."""
        self.keyed[old.key] = new
        self._unkeyed.add(old)
        old.renewing = None

    def _swap_back(self, old: Held, new: Held) -> None:
        in_place = self.keyed.get(old.key) is new and new.stopping is None
        if in_place and old.end is None and old.stopping is None:
            self.keyed[old.key] = old
            self._unkeyed.discard(old)
            self._unkeyed.add(new)
        elif old.end is None:
            self.stop(old)  # the key's conversation was ended meanwhile

    # Stopping.

    def stop(self, held: Held) -> asyncio.Task[EquosSession | None]:
        """Set out to stop a session, unless that is under way or done."""
        if held.stopping is None:
            if held.renewing is not None:
                held.renewing.cancel()
                held.renewing = None
            held.stopping = asyncio.create_task(self._close(held))
            held.stopping.add_done_callback(partial(self._stopped, held))
        return held.stopping

    async def _close(self, held: Held) -> EquosSession | None:
        """Stop a session, and have its row gone when this returns."""
        ended = await self._client.stop_session(held.started.session.id)
        if held.entry is not None and self.registrar is not None:
            await self.registrar.remove(held.entry)
        return ended

    def _stopped(self, held: Held, task: asyncio.Task[EquosSession | None]) -> None:
        """The task of a stop is over: a done callback."""
        error = _error_of(task, EquosError)
        if error is None:
            expired = held.why == TIME_OVER
            outcome: Literal["stopped", "already_ended"] = (
                "already_ended" if task.result() is None else "stopped"
            )
            self._finish(held, self._end(held, outcome, held.why))
            self.tell(
                "expired" if expired else "stopped",
                held.key,
                session_id=held.started.session.id,
                reason=held.why,
            )
            return
        end = self._end(held, "failed", str(error))
        if self.clock.now() < held.ends and held.why != TIME_OVER:
            held.stopping = None  # it keeps its place and its alarm, and may be stopped again
            self._settle(held, end)
        else:
            self._finish(held, end)
            self._drop(held.entry)
        self.tell("failed", held.key, session_id=end.session_id, reason=end.reason)

    def _finish(self, held: Held, end: SessionEnd) -> None:
        """A session is over: let go of all that was held for it."""
        held.end = end
        if self.keyed.get(held.key) is held:
            del self.keyed[held.key]
        else:
            self._unkeyed.discard(held)
        self._agenda.drop(held.alarm)
        self._sum_began -= held.began
        self._seconds_ended += end.seconds
        self._committed += end.seconds - held.seconds
        self.places.give()
        if held.over is not None:
            set_unless_done(held.over, end)
        self._settle(held, end)

    def _end(
        self, held: Held, outcome: Literal["stopped", "already_ended", "failed"], reason: str
    ) -> SessionEnd:
        return SessionEnd(
            key=held.key,
            session_id=held.started.session.id,
            outcome=outcome,
            seconds=self.clock.now() - held.began,
            reason=reason,
        )

    def _lost_end(self, order: Order) -> SessionEnd:
        return SessionEnd(
            key=order.key, session_id=None, outcome="unresolved", reason=self._unknown[order]
        )

    # Draining.

    def close(self) -> None:
        """Take no more starts, and turn away those that wait."""
        self.closed = True
        for order in list(self._reserved.values()):
            self._turn_away(order, closed_error())
        for renewal in self._renewals:
            renewal.cancel()

    def drain(self, seconds: float, why: Callable[[], EquosError]) -> Drain:
        """Set out to stop everything; the drain's future is done when all is, or in time."""
        drain = Drain(self.clock.call_at, self.clock.now() + seconds)
        for order in self._unknown:
            drain.ends.append(self._lost_end(order))
        for order in self._starting:
            drain.pending[order] = "its start was not answered in time"
            self._unwanted(order, why())
        for held in [*self.keyed.values(), *self._unkeyed]:
            drain.pending[held] = "its stop was not answered in time"
            self.stop(held)
        self._drains.add(drain)
        drain.check()
        return drain

    def conclude(self, drain: Drain) -> DrainReport:
        """Stop waiting for a drain, and say what is known of it."""
        self._drains.discard(drain)
        drain.timer.cancel()
        if self.closed:
            self._agenda.clear()
        return drain.report()

    def give_up(self) -> None:
        """Wait no longer for any drain."""
        for drain in self._drains:
            set_unless_done(drain.done, None)

    def _settle(self, subject: Held | Order, end: SessionEnd | None) -> None:
        for drain in self._drains:
            drain.settle(subject, end)

    # Telling.

    @property
    def _waiting(self) -> int:
        in_ledger = 0 if self.registrar is None else self.registrar.waiting
        return self.places.waiting + in_ledger

    def stats(self) -> FleetStats:
        """The numbers now."""
        live = len(self.keyed) + len(self._unkeyed)
        counts = self._counts
        return FleetStats(
            live=live,
            starting=len(self._starting),
            waiting=self._waiting,
            free=self.places.free,
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

    def tell(
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
                live=len(self.keyed) + len(self._unkeyed),
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
