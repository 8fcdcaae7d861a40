"""Stops: carried to their end, and repeated if they failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from attrs import evolve

from equos_async._api.operations import Operation, Resource
from equos_async._retry.search import ending_wait
from equos_async.clock import Clock, set_unless_done
from equos_async.errors import APITimeoutError, EquosError

from .call import Call, Holder, Target, Work
from .keys import Keys
from .lifecycle import Lifecycle, State
from .outcome import Accepted, Mask, Result, describe, error_of
from .reports import CallReports
from .runner import CallRunner
from .running import Running

T = TypeVar("T")

FIRST_WAIT: Final = 1.0
"""Seconds until a failed stop is repeated; doubled each time."""

LONGEST_WAIT: Final = 60.0
"""The longest of these waits, in seconds."""


class Endings:
    """Stops sessions, for a caller or for the client itself.

    A stop that failed for its caller is not over, because the session is billed. It is repeated, in
    the same task, until the server confirms it or the session's time is over.

    Args:
        runner: Runs calls.
        reports: Reports the results.
        running: The sessions that this client started.
        lifecycle: The state of the client.
        clock: The source of time and chance.
        mask: Masks secrets in texts from outside.
        make: Makes a call.
        keys: Decide which of several operations stops a session.
    """

    def __init__(
        self,
        *,
        runner: CallRunner,
        reports: CallReports,
        running: Running,
        lifecycle: Lifecycle,
        clock: Clock,
        mask: Mask,
        make: Callable[[Operation[Any], Target], Call[Any]],
        keys: Keys,
    ) -> None:
        self._runner = runner
        self._reports = reports
        self._running = running
        self._lifecycle = lifecycle
        self._clock = clock
        self._mask = mask
        self._make = make
        self._keys = keys
        self._failed: set[str] = set()
        self._resting: dict[asyncio.Future[None], str] = {}

    def orphan(
        self, resource: Resource[Any, Any, Any], session_id: str, start: Target | None = None
    ) -> Call[Any]:
        """Make a call that stops a session that no caller holds."""
        operation = self._keys.first(resource.ends)
        target = Target(operation.effect.name, resource.word, session_id)
        if start is not None:
            target = evolve(start, operation=operation.effect.name, session_id=session_id)
        call = self._make(operation, target)
        call.holder = Holder.NOBODY
        return call

    def in_place(
        self, start: Call[Any], resource: Resource[Any, Any, Any], session_id: str
    ) -> Call[Any]:
        """Make such a call, to be run in the task of the start."""
        call = start.ending = self.orphan(resource, session_id, start.target)
        call.task, call.key, call.watch = start.task, start.key, start.watch
        return call

    async def carry(self, call: Call[Any]) -> None:
        """Run a call to its end, and repeat it if it failed."""
        if not await self.finish(call):
            await self.see_through(call)

    async def finish(self, call: Call[Any]) -> bool:
        """Run a call to its end, caller or not; returns whether the server accepted it."""
        try:
            result = await self._persist(call)
        except asyncio.CancelledError:
            self._reports.failed(call, "the event loop shut down")
            raise
        if isinstance(result, Accepted):
            self._confirmed(call)
            set_unless_done(call.answer, result.value)
            if call.holder is Holder.NOBODY:
                self._reports.orphan_stopped(call)
            return True
        error = result if isinstance(result, EquosError) else error_of(result, call, self._mask)
        self._reports.failed(call, str(error))
        call.refuse(error)
        return False

    async def see_ended(
        self, call: Call[Any], shows_over: Callable[[Any], Awaitable[bool]]
    ) -> bool:
        """Stop a session until the server shows that it has ended; an empty answer is no proof.

        Args:
            call: The stop.
            shows_over: Whether an answer, or a look-up by id, shows it.

        Returns:
            Whether that is confirmed; if not, it is reported.
        """
        stops, end = 0, self._running.end_of(str(call.target.session_id))
        try:
            while True:
                stops += 1
                result = await self._persist(call)
                if await shows_over(result.value if isinstance(result, Accepted) else None):
                    break
                hopeless = call.is_refused and self._lifecycle.state is not State.OPEN
                if hopeless or self._lifecycle.gave_up or self._clock.now() >= end:
                    self._reports.failed(call, "its end was not confirmed")
                    return False
                await self._rest(call, ending_wait(stops))
                call.deadline = self._clock.now() + self._runner.deadline_of(call.effect)
        except asyncio.CancelledError:
            self._reports.failed(call, "the event loop shut down")
            raise
        self._confirmed(call)
        self._reports.orphan_stopped(call)
        return True

    async def see_through(self, call: Call[Any]) -> None:
        """Repeat a failed stop until it is confirmed, or the session or the client ends."""
        session_id = str(call.target.session_id)
        if session_id in self._failed:
            return  # another call repeats it
        if call.is_refused and session_id not in self._running:
            return  # the session may not exist
        self._failed.add(session_id)
        call.holder, call.late = Holder.NOBODY, True
        try:
            await self._ask_again(call, session_id)
        finally:
            self._failed.discard(session_id)

    def hurry(self) -> None:
        """Repeat it now, and more often, because the client closes."""
        for rest in self._resting:
            set_unless_done(rest, None)

    def let_go(self, session_id: str) -> None:
        """End the repeats: the user has dealt with the session."""
        self._failed.discard(session_id)
        for rest, resting_id in self._resting.items():
            if resting_id == session_id:
                set_unless_done(rest, None)

    async def _ask_again(self, call: Call[Any], session_id: str) -> None:
        wait, end = FIRST_WAIT, self._running.end_of(session_id)
        while not self._lifecycle.gave_up and self._clock.now() < end:
            if call.is_refused and self._lifecycle.state is not State.OPEN:
                return  # the refusal will not change in the last seconds
            if await self._rest(call, wait):
                wait = FIRST_WAIT
            if session_id not in self._failed:
                call.in_doubt = False
                return  # another call has stopped it, or the user has resolved it
            call.deadline = self._clock.now() + self._runner.deadline_of(call.effect)
            if isinstance(await self._persist(call), Accepted):
                self._confirmed(call)
                self._reports.stopped_late(call)
                return
            wait = min(LONGEST_WAIT, 2 * wait)

    async def _rest(self, call: Call[Any], seconds: float) -> bool:
        """Wait before the next repeat; True if the wait was cut short."""
        call.work = Work.BACKOFF
        seconds *= 0.5 + 0.5 * self._clock.chance()
        rest: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_at(self._clock.now() + seconds, rest.cancel)
        self._resting[rest] = call.target.id
        try:
            await asyncio.wait({rest})
            return not rest.cancelled()
        except asyncio.CancelledError:
            if self._lifecycle.gave_up or call.task.grace() is None:
                raise
            return True
        finally:
            timer.cancel()
            del self._resting[rest]

    def _confirmed(self, call: Call[Any]) -> None:
        session_id = str(call.target.session_id)
        call.in_doubt = False
        self._reports.unresolved.drop(call.target)  # also the entry of another call
        self._running.drop(session_id)
        self._failed.discard(session_id)

    async def _persist(self, call: Call[T]) -> Result[T] | EquosError:
        """Run a call although its task is cancelled.

        Two things cancel it: the client, when its time to close is over, and the shutdown of the
        event loop (for example `asyncio.run` on Ctrl-C), which waits for tasks that continue.
        """
        while True:
            try:
                return await self._runner.run(call)
            except asyncio.CancelledError:
                if self._lifecycle.gave_up:
                    problem = "the client closed before the stop was answered"
                    return describe(APITimeoutError(problem), call)
                ends = call.task.grace()
                if ends is None:
                    raise
                call.deadline = min(call.deadline, ends)
