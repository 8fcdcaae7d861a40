"""Carry out starts: hand each session over, end it, or report its outcome as unknown."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from equos_async._api.operations import OVER, RESOURCES, Operation, Resource
from equos_async._http.exchange import Exchange
from equos_async._http.request import Failure
from equos_async._retry.search import LostAttempt
from equos_async.clock import Clock
from equos_async.settings import Settle

from .call import Call, Holder, Target, Work
from .endings import Endings
from .held import Held
from .keys import Keys
from .lifecycle import Lifecycle, State, closed_error
from .looker import Ask
from .outcome import Accepted, Ended, Mask, Refused, Result, Unknown, Unsent, error_of, reason_of
from .reports import CallReports
from .runner import CallRunner
from .running import Running
from .settle import Settling

T = TypeVar("T")


class Launch(Protocol):
    """Runs a call of the client itself, without a caller."""

    def __call__(
        self,
        call: Call[Any],
        *,
        told: bool = False,
        work: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """Launch it."""
        ...


class Starts:
    """Carries out the starts of one client, from the request to the result for the caller.

    Args:
        settle: How long lost starts are searched for; None: not at all.
        keys: The keys; a search needs the server key.
        runner: Runs calls.
        endings: Stops sessions that no caller holds.
        reports: Reports the results.
        running: The sessions that this client started.
        lifecycle: The state of the client.
        clock: The source of time.
        mask: Masks secrets in texts.
        make: Makes a call.
        ask: Launches a look-up.
        launch: Launches a call without a caller.

    Attributes:
        settling: Searches for starts whose answers were lost.
        held: The sessions of blocks and fleets.
    """

    def __init__(
        self,
        settle: Settle | None,
        *,
        keys: Keys,
        runner: CallRunner,
        endings: Endings,
        reports: CallReports,
        running: Running,
        lifecycle: Lifecycle,
        clock: Clock,
        mask: Mask,
        make: Callable[[Operation[Any], Target], Call[Any]],
        ask: Ask,
        launch: Launch,
    ) -> None:
        self.held: Held = Held()
        self.settling: Settling = Settling(
            settle,
            keys=keys,
            runner=runner,
            reports=reports,
            lifecycle=lifecycle,
            clock=clock,
            ask=ask,
            end=self._end_found,
            refuse=self._tell_unknown,
        )
        self._runner = runner
        self._endings = endings
        self._reports = reports
        self._running = running
        self._lifecycle = lifecycle
        self._clock = clock
        self._mask = mask
        self._make = make
        self._launch = launch

    async def carry(self, call: Call[Any]) -> None:
        """Send a start, and handle its result."""
        if call.is_marked:
            result = await self._outcome_of(call)
        else:
            result = await self._runner.run(call)
        if result is not None:
            await self._see_to(call, result)

    async def resume(self, call: Call[Any], exchange: Exchange) -> None:
        """Handle the result of a sent start whose task a signal handler's exception ended."""
        await self._see_to(call, await self._runner.resume(call, exchange))

    async def _see_to(self, call: Call[T], result: Result[T]) -> None:
        resource = cast("Resource[Any, Any, Any]", call.resource)
        if isinstance(result, Accepted):
            await self._hand_over(call, resource, result.value)
        elif isinstance(result, Unknown) and result.unreadable is not None:
            await self._unreadable(call, resource, result)
        else:
            if not isinstance(result, Unknown):
                # It may have been reported as unknown before; now its outcome is known.
                self._reports.resolved(call)
            self.refuse(call, result)

    def overdue(self, call: Call[Any], late: Failure) -> None:
        """End the caller's wait for an attempt; a late answer is still awaited."""
        if self.settling.may_settle(call, Unknown(late)):
            self._launch(self.settling.inherit(call, late))
            call.holder = Holder.NOBODY
            call.answer = call.answer.get_loop().create_future()
        else:
            self.refuse(call, Unknown(late))

    async def adopt(
        self,
        resource: Resource[Any, Any, Any],
        about: Target,
        *,
        key: object,
        marker: str,
        ago: float,
    ) -> Mapping[str, bool]:
        """Search for the sessions of another process's start, and end them.

        Args:
            resource: The resource that it started.
            about: The known facts about its session.
            key: The fleet's key of the session, for log records.
            marker: The common beginning of its attempts' markers.
            ago: Seconds since the start was made.

        Returns:
            The ids of the sessions that were found, each with whether its end is confirmed. Empty
            if the search took its full time without a find, or the server refuses to list.

        Raises:
            ClientClosedError: The client closed before a session was found.
        """
        start = self._make(resource.look, about)
        start.key, start.marker = key, marker
        start.began = start.sent_at = self._clock.now() - ago
        return await self.settling.adopt(start, resource)

    async def _outcome_of(self, call: Call[T]) -> Result[T] | None:
        """The result of a start, settled if its answer was lost; None if its caller needs none."""
        result: Result[T] | None
        settled: str | None = None
        if call.lost is not None and call.latest is not None:
            result = Unknown(call.latest.reply)
        else:
            result = await self._learn(call, await self._runner.run(call))
        while call.marker != settled and self.settling.may_settle(call, result):
            settled = call.marker
            result = await self.settling.settle(call, cast("Unknown", result))
            if result is not None and call.marker != settled:  # it was sent again
                result = await self._learn(call, result)
        return result

    async def _learn(self, call: Call[T], result: Result[T]) -> Result[T] | None:
        """Learn from a result whether the server supports markers.

        Returns:
            The result; None if the call has an heir, to which the result was passed on.
        """
        result = await self.settling.without(call, result)
        if isinstance(result, Accepted):
            self.settling.accept(call)
        if call.heir is None or call.lost is None or call.resource is None:
            return result
        await self._late(call, call.heir, call.lost, call.resource, result)
        return None

    async def _late(
        self,
        call: Call[T],
        heir: Call[T],
        lost: LostAttempt,
        resource: Resource[Any, T, Any],
        result: Result[T],
    ) -> None:
        """Handle the late result of an attempt that another call, the heir, settles."""
        if isinstance(result, Accepted):
            wanted = heir.is_wanted and self._lifecycle.state is State.OPEN
            if wanted and self.settling.take(lost):
                heir.move(Work.SETTLING, Work.ACCEPTED)
                await self._hand_over(heir, resource, result.value)
            else:
                self.settling.found(call, lost, resource.id_of(result.value))
        elif isinstance(result, Unknown):
            if result.unreadable is not None and result.unreadable.session_id is not None:
                self.settling.found(call, lost, result.unreadable.session_id)
        elif self.settling.take(lost):
            self._reports.resolved(heir)
            self.refuse(heir, result)
            heir.tell_watch()  # the heir's task may be over already

    def _end_found(self, start: Call[Any], lost: LostAttempt, session_id: str) -> None:
        """Launch the stop of a lost start's session; it is repeated until it is confirmed."""
        resource = RESOURCES[start.target.resource or "session"]
        self._running.add(session_id, self._clock.now(), start.target.max_duration)
        call = self._endings.orphan(resource, session_id, start.target)

        async def see_ended() -> None:
            shows_over = partial(self.settling.shows_over, resource, session_id)
            confirmed = await self._endings.see_ended(call, shows_over)
            self.settling.ended(start, lost, session_id, confirmed=confirmed)

        self._launch(call, work=see_ended())

    def refuse(self, call: Call[Any], result: Refused | Unsent | Unknown | Ended) -> None:
        """Give the caller an error; an unknown outcome is also kept in ``unresolved``."""
        if isinstance(result, Unknown):
            self._reports.unknown(call, result, reason_of(result.reply, self._mask))
        call.refuse(error_of(result, call, self._mask))

    def _tell_unknown(self, call: Call[Any], result: Unknown) -> None:
        """Give the caller the error for a start of unknown outcome."""
        if result.unreadable is None:
            self.refuse(call, result)
            return
        error = error_of(result, call, self._mask)
        self._reports.unknown(call, result, str(error))
        what = f"a billed {call.target.resource} may exist, and its id could not be read"
        error.args = (f"{error}: {what}",)
        call.refuse(error)

    async def _hand_over(self, call: Call[T], resource: Resource[Any, T, Any], value: T) -> None:
        """Give the session to its caller, or stop it if no caller wants it any more."""
        if call.in_doubt:
            self._reports.resolved(call)
        session_id = resource.id_of(value)
        granted = resource.granted_of(value)
        seconds = call.target.max_duration if granted is None else granted
        self._running.add(session_id, self._clock.now(), seconds)
        if self._lifecycle.state is not State.OPEN:
            call.refuse(closed_error(call.effect.name, session_id))
        if not call.is_wanted:
            call.move(Work.ACCEPTED, Work.ENDING)
            await self._endings.carry(self._endings.in_place(call, resource, session_id))
            return
        if resource.status_of(value) in OVER:
            self._reports.not_live(call, resource, value)
        if call.holder is Holder.BLOCK or call.watch is not None:
            self.held.add(session_id, resource, call.watch)
        call.answer.set_result(value)

    async def _unreadable(
        self, call: Call[T], resource: Resource[Any, T, Any], result: Unknown
    ) -> None:
        """Handle a success whose body is unusable: stop the session if its id can be read."""
        error = error_of(result, call, self._mask)
        if error.session_id is None:
            self._tell_unknown(call, result)
            return
        call.move(Work.ON_WIRE, Work.ENDING)
        self._running.add(error.session_id, self._clock.now(), call.target.max_duration)
        ending = self._endings.in_place(call, resource, error.session_id)
        # The stop has a deadline of its own, but the caller waits for the start's deadline only.
        late = self._clock.call_at(call.deadline, call.refuse, error)
        stopped = await self._endings.finish(ending)
        late.cancel()
        self._reports.resolved(call)
        became = "has been" if stopped else "could not be"
        error.args = (f"{error}; its {resource.word} {became} stopped",)
        call.refuse(error)
        if not stopped:
            await self._endings.see_through(ending)
