"""A clock that runs faster than real time, so that a search of a minute takes a second."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from equos_async import Clock

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
