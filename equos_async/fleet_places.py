"""The places of a fleet, taken in turn, and the agenda of what falls due, on one timer."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from attrs import define

from .errors import EquosError
from .waiting import Clock, Timer

MIN_DROPPED: Final = 64
"""How many alarms that were called off are put up with before the agenda is tidied."""


class Places:
    """A number of places and the line before them: first come, first served.

    A place that is given back goes straight to the first in line, so that nobody overtakes. A
    waiter that is cancelled passes on the place that it was given in that very tick.
    """

    def __init__(self, count: int) -> None:
        self.free: int = count
        self._line: OrderedDict[Hashable, asyncio.Future[None]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many stand in the line."""
        return len(self._line)

    def take(self) -> bool:
        """Take a place, if one is free; then nobody is waiting."""
        if self.free == 0:
            return False
        self.free -= 1
        return True

    def join(self, who: Hashable) -> asyncio.Future[None]:
        """Stand in the line."""
        turn = self._line[who] = asyncio.get_running_loop().create_future()
        return turn

    async def wait(self, who: Hashable, turn: asyncio.Future[None]) -> None:
        """Wait for one's turn; then the place is taken."""
        try:
            await turn
        except asyncio.CancelledError:
            self._line.pop(who, None)
            if not turn.cancelled() and turn.exception() is None:
                self.give()
            raise

    def give(self) -> None:
        """Give a place back."""
        while self._line:
            _, turn = self._line.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def turn_away(self, who: Hashable, error: EquosError) -> None:
        """Send somebody home who waits."""
        turn = self._line.pop(who, None)
        if turn is not None and not turn.done():
            turn.set_exception(error)


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
