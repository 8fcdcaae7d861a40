"""Wait for a limit: the asyncio side of who goes next."""

from __future__ import annotations

import asyncio
import math
from collections import deque

from equos_async._retry.throttle import Lane
from equos_async.clock import Clock, Timer, set_unless_done


class Turnstile:
    """The line before a lane: first come, first served. The lane decides, this waits.

    Nothing here has to be undone by somebody else: a waiter that is cancelled takes nothing with
    it, and each change of the lane is followed by :meth:`wake`.
    """

    def __init__(self, lane: Lane, clock: Clock) -> None:
        self._lane = lane
        self._clock = clock
        self._line: deque[tuple[asyncio.Future[bool], float]] = deque()
        self._alarm: Timer | None = None

    def enter_at_once(self) -> bool:
        """Take a permit where nobody has to be waited for; False where one has to be."""
        return not self._line and self._lane.enter(self._clock.now()) == 0

    async def enter(self, deadline: float) -> bool:
        """Wait for a permit; False where the deadline came first."""
        if self.enter_at_once():
            return True
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._line.append((admitted, deadline))
        timer = self._clock.call_at(deadline, set_unless_done, admitted, False)
        self.wake()
        try:
            return await admitted
        except asyncio.CancelledError:
            if not admitted.cancelled() and admitted.result():
                self.leave()  # admitted in the very tick of the cancellation
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Give the permit back and let the next one in."""
        self._lane.leave()
        if self._line:
            self.wake()

    def turn_away(self, before: float) -> None:
        """Send home at once those whose deadline comes before a time."""
        for admitted, deadline in self._line:
            if deadline <= before:
                set_unless_done(admitted, False)

    def wake(self) -> None:
        """Let in whom the lane takes now, and come back when it says."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._line:
            admitted, _ = self._line[0]
            if not admitted.done():
                wait = self._lane.enter(now := self._clock.now())
                if wait > 0:
                    if wait < math.inf:
                        self._alarm = self._clock.call_at(now + wait, self.wake)
                    return
                admitted.set_result(True)
            self._line.popleft()
