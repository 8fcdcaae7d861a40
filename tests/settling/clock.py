"""A clock that runs faster than real time, so that a search of a minute takes a second.

Its server's clock does not, but it is the same loop's: neither runs while the machine stands still.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from equos_async import Clock
from equos_async.testing import EmulatorClock

SPEED = 20.0


class FastClock(Clock):
    """The loop's time, ``SPEED`` times as fast; chance is seeded."""

    def __init__(self) -> None:
        self._random = random.Random(0)

    def now(self) -> float:
        return super().now() * SPEED

    def chance(self) -> float:
        return self._random.random()

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Any:
        return super().call_at(when / SPEED, callback, *args)


class ServerClock(EmulatorClock):
    """The time of day at first, and then as much later as it is on the loop that it is made in."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._apart = time.time() - self._loop.time()

    def now(self) -> float:
        return super().now() - time.time() + self._loop.time() + self._apart
