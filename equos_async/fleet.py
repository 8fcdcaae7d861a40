"""Many sessions under one limit: each belongs to a key, each has an end, none is forgotten.

Three things are held here for every session: a *place*, until its stop is confirmed or its time
is over; an *alarm*, which stops it at its end; and its seconds in the fleet's *budget*.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import logging
import math
import signal
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from attrs import define, evolve, field, frozen

from . import checks
from .client import EquosClient
from .errors import (
    ClientClosedError,
    ConfigurationError,
    EquosError,
    FleetFullError,
    StartOutcomeUnknownError,
)
from .models import CreateEquosSessionResponse, CreateSessionPassRequest, EquosSession
from .waiting import Clock, Timer, set_unless_done

T = TypeVar("T")

logger = logging.getLogger("equos_async")

MIN_DROPPED: Final = 64
"""How many alarms that were called off are put up with before the agenda is tidied."""

FleetEventKind = Literal["waiting", "started", "stopped", "expired", "refused", "failed", "unknown"]


# What users get to see.


@frozen(kw_only=True)
class FleetEvent:
    """Something that changed in a fleet; ``live`` and ``waiting`` are ready for a gauge.

    Attributes:
        kind: ``"waiting"``: the line of starts that wait for a place grew, or one gave up.
            ``"started"``: a session is live. ``"stopped"``: one is over. ``"expired"``: one is
            over because its time was. ``"refused"``: a start failed, and nothing exists.
            ``"failed"``: a session could not be stopped. ``"unknown"``: a start may have made a
            session that nobody holds.
        key: Whose session it is.
        live: Live sessions after the change, those included that are being stopped.
        waiting: Starts that wait for a place after the change.
        session_id: The session, where known.
        reason: Why, in words, where there is something to say.
    """

    kind: FleetEventKind
    key: Hashable
    live: int
    waiting: int
    session_id: str | None = None
    reason: str = ""


@frozen(kw_only=True)
class SessionEnd:
    """How a session ended, or what is known of one that may not have ended.

    Attributes:
        key: Whose session it was.
        session_id: Its id, where known.
        outcome: ``"stopped"``: the server confirmed. ``"already_ended"``: it was not running any
            more. ``"failed"``: stopping it failed. ``"unresolved"``: no answer came in time.
        seconds: How long it was live, as the fleet counted.
        reason: Why, in words, where there is something to say.
    """

    key: Hashable
    session_id: str | None
    outcome: Literal["stopped", "already_ended", "failed", "unresolved"]
    seconds: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        told = f": {self.reason}" if self.reason else ""
        return f"{self.key!r} (session {self.session_id or 'unknown'}) {self.outcome}{told}"


@frozen(kw_only=True)
class DrainReport:
    """What became of every session that a drain was to stop, by key and session id."""

    stopped: tuple[SessionEnd, ...] = ()
    already_ended: tuple[SessionEnd, ...] = ()
    failed: tuple[SessionEnd, ...] = ()
    unresolved: tuple[SessionEnd, ...] = ()

    @property
    def left(self) -> tuple[SessionEnd, ...]:
        """What may still be running, and be billed: failed and unresolved."""
        return self.failed + self.unresolved

    def __str__(self) -> str:
        ended = f"{len(self.stopped)} stopped, {len(self.already_ended)} had ended"
        return "; ".join([f"{ended}, {len(self.left)} left", *map(str, self.left)])


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
    seconds_live: float
    budget_left: float | None


class LiveSession:
    """A live session of a fleet, to be stopped by :meth:`stop` or by leaving ``async with``.

    The API cannot be asked how a session is: that one ended by itself is known when it is
    stopped, at the latest by the fleet when its time is over.
    """

    __slots__ = ("__weakref__", "_held")

    def __init__(self, held: _Held) -> None:
        self._held = held

    @property
    def key(self) -> Hashable:
        """Whose session it is."""
        return self._held.key

    @property
    def session(self) -> EquosSession:
        """The session as the server described it when it was started."""
        return self._held.started.session

    @property
    def server_url(self) -> str:
        """The LiveKit server to join, ``wss://…``."""
        return self.session.host.server_url

    @property
    def consumer_access_token(self) -> str | None:
        """The LiveKit token of the end user: a secret, for that user only."""
        return self._held.started.consumer_access_token

    @property
    def expires_at(self) -> datetime:
        """When the fleet stops it, in UTC."""
        return datetime.fromtimestamp(self._held.expires, UTC)

    @property
    def remaining(self) -> float:
        """Seconds until then; 0 where it has ended."""
        held = self._held
        return 0.0 if held.end else max(0.0, held.ends - held.keeper.clock.now())

    async def stop(self) -> EquosSession | None:
        """Stop it. Calls at the same time, and later ones, get the same answer.

        It goes on where its caller is cancelled. One that failed may be tried again; the fleet
        itself does so when the session's time is over.

        Returns:
            The ended session, or None: it was not running, and the server sent no details.

        Raises:
            EquosError: As ``EquosClient.stop_session``; it may still be running.
        """
        return await _shared(self._held.keeper.stop(self._held))

    async def ended(self) -> SessionEnd:
        """Wait until it is over: stopped by anyone, or at its end."""
        held = self._held
        if held.end is not None:
            return held.end
        if held.over is None:
            held.over = asyncio.get_running_loop().create_future()
        return await asyncio.shield(held.over)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        except EquosError as failure:
            if exc is None:
                raise
            exc.add_note(f"stopping session {self.session.id} failed: {failure}")

    def __repr__(self) -> str:
        end = self._held.end
        state = f"live, {self.remaining:.0f} s left" if end is None else end.outcome
        return f"<LiveSession {self.key!r} {self.session.id} {state}>"


