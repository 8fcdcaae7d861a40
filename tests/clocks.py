"""Clocks for tests: time and chance are parameters, so no test waits for either."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
import selectors
import time
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


LONGEST_PASS = 0.02
"""Seconds that a step in a :class:`PatientLoop` may take by its own clock."""


class _Patient(selectors.DefaultSelector):
    """Knows how long a loop meant to wait, and tells that from standing still."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = self._seen = time.monotonic()

    def look(self, most: float = LONGEST_PASS) -> float:
        """The time, which goes on by so many seconds at most from one look to the next."""
        now = time.monotonic()
        self.shown += min(now - self._seen, most)
        self._seen = now
        return self.shown

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.look()
        ready = super().select(timeout)
        self.look(math.inf if timeout is None else timeout + LONGEST_PASS)
        return ready


class PatientLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while a busy machine lets it stand still.

    A short timeout then limits what a client, and a server on the same loop, have to wait for, and
    not how long the machine takes for their steps.
    """

    def __init__(self) -> None:
        self._patient = _Patient()
        super().__init__(self._patient)

    def time(self) -> float:
        return self._patient.look()

    def skip(self, seconds: float) -> None:
        """Let time pass at once, as if this pass took so long."""
        self._patient.shown += seconds


def skip(seconds: float) -> None:
    """Let time pass at once on the loop of a test."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, PatientLoop)
    loop.skip(seconds)


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
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)
