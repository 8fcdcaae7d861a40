"""The source of time and random numbers, and the timers on it."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

from attrs import define

T = TypeVar("T")


class Timer(Protocol):
    """A callback that was scheduled and can be cancelled."""

    def cancel(self) -> None:
        """Cancel it; does nothing if it ran already."""
        ...


class Clock:
    """The client's source of time and random numbers; a test passes a subclass to control both."""

    def now(self) -> float:
        """Seconds on a monotonic clock, that of the running event loop.

        Without one, in another thread or between two cells of a notebook, it is the clock that
        event loops use; so is it where a coroutine is collected after its loop.
        """
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def chance(self) -> float:
        """A random number, uniform in [0, 1)."""
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
    """Set a future's result, unless it has one or was cancelled."""
    if not future.done():
        future.set_result(result)


def in_loop(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    """Do something in an event loop: a coroutine may be collected anywhere."""
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        action()
    else:
        with suppress(RuntimeError):  # that loop is closed
            loop.call_soon_threadsafe(action)


GRAIN: Final = 0.005
"""Seconds between two looks of :class:`Deadlines` at least, as each goes through all entries."""


class Deadlines(Generic[T]):
    """The times at which waits end, with one timer for all; one may end up to ``GRAIN`` later.

    Nearly all are over long before. A timer of the event loop for each of them would be put in
    order with all others, and removed from their midst later; an entry here is not.

    Args:
        clock: The clock of these times.
        ring: Ends a wait; called once for each whose time has come.
    """

    def __init__(self, clock: Clock, ring: Callable[[T], object]) -> None:
        self.clock: Clock = clock
        self._ring_one = ring
        self._times: dict[T, float] = {}
        self._timer: Timer | None = None
        self._rings_at = math.inf

    def add(self, one: T, when: float) -> None:
        """End a wait at a time."""
        self._times[one] = when
        if when < self._rings_at:
            self._set(when)

    def drop(self, one: T) -> None:
        """Do not end a wait; does nothing if that was done already."""
        self._times.pop(one, None)

    def clear(self) -> None:
        """Drop all."""
        self._times.clear()
        self._rings_at = math.inf
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = when
        self._timer = self.clock.call_at(when, self._ring)

    def _ring(self) -> None:
        """Ring all whose time has come. A loop's timer may fire slightly early: that is its time.

        A signal handler may raise here as well; the others ring at their times then, too.
        """
        now = max(self.clock.now(), self._rings_at)
        try:
            for one in [one for one, when in self._times.items() if when <= now]:
                del self._times[one]
                self._ring_one(one)
        finally:
            self._rings_at = math.inf
            if self._times:
                self._set(max(min(self._times.values()), now + GRAIN))


MIN_CANCELLED: Final = 64
"""How many cancelled timers are kept before the heap is rebuilt."""


@define(eq=False, repr=False)
class SetTimer:
    """An action at a time; None once it ran or was cancelled."""

    when: float
    action: Callable[[Any], None] | None
    about: Any

    def __lt__(self, other: SetTimer) -> bool:
        return self.when < other.when


class Timers:
    """Any number of timers that share one timer of the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[SetTimer] = []
        self._cancelled = 0
        self._timer: Timer | None = None
        self._due_at = math.inf

    def at(self, when: float, action: Callable[[T], None], about: T) -> SetTimer:
        """Schedule an action, which is called with its subject."""
        timer = SetTimer(when, action, about)
        heapq.heappush(self._heap, timer)
        self._wind()
        return timer

    def cancel(self, timer: SetTimer) -> None:
        """Cancel one; does nothing if it ran already.

        It stays in the heap until its time, or until too many cancelled ones are in it.
        """
        if timer.action is None:
            return
        timer.action = timer.about = None  # it may stay in the heap for long
        self._cancelled += 1
        if self._cancelled > MIN_CANCELLED and self._cancelled > len(self._heap) // 2:
            self._heap = [one for one in self._heap if one.action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def clear(self) -> None:
        """Cancel all."""
        self._heap = []
        self._cancelled = 0
        self._due_at = math.inf
        if self._timer is not None:
            self._timer.cancel()

    def _wind(self) -> None:
        """Set the clock's timer for the earliest, unless one is set for that time or before."""
        if not self._heap or self._heap[0].when >= self._due_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_at = self._heap[0].when
        self._timer = self._clock.call_at(self._due_at, self._ring)

    def _ring(self) -> None:
        # A loop's timer may fire slightly early; the action is due then.
        now = max(self._clock.now(), self._due_at)
        self._due_at = math.inf
        while self._heap and self._heap[0].when <= now:
            timer = heapq.heappop(self._heap)
            if timer.action is None:
                self._cancelled -= 1
                continue
            action, timer.action = timer.action, None
            action(timer.about)
        self._wind()
