"""Many sessions under one limit: each belongs to a key, each has an end, none is forgotten.

Three things are held here for every session: a *place*, until its stop is confirmed or its time
is over; an *alarm*, which stops it at its end; and its seconds in the fleet's *budget*.
"""

from __future__ import annotations

import asyncio
import math
import signal
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, cast, get_args

from equos_async import _validate
from equos_async._api.operations import resource_of
from equos_async.client import EquosClient, clock_of
from equos_async.clock import Clock
from equos_async.errors import ConfigurationError, EquosError
from equos_async.events import logger
from equos_async.ledger.protocol import SessionLedger

from ._admission import Admission, closed_error
from ._ends import Ends, OnEnd
from ._records import Records
from ._session import HandOver, LiveSession, SessionRecord
from ._signals import SignalGuard
from ._states import IN_DOUBT, Reason, State
from ._supervisor import FleetSupervisor
from ._tally import Tally
from ._worker import LedgerWorker, NoWorker
from .values import MAX_TOLD, AnyEnded, AnyRequest, DrainReport, FleetEvent, FleetStats

IfTaken = Literal["raise", "return", "replace"]


class SessionFleet:
    """Runs many sessions through one client, at most ``max_live`` at a time.

    Use it with ``async with``, or with :meth:`open` and :meth:`aclose`: on every way out of the
    block all sessions are stopped, and :attr:`report` tells what became of each. How many stops
    are on the wire at once is the client's ``Limits.stop_connections``.

    Args:
        client: What starts and stops the sessions; it is not closed.
        max_live: How many sessions may be live. A start whose outcome is unknown keeps its place
            until the client has learned that nothing runs, or its ``max_duration`` is over.
        max_waiting: Starts that may wait for a place; more are refused. None: any number.
        drain_deadline: Seconds that leaving may take.
        default_max_duration: Seconds for sessions whose request names no ``max_duration`` (of a
            conversation ``max_seconds``); sent with them. Every session of a fleet has an end.
        budget_seconds: Seconds that all sessions together may run; a start that could exceed
            them is refused. What a session does not use flows back when it has ended.
        ledger: Where sessions are written down, so that other workers stop them where this one
            dies. ``max_live`` is then the limit of all workers that share it, and keys, which
            must be strings or integers, are unique over all of them.
        lease: Seconds after which other workers stop this one's sessions, where it is not heard
            of. It is renewed three times in that time.
        ledger_required: Whether starts fail with :class:`LedgerError` while the ledger does.
            Otherwise they go on without: what they start is written down when it is back, and
            the limit is this fleet's own meanwhile. Stops go on in either case.
        renew_before: Seconds before a session's end at which its replacement is started, where
            it is to be renewed; at most half of its time.
        on_end: Called with the :class:`SessionEnd` of each session that was live, however it
            ended; may be a coroutine function, for which drains wait. Of those that other
            workers left it is called where they were stopped.
        on_event: Called with each :class:`FleetEvent`; must not block.
        clock: Only for tests; by default the client's.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        client: EquosClient,
        *,
        max_live: int = 50,
        max_waiting: int | None = None,
        drain_deadline: float = 20.0,
        default_max_duration: float = 600.0,
        budget_seconds: float | None = None,
        renew_before: float = 30.0,
        ledger: SessionLedger | None = None,
        lease: float = 15.0,
        ledger_required: bool = True,
        on_end: OnEnd | None = None,
        on_event: Callable[[FleetEvent], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        _validate.instance("client", client, EquosClient)
        self._drain_deadline = _validate.number("drain_deadline", drain_deadline, zero=True)
        self._default_max_duration = _validate.number("default_max_duration", default_max_duration)
        if budget_seconds is not None:
            _validate.number("budget_seconds", budget_seconds)
        _validate.number("lease", lease)
        clock = clock_of(client) if clock is None else _validate.instance("clock", clock, Clock)
        make_worker: Callable[[Callable[..., None], Ends], LedgerWorker | NoWorker] = _no_worker
        if ledger is not None:
            _validate.instance("ledger", ledger, cast("type[Any]", SessionLedger))  # a protocol
            make_worker = partial(
                LedgerWorker,
                ledger,
                client,
                limit=max_live,
                lease=lease,
                required=ledger_required,
                clock=clock,
            )
        _validate.count("max_live", max_live)
        if max_waiting is not None:
            _validate.count("max_waiting", max_waiting, zero=True)
        self._records: Records[SessionRecord] = Records()
        tally = Tally(self._records, clock, _validate.hook("on_event", on_event))
        if on_end is not None and not callable(on_end):
            raise ConfigurationError(f"on_end must be callable, not {type(on_end).__name__}")
        self._ends = Ends(on_end)
        self._worker = make_worker(tally.emit, self._ends)
        self._admission = Admission(
            self._records,
            slots=max_live,
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
            renew_before=_validate.number("renew_before", renew_before),
            clock=clock,
        )
        self._live = _LiveView(self._records)
        self._entered = False
        self._report: DrainReport | None = None
        self._guard: SignalGuard | None = None

    async def start(
        self,
        request: AnyRequest,
        *,
        key: Hashable,
        wait: bool = True,
        if_taken: IfTaken = "raise",
        deadline: float | None = None,
        renew: bool = False,
        on_renewed: HandOver | None = None,
    ) -> LiveSession:
        """Start a session or conversation for a key, as soon as there is a place, in turn.

        A caller that is cancelled leaves nothing behind: in the line it takes no place, what was
        not sent is withdrawn, and a session that arrives for it is stopped at once. Until that
        is settled its key is in use.

        Args:
            request: What to start, as ``EquosClient.start_session`` or ``start_conversation``
                takes it.
            key: Whose session it is; any hashable value.
            if_taken: What to do where the key has a session in this fleet, or a start that is
                under way: ``"raise"``; ``"return"`` that session, as it is, and wait for that
                start, which goes on where its first caller is cancelled, unless it still waits
                for a place; ``"replace"``: stop it or call it off, then start.
            wait: Whether to wait for a place.
            deadline: Seconds for the start itself; the wait for a place has none.
            renew: Start a replacement shortly before the session's end, and then another. It
                needs a place and, with a budget, seconds of its own. Where it cannot be had the
                session ends at its time.
            on_renewed: Called with the old and the new session when the replacement is live; may
                be a coroutine function. When it returns the old session is stopped; when it
                raises the new one is, and the old one goes on to its end.

        Raises:
            ConfigurationError: Bad input; nothing was sent.
            KeyInUseError: The key has a session already, with a ledger on any machine; nothing
                was sent.
            LedgerError: The ledger failed; nothing was sent.
            FleetFullError: No place is free and ``wait`` is false, or ``max_waiting`` starts wait
                already, or the budget is too small.
            ClientClosedError: The fleet or its client is at its end. Where ``session_id`` is set,
                that session came too late and is being stopped.
            StartOutcomeUnknownError: A billed session may exist; its place stays taken until
                the client has learned that it does not, or its time is over.
            EquosError: As ``EquosClient.start_session``; also where :meth:`stop` or :meth:`drain`
                came before the session, and where what is to be replaced could not be stopped.
        """
        if not self._entered:
            raise ConfigurationError(
                "the fleet is not open: use 'async with', or open() and aclose()"
            )
        resource = resource_of(request)
        if on_renewed is not None and not callable(on_renewed):
            raise ConfigurationError("on_renewed must be callable")
        if renew != (on_renewed is not None):
            raise ConfigurationError("renew=True and on_renewed belong together")
        if if_taken not in get_args(IfTaken):
            raise ConfigurationError(f"if_taken must be one of {', '.join(get_args(IfTaken))}")
        there = await self._make_way(key, if_taken)
        if there is not None:
            return there
        duration = resource.seconds_of(request) or self._default_max_duration
        request = resource.with_seconds(request, duration)
        record = SessionRecord(
            owner=self._supervisor,
            key=key,
            resource=resource,
            request=request,
            duration=duration,
            deadline=deadline,
            hand_over=on_renewed,
        )
        self._admission.reserve(record)
        await self._supervisor.fulfil(record, request, wait=wait)
        return record.handle

    async def stop(self, key: Hashable) -> AnyEnded | None:
        """Stop the session of a key; a start that is waiting or on its way is called off.

        Returns:
            As :meth:`LiveSession.stop`; None also where the key has no session.

        Raises:
            EquosError: As ``EquosClient.stop_session``; it may still be running.
        """
        return await self._stop(key, "stop() came before the session was started")

    async def _stop(self, key: Hashable, why: str) -> AnyEnded | None:
        await self._supervisor.call_off(key, EquosError(why, operation="start"))
        live = self._live.get(key)
        return None if live is None else await live.stop()

    async def _make_way(self, key: Hashable, if_taken: IfTaken) -> LiveSession | None:
        """See to what a key has already; its session, where that is to be returned."""
        while if_taken != "raise" and (holder := self._admission.holder(key)) is not None:
            if if_taken == "replace":
                if holder.state is State.LIVE:
                    self._supervisor.stop(holder, Reason.REPLACED)
                await self._stop(key, Reason.REPLACED.value)
            elif holder.state is State.LIVE:
                return holder.handle
            elif holder.state is State.STOPPING and holder.task is not None:
                await asyncio.wait([holder.task])
            else:
                await self._supervisor.join(holder)
        return None

    async def drain(self, deadline: float | None = None) -> DrainReport:
        """Stop all sessions now; the fleet stays usable.

        Starts that are on their way are called off. Those that wait for a place get the places
        that become free. What is not done by the deadline is still being tried afterwards.

        Args:
            deadline: Seconds to wait, by default the fleet's ``drain_deadline``.

        Returns:
            What became of each; those that are not done yet are ``unresolved`` in it.
        """
        seconds = self._drain_deadline if deadline is None else deadline
        drain = self._supervisor.drain(
            _validate.number("deadline", seconds, zero=True),
            partial(EquosError, "drain() came before the session was started", operation="start"),
        )
        try:
            await drain.done
        finally:
            report = self._supervisor.conclude(drain)
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
            raise RuntimeError("there is no report before the fleet is closed")
        return self._report

    @property
    def worker(self) -> str | None:
        """This fleet's name in its ledger, of host, process and random letters; else None."""
        return self._worker.worker

    def stats(self) -> FleetStats:
        """The fleet's numbers now."""
        return self._supervisor.stats()

    def resize(self, max_live: int) -> None:
        """Have another ``max_live`` from now on; what runs beyond a smaller one goes on to its end.

        With a ledger it is this worker's: it starts nothing where as many run over all workers.

        Raises:
            ConfigurationError: It is no positive number.
        """
        self._admission.resize(_validate.count("max_live", max_live))

    @property
    def accepting(self) -> bool:
        """True while it takes starts, for the readiness probe of a deployment."""
        return self._entered and not self._admission.closed

    def stop_on_signals(self, *signals: signal.Signals, grace: float | None = None) -> None:
        """Let SIGTERM and SIGINT, or those that are given, end the fleet's block.

        To be called inside the block, by the task that runs it. The first signal cancels that
        task; when it leaves the block everything is stopped, and the program goes on after the
        block, with :attr:`report`. A second signal gives up waiting at once. Then, and when the
        block has been left, the handlers are those that were there before.

        With ``grace`` a signal before these begins a :meth:`wind_down`, which ends the block when
        nothing runs any more or so many seconds are over; the next signal ends the block at once.

        Raises:
            ConfigurationError: A wrong ``grace``, not called from the main thread, or called twice.
        """
        if self._guard is not None:
            raise ConfigurationError("stop_on_signals was called already")
        supervisor = self._supervisor
        begin: Callable[[], asyncio.Future[None]] | None = None
        if grace is not None:
            begin = partial(supervisor.wind_down, _validate.number("grace", grace, zero=True))
        guard = SignalGuard(lambda: supervisor.closing, supervisor.give_up, begin)
        guard.install(signals or (signal.SIGTERM, signal.SIGINT))
        self._guard = guard

    async def wind_down(self, grace: float = 3600.0) -> DrainReport:
        """Come to an end without cutting sessions short; safe to call again.

        From now on starts are refused, those that wait for a place are turned away, and nothing is
        renewed. What runs goes on to its end, or to the end of the grace; then it is as with
        :meth:`aclose`. Where its caller is cancelled the fleet still takes no starts.

        Args:
            grace: Seconds that sessions may go on.

        Returns:
            :attr:`report`, with those that ended meanwhile.
        """
        if not self._supervisor.closing:
            await self._supervisor.wind_down(_validate.number("grace", grace, zero=True))
        return await self.aclose()

    async def open(self) -> None:
        """As entering ``async with``, for programs that have a set-up and a tear-down instead.

        Raises:
            ConfigurationError: It was done before.
            ClientClosedError: The fleet is at its end.
        """
        if self._admission.closed:
            raise closed_error()
        if self._entered:
            raise ConfigurationError("the fleet was entered already")
        self._entered = True
        self._worker.enter()

    async def aclose(self) -> DrainReport:
        """As leaving ``async with``; safe to call again.

        Returns:
            :attr:`report`.
        """
        if self._report is None:
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
        if self._report is None:
            await self._leave(exc)
        return self._guard is not None and self._guard.absorbs(exc)

    async def _leave(self, exc: BaseException | None) -> None:
        self._supervisor.close()
        drain = self._supervisor.drain(self._drain_deadline, closed_error)
        try:
            await drain.done
        finally:
            # Where a cancellation ends the wait, what is left is told all the same.
            self._report = self._supervisor.conclude(drain)
            if self._report.left:
                keys = [end.key for end in self._report.left[:MAX_TOLD]]
                fields = {"equos_event": "left", "equos_key": keys}
                logger.warning("sessions may still be running: %s", self._report, extra=fields)
                if exc is not None:
                    exc.add_note(str(self._report))
            if self._guard is not None:
                self._guard.remove()
            await self._worker.leave()
            await self._ends.leave()

    def __del__(self) -> None:
        admission = self.__dict__.get("_admission")  # absent where the arguments were refused
        left = 0 if admission is None or admission.closed else self._records.count(*IN_DOUBT)
        if left:
            told = f"{self!r} was dropped with {left} sessions that may be running; leave its block"
            logger.warning("%s", told)
            warnings.warn(told, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        state = "closed" if self._admission.closed else "open"
        return f"<SessionFleet {len(self._live)} live, {self._admission.free} free, {state}>"


def _no_worker(*_: object) -> NoWorker:
    return NoWorker()


class _LiveView(Mapping[Hashable, LiveSession]):
    """The fleet's sessions as their handles."""

    def __init__(self, records: Mapping[Hashable, SessionRecord]) -> None:
        self._records = records

    def __getitem__(self, key: Hashable) -> LiveSession:
        return self._records[key].handle

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)