HandOver = Callable[[LiveSession, LiveSession], Awaitable[object] | None]


class SessionFleet:
    """Runs many sessions through one client, at most ``max_live`` at a time.

    Use it with ``async with``: on every way out of the block all sessions are stopped, and
    :attr:`report` tells what became of each. How many stops are on the wire at once is the
    client's ``Limits.stop_connections``.

    Args:
        client: What starts and stops the sessions; it is not closed.
        max_live: How many sessions may be live. A start whose outcome is unknown keeps its place
            until its ``max_duration`` is over, for its session may be running.
        drain_deadline: Seconds that leaving may take.
        default_max_duration: Seconds for sessions whose request names no ``max_duration``; sent
            with them. Every session of a fleet has an end.
        budget_seconds: Seconds that all sessions together may run; a start that could exceed
            them is refused. What a session does not use flows back when it has ended.
        renew_before: Seconds before a session's end at which its replacement is started, where
            it is to be renewed; at most half of its time.
        on_event: Called with each :class:`FleetEvent`; must not block.
        clock: The source of time, for tests: the client's.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        client: EquosClient,
        *,
        max_live: int = 50,
        drain_deadline: float = 20.0,
        default_max_duration: float = 600.0,
        budget_seconds: float | None = None,
        renew_before: float = 30.0,
        on_event: Callable[[FleetEvent], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        checks.instance("client", client, EquosClient)
        self._drain_deadline = checks.number("drain_deadline", drain_deadline, zero=True)
        self._default_max_duration = checks.number("default_max_duration", default_max_duration)
        if budget_seconds is not None:
            checks.number("budget_seconds", budget_seconds)
        self._keeper = _Keeper(
            client,
            places=checks.count("max_live", max_live),
            budget=math.inf if budget_seconds is None else budget_seconds,
            renew_before=checks.number("renew_before", renew_before),
            on_event=on_event,
            clock=clock or Clock(),
        )
        self._live = _LiveView(self._keeper.keyed)
        self._report: DrainReport | None = None
        self._guard: _SignalGuard | None = None

    async def start(
        self,
        request: CreateSessionPassRequest,
        *,
        key: Hashable,
        wait: bool = True,
        deadline: float | None = None,
        renew: bool = False,
        on_renewed: HandOver | None = None,
    ) -> LiveSession:
        """Start a session for a key, as soon as there is a place; first come, first served.

        A caller that is cancelled leaves nothing behind: in the line it takes no place, and a
        session that arrives for it is stopped at once.

        Args:
            request: What to start.
            key: Whose session it is; any hashable value that has no session yet.
            wait: Whether to wait for a place.
            deadline: Seconds for the start itself; the wait for a place has none.
            renew: Start a replacement shortly before the session's end, and then another. It
                needs a place and, with a budget, seconds of its own. Where it cannot be had the
                session ends at its time.
            on_renewed: Called with the old and the new session when the replacement is live; may
                be a coroutine function. When it returns the old session is stopped; when it
                raises the new one is, and the old one goes on to its end.

        Raises:
            ConfigurationError: Bad input, or the key has a session already; nothing was sent.
            FleetFullError: No place is free and ``wait`` is false, or the budget is too small.
            ClientClosedError: The fleet or its client is at its end. Where ``session_id`` is set,
                that session came too late and is being stopped.
            StartOutcomeUnknownError: A billed session may exist; its place stays taken.
            EquosError: As ``EquosClient.start_session``; also where :meth:`stop` or :meth:`drain`
                came before the session.
        """
        checks.instance("request", request, CreateSessionPassRequest)
        if renew != (on_renewed is not None):
            raise ConfigurationError("renew=True and on_renewed belong together")
        duration = request.max_duration or self._default_max_duration
        request = evolve(request, max_duration=duration)
        order = _Order(key, request, duration, deadline, on_renewed)
        self._keeper.reserve(order)
        return (await self._keeper.fulfil(order, wait=wait)).handle

    async def stop(self, key: Hashable) -> EquosSession | None:
        """Stop the session of a key; a start that is waiting or on its way is called off.

        Returns:
            As :meth:`LiveSession.stop`; None also where the key has no session.

        Raises:
            EquosError: As ``EquosClient.stop_session``; it may still be running.
        """
        called_off = EquosError("stop() came before the session was started", operation="start")
        await self._keeper.call_off(key, called_off)
        live = self._live.get(key)
        return None if live is None else await live.stop()

    async def drain(self, deadline: float | None = None) -> DrainReport:
        """Stop all sessions now; the fleet stays usable.

        Starts that are on their way are called off. Those that wait for a place get the places
        that become free. What is not done by the deadline is still being tried afterwards.

        Args:
            deadline: Seconds to wait, by default the fleet's ``drain_deadline``.
        """
        seconds = self._drain_deadline if deadline is None else deadline
        drain = self._keeper.drain(
            checks.number("deadline", seconds, zero=True),
            partial(EquosError, "drain() came before the session was started", operation="start"),
        )
        try:
            await drain.done
        finally:
            report = self._keeper.conclude(drain)
        return report

    @property
    def live(self) -> Mapping[Hashable, LiveSession]:
        """The live sessions by key, as a view."""
        return self._live

    @property
    def report(self) -> DrainReport:
        """What became of the sessions that were live on the way out.

        Raises:
            RuntimeError: The fleet has not been left yet.
        """
        if self._report is None:
            raise RuntimeError("the report is there when the fleet has been left")
        return self._report

    def stats(self) -> FleetStats:
        """The fleet's numbers now."""
        return self._keeper.stats()

    def stop_on_signals(self, *signals: signal.Signals) -> None:
        """Let SIGTERM and SIGINT, or those that are given, end the fleet's block.

        To be called inside the block, by the task that runs it. The first signal cancels that
        task; when it leaves the block everything is stopped, and the program goes on after the
        block, with :attr:`report`. A second signal gives up waiting at once. Then, and when the
        block has been left, the handlers are those that were there before.

        Raises:
            ConfigurationError: Not called from the main thread, or called twice.
        """
        if self._guard is not None:
            raise ConfigurationError("stop_on_signals was called already")
        guard = _SignalGuard(self._keeper)
        guard.install(signals or (signal.SIGTERM, signal.SIGINT))
        self._guard = guard

    async def __aenter__(self) -> Self:
        if self._keeper.closed:
            raise _closed_error()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._keeper.close()
        drain = self._keeper.drain(self._drain_deadline, _closed_error)
        try:
            await drain.done
        finally:
            # Where a cancellation ends the wait, what is left is told all the same.
            self._report = self._keeper.conclude(drain)
            if self._report.left:
                logger.warning("sessions may still be running: %s", self._report)
                if exc is not None:
                    exc.add_note(str(self._report))
            if self._guard is not None:
                self._guard.remove()
        return self._guard is not None and self._guard.absorbs(exc)

    def __repr__(self) -> str:
        state = "closed" if self._keeper.closed else "open"
        return f"<SessionFleet {len(self._live)} live, {self._keeper.places.free} free, {state}>"


