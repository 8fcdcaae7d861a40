"""Waiting: the one source of time and chance, and the lines before the lanes."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .retry import Lane


class Timer(Protocol):
    """Something that was set for later and can be called off."""

    def cancel(self) -> None:
        """Call it off; harmless where it went off already."""
        ...


class Clock:
    """Time and chance as the client sees them. A test passes its own to own both."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def chance(self) -> float:
        """A number, uniform in [0, 1)."""
        return random.random()  # noqa: S311 - jitter, not cryptography

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call ``callback`` when ``now()`` reaches ``when``."""
        return asyncio.get_running_loop().call_at(when, callback, *args)

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        alarm = asyncio.get_running_loop().create_future()
        timer = self.call_at(self.now() + seconds, set_unless_done, alarm, None)
        try:
            await alarm
        finally:
            timer.cancel()


def set_unless_done(future: asyncio.Future[Any], result: object) -> None:
    """Set a future's result, unless it has one or its waiter is gone."""
    if not future.done():
        future.set_result(result)


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
