"""Who goes next through a limit, and when to look again: values, without a clock or a loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from attrs import frozen

W = TypeVar("W")


class Limit(Protocol):
    """What a queue stands before."""

    def enter(self, now: float) -> float:
        """0: a permit is taken. Else seconds to wait; inf: until the limit changes."""
        ...

    def leave(self) -> None:
        """Give a permit back."""
        ...


@frozen
class Admission(Generic[W]):
    """Who may go now, and when the queue has to be looked at again without another cause.

    Attributes:
        admitted: Those who have a permit from now on, in their order.
        look_at: A time; inf where only a change of the limit lets anybody in.
    """

    admitted: list[W]
    look_at: float


class Queue(Generic[W]):
    """The waiters before a limit: first come, first served.

    Whoever changes the limit asks for :meth:`admit` afterwards.

    Args:
        limit: What they wait for.
        is_gone: Whether a waiter left without a word: it gets no permit.

    Attributes:
        waiting: The waiters in their order, with their deadlines.
    """

    def __init__(self, limit: Limit, is_gone: Callable[[W], bool]) -> None:
        self._limit = limit
        self._is_gone = is_gone
        self.waiting: dict[W, float] = {}

    def enter(self, now: float) -> bool:
        """Take a permit at once; False where one has to wait, behind those who wait already."""
        return not self.waiting and self._limit.enter(now) == 0

    def leave(self) -> None:
        """Give a permit back."""
        self._limit.leave()

    def join(self, waiter: W, deadline: float) -> None:
        """Wait for a permit, last in the order."""
        self.waiting[waiter] = deadline

    def drop(self, waiter: W) -> None:
        """Wait no longer; harmless where the waiter is not there."""
        self.waiting.pop(waiter, None)

    def before(self, time: float) -> list[W]:
        """Those whose deadline does not come after a time."""
        return [waiter for waiter, deadline in self.waiting.items() if deadline <= time]

    def admit(self, now: float) -> Admission[W]:
        """Give permits to the first waiters, as far as the limit goes; they leave the queue."""
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
