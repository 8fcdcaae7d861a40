"""Run each call in a task of the client, so that it can outlive its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from equos_async._api.effects import Alone, Stake
from equos_async._api.operations import RESOURCES, Resource
from equos_async._http.exchange import Exchange
from equos_async._http.request import Failure
from equos_async.clock import Clock

from .call import Call, Holder, Work
from .endings import Endings
from .grace import CallTask, LastGrace
from .lifecycle import Lifecycle, closed_error
from .outcome import Mask, Unknown, describe, error_of
from .reports import CallReports
from .watch import Watch


class Launcher:
    """Launches calls, and removes them when their tasks are over.

    Args:
        carry: The work of a call's task.
        resume: The rest of that work, for a start whose task was ended by an exception of a signal
            handler.
        end_held: Stops the sessions of blocks and fleets when the event loop shuts down.
        endings: Make calls that stop sessions without a caller.
        reports: Reports the results.
        lifecycle: The state of the client.
        clock: The source of time.
        mask: Masks secrets in texts.

    Attributes:
        calls: The calls in progress.
    """

    def __init__(
        self,
        *,
        carry: Callable[[Call[Any]], Coroutine[Any, Any, None]],
        resume: Callable[[Call[Any], Exchange], Coroutine[Any, Any, None]],
        end_held: Callable[[], None],
        endings: Endings,
        reports: CallReports,
        lifecycle: Lifecycle,
        clock: Clock,
        mask: Mask,
    ) -> None:
        calls: set[Call[Any]] = set()
        self.calls: set[Call[Any]] = calls
        self._carry = carry
        self._resume = resume
        self._endings = endings
        self._reports = reports
        self._lifecycle = lifecycle
        self._clock = clock
        self._mask = mask
        self._last_grace = LastGrace(lambda: [call.task for call in calls], end_held)

    def launch(
        self,
        call: Call[Any],
        *,
        told: bool = True,
        work: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """Run a call for its caller.

        Args:
            call: The call.
            told: Whether its end is an event.
            work: The work of its task; None: ``carry``.
        """
        call.task = CallTask(
            self._carry(call) if work is None else work,
            loop=call.answer.get_loop(),
            clock=self._clock,
            spared=partial(self._is_spared, call),
        )
        call.task.add_done_callback(partial(self._let_go, call))
        self.calls.add(call)
        self._last_grace.arm()
        if told:
            self._reports.watch(call)

    def launch_alone(
        self, call: Call[Any], *, told: bool = False, work: Coroutine[Any, Any, None] | None = None
    ) -> None:
        """Run a call of the client itself, without a caller."""
        self.launch(call, told=told, work=work)
        if self._lifecycle.gave_up:
            call.withdraw()  # there is no time for it any more: it is reported

    def launch_orphan(
        self, resource: Resource[Any, Any, Any], session_id: str, watch: Watch | None = None
    ) -> None:
        """Stop a session without a caller; its watch learns when that is confirmed."""
        call = self._endings.orphan(resource, session_id)
        if watch is not None:
            call.watch, call.key = watch, watch.key
        self.launch_alone(call, told=True)

    async def close(self) -> None:
        """Forbid further launches."""
        await self._last_grace.disarm()

    def _is_spared(self, call: Call[Any]) -> bool:
        """Whether a call continues although its task is cancelled, as by the loop's shutdown.

        The answer to a sent start is awaited. A stop is interrupted once, so that it waits neither
        for a permit nor for an answer that may not come, and is sent again in its grace. A stop
        that was just launched begins.
        """
        current = call.ending or call
        alone = current.effect.alone
        if alone is Alone.ENDS or self._lifecycle.gave_up:
            return False
        if alone is Alone.LISTENS:
            return current.is_sent
        waits = current.work in {Work.QUEUED, Work.BACKOFF}
        return current.work is Work.NEW or (call.task.in_grace and (waits or current.is_sent))

    def _let_go(self, call: Call[Any], task: asyncio.Task[None]) -> None:
        """Remove a call: a done callback, because a task may be cancelled before its first line."""
        self.calls.discard(call)
        call.task.forget()
        if task.cancelled():
            self._cut_off(call)
        elif (error := task.exception()) is not None and self._struck(call, error):
            return  # another task continues it
        call.work = Work.DONE
        if call.watch is not None:
            call.tell_watch()
            call.watch.let_go()
        call.exchange = None  # it refers to the call

    def _cut_off(self, call: Call[Any]) -> None:
        """Handle a cancelled task of a call: the client or the event loop is closing."""
        gave_up = self._lifecycle.gave_up
        if call.work is Work.NEW and call.effect.stake is Stake.RUNNING:
            self._reports.failed(call, "cancelled before it was sent")
        is_followed = call.heir is not None or call.ending is not None
        if call.effect.stake is Stake.BEGUN and call.is_on_server and not is_followed:
            reason = "the client was closed" if gave_up else "the event loop shut down"
            unknown = Unknown(Failure(sent=True, reason=reason))
            self._reports.unknown(call, unknown, reason)
            call.refuse(error_of(unknown, call, self._mask))
        if gave_up:
            call.refuse(describe(closed_error(), call))
        call.answer.cancel()

    def _struck(self, call: Call[Any], error: BaseException) -> bool:
        """Handle a task of a call that ended by a signal handler's exception, or by a bug here.

        Python calls a signal handler between any two steps of a program. An exception that it
        raises (``KeyboardInterrupt`` at a second Ctrl-C, ``SystemExit``) ends the task that is
        running, and then the event loop; ``asyncio.run`` runs the loop once more at its end.

        Returns:
            Whether another task continues the call.
        """
        reason = f"{type(error).__name__} ended its task"
        ending = call.ending or call
        if ending.effect.stake is Stake.RUNNING:
            self._reports.failed(ending, reason)
        elif call.effect.stake is Stake.BEGUN and call.is_on_server and not call.is_handed_over:
            if not isinstance(error, Exception) and self._goes_on(call):
                return True
            self._reports.unknown(call, Unknown(Failure(sent=True, reason=reason)), reason)
        if not isinstance(error, Exception):
            # The exception has left the event loop already; raised again, it would break its
            # clean-up.
            call.answer.cancel()
            if ending.effect.stake is Stake.RUNNING:
                resource = RESOURCES[ending.target.resource or "session"]
                self.launch_orphan(resource, str(ending.target.session_id), call.watch)
        elif call.is_wanted:
            call.refuse(error)
        else:  # no caller waits: the error goes to the loop's exception handler
            asyncio.get_running_loop().call_exception_handler(
                {"message": reason, "exception": error}
            )
        return False

    def _goes_on(self, call: Call[Any]) -> bool:
        """Go on reading the answer to a start, and stop its session, because its caller is gone."""
        if call.exchange is None or call.work is Work.SETTLING:
            return False
        call.answer.cancel()
        call.holder = Holder.NOBODY
        self.launch_alone(call, work=self._resume(call, call.exchange))
        return True
