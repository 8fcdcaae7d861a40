"""Wait for a limit: the asyncio side of a queue."""

from __future__ import annotations

import asyncio
import math

from equos_async._retry.queue import Limit, Queue
from equos_async.clock import Clock, Deadlines, Timer, set_unless_done


def _is_gone(admitted: asyncio.Future[bool]) -> bool:
    return admitted.done()


def _turn_away(admitted: asyncio.Future[bool]) -> None:
    set_unless_done(admitted, False)


class Limiter:
    """Admits calls to a limit, first come, first served. The queue decides, this class waits.

    A cancelled waiter keeps no permit.

    Args:
        limit: The limit.
        clock: The source of time.
        busy: The limiters with waiting calls. After a change of a limit, :meth:`look` must be
            called for each of them.
    """

    def __init__(self, limit: Limit, clock: Clock, busy: set[Limiter]) -> None:
        self._busy = busy
        self._queue: Queue[asyncio.Future[bool]] = Queue(limit, _is_gone)
        self._clock = clock
        self._deadlines = Deadlines[asyncio.Future[bool]](clock, _turn_away)
        self._timer: Timer | None = None

    def enter_at_once(self, now: float) -> bool:
        """Take a permit without waiting; False if the call has to wait."""
        return self._queue.enter(now)

    async def enter(self, deadline: float) -> bool:
        """Wait for a permit; False if the deadline came first."""
        if self._queue.enter(self._clock.now()):
            return True
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.join(admitted, deadline)
        self._busy.add(self)
        self._deadlines.add(admitted, deadline)
        self.look()
        try:
            return await admitted
        except asyncio.CancelledError:
            if not admitted.cancelled() and admitted.result():
                self.leave()  # admitted in the tick of the cancellation
            raise
        finally:
            self._deadlines.drop(admitted)
            self._queue.drop(admitted)
            if not self._queue.waiting:
                self._busy.discard(self)
                self._deadlines.clear()

    def leave(self) -> None:
        """Return the permit and admit the next call."""
        self._queue.leave()
        if self._queue.waiting:
            self.look()

    def turn_away(self, before: float) -> None:
        """End the wait of the calls whose deadline is not after a time."""
        for admitted in self._queue.before(before):
            _turn_away(admitted)

    def look(self) -> None:
        """Admit calls as far as the limit allows, and check again at the time that it names."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        admission = self._queue.admit(self._clock.now())
        for admitted in admission.admitted:
            admitted.set_result(True)
        if admission.look_at < math.inf:
            self._timer = self._clock.call_at(admission.look_at, self.look)
