"""Many sessions under one limit: each belongs to a key and has an end.

Each session holds a *slot* until its stop is confirmed or its time is over, a *timer* that stops it
at its end, and its seconds of the *session budget*.
"""

from __future__ import annotations

import asyncio
import math
import signal
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, cast, get_args

from equos_async import _validate
from equos_async._inside import check_loop, clock_of, is_inherited, pause_of
from equos_async._shown import MAX_NAMED
from equos_async.client import EquosClient
from equos_async.clock import Clock
from equos_async.errors import ConfigurationError, EquosError
from equos_async.events import logger
from equos_async.ledger.protocol import SessionLedger

from ._admission import Admission, closed_error
from ._asked import GroupOf, asked
from ._ends import Ends, OnEnd
from ._names import checked
from ._no_ledger import NoWorker
from ._records import Records
from ._session import HandOver, LiveSession, Renew, SessionRecord
from ._signals import SignalGuard
from ._starting import IfTaken
from ._states import IN_DOUBT
from ._supervisor import FleetSupervisor
from ._tally import Tally
from ._view import LiveView
from ._worker import LedgerWorker
from .values import (
    AnyEnded,
    AnyRequest,
    DrainReport,
    FleetEvent,
    FleetHealth,
    FleetStats,
    K,
)


class SessionFleet(Generic[K]):
    """Runs many sessions through one client, at most ``max_live`` at a time.

    Use it with ``async with``, or with :meth:`open` and :meth:`aclose`. On every way out of the
    block all sessions are stopped, and :attr:`report` says how each ended.
    ``Limits.stop_connections`` of the client limits the stops on the wire at once.

    It is generic in the type of its keys: ``SessionFleet[int](client)``. Without it they are of any
    hashable type. Ends and events of sessions that other programs recorded in the same ledger have
    the keys of those programs.

    Args:
        client: The client that starts and stops the sessions; it is not closed.
        max_live: How many sessions may be live. A start of unknown outcome keeps its slot until the
            client knows that no session is running, or its ``max_duration`` is over.
        max_waiting: How many starts of each group may wait for a slot; further ones are refused
            with :class:`FleetFullError`. None: any number.
        group: A function that returns the group of a request, for example its ``client``. Groups
            take turns in getting slots, so that no start waits behind all starts of another group.
            None: the request has no group; such requests have turns, but no limit of their own.
        max_per_group: How many slots each group may have, with a ledger over all workers. None: any
            number.
        requeue_refused: Whether a start that the server refuses with 429, after all attempts of the
            client, waits for a slot again, ahead of other starts of its group, until its deadline.
            If not, or with ``wait=False``, it raises :class:`RateLimitError` at once.
        drain_deadline: Seconds that leaving the block may take.
        default_max_duration: Seconds, sent with requests that have no ``max_duration`` (of a
            conversation: ``max_seconds``), so that every session of a fleet has an end.
        budget_seconds: The session budget: seconds that all sessions together may run. A start that
            could exceed it is refused. Seconds that a session did not use are returned when it has
            ended.
        ledger: A ledger in which sessions are recorded, so that other workers stop them if this one
            dies. ``max_live`` is then one limit for all workers that share it, and keys are unique
            over all of them; they must be strings or integers.
        worker: A permanent name for this worker in the ledger; each process needs its own. If the
            previous process of that name is dead, :meth:`open` stops its sessions at once. If its
            death cannot be proved, because it ran on another machine or in another container,
            :meth:`open` waits until its lease is over. None: a new name each time.
        lease: Seconds without a heartbeat of this worker after which other workers stop its
            sessions. There are three heartbeats in that time.
        ledger_required: Whether starts fail with :class:`LedgerError` while the ledger fails. If
            not, they go on without it: the limit is then this fleet's own, and their sessions are
            recorded when the ledger works again. Stops never depend on the ledger.
        renew_before: With ``renew=True``, seconds before a session's end at which its replacement
            is started; at most half of the session's time.
        stop_before_end: Seconds before the server's end of a session at which the fleet stops it,
            counted from the sending of its start; at most a tenth of the session's time.
        on_end: Called with the :class:`SessionEnd` of each session that was live, however it ended;
            may be a coroutine function, which drains wait for. For the sessions of a dead worker,
            the worker that stops them calls its own.
        on_event: Called with each :class:`FleetEvent`; must not block.
        clock: The source of time, for tests; by default the client's.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        client: EquosClient,
        *,
        max_live: int = 50,
        max_waiting: int | None = None,
        group: GroupOf | None = None,
        max_per_group: int | None = None,
        requeue_refused: bool = True,
        drain_deadline: float = 20.0,
        default_max_duration: float = 600.0,
        budget_seconds: float | None = None,
        renew_before: float = 30.0,
        stop_before_end: float = 2.0,
        ledger: SessionLedger | None = None,
        worker: str | None = None,
        lease: float = 15.0,
        ledger_required: bool = True,
        on_end: OnEnd[K] | None = None,
        on_event: Callable[[FleetEvent[K]], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._client = _validate.instance("client", client, EquosClient)
        self._drain_deadline = _validate.number("drain_deadline", drain_deadline, zero=True)
        self._default_max_duration = _validate.number("default_max_duration", default_max_duration)
        if budget_seconds is not None:
            _validate.number("budget_seconds", budget_seconds)
        _validate.number("lease", lease)
        name = None if worker is None else checked(worker)
        clock = clock_of(client) if clock is None else _validate.instance("clock", clock, Clock)
        if ledger is not None:
            _validate.instance("ledger", ledger, cast("type[Any]", SessionLedger))  # a protocol
        _validate.count("max_live", max_live)
        if max_waiting is not None:
            _validate.count("max_waiting", max_waiting, zero=True)
        self._group = _validate.hook("group", group)
        if max_per_group is not None:
            _validate.count("max_per_group", max_per_group)
            if group is None:
                raise ConfigurationError("max_per_group needs group, which names the groups")
        self._records: Records[SessionRecord] = Records()
        tally = Tally(self._records, clock, _validate.hook("on_event", on_event))
        if on_end is not None and not callable(on_end):
            raise ConfigurationError(f"on_end must be callable, not {type(on_end).__name__}")
        self._ends = Ends(on_end)
        self._worker: LedgerWorker | NoWorker = NoWorker()
        if ledger is not None:
            self._worker = LedgerWorker(
                ledger,
                client,
                tally.emit,
                self._ends,
                limit=max_live,
                per_group=max_per_group,
                lease=lease,
                name=name,
                required=ledger_required,
                clock=clock,
            )
        self._admission = Admission(
            self._records,
            slots=max_live,
            per_group=math.inf if max_per_group is None else max_per_group,
            waiting=math.inf if max_waiting is None else max_waiting,
            budget=math.inf if budget_seconds is None else budget_seconds,
            deadline=client.timeouts.deadline,
            rows=self._worker.rows,
            tally=tally,
        )
        self._supervisor = FleetSupervisor(
            client,
            records=self._records,
            admission=self._admission,
            rows=self._worker.rows,
            tally=tally,
            ends=self._ends,
            requeue_refused=requeue_refused,
            renew_before=_validate.number("renew_before", renew_before),
            stop_before_end=_validate.number("stop_before_end", stop_before_end, zero=True),
            clock=clock,
        )
        self._live: LiveView[K] = LiveView(self._records)
        self._entered = self._is_opening = False
        self._report: DrainReport[K] | None = None
        self._guard: SignalGuard | None = None

    async def start(
        self,
        request: AnyRequest,
        *,
        key: K,
        wait: bool = True,
        if_taken: IfTaken = "raise",
        deadline: float | None = None,
        join_within: float | None = None,
        idle_after: float | None = None,
        renew: bool | Renew[K] = False,
        on_renewed: HandOver[K] | None = None,
    ) -> LiveSession[K]:
        """Start a session or conversation for a key, as soon as a slot is free.

        Starts wait for slots in the order of their calls. A cancelled caller leaves no session: a
        waiting start leaves the queue, an unsent one is withdrawn, and the session of one that was
        sent is stopped when the answer arrives. Until then the key is in use.

        Args:
            request: A request for ``EquosClient.start_session`` or ``start_conversation``.
            key: Whose session it is; any hashable value.
            if_taken: What to do if the key has a session in this fleet, or a start in progress.
                ``"raise"``: raise :class:`KeyInUseError`. ``"return"``: return that session, or
                wait for that start; once it has a slot, it goes on even if its first caller is
                cancelled. ``"replace"``: stop the session or cancel the start, then start.
            wait: Whether to wait for a free slot.
            deadline: Seconds for the start itself; the wait for a slot has no deadline.
            join_within: Seconds in which somebody must join, or the session is ended with the
                outcome ``never_joined``. Call :meth:`LiveSession.touch` when somebody has. The
                server is asked once before a conversation is ended.
            idle_after: Seconds without a :meth:`LiveSession.touch` after which the session is ended
                with the outcome ``idle``. They count from its start; with ``join_within`` from the
                first touch.
            renew: Start a replacement shortly before the session's end, again and again. Each needs
                a slot and, with a budget, seconds of its own. If it cannot be started, the session
                ends at its time. A coroutine function is called with the session and returns the
                request for its replacement, which can carry on what was said. True: the same
                request. See also :meth:`LiveSession.renew`.
            on_renewed: Called with the old and the new session when the replacement is live; may be
                a coroutine function. When it returns, the old session is stopped. If it raises, the
                new session is stopped, and the old one runs on to its end.

        Raises:
            ConfigurationError: Bad input; nothing was sent.
            KeyInUseError: The key already has a session (with a ledger: in any worker); nothing was
                sent.
            LedgerError: The ledger failed; nothing was sent.
            FleetFullError: No slot is free and ``wait`` is false, ``max_waiting`` starts of its
                group wait already, or the session budget is too small.
            ClientClosedError: The fleet or its client is closed or closing. If ``session_id`` is
                set, that session started too late and is being stopped.
            StartOutcomeUnknownError: A billed session may exist. The slot stays taken until the
                client knows that none is running, or its time is over.
            EquosError: As ``EquosClient.start_session``; also if :meth:`stop` or :meth:`drain`
                cancelled the start, or if the session to be replaced could not be stopped.
        """
        if not self._entered:
            raise ConfigurationError(
                "the fleet is not open: use 'async with', or open() and aclose()"
            )
        check_loop(self._client)
        if if_taken not in get_args(IfTaken):
            raise ConfigurationError(f"if_taken must be one of {', '.join(get_args(IfTaken))}")
        record = asked(
            self._supervisor,
            request,
            key=key,
            deadline=deadline,
            seconds=self._default_max_duration,
            group_of=self._group,
            join_within=join_within,
            idle_after=idle_after,
            renew=renew,
            on_renewed=on_renewed,
        )
        record = await self._supervisor.starts.begin(record, wait=wait, if_taken=if_taken)
        return record.handle

    async def stop(self, key: K) -> AnyEnded | None:
        """Stop the session of a key; a start that waits or is in progress is cancelled.

        With a ledger that is a ``KeyedLedger``, also if another worker has the session: that worker
        is told, and its slot and key are free. ``on_end`` is then called here.

        Returns:
            As :meth:`LiveSession.stop`; None also if the key has no session.

        Raises:
            LedgerError: The fleet does not have the key, and the ledger failed.
            ConfigurationError: The key cannot be a key of the ledger.
            EquosError: As ``EquosClient.stop_session``; the session may still be running.
        """
        check_loop(self._client)
        holder = self._admission.holder(key)
        is_here = holder is not None and not holder.entry.may_be_refused
        told = "stop() was called before the session was live"
        ended = await self._supervisor.starts.end(key, told)
        return ended if is_here or ended else await self._worker.stop(key)

    async def drain(self, deadline: float | None = None) -> DrainReport[K]:
        """Stop all sessions now; the fleet stays usable.

        Starts in progress are cancelled; starts that wait get the slots that become free. Stops
        that are not confirmed by the deadline go on after it.

        Args:
            deadline: Seconds to wait, by default the fleet's ``drain_deadline``.

        Returns:
            How each session ended; those that are not yet confirmed are ``unresolved``.
        """
        check_loop(self._client)
        seconds = self._drain_deadline if deadline is None else deadline
        drain = self._supervisor.drain(
            _validate.number("deadline", seconds, zero=True),
            partial(
                EquosError, "drain() was called before the session was live", operation="start"
            ),
        )
        try:
            with self._ends.excused():
                await drain.done
        finally:
            report = self._supervisor.drains.conclude(drain)
        return report

    @property
    def live(self) -> Mapping[K, LiveSession[K]]:
        """The live sessions by key, as a view."""
        return self._live

    def by_session_id(self, session_id: str) -> LiveSession[K] | None:
        """The live session with an id, for webhooks and LiveKit events; None if it is not here.

        It is found until it has ended, also while it is stopped, or replaced by a renewal.
        """
        record = self._records.by_id(session_id)
        return None if record is None else record.handle

    async def mark_ended(self, session_id: str) -> bool:
        """Note that a session has ended, because a webhook said so; nothing is sent.

        When it returns, the slot, the key and the ledger's row of the session are free, and
        ``on_end`` was called with the outcome ``marked_ended``. If a stop is in progress, it waits
        for that. With a ledger that is a ``KeyedLedger``, also if another worker has the
        session; ``on_end`` is then called here.

        Returns:
            Whether there was a live session with that id.

        Raises:
            LedgerError: The fleet does not have the session, and the ledger failed.
        """
        check_loop(self._client)
        record = self._records.by_id(session_id)
        if record is None:
            return await self._worker.mark_ended(session_id)
        await self._supervisor.mark_ended(record)
        return True

    @property
    def report(self) -> DrainReport[K]:
        """How the sessions ended that were live when the block was left.

        Raises:
            RuntimeError: The block has not been left yet.
        """
        if self._report is None:
            raise RuntimeError("there is no report before the fleet is closed")
        return self._report

    @property
    def worker(self) -> str | None:
        """This worker's name in the ledger, or None without one.

        Without the argument ``worker`` it consists of host, process id and random letters, and is
        made when the fleet is opened. In the ledger's rows the argument is followed by ``#`` and
        random letters.
        """
        return self._worker.name

    def stats(self) -> FleetStats:
        """The fleet's numbers now."""
        return self._supervisor.stats()

    def health(self) -> FleetHealth:
        """Whether the fleet can work now, as far as it knows; nothing is sent."""
        clock = self._supervisor.clock
        pause = pause_of(self._client)
        until = datetime.fromtimestamp(clock.wall() + pause, UTC) if pause else None
        return FleetHealth(
            accepting=self.accepting,
            free=self._admission.free,
            waiting=self.stats().waiting,
            paused_until=until,
            ledger=self._worker.is_reached,
        )

    def resize(self, max_live: int) -> None:
        """Change ``max_live``; sessions beyond a smaller limit run on to their ends.

        With a ledger it changes for this worker only, which then starts nothing while that many
        sessions run in all workers.

        Raises:
            ConfigurationError: It is not a positive whole number.
        """
        self._admission.resize(_validate.count("max_live", max_live))

    @property
    def accepting(self) -> bool:
        """Whether the fleet accepts starts; for a readiness probe."""
        return self._entered and not self._admission.closed

    def stop_on_signals(self, *signals: signal.Signals, grace: float | None = None) -> None:
        """Let SIGTERM and SIGINT, or the given signals, end the fleet's block.

        Call it inside the block, in the task that runs it. The first signal cancels that task; on
        the way out of the block all sessions are stopped, and the program continues after the
        block, with :attr:`report`. A second signal ends the wait for the stops at once. After it,
        or after the block, the previous signal handlers are in place again. If several fleets of a
        process call it, a signal reaches all of them. If the task is over, the first signal closes
        the fleet instead, and if the block goes on after it, the second one does.

        With ``grace`` there is one more step: the first signal begins :meth:`wind_down`, which ends
        the block when no session runs any more or after so many seconds; the second ends the block
        at once, and the third ends the wait for the stops.

        Raises:
            ConfigurationError: An argument is wrong, or it was called twice or outside the main
                thread.
        """
        if self._guard is not None:
            raise ConfigurationError("stop_on_signals was called already")
        supervisor = self._supervisor
        begin: Callable[[], asyncio.Future[None]] | None = None
        if grace is not None:
            begin = partial(supervisor.wind_down, _validate.number("grace", grace, zero=True))
        guard = SignalGuard(
            lambda: supervisor.drains.closing, supervisor.drains.give_up, self.aclose, begin
        )
        guard.install(signals or (signal.SIGTERM, signal.SIGINT))
        self._guard = guard

    async def wind_down(self, grace: float = 3600.0) -> DrainReport[K]:
        """Close the fleet without cutting sessions short; may be called more than once.

        From now on starts are refused, also those that wait, and no session is renewed. Live
        sessions run on to their ends, or to the end of the grace; then the fleet closes as with
        :meth:`aclose`. If the caller is cancelled, the fleet still accepts no starts.

        Args:
            grace: Seconds that sessions may run on.

        Returns:
            :attr:`report`, with the sessions that ended during the grace.
        """
        check_loop(self._client)
        if not self._supervisor.drains.closing:
            over = self._supervisor.wind_down(_validate.number("grace", grace, zero=True))
            with self._ends.excused():
                await over
        return await self.aclose()

    async def open(self) -> None:
        """Open the fleet, as ``async with`` does; for programs with a set-up and a tear-down.

        Raises:
            ConfigurationError: It was opened before, or a living worker has the name ``worker``.
            LedgerError: The name could not be taken, because the ledger failed.
            ClientClosedError: The fleet is closed or closing.
        """
        if self._admission.closed:
            raise closed_error()
        if self._entered or self._is_opening:
            raise ConfigurationError("the fleet was entered already")
        self._is_opening = True
        try:
            await self._worker.take_name()
        finally:
            self._is_opening = False
        if self._admission.closed:
            raise closed_error()
        self._entered = True
        self._worker.enter()

    async def aclose(self) -> DrainReport[K]:
        """Close the fleet, as leaving ``async with`` does; may be called more than once.

        Returns:
            :attr:`report`.
        """
        with self._ends.excused():
            await self._leave(None)
        return self.report

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        await self._leave(exc)
        return self._guard is not None and self._guard.absorbs(exc)

    async def _leave(self, exc: BaseException | None) -> None:
        if self._report is not None:
            await self._ends.leave()  # the hook may have closed the fleet, and go on
            return
        check_loop(self._client)
        self._supervisor.close()
        drain = self._supervisor.drain(self._drain_deadline, closed_error, is_final=True)
        try:
            await drain.done
        finally:
            # Also if a cancellation ends the wait.
            was_told = self._report is not None  # by another task that closes it
            self._report = self._supervisor.drains.conclude(drain, is_final=True)
            if self._report.left and not was_told:
                keys = [end.key for end in self._report.left[:MAX_NAMED]]
                fields = {"equos_event": "left", "equos_key": keys}
                logger.warning("sessions may still be running: %s", self._report, extra=fields)
            if self._report.left and exc is not None:
                exc.add_note(str(self._report))
            if self._guard is not None:
                self._guard.remove()
            await self._worker.leave()
            await self._ends.leave()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a SessionFleet cannot be pickled or copied: create one where it is needed")

    def __del__(self) -> None:
        admission = self.__dict__.get("_admission")  # absent if the arguments were refused
        left = 0 if admission is None or admission.closed else self._records.count(*IN_DOUBT)
        if left and not is_inherited(self._client):
            told = f"{self!r} was dropped with {left} sessions that may be running: leave its block"
            logger.warning("%s", told)
            warnings.warn(told, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        state = "closed" if self._admission.closed else "open"
        return f"<SessionFleet {len(self._live)} live, {self._admission.free} free, {state}>"
