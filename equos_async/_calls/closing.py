"""Close a client: wait for the calls in progress, until the latest deadline of the closers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from equos_async.clock import Clock, Timer, set_unless_done

from .call import Call
from .lifecycle import Lifecycle, State


class Closing:
    """Waits for all calls of a client, at most until the latest deadline of its closers.

    Args:
        calls: The calls in progress; they come and go.
        lifecycle: The state of the client.
        clock: The source of time.
        close: Called at the end.
    """

    def __init__(
        self,
        *,
        calls: set[Call[Any]],
        lifecycle: Lifecycle,
        clock: Clock,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._calls = calls
        self._lifecycle = lifecycle
        self._clock = clock
        self._close = close
        self._task: asyncio.Task[None] | None = None
        self._until = -math.inf
        self._timer: Timer | None = None

    async def wait(self, deadline: float) -> None:
        """Wait until everything is settled and closed, at most until a deadline.

        If another closer has a later deadline, the calls continue until then.
        """
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._settle())
        if deadline > self._until and self._lifecycle.state is State.CLOSING:
            self._until = deadline
            self._stop_timer()
            self._timer = self._clock.call_at(deadline, self._give_up)
        await self._wait_for(self._task, deadline)
        if deadline >= self._until and not self._task.done():
            self._give_up()  # uvloop may fire two timers of the same time in any order
        if self._lifecycle.state is not State.CLOSING:
            await asyncio.shield(self._task)

    async def _wait_for(self, task: asyncio.Task[None], deadline: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake(_: object = None) -> None:
            set_unless_done(over, None)

        task.add_done_callback(wake)
        timer = self._clock.call_at(deadline, wake)
        try:
            await over
        finally:
            timer.cancel()
            task.remove_done_callback(wake)

    async def _settle(self) -> None:
        over = set[asyncio.Task[None]]()  # a signal may hit the callback that removes a call
        is_collected = False
        try:
            while tasks := {call.task for call in self._calls} - over:
                # Some calls survive the cancellation by the event loop's shutdown and still need
                # their connections; the timer ends the wait in any case.
                with suppress(asyncio.CancelledError):
                    done, _ = await asyncio.wait(tasks)
                    over |= done
        except GeneratorExit:  # its event loop is gone: nothing can be waited for
            is_collected = True
            raise
        finally:
            self._stop_timer()
            self._lifecycle.state = State.CLOSED
            if not is_collected:
                await self._close()

    def _give_up(self) -> None:
        """The time for closing is over: end every call with the outcome so far."""
        if self._lifecycle.state is not State.CLOSING:
            return
        self._lifecycle.move(State.CLOSING, State.GIVING_UP)
        for call in self._calls:
            call.withdraw()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