def _closed_error() -> ClientClosedError:
    return ClientClosedError("the fleet is at its end", operation="start")


async def _shared(task: asyncio.Task[T]) -> T:
    """The result of a task that others wait for too: cancelling a waiter leaves it alone."""
    await asyncio.wait([task])
    return task.result()


class _LiveView(Mapping[Hashable, LiveSession]):
    """The fleet's sessions as their handles."""

    def __init__(self, keyed: Mapping[Hashable, _Held]) -> None:
        self._keyed = keyed

    def __getitem__(self, key: Hashable) -> LiveSession:
        return self._keyed[key].handle

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._keyed)

    def __len__(self) -> int:
        return len(self._keyed)


# What the fleet holds.


@define(eq=False)
class _Order:
    """One start, from the reservation of its key to its session or its error.

    Attributes:
        duration: Seconds that the session is asked for.
        replaces: The session that it renews.
        seconds: What is reserved for it in the budget.
        called_off: Why its session is not wanted any more.
        answer: What whoever started it waits for; cancelled where nobody does any more.
        task: The task that carries it out, once it has a place.
    """

    key: Hashable
    request: CreateSessionPassRequest
    duration: float
    deadline: float | None
    hand_over: HandOver | None
    replaces: _Held | None = None
    seconds: float = 0.0
    called_off: EquosError | None = None
    answer: asyncio.Future[_Held] = field(init=False)
    task: asyncio.Task[CreateEquosSessionResponse] | None = None

    def __attrs_post_init__(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()


@define(eq=False)
class _Held:
    """What the fleet knows of one live session.

    Attributes:
        began: When it was known to be live, on the clock.
        ends: When the fleet stops it, on the clock; ``expires`` is the same since the epoch.
        asked: Seconds that it was asked for.
        seconds: What is reserved for it in the budget.
        request: What to start again shortly before the end, where it is to be renewed.
        hand_over: Who is told of the replacement then.
        alarm: What the agenda will do about it next.
        expired: Whether it is being stopped because its time was over.
        stopping: The latest attempt to stop it.
        renewing: The task that gets its replacement, until that is there.
        end: How it ended.
        over: What waits for that.
    """

    keeper: _Keeper
    key: Hashable
    started: CreateEquosSessionResponse
    began: float
    ends: float
    expires: float
    asked: float
    seconds: float
    request: CreateSessionPassRequest | None
    hand_over: HandOver | None
    handle: LiveSession = field(init=False)
    alarm: _Alarm | None = None
    expired: bool = False
    stopping: asyncio.Task[EquosSession | None] | None = None
    renewing: asyncio.Task[None] | None = None
    end: SessionEnd | None = None
    over: asyncio.Future[SessionEnd] | None = None

    def __attrs_post_init__(self) -> None:
        self.handle = LiveSession(self)


class _Keeper:
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
        self.clock = clock
        self.places = _Places(places)
        self.keyed: dict[Hashable, _Held] = {}
        self.closed = False
        self._client = client
        self._max_live = places
        self._renew_before = renew_before
        self._on_event = on_event
        self._hook_failed = False
        self._agenda = _Agenda(clock)
        # Live, but not under their key: the old one in a renewal, or a new one nobody wants.
        self._unkeyed: set[_Held] = set()
        self._reserved: dict[Hashable, _Order] = {}
        self._starting: set[_Order] = set()
        self._unknown: dict[_Order, str] = {}
        self._drains: set[_Drain] = set()
        self._renewals: set[asyncio.Task[None]] = set()
        self._counts: dict[FleetEventKind, int] = dict.fromkeys(_COUNTED, 0)
        self._budget = budget
        self._committed = 0.0
        self._seconds_ended = 0.0
        self._sum_began = 0.0

    # Starting.

    def reserve(self, order: _Order) -> None:
        """Take a key, so that two starts at the same time cannot both have it."""
        if self.closed:
            raise _closed_error()
        try:
            taken = order.key in self.keyed or order.key in self._reserved
        except TypeError:
            raise ConfigurationError(
                f"key must be hashable, which {type(order.key).__name__} is not"
            ) from None
        if taken:
            raise ConfigurationError(f"key {order.key!r} has a session already: stop it first")
        self._reserved[order.key] = order

    async def fulfil(self, order: _Order, *, wait: bool) -> _Held:
        """Wait for a place, then for the session."""
        try:
            self._commit(order)
            await self._take_place(order, wait=wait)
        except BaseException as error:
            self._forget(order)
            if isinstance(error, EquosError):
                self._tell("refused", order.key, reason=str(error))
            raise
        self._starting.add(order)
        order.task = asyncio.create_task(
            self._client.start_session(order.request, deadline=order.deadline)
        )
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
        self._unwanted(order, why)
        self.places.turn_away(order, why)
        if order.task is not None:
            await asyncio.wait([order.task])

    def _commit(self, order: _Order) -> None:
        """Reserve all that a session may use of the budget."""
        left = self._budget - self._committed
        if order.duration > left:
            raise FleetFullError(
                f"the fleet's budget has {left:g} s left; this may take {order.duration:g} s",
                operation="start",
            )
        order.seconds = order.duration
        self._committed += order.seconds

    async def _take_place(self, order: _Order, *, wait: bool) -> None:
        if self.places.take():
            return
        if not wait:
            raise FleetFullError(
                f"all {self._max_live} places of the fleet are taken", operation="start"
            )
        turn = self.places.join(order)
        self._tell("waiting", order.key)
        try:
            await self.places.wait(order, turn)
        except asyncio.CancelledError:
            self._tell("waiting", order.key, reason="gave up")
            raise
        if order.called_off is not None:  # in the very tick in which its turn came
            self.places.give()
            raise order.called_off

    def _forget(self, order: _Order) -> None:
        """Nothing came of a start: give its key and its seconds back."""
        if self._reserved.get(order.key) is order:
            del self._reserved[order.key]
        self._committed -= order.seconds
        order.seconds = 0.0

    def _unwanted(self, order: _Order, why: EquosError) -> None:
        order.called_off = order.called_off or why

    def _opened(self, order: _Order, task: asyncio.Task[CreateEquosSessionResponse]) -> None:
        """A start's task is over: a done callback."""
        self._starting.discard(order)
        error = _error_of(task, StartOutcomeUnknownError)
        if error is None:
            self._arrived(order, task.result())
            return
        if isinstance(error, EquosError) and not isinstance(error, StartOutcomeUnknownError):
            self._forget(order)
            self.places.give()
            self._tell("refused", order.key, reason=str(error))
            self._settle(order, None)
        else:
            self._lose(order, error)
        if not order.answer.done():
            order.answer.set_exception(error)

    def _arrived(self, order: _Order, started: CreateEquosSessionResponse) -> None:
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
        self._tell("started", held.key, session_id=started.session.id)
        for drain in self._drains:
            drain.replace(order, held)
        if wanted:
            order.answer.set_result(held)
            return
        self.stop(held)
        if not order.answer.done() and order.called_off is not None:
            order.called_off.session_id = started.session.id
            order.answer.set_exception(order.called_off)

    def _hold(self, order: _Order, started: CreateEquosSessionResponse) -> _Held:
        duration = order.duration
        told = started.session.max_duration
        if told is not None and 0 < told < duration:
            duration = told  # the server grants less than was asked for
        # From here on, not from the server's own date: clocks differ, and the fleet's end must
        # not come before the server's.
        began = self.clock.now()
        return _Held(
            keeper=self,
            key=order.key,
            started=started,
            began=began,
            ends=began + duration,
            expires=self.clock.wall() + duration,
            asked=order.duration,
            seconds=order.seconds,
            # Not the order itself: each would hold the one before it.
            request=order.request if order.hand_over else None,
            hand_over=order.hand_over,
        )

    def _lose(self, order: _Order, error: BaseException) -> None:
        """A session may be live that nobody holds: its place and seconds stay taken."""
        if self._reserved.get(order.key) is order:
            del self._reserved[order.key]
        self._unknown[order] = str(error)
        until = self.clock.now() + order.duration
        alarm = self._agenda.add(until, partial(self._found, order))
        session_id = error.session_id if isinstance(error, EquosError) else None
        self._tell("unknown", order.key, session_id=session_id, reason=str(error))
        self._settle(order, self._lost_end(order))
        if session_id is not None:
            # An unreadable answer whose session the client set out to stop: ask until confirmed.
            stray = asyncio.create_task(self._client.stop_session(session_id))
            stray.add_done_callback(partial(self._stray_stopped, order, alarm))

    def _stray_stopped(self, order: _Order, alarm: _Alarm, task: asyncio.Task[Any]) -> None:
        if _error_of(task, EquosError) is None and order in self._unknown:
            self._agenda.drop(alarm)
            self._committed -= order.seconds
            self._found(order)

    def _found(self, order: _Order) -> None:
        """A session of unknown outcome is over by now, if there ever was one."""
        del self._unknown[order]
        self.places.give()

    # Watching and renewing.

    def _watch(self, held: _Held) -> None:
        if held.request is None:
            held.alarm = self._agenda.add(held.ends, partial(self._expire, held))
        else:
            lead = min(self._renew_before, (held.ends - held.began) / 2)
            held.alarm = self._agenda.add(
                held.ends - lead, partial(self._renew, held, held.request)
            )

    def _expire(self, held: _Held) -> None:
        """The time is over: stop it, for the server may have forgotten to."""
        held.expired = held.stopping is None
        self.stop(held)

    def _renew(self, held: _Held, request: CreateSessionPassRequest) -> None:
        held.alarm = self._agenda.add(held.ends, partial(self._expire, held))
        if held.stopping is not None:
            return
        left = held.ends - self.clock.now()
        order = _Order(held.key, request, held.asked, left, held.hand_over, held)
        held.renewing = asyncio.create_task(self._replace(held, order))
        self._renewals.add(held.renewing)
        held.renewing.add_done_callback(self._renewals.discard)

    async def _replace(self, old: _Held, order: _Order) -> None:
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

    def _swap(self, old: _Held, new: _Held) -> None:
        """Put a replacement under its key. From here on the end of one is not the other's."""
        self.keyed[old.key] = new
        self._unkeyed.add(old)
        old.renewing = None

    def _swap_back(self, old: _Held, new: _Held) -> None:
        in_place = self.keyed.get(old.key) is new and new.stopping is None
        if in_place and old.end is None and old.stopping is None:
            self.keyed[old.key] = old
            self._unkeyed.discard(old)
            self._unkeyed.add(new)
        elif old.end is None:
            self.stop(old)  # the key's conversation was ended meanwhile

    # Stopping.

    def stop(self, held: _Held) -> asyncio.Task[EquosSession | None]:
        """Set out to stop a session, unless that is under way or done."""
        if held.stopping is None:
            if held.renewing is not None:
                held.renewing.cancel()
                held.renewing = None
            held.stopping = asyncio.create_task(self._client.stop_session(held.started.session.id))
            held.stopping.add_done_callback(partial(self._stopped, held))
        return held.stopping

    def _stopped(self, held: _Held, task: asyncio.Task[EquosSession | None]) -> None:
        """The task of a stop is over: a done callback."""
        error = _error_of(task, EquosError)
        if error is None:
            reason = "its time was over" if held.expired else ""
            outcome: Literal["stopped", "already_ended"] = (
                "already_ended" if task.result() is None else "stopped"
            )
            self._finish(held, self._end(held, outcome, reason))
            self._tell(
                "expired" if held.expired else "stopped",
                held.key,
                session_id=held.started.session.id,
                reason=reason,
            )
            return
        end = self._end(held, "failed", str(error))
        if self.clock.now() < held.ends and not held.expired:
            held.stopping = None  # it keeps its place and its alarm, and may be stopped again
            self._settle(held, end)
        else:
            self._finish(held, end)
        self._tell("failed", held.key, session_id=end.session_id, reason=end.reason)

    def _finish(self, held: _Held, end: SessionEnd) -> None:
        """A session is over: let go of all that was held for it."""
        held.end = end
        if self.keyed.get(held.key) is held:
            del self.keyed[held.key]
        else:
            self._unkeyed.discard(held)
        if held.alarm is not None:
            self._agenda.drop(held.alarm)
        self._sum_began -= held.began
        self._seconds_ended += end.seconds
        self._committed += end.seconds - held.seconds
        self.places.give()
        if held.over is not None:
            set_unless_done(held.over, end)
        self._settle(held, end)

    def _end(
        self, held: _Held, outcome: Literal["stopped", "already_ended", "failed"], reason: str
    ) -> SessionEnd:
        return SessionEnd(
            key=held.key,
            session_id=held.started.session.id,
            outcome=outcome,
            seconds=self.clock.now() - held.began,
            reason=reason,
        )

    def _lost_end(self, order: _Order) -> SessionEnd:
        return SessionEnd(
            key=order.key, session_id=None, outcome="unresolved", reason=self._unknown[order]
        )

    # Draining.

    def close(self) -> None:
        """Take no more starts, and turn away those that wait."""
        self.closed = True
        for order in list(self._reserved.values()):
            self._unwanted(order, _closed_error())
            self.places.turn_away(order, _closed_error())
        for renewal in self._renewals:
            renewal.cancel()

    def drain(self, seconds: float, why: Callable[[], EquosError]) -> _Drain:
        """Set out to stop everything; the drain's future is done when all is, or in time."""
        drain = _Drain(self.clock.call_at, self.clock.now() + seconds)
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

    def conclude(self, drain: _Drain) -> DrainReport:
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

    def _settle(self, subject: _Held | _Order, end: SessionEnd | None) -> None:
        for drain in self._drains:
            drain.settle(subject, end)

    # Telling.

    def stats(self) -> FleetStats:
        """The numbers now."""
        live = len(self.keyed) + len(self._unkeyed)
        counts = self._counts
        return FleetStats(
            live=live,
            starting=len(self._starting),
            waiting=self.places.waiting,
            free=self.places.free,
            started=counts["started"],
            stopped=counts["stopped"],
            expired=counts["expired"],
            refused=counts["refused"],
            failed=counts["failed"],
            unknown=counts["unknown"],
            seconds_live=self._seconds_ended + live * self.clock.now() - self._sum_began,
            budget_left=None if math.isinf(self._budget) else self._budget - self._committed,
        )

    def _tell(
        self,
        kind: FleetEventKind,
        key: Hashable,
        *,
        session_id: str | None = None,
        reason: str = "",
    ) -> None:
        """Count what happened and tell the hook, whose failure is no reason to fail."""
        self._counts[kind] += 1
        if self._on_event is None:
            return
        event = FleetEvent(
            kind=kind,
            key=key,
            live=len(self.keyed) + len(self._unkeyed),
            waiting=self.places.waiting,
            session_id=session_id,
            reason=reason,
        )
        try:
            self._on_event(event)
        except Exception:
            if not self._hook_failed:
                self._hook_failed = True
                logger.exception("the fleet's on_event raised; this is not logged again")


_COUNTED: Final[tuple[FleetEventKind, ...]] = (
    "waiting",
    "started",
    "stopped",
    "expired",
    "refused",
    "failed",
    "unknown",
)


def _error_of(task: asyncio.Task[Any], cut_off: type[EquosError]) -> BaseException | None:
    """A task's error; a cancelled one was cut off by the event loop's end."""
    if task.cancelled():
        return cut_off("the event loop shut down before the answer came")
    return task.exception()


class _Drain:
    """One drain under way: what it still waits for, and what ended.

    Attributes:
        pending: What has not ended, with what to say of it at the deadline.
        ends: What did.
        done: Done when nothing is pending, at the deadline, or when it is given up.
    """

    def __init__(self, call_at: Callable[..., Timer], deadline: float) -> None:
        self.pending: dict[_Held | _Order, str] = {}
        self.ends: list[SessionEnd] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer = call_at(deadline, set_unless_done, self.done, None)

    def settle(self, subject: _Held | _Order, end: SessionEnd | None) -> None:
        """Something is over, or failed for now; None: there was nothing."""
        if self.pending.pop(subject, None) is not None:
            if end is not None:
                self.ends.append(end)
            self.check()

    def replace(self, order: _Order, held: _Held) -> None:
        """A start that was on its way brought a session after all."""
        if self.pending.pop(order, None) is not None:
            self.pending[held] = "its stop was not answered in time"

    def check(self) -> None:
        """Be done when nothing is pending."""
        if not self.pending:
            set_unless_done(self.done, None)

    def report(self) -> DrainReport:
        """What is known now."""
        ends = self.ends + [
            SessionEnd(
                key=subject.key,
                session_id=subject.started.session.id if isinstance(subject, _Held) else None,
                outcome="unresolved",
                reason=reason,
            )
            for subject, reason in self.pending.items()
        ]
        by_outcome: dict[str, list[SessionEnd]] = {}
        for end in ends:
            by_outcome.setdefault(end.outcome, []).append(end)
        return DrainReport(**{outcome: tuple(found) for outcome, found in by_outcome.items()})


# Places, alarms and signals.


class _Places:
    """A number of places and the line before them: first come, first served.

    A place that is given back goes straight to the first in line, so that nobody overtakes. A
    waiter that is cancelled passes on the place that it was given in that very tick.
    """

    def __init__(self, count: int) -> None:
        self.free = count
        self._line: OrderedDict[_Order, asyncio.Future[None]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many stand in the line."""
        return len(self._line)

    def take(self) -> bool:
        """Take a place, if one is free; then nobody is waiting."""
        if self.free == 0:
            return False
        self.free -= 1
        return True

    def join(self, who: _Order) -> asyncio.Future[None]:
        """Stand in the line."""
        turn = self._line[who] = asyncio.get_running_loop().create_future()
        return turn

    async def wait(self, who: _Order, turn: asyncio.Future[None]) -> None:
        """Wait for one's turn; then the place is taken."""
        try:
            await turn
        except asyncio.CancelledError:
            self._line.pop(who, None)
            if not turn.cancelled() and turn.exception() is None:
                self.give()
            raise

    def give(self) -> None:
        """Give a place back."""
        while self._line:
            _, turn = self._line.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def turn_away(self, who: _Order, error: EquosError) -> None:
        """Send somebody home who waits."""
        turn = self._line.pop(who, None)
        if turn is not None and not turn.done():
            turn.set_exception(error)


@define(eq=False)
class _Alarm:
    """Something to do at a time; nothing once it was done or called off."""

    when: float
    action: Callable[[], None] | None

    def __lt__(self, other: _Alarm) -> bool:
        return self.when < other.when


class _Agenda:
    """Any number of alarms on one timer of the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[_Alarm] = []
        self._dropped = 0
        self._timer: Timer | None = None
        self._rings_at = math.inf

    def add(self, when: float, action: Callable[[], None]) -> _Alarm:
        """Set an alarm."""
        alarm = _Alarm(when, action)
        heapq.heappush(self._heap, alarm)
        self._wind()
        return alarm

    def drop(self, alarm: _Alarm) -> None:
        """Call an alarm off; harmless where it rang already.

        It stays in the heap until its time, unless too many such do.
        """
        if alarm.action is None:
            return
        alarm.action = None
        self._dropped += 1
        if self._dropped > MIN_DROPPED and self._dropped > len(self._heap) // 2:
            self._heap = [one for one in self._heap if one.action is not None]
            heapq.heapify(self._heap)
            self._dropped = 0

    def clear(self) -> None:
        """Call everything off."""
        self._heap = []
        self._dropped = 0
        self._rings_at = math.inf
        if self._timer is not None:
            self._timer.cancel()

    def _wind(self) -> None:
        """Set the timer for the first alarm, unless it rings before that anyway."""
        if not self._heap or self._heap[0].when >= self._rings_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._heap[0].when
        self._timer = self._clock.call_at(self._rings_at, self._ring)

    def _ring(self) -> None:
        # A loop's timer may go off a hair early: what it was set for is due.
        now = max(self._clock.now(), self._rings_at)
        self._rings_at = math.inf
        while self._heap and self._heap[0].when <= now:
            alarm = heapq.heappop(self._heap)
            if alarm.action is None:
                self._dropped -= 1
                continue
            action, alarm.action = alarm.action, None
            action()
        self._wind()


class _SignalGuard:
    """Turns the first signal into the end of a task, and the second into giving up."""

    def __init__(self, keeper: _Keeper) -> None:
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self._previous: dict[signal.Signals, Any] = {}
        self._signalled = False
        self._cancelled = False

    def install(self, signals: tuple[signal.Signals, ...]) -> None:
        """Take the signals over.

        Not with ``loop.add_signal_handler``, which is missing on Windows and cannot put back
        what was there before, ``asyncio.run``'s own handler, say.
        """
        try:
            for one in signals:
                self._previous[one] = signal.signal(one, self._handle)
        except ValueError:
            raise ConfigurationError("stop_on_signals works in the main thread only") from None

    def remove(self) -> None:
        """Put back the handlers that were there before; harmless when that was done."""
        while self._previous:
            one, handler = self._previous.popitem()
            signal.signal(one, signal.SIG_DFL if handler is None else handler)

    def absorbs(self, error: BaseException | None) -> bool:
        """Whether an exception is the cancellation that the signal brought, as its only one."""
        if not self._cancelled or self._task is None:
            return False
        alone = self._task.uncancel() <= self._cancelling
        return alone and isinstance(error, asyncio.CancelledError)

    def _handle(self, _: int, __: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._act)

    def _act(self) -> None:
        if self._signalled:
            self.remove()
            self._keeper.give_up()
            return
        self._signalled = True
        if not self._keeper.closed and self._task is not None:
            self._cancelled = True
            self._task.cancel()
