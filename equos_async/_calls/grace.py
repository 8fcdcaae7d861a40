"""Give calls a moment more when the event loop shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import suppress
from types import AsyncGeneratorType
from typing import Any, Final, cast

from equos_async._http.request import CUT
from equos_async.clock import Clock

SHUTDOWN_GRACE: Final = 10.0
"""Seconds that calls are given when the event loop shuts down under them."""


class CallTask(asyncio.Task[None]):
    """The task of one call.

    At its end ``asyncio.run`` cancels every task and waits for all of them, and so do many
    handlers of signals. Something that was sent must not be let go then: its answer may name a
    session that runs.

    Args:
        work: What it does.
        loop: Where.
        clock: The source of time.
        spared: Whether a cancellation from outside is to be passed over now.
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
        """Whether somebody wanted it to end before."""
        return self._grace_ends is not None

    def cancel(self, msg: Any | None = None) -> bool:
        """Somebody wants it to end: begin the grace, or end it where there is nothing to wait for.

        The loop may stand still in this moment, and has no time to tell then.
        """
        if msg is not CUT and self._spared():
            self.get_loop().call_soon(self.grace)
            return True
        return super().cancel(msg)

    def cut(self) -> None:
        """End it now."""
        super().cancel(CUT)

    def forget(self) -> None:
        """It is over; whom it asked refers to it, and only the garbage collector would end that."""
        self._spared = _never

    def grace(self) -> float | None:
        """When its grace ends, which begins where it had not; None: it is over."""
        now = self._clock.now()
        if self._grace_ends is None:
            self._grace_ends = now + SHUTDOWN_GRACE
            self._clock.call_at(self._grace_ends, self.cut)
        return self._grace_ends if now < self._grace_ends else None


def _never() -> bool:
    return False


class LastGrace:
    """The same moment for calls that begin while the loop shuts down already.

    ``asyncio.run`` cancels the tasks that are there, and waits for those only. A stop in somebody's
    ``finally`` begins after that, and where its caller is cancelled once more, as children of a
    task group are, nobody waits for it. But then the loop closes its asynchronous generators, and
    waits for what they do.

    Args:
        tasks: The tasks that are under way.
        begin: Begins what is still to be done then.
    """

    def __init__(
        self, tasks: Callable[[], Iterable[CallTask]], begin: Callable[[], object]
    ) -> None:
        self._tasks = tasks
        self._begin = begin
        self._generator: AsyncGeneratorType[None, None] | None = None

    def arm(self) -> None:
        """Let the running loop know of it, once."""
        if self._generator is None:
            self._generator = cast(
                "AsyncGeneratorType[None, None]", _wait_at_end(self._tasks, self._begin)
            )
            with suppress(StopIteration):  # it stands at its first `yield` then
                self._generator.asend(None).send(None)

    async def disarm(self) -> None:
        """It is not needed any more."""
        if self._generator is not None and not self._generator.ag_running:
            await self._generator.aclose()


async def _wait_at_end(
    tasks: Callable[[], Iterable[CallTask]], begin: Callable[[], object]
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        begin()
        while left := set(tasks()):
            await asyncio.sleep(0)  # a task that is cancelled before its first step does nothing
            for task in left:
                if not task.in_grace:
                    task.cancel()
            await asyncio.wait(left)
