"""Give calls some time to finish when the event loop shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import suppress
from types import AsyncGeneratorType
from typing import Any, Final, cast

from equos_async._http.request import CUT
from equos_async.clock import Clock

SHUTDOWN_GRACE: Final = 10.0
"""Seconds that calls get when the event loop shuts down."""


class CallTask(asyncio.Task[None]):
    """The task of one call.

    At its end ``asyncio.run`` cancels every task and waits for all of them, and so do many
    signal handlers. A call that was sent must continue then, because its answer may name a
    running session.

    Args:
        work: The work of the call.
        loop: The event loop.
        clock: The source of time.
        spared: Whether a cancellation from outside is to be ignored now.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, None],
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        spared: Callable[[], bool],
    ) -> None:
        self._clock = clock
        self._spared = spared
        self._grace_ends: float | None = None
        super().__init__(work, loop=loop)

    @property
    def in_grace(self) -> bool:
        """Whether it was cancelled before, and its grace has begun."""
        return self._grace_ends is not None

    def cancel(self, msg: Any | None = None) -> bool:
        """Begin the grace, or end the task if there is nothing to wait for.

        The loop may not be running at this moment, and so may have no time.
        """
        if msg is not CUT and self._spared():
            self.get_loop().call_soon(self.grace)
            return True
        return super().cancel(msg)

    def cut(self) -> None:
        """End it now."""
        super().cancel(CUT)

    def forget(self) -> None:
        """Drop a reference cycle when the task is over."""
        self._spared = _never

    def grace(self) -> float | None:
        """Begin the grace if it has not begun; returns its end, or None if it is over."""
        now = self._clock.now()
        if self._grace_ends is None:
            self._grace_ends = now + SHUTDOWN_GRACE
            self._clock.call_at(self._grace_ends, self.cut)
        return self._grace_ends if now < self._grace_ends else None


def _never() -> bool:
    return False


class LastGrace:
    """The grace of calls that begin while the loop is already shutting down.

    ``asyncio.run`` cancels the existing tasks, and waits for those only. A stop in a ``finally``
    block begins after that. If its caller is cancelled again, as children of a task group are, the
    loop does not wait for it. But later the loop closes its asynchronous generators, and waits for
    these; one of them waits for the stop.

    Args:
        tasks: The running tasks.
        begin: Begins the stops that are still needed then.
    """

    def __init__(
        self, tasks: Callable[[], Iterable[CallTask]], begin: Callable[[], object]
    ) -> None:
        self._tasks = tasks
        self._begin = begin
        self._generator: AsyncGeneratorType[None, None] | None = None

    def arm(self) -> None:
        """Register the generator with the running loop, once."""
        if self._generator is None:
            self._generator = cast(
                "AsyncGeneratorType[None, None]", _wait_at_end(self._tasks, self._begin)
            )
            with suppress(StopIteration):  # it waits at its first `yield` then
                self._generator.asend(None).send(None)

    async def disarm(self) -> None:
        """Close the generator, which is not needed any more."""
        if self._generator is not None and not self._generator.ag_running:
            await self._generator.aclose()


async def _wait_at_end(
    tasks: Callable[[], Iterable[CallTask]], begin: Callable[[], object]
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        begin()
        # A task that is cancelled before its first step does nothing, and one that is over is not
        # always removed: a signal may hit its callback.
        await asyncio.sleep(0)
        while left := {task for task in tasks() if not task.done()}:
            for task in left:
                if not task.in_grace:
                    task.cancel()
            await asyncio.wait(left)
            await asyncio.sleep(0)
