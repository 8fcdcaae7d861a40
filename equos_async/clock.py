"""The one source of time and chance, and the timers on it."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from attrs import define


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


MIN_DROPPED: Final = 64
"""How many alarms that were called off are put up with before the agenda is tidied."""


@define(eq=False)
class Alarm:
    """Something to do at a time; nothing once it was done or called off."""

    when: float
    action: Callable[[], None] | None

    def __lt__(self, other: Alarm) -> bool:
        return self.when < other.when


class Agenda:
    """Any number of alarms on one timer of the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[Alarm] = []
        self._dropped = 0
        self._timer: Timer | None = None
        self._rings_at = math.inf

    def add(self, when: float, action: Callable[[], None]) -> Alarm:
        """Set an alarm."""
        alarm = Alarm(when, action)
        heapq.heappush(self._heap, alarm)
        self._wind()
        return alarm

    def drop(self, alarm: Alarm) -> None:
        """Call an alarm off; harmless where it rang already.

        It stays in the heap until its time, unless too many such do.
        """
        if alarm.action is None:
            return
        alarm.action = None
        self._dropped += 1
        if self._dropped > MIN_DROPPED and self._dropped > len(self._heap) // 2:
            self._heap = [one for one in self._heap if one.action is not None]
            heapq.heapify(self._heap)
            self._dropped = 0

    def clear(self) -> None:
        """Call everything off."""
        self._heap = []
        self._dropped = 0
        self._rings_at = math.inf
        if self._timer is not None:
            self._timer.cancel()

    def _wind(self) -> None:
        """Set the timer for the first alarm, unless it rings before that anyway."""
        if not self._heap or self._heap[0].when >= self._rings_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._heap[0].when
        self._timer = self._clock.call_at(self._rings_at, self._ring)

    def _ring(self) -> None:
        # A loop's timer may go off a hair early: what it was set for is due.
        now = max(self._clock.now(), self._rings_at)
        self._rings_at = math.inf
        while self._heap and self._heap[0].when <= now:
            alarm = heapq.heappop(self._heap)
            if alarm.action is None:
                self._dropped -= 1
                continue
            action, alarm.action = alarm.action, None
            action()
        self._wind()
