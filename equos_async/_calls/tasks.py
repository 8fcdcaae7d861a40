"""Calls that outlive their callers: launched, abandoned, handed over, closed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar

from attrs import evolve
from multidict import CIMultiDict

from equos_async import _validate
from equos_async._api import answers, operations
from equos_async._api.operations import Alone, Effect, Operation, Resource, Stake
from equos_async._emitter import Emitter
from equos_async._http.request import Failure, Reply
from equos_async._http.transport import Transport
from equos_async._retry.throttle import ClientThrottle
from equos_async._version import __version__
from equos_async.clock import Clock, set_unless_done
from equos_async.errors import (
    APITimeoutError,
    ClientClosedError,
    EquosError,
    OperationName,
)
from equos_async.events import MAX_REASON, Event, EventKind, Unresolved
from equos_async.settings import Limits, RetryPolicy, Timeouts

from .call import Call, Holder, Target, Work, moved
from .outcome import Accepted, Result, Unknown, describe, error_of, reason_of
from .runner import CallRunner
from .unresolved import UnresolvedLog

T = TypeVar("T")

SHUTDOWN_GRACE: Final = 10.0
"""Seconds that a stop is given when the event loop shuts down under it."""


class State(Enum):
    """How far a client has come."""

    OPEN = "open"
    CLOSING = "closing"  # begins nothing more; what is under way is settled
    GIVING_UP = "giving up"  # the time for that is over
    CLOSED = "closed"


class CallTasks:
    """The calls of one client, each in a task of the client's own.

    Args:
        base: The URL before an operation's path.
        key: The credential.
        transport: What carries requests.
        timeouts: How long things may take.
        policy: How often and how soon calls are tried again.
        limits: How many calls at once.
        clock: The source of time and chance.
        emitter: Who is told.
    """

    def __init__(
        self,
        *,
        base: str,
        key: str,
        transport: Transport,
        timeouts: Timeouts,
        policy: RetryPolicy,
        limits: Limits,
        clock: Clock,
        emitter: Emitter[Event],
    ) -> None:
        self.state: State = State.OPEN
        self._base = base
        self._transport = transport
        self._timeouts = timeouts
        self._clock = clock
        self._emitter = emitter
        self._mask = answers.masker(key)
        self._unresolved = UnresolvedLog(clock)
        self._told_fields: set[str] = set()
        self._calls: set[Call[Any]] = set()
        self._blocks: dict[str, Resource[Any, Any]] = {}
        self._closing: asyncio.Task[None] | None = None
        self._runner = CallRunner(
            transport=transport,
            throttle=ClientThrottle(policy, limits),
            timeouts=timeouts,
            clock=clock,
            heads={body: _head(key, body=body) for body in (True, False)},
            observer=self,
        )

    @property
    def unresolved(self) -> tuple[Unresolved, ...]:
        """What may be running and is in nobody's hands, oldest first."""
        return self._unresolved.all

    @property
    def _gave_up(self) -> bool:
        return self.state in {State.GIVING_UP, State.CLOSED}

    # What the client calls.

    async def run(
        self,
        operation: Operation[T],
        session_id: str | None = None,
        *,
        deadline: float | None = None,
    ) -> T:
        """Carry out an operation that ends or reads something.

        Raises:
            EquosError: It failed; the class says what that means.
        """
        if operation.takes_id:
            _validate.session_id(session_id)
        self._check_open(operation.effect, session_id)
        call = self._call(operation, Target(operation.effect.name, session_id), deadline)
        self._launch(call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            if call.effect.alone is Alone.ENDS:
                call.withdraw()
            raise

    async def begin(
        self,
        resource: Resource[Any, T],
        request: Any,
        *,
        deadline: float | None = None,
        holder: Holder = Holder.CALLER,
    ) -> T:
        """Begin a billed thing; a caller that is cancelled leaves none behind.

        Raises:
            EquosError: It failed; the class says what that means.
        """
        operation = resource.create
        self._check_open(operation.effect)
        _validate.instance("request", request, resource.request)
        target = Target(
            operation.effect.name, None, request.name, request.client, resource.seconds_of(request)
        )
        call = self._call(operation, target, deadline)
        call.request, call.resource, call.holder = request, resource, holder
        self._launch(call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            self._abandon(call, resource)
            raise

    async def leave_block(self, resource: Resource[Any, Any], session_id: str) -> None:
        """End what a block began, unless the closing has taken that over."""
        if self._blocks.pop(session_id, None) is not None:
            await self.run(resource.end, session_id)

    async def close(self, seconds: float) -> None:
        """Settle what is in flight, then close the transport; give up after some seconds."""
        if self._closing is None:
            loop = self._transport.bind()
            self.state = moved(self.state, State.OPEN, State.CLOSING)
            for call in self._calls:
                alone = call.effect.alone
                if alone is Alone.ENDS or (alone is Alone.LISTENS and not call.is_on_server):
                    call.refuse(closed_error(call.effect.name))
                    call.withdraw()
            self._closing = loop.create_task(self._close(self._clock.now() + seconds))
            for session_id, resource in self._blocks.items():
                self._launch_orphan(resource, session_id)
            self._blocks.clear()
        await asyncio.shield(self._closing)

    # What the runner asks and tells.

    def may_retry(self, call: Call[Any]) -> bool:
        """Whether a call is to be sent again: for whoever waits, as long as the client is open."""
        if call.effect.alone is Alone.GOES_ON:
            return True
        return self.state is State.OPEN and call.is_wanted

    def on_retry(self, call: Call[Any], reply: Reply | Failure, wait: float) -> None:
        """Tell that a call will be sent again."""
        told = self._emit(
            "retry",
            call,
            reason_of(reply, self._mask),
            status=call.status,
            delay=wait,
            seconds=self._clock.now() - call.began,
        )
        call.retries += (told,)

    def on_pause(self, call: Call[Any], seconds: float) -> None:
        """Tell that the server asked for time."""
        reason = "the server asked for time"
        self._emit("paused", call, reason, status=call.status, delay=seconds)

    def on_unreadable_fields(self, call: Call[Any], paths: tuple[str, ...]) -> None:
        """Tell of fields that hold another type than the contract says: once for each path."""
        for path in paths:
            field = f"{call.operation.path} {path}"
            if field not in self._told_fields:
                self._told_fields.add(field)
                self._emit("unreadable_field", call, path, status=call.status)

    def on_overdue(self, call: Call[Any]) -> None:
        """Let the caller wait no longer; the session of a late answer is ended."""
        if not call.answer.done():
            reason = f"no answer within {call.effect.attempt(self._timeouts):g} s"
            self._refuse(call, Unknown(Failure(sent=True, reason=reason)))

    # The life of a call.

    def _call(
        self, operation: Operation[T], target: Target, deadline: float | None = None
    ) -> Call[T]:
        effect = operation.effect
        seconds = (
            effect.deadline(self._timeouts)
            if deadline is None
            else _validate.number("deadline", deadline)
        )
        loop = self._transport.bind()
        began = self._clock.now()
        return Call(
            operation=operation,
            effect=effect,
            target=target,
            url=operation.url(self._base, target.session_id),
            began=began,
            deadline=began + seconds,
            answer=loop.create_future(),
        )

    def _check_open(self, effect: Effect, session_id: str | None = None) -> None:
        closing = self.state is State.CLOSING and effect.alone is Alone.GOES_ON
        if self.state is not State.OPEN and not closing:
            raise closed_error(effect.name, session_id)

    def _launch(self, call: Call[Any]) -> None:
        """Run a call in a task of the client's own: its caller's end is not its end."""
        call.task = call.answer.get_loop().create_task(self._carry(call))
        self._calls.add(call)
        if self._emitter.heard and call.is_wanted:
            call.answer.add_done_callback(partial(self._ended, call))
        call.task.add_done_callback(partial(self._settle, call))

    async def _carry(self, call: Call[Any]) -> None:
        """What the task of a call does."""
        if call.effect.alone is Alone.GOES_ON:
            await self._finish(call)
            return
        try:
            result = await self._runner.run(call)
        except asyncio.CancelledError:
            if call.effect.stake is Stake.BEGUN and call.is_on_server:
                reason = "the client was closed" if self._gave_up else "the event loop shut down"
                self._refuse(call, Unknown(Failure(sent=True, reason=reason)))
            raise
        if call.resource is None:
            self._answer(call, result)
        elif isinstance(result, Accepted):
            await self._hand_over(call, call.resource, result.value)
        elif isinstance(result, Unknown) and result.unreadable is not None:
            await self._unreadable(call, call.resource, result)
        else:
            if not isinstance(result, Unknown):
                self._unresolved.drop(call.target)  # refused late: nothing exists after all
            self._refuse(call, result)

    def _answer(self, call: Call[T], result: Result[T]) -> None:
        if isinstance(result, Accepted):
            set_unless_done(call.answer, result.value)
        else:
            self._refuse(call, result)

    def _refuse(self, call: Call[Any], result: Any) -> None:
        """Let the caller have an error, and keep what may be running now."""
        if isinstance(result, Unknown) and call.effect.stake is Stake.BEGUN:
            self._keep_unknown(call, result, reason_of(result.reply, self._mask))
        call.refuse(error_of(result, call, self._mask))

    def _keep_unknown(self, call: Call[Any], result: Unknown, reason: str) -> None:
        """Tell, once a call, that something may have begun that nobody holds."""
        if call.target in self._unresolved:
            return
        self._unresolved.add(call.target, reason)
        status = result.reply.status if isinstance(result.reply, Reply) else None
        self._emit("start_unknown", call, reason, status=status)

    def _abandon(self, call: Call[T], resource: Resource[Any, T]) -> None:
        """The caller of a start was cancelled."""
        if call.answer.cancelled():
            if not call.is_on_server:
                call.withdraw()
        elif call.answer.exception() is None:
            # The answer and the cancellation fell in one tick: nobody has seen that session.
            session_id = resource.id_of(call.answer.result())
            self._blocks.pop(session_id, None)
            self._launch_orphan(resource, session_id)

    async def _hand_over(self, call: Call[T], resource: Resource[Any, T], value: T) -> None:
        """Put what was begun into its holder's hands, or end it where there are none."""
        self._unresolved.drop(call.target)
        session_id = resource.id_of(value)
        if call.holder is Holder.BLOCK and self.state is not State.OPEN:
            call.refuse(closed_error(call.effect.name, session_id))
        if not call.is_wanted:
            call.move(Work.ACCEPTED, Work.ENDING)
            await self._end_in_place(call, resource, session_id)
            return
        if call.holder is Holder.BLOCK:
            self._blocks[session_id] = resource
        call.answer.set_result(value)

    async def _unreadable(self, call: Call[T], resource: Resource[Any, T], result: Unknown) -> None:
        """End what was begun, where its id could be read, and tell the caller."""
        error = error_of(result, call, self._mask)
        if error.session_id is None:
            self._keep_unknown(call, result, str(error))
            error.args = (f"{error}: a billed session may exist, and its id could not be read",)
        else:
            call.move(Work.ON_WIRE, Work.ENDING)
            # The stop has a deadline of its own; who waits for the start is not made to wait.
            late = self._clock.call_at(call.deadline, call.refuse, error)
            stopped = await self._end_in_place(call, resource, error.session_id)
            late.cancel()
            self._unresolved.drop(call.target)
            became = "has been" if stopped else "could not be"
            error.args = (f"{error}; its session {became} stopped",)
        call.refuse(error)

    # Ending what nobody holds.

    async def _end_in_place(
        self, start: Call[Any], resource: Resource[Any, Any], session_id: str
    ) -> bool:
        """End what nobody holds, in its start's own task; whether that worked."""
        target = evolve(start.target, operation=resource.end.effect.name, session_id=session_id)
        return await self._finish(self._orphan(resource, target))

    def _launch_orphan(self, resource: Resource[Any, Any], session_id: str) -> None:
        call = self._orphan(resource, Target(resource.end.effect.name, session_id))
        self._launch(call)
        if self._gave_up:
            call.withdraw()  # there is no time for it any more: it is reported

    def _orphan(self, resource: Resource[Any, Any], target: Target) -> Call[Any]:
        call = self._call(resource.end, target)
        call.holder = Holder.NOBODY
        return call

    async def _finish(self, call: Call[Any]) -> bool:
        """Carry a call to its end, whoever waits for it; whether the server accepted it."""
        try:
            result = await self._persist(call)
        except asyncio.CancelledError:
            self._keep_failed(call, "the event loop shut down")
            raise
        if isinstance(result, Accepted):
            self._unresolved.drop(call.target)
            set_unless_done(call.answer, result.value)
            if call.holder is Holder.NOBODY:
                self._tell("orphan_stopped", call, "nobody held the session any more")
            return True
        error = result if isinstance(result, EquosError) else error_of(result, call, self._mask)
        self._keep_failed(call, str(error))
        call.refuse(error)
        return False

    async def _persist(self, call: Call[T]) -> Result[T] | EquosError:
        """A stop that survives the first cancellation of its task.

        Two things cancel it: `close` when its time is over, and the shutdown of the event loop
        (`asyncio.run` on Ctrl-C, say), which waits for tasks that need a moment more.
        """
        try:
            return await self._runner.run(call)
        except asyncio.CancelledError:
            pass
        if self._gave_up:
            return describe(APITimeoutError("the client closed before the stop was answered"), call)
        call.deadline = min(call.deadline, self._clock.now() + SHUTDOWN_GRACE)
        return await self._runner.run(call)

    def _keep_failed(self, call: Call[Any], reason: str) -> None:
        """Tell that something may run on."""
        self._unresolved.add(call.target, reason)
        self._emit("stop_failed", call, reason)

    # The end of a call, and of all.

    def _settle(self, call: Call[Any], task: asyncio.Task[None]) -> None:
        """Let go of a call: a done callback, for a task cancelled at once never runs a line."""
        self._calls.discard(call)
        work, call.work = call.work, Work.DONE
        if task.cancelled():
            if work is Work.NEW and call.effect.stake is Stake.RUNNING:
                self._keep_failed(call, "cancelled before it was sent")
            if self._gave_up:
                call.refuse(describe(closed_error(), call))
            call.answer.cancel()
        elif (error := task.exception()) is not None:
            if call.answer.done():
                raise error  # a bug that no caller can be told of: the loop's handler is
            call.refuse(error)

    def _ended(self, call: Call[Any], answer: asyncio.Future[Any]) -> None:
        """A caller is served: a done callback, in that caller's context."""
        problem = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        session_id = call.target.session_id
        if isinstance(problem, EquosError):
            session_id = problem.session_id
        elif problem is None and call.resource is not None:
            session_id = call.resource.id_of(answer.result())
        error = None if problem is None else type(problem).__name__
        self._tell("ended", call, error or "answered", error=error, session_id=session_id)

    def _tell(self, kind: EventKind, call: Call[Any], reason: str, **details: Any) -> None:
        """Tell of a call that is over."""
        self._emit(
            kind,
            call,
            reason,
            status=call.status,
            seconds=self._clock.now() - call.began,
            method=call.operation.method,
            url=self._base + call.operation.path,
            retries=call.retries,
            **details,
        )

    def _emit(self, kind: EventKind, call: Call[Any], reason: str, **details: Any) -> Event:
        target = call.target
        details.setdefault("session_id", target.session_id)
        event = Event(
            kind=kind,
            operation=target.operation,
            attempts=call.attempts,
            reason=reason[:MAX_REASON],
            name=target.name,
            client=target.client,
            **details,
        )
        self._emitter.emit(event)
        return event

    async def _close(self, deadline: float) -> None:
        timer = self._clock.call_at(deadline, self._give_up)
        try:
            while tasks := [call.task for call in self._calls]:
                # Not even the event loop's shutdown takes the connections from under the stops
                # that survive it; the timer ends this all the same.
                with suppress(asyncio.CancelledError):
                    await asyncio.wait(tasks)
        finally:
            timer.cancel()
            self.state = State.CLOSED
            await self._transport.close()

    def _give_up(self) -> None:
        """The time for closing is over: end every call with what is known of it."""
        self.state = moved(self.state, State.CLOSING, State.GIVING_UP)
        for call in self._calls:
            call.withdraw()


def closed_error(
    operation: OperationName | None = None, session_id: str | None = None
) -> ClientClosedError:
    """For a call that comes too late."""
    return ClientClosedError("the client is closed", operation=operation, session_id=session_id)


def _head(key: str, *, body: bool) -> CIMultiDict[str]:
    head = CIMultiDict(operations.headers(key, body=body))
    head["User-Agent"] = f"equos-async/{__version__}"
    return head
