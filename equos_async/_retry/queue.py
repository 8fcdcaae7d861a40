"""The queue before a limit: who is next, and when to check again; without a clock or a loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from attrs import frozen

W = TypeVar("W")


class Limit(Protocol):
    """A limit with a queue before it."""

    def enter(self, now: float) -> float:
        """Take a permit and return 0, else return seconds to wait; inf: until the limit changes."""
        ...

    def leave(self) -> None:
        """Give a permit back."""
        ...


@frozen
class Admission(Generic[W]):
    """Who gets a permit now, and when to check the queue again.

    Attributes:
        admitted: The waiters that have a permit from now on, in their order.
        look_at: A time; inf if only a change of the limit can free a permit.
    """

    admitted: list[W]
    look_at: float


class Queue(Generic[W]):
    """The waiters before a limit, first come, first served.

    Call :meth:`admit` after each change of the limit.

    Args:
        limit: The limit.
        is_gone: Whether a waiter has left: it gets no permit.

    Attributes:
        waiting: The waiters in their order, with their deadlines.
    """

    def __init__(self, limit: Limit, is_gone: Callable[[W], bool]) -> None:
        self._limit = limit
        self._is_gone = is_gone
        self.waiting: dict[W, float] = {}

    def enter(self, now: float) -> bool:
        """Take a permit at once; False if there is none, or if others wait already."""
        return not self.waiting and self._limit.enter(now) == 0

    def leave(self) -> None:
        """Give a permit back."""
        self._limit.leave()

    def join(self, waiter: W, deadline: float) -> None:
        """Join the end of the queue."""
        self.waiting[waiter] = deadline

    def drop(self, waiter: W) -> None:
        """Leave the queue; harmless if the waiter is not in it."""
        self.waiting.pop(waiter, None)

    def before(self, time: float) -> list[W]:
        """The waiters whose deadline is not after a time."""
        return [waiter for waiter, deadline in self.waiting.items() if deadline <= time]

    def admit(self, now: float) -> Admission[W]:
        """Give permits to the first waiters, as far as the limit allows; they leave the queue."""
        admitted: list[W] = []
        look_at = math.inf
        for waiter in self.waiting:
            if not self._is_gone(waiter):
                wait = self._limit.enter(now)
                if wait > 0:
                    look_at = now + wait
                    break
            admitted.append(waiter)
        for waiter in admitted:
            del self.waiting[waiter]
        return Admission([one for one in admitted if not self._is_gone(one)], look_at)
