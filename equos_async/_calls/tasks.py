"""Run the calls of a client in tasks that may outlive their callers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

from equos_async import _validate
from equos_async._api.effects import Alone
from equos_async._api.operations import Operation, Resource
from equos_async._emitter import Emitter
from equos_async._http.exchange import Exchange
from equos_async._http.request import Failure
from equos_async._http.transport import Transport
from equos_async._retry.throttle import ClientThrottle
from equos_async.clock import Clock, in_loop, set_unless_done
from equos_async.events import Event, Unresolved
from equos_async.settings import Limits, RetryPolicy, Settle, Timeouts

from .call import Call, Holder, Target
from .closing import Closing
from .endings import Endings
from .factory import CallFactory
from .keys import Keys
from .launcher import Launcher
from .lifecycle import Lifecycle, State, closed_error
from .outcome import Accepted, error_of
from .remains import CLOSED_LOOP, Remains
from .reports import CallReports
from .runner import CallRunner
from .running import Running
from .starts import Starts

T = TypeVar("T")


class CallTasks:
    """The calls of one client, each in a task of the client's own.

    Args:
        base: The URL before an operation's path.
        keys: The keys.
        transport: Sends the requests.
        timeouts: The time limits.
        policy: How often and how soon calls are tried again.
        limits: How many calls run at once.
        clock: The source of time and chance.
        emitter: Emits the events.
        settle: How long lost starts are searched for; None: not at all.

    Attributes:
        policy: The argument.
        throttle: The limits, the retry budget and the pause that all calls share.
        reports: Reports the calls.
        starts: Carries out starts.
    """

    def __init__(
        self,
        *,
        base: str,
        keys: Keys,
        transport: Transport,
        timeouts: Timeouts,
        policy: RetryPolicy,
        limits: Limits,
        clock: Clock,
        emitter: Emitter[Event],
        settle: Settle | None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._keys = keys
        self._mask = keys.mask
        self.policy: RetryPolicy = policy
        self.throttle: ClientThrottle = ClientThrottle(policy, limits)
        self._lifecycle = Lifecycle()
        self.factory: CallFactory = CallFactory(
            base=base, keys=keys, transport=transport, timeouts=timeouts, clock=clock
        )
        self._make = self.factory.make
        self.reports: CallReports = CallReports(
            base=base, clock=clock, emitter=emitter, mask=self._mask
        )
        self._runner = CallRunner(
            transport=transport,
            throttle=self.throttle,
            timeouts=timeouts,
            clock=clock,
            lifecycle=self._lifecycle,
            reports=self.reports,
            overdue=self._overdue,
        )
        running = Running()
        self._endings = Endings(
            runner=self._runner,
            reports=self.reports,
            running=running,
            lifecycle=self._lifecycle,
            clock=clock,
            mask=self._mask,
            make=self._make,
            keys=keys,
        )
        self._launcher = Launcher(
            carry=self._carry,
            resume=self._resume,
            end_held=lambda: self._held.end_all(self._launcher.launch_orphan, also_left=True),
            endings=self._endings,
            reports=self.reports,
            lifecycle=self._lifecycle,
            clock=clock,
            mask=self._mask,
        )
        self._calls = self._launcher.calls
        self._closing = Closing(
            calls=self._calls, lifecycle=self._lifecycle, clock=clock, close=self._close
        )
        self.starts: Starts = Starts(
            settle,
            keys=keys,
            runner=self._runner,
            endings=self._endings,
            reports=self.reports,
            running=running,
            lifecycle=self._lifecycle,
            clock=clock,
            mask=self._mask,
            make=self._make,
            ask=self._look,
            launch=self._launcher.launch_alone,
        )
        self._settling = self.starts.settling
        self._held = self.starts.held
        self._remains = Remains(
            factory=self.factory,
            reports=self.reports,
            held=self._held,
            calls=self._calls,
            close=self.close,
        )

    @property
    def state(self) -> State:
        """The state of the client."""
        return self._lifecycle.state

    @property
    def unresolved(self) -> tuple[Unresolved, ...]:
        """Sessions that may be running and that no caller holds, oldest first."""
        known = self.reports.unresolved.all
        # If the loop was closed while calls were in progress, their outcomes stay unknown.
        return known + (self._remains.listed(CLOSED_LOOP) if self._remains.is_over else ())

    # Called by the client.

    def run(
        self,
        operation: Operation[T],
        session_id: str | None = None,
        *,
        deadline: float | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Carry out a stop or a look-up.

        Raises:
            EquosError: It failed; the class says what that means.
        """
        return self.answer_of(self.ask(operation, session_id, deadline=deadline))

    def end(
        self,
        resource: Resource[Any, Any, T],
        session_id: str,
        *,
        deadline: float | None = None,
    ) -> Coroutine[Any, Any, T | None]:
        """Stop a session or a conversation, with the operation that the client has a key for.

        Raises:
            EquosError: It failed; the class says what that means.
        """
        try:
            return self.run(self._keys.first(resource.ends), session_id, deadline=deadline)
        except (KeyboardInterrupt, SystemExit):  # raised by a signal handler; nothing was sent
            loop = asyncio.get_running_loop()
            loop.call_soon(self._launcher.launch_orphan, resource, session_id)
            raise

    def ask(
        self,
        operation: Operation[T],
        session_id: str | None = None,
        *,
        query: Mapping[str, object] | None = None,
        deadline: float | None = None,
    ) -> Call[T]:
        """Launch a stop or a look-up.

        Raises:
            EquosError: It was refused; nothing was sent.
        """
        if operation.takes_id:
            session_id = _validate.session_id(session_id)
        self._lifecycle.check(operation.effect, session_id)
        target = Target(operation.effect.name, operation.resource, session_id)
        call = self._make(operation, target, deadline, query)
        call.be_watched()
        self._launcher.launch(call)
        if call.watch is not None:
            call.watch.release()
        return call

    async def answer_of(self, call: Call[T]) -> T:
        """Wait for the answer of a call, as its caller.

        Raises:
            EquosError: It failed; the class says what that means.
        """
        try:
            return await call.answer
        except BaseException as error:
            self._lose(call, error)
            raise

    async def begin(
        self,
        resource: Resource[Any, T, Any],
        request: Any,
        *,
        deadline: float | None = None,
        holder: Holder = Holder.CALLER,
    ) -> T:
        """Start a session or a conversation; if the caller is cancelled, none stays behind.

        Raises:
            EquosError: It failed; the class says what that means.
        """
        operation = resource.create
        self._lifecycle.check(operation.effect)
        _validate.instance("request", request, resource.request)
        target = Target(
            operation.effect.name,
            resource.word,
            name=request.name,
            client=request.client,
            max_duration=resource.seconds_of(request),
        )
        call = self._make(operation, target, deadline)
        call.request, call.resource, call.holder = request, resource, holder
        if self._settling.is_on:
            self._settling.prepare(call, resource)
        call.be_watched()
        self._launcher.launch(call)
        try:
            value = await call.answer
            if self._lifecycle.state is State.OPEN or holder is not Holder.CALLER:
                return value
        except BaseException as error:
            self._lose(call, error)
            raise
        # The client began to close between the answer and this caller's turn.
        session_id = resource.id_of(value)
        if call.watch is None:  # a watched one was stopped by the closing
            self._launcher.launch_orphan(resource, session_id)
        raise closed_error(operation.effect.name, session_id)

    async def leave_block(self, resource: Resource[Any, Any, Any], session_id: str) -> None:
        """Stop a block's session, unless the closing client stops it."""
        if session_id in self._held:
            ending = self.end(resource, session_id)
            self._held.take(session_id)  # after the launch: a signal handler may raise in between
            await ending

    def drop_block(self, session_id: str) -> None:
        """Stop the session of a block whose coroutine is being closed and cannot wait."""
        loop = self.factory.loop
        if loop is not None and session_id in self._held:
            in_loop(loop, partial(self._held.end, session_id, self._launcher.launch_orphan))

    def resolve(self, unresolved_id: str) -> bool:
        """Remove an unresolved entry, because the user has dealt with its session.

        Returns:
            Whether that changed anything: False if there is no such entry, or the client is
            stopping its session.
        """
        call = self.reports.unresolved.call_of(unresolved_id)
        if call is None or not self._settling.let_go(call):
            return False
        self.reports.resolved(call)
        self._endings.let_go(call.target.id)
        if call.watch is not None:
            call.watch.settle()
        return True

    async def close(self, seconds: float) -> tuple[Unresolved, ...]:
        """Settle the calls in progress, then close the transport; give up after some seconds.

        Returns:
            The sessions that may be running then and that no caller holds.
        """
        if self._lifecycle.state is State.OPEN:
            self.factory.bind()
            self._lifecycle.move(State.OPEN, State.CLOSING)
            for call in self._calls:
                alone = call.effect.alone
                if alone is Alone.ENDS or (alone is Alone.LISTENS and not call.is_on_server):
                    call.refuse(closed_error(call.effect.name))
                    call.withdraw()
            self._held.end_all(self._launcher.launch_orphan, also_left=False)
            self._endings.hurry()
            self._settling.hurry()
        await self._closing.wait(self._clock.now() + seconds)
        return self.unresolved + self.reports.pending(self._calls, "it is still under way")

    # The life of a call.

    def _overdue(self, call: Call[Any], late: Failure) -> None:
        """End the caller's wait for an attempt whose time is over."""
        self.starts.overdue(call, late)

    async def _resume(self, call: Call[Any], exchange: Exchange) -> None:
        """The work of the task that continues a start whose first task a signal handler ended."""
        await self.starts.resume(call, exchange)

    async def _carry(self, call: Call[Any]) -> None:
        """The work of a call's task."""
        if call.effect.alone is Alone.GOES_ON:
            await self._endings.carry(call)
        elif call.lost is None and not call.may_be_sent:
            return  # its caller is gone already
        elif call.resource is not None:
            await self.starts.carry(call)
        else:
            result = await self._runner.run(call)
            if isinstance(result, Accepted):
                set_unless_done(call.answer, result.value)
            else:
                call.refuse(error_of(result, call, self._mask))

    def _look(
        self,
        operation: Operation[T],
        session_id: str | None = None,
        *,
        query: Mapping[str, object] | None = None,
    ) -> Call[T]:
        """Launch a look-up for the client itself, also while the client closes."""
        target = Target(operation.effect.name, operation.resource, session_id)
        call = self._make(operation, target, None, query)
        self._launcher.launch_alone(call)
        return call

    def _lose(self, call: Call[Any], error: BaseException) -> None:
        """Abandon a call if an exception that is no failure ended its caller's wait.

        Such exceptions are ``CancelledError``, ``GeneratorExit`` (the coroutine was closed or
        garbage-collected), and what a signal handler raised.
        """
        if not isinstance(error, Exception):
            in_loop(call.answer.get_loop(), partial(self._abandon, call))

    def _abandon(self, call: Call[Any]) -> None:
        """Handle a call whose caller is gone: withdraw it, or stop the session that it got."""
        call = call.current
        call.answer.cancel()  # closing a coroutine does not cancel what it awaits
        if call.answer.cancelled():
            alone = call.effect.alone
            if alone is Alone.ENDS or (alone is Alone.LISTENS and not call.is_on_server):
                call.withdraw()
                if call.watch is not None:
                    call.watch.is_withdrawn = True
        elif call.answer.exception() is None and call.resource is not None:
            # The answer came in the same tick as the cancellation: the caller never got it.
            session_id = call.resource.id_of(call.answer.result())
            self._launcher.launch_orphan(call.resource, session_id)
            self._held.take(session_id)

    async def _close(self) -> None:
        await self._settling.stop()
        await self._launcher.close()
        await self._transport.close()
