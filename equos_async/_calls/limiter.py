"""Wait for a limit: the asyncio side of who goes next."""

from __future__ import annotations

import asyncio
import math

from equos_async._retry.queue import Limit, Queue
from equos_async.clock import Clock, Timer, set_unless_done


def _is_gone(admitted: asyncio.Future[bool]) -> bool:
    return admitted.done()


class Limiter:
    """Lets calls through a limit, first come, first served. The queue decides, this waits.

    A waiter that is cancelled takes nothing with it.

    Args:
        limit: What it lets calls through.
        clock: The source of time.
        busy: The limiters before which somebody waits; whoever changes a limit makes each of
            them :meth:`look`.
    """

    def __init__(self, limit: Limit, clock: Clock, busy: set[Limiter]) -> None:
        self._busy = busy
        self._queue: Queue[asyncio.Future[bool]] = Queue(limit, _is_gone)
        self._clock = clock
        self._timer: Timer | None = None

    def enter_at_once(self, now: float) -> bool:
        """Take a permit where nobody has to be waited for; False where one has to be."""
        return self._queue.enter(now)

    async def enter(self, deadline: float) -> bool:
        """Wait for a permit; False where the deadline came first."""
        if self._queue.enter(self._clock.now()):
            return True
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.join(admitted, deadline)
        self._busy.add(self)
        timer = self._clock.call_at(deadline, set_unless_done, admitted, False)
        self.look()
        try:
            return await admitted
        except asyncio.CancelledError:
            if not admitted.cancelled() and admitted.result():
                self.leave()  # admitted in the very tick of the cancellation
            raise
        finally:
            timer.cancel()
            self._queue.drop(admitted)
            if not self._queue.waiting:
                self._busy.discard(self)

    def leave(self) -> None:
        """Give the permit back and let the next one in."""
        self._queue.leave()
        if self._queue.waiting:
            self.look()

    def turn_away(self, before: float) -> None:
        """Let those wait no longer whose deadline does not come after a time."""
        for admitted in self._queue.before(before):
            set_unless_done(admitted, False)

    def look(self) -> None:
        """Let in whom the limit takes now, and come back when it says."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        admission = self._queue.admit(self._clock.now())
        for admitted in admission.admitted:
            admitted.set_result(True)
        if admission.look_at < math.inf:
            self._timer = self._clock.call_at(admission.look_at, self.look)
