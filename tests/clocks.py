"""Clocks for tests: time and chance are parameters, so no test waits for either."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

from equos_async import Clock

WALL = 1_765_357_907.0  # 2025-12-10T09:11:47Z


class FakeTimer:
    """A timer of a :class:`FakeClock`."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Call it off."""
        self.callback = None


class FakeClock(Clock):
    """A clock that stands still until :meth:`advance`; chance is seeded, or what a test says."""

    def __init__(self, seed: int = 0, chance: float | None = None) -> None:
        self.time = 1000.0
        self.fixed_chance = chance
        self._random = random.Random(seed)
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return WALL + self.time - 1000.0

    def chance(self) -> float:
        return self._random.random() if self.fixed_chance is None else self.fixed_chance

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        timer = FakeTimer(lambda: callback(*args))
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    @property
    def due(self) -> list[float]:
        """Seconds until each timer that is set, soonest first."""
        return [when - self.time for when, _, timer in sorted(self._timers) if timer.callback]

    def advance(self, seconds: float) -> None:
        """Move on, and let all that falls due happen in its order."""
        until = self.time + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self.time = max(self.time, when)
            if timer.callback is not None:
                timer.callback()
        self.time = until


class SkippingClock(Clock):
    """Real time, but what the client would sleep is skipped: backoff costs a test nothing."""

    def __init__(self, seed: int = 0) -> None:
        self.skipped = 0.0
        self.slept: list[float] = []
        self._random = random.Random(seed)

    def now(self) -> float:
        return super().now() + self.skipped

    def chance(self) -> float:
        return self._random.random()

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Any:
        return super().call_at(when - self.skipped, callback, *args)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.skipped += seconds
        await asyncio.sleep(0)


def begin_tasks_at_once() -> None:
    """Let tasks of this loop take their first step when they are made, where Python can."""
    factory = vars(asyncio).get("eager_task_factory")  # from 3.12 on
    asyncio.get_running_loop().set_task_factory(factory)


async def settle(rounds: int = 50) -> None:
    """Let everything that can go on without time passing do so."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Let everything go on until a condition holds; fail where it never does."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for something that other threads or processes have a part in.

    Not by :func:`until`: a loop that never rests keeps the interpreter from threads.
    """
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)
