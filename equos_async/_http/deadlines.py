"""End each attempt at its time, with one timer for all attempts of a client."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final, cast

from equos_async.clock import Clock, Timer

from .request import CUT, SendGuard

PASSES: Final = 3
"""Passes of the event loop after an attempt's time in which its answer may still be found.

After the loop was blocked, a timer may expire while a socket has the unread answer. asyncio reads
the sockets in the pass before, uvloop in the pass after, and a task wakes up one pass later.
"""

GRAIN: Final = 0.005
"""Seconds between two looks at least, as each goes through all attempts in progress."""


class Deadlines:
    """The times at which attempts in progress end; an attempt may end up to ``GRAIN`` later.

    Nearly all attempts are over long before. A timer of the event loop for each of them would be
    put in order with all others, and removed from their midst later; an entry here is not.

    Args:
        clock: The clock of these times.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock: Clock = clock
        self._times: dict[Watch, float] = {}
        self._timer: Timer | None = None
        self._rings_at = math.inf

    def add(self, watch: Watch, when: float) -> None:
        """Ring a watch at a time."""
        self._times[watch] = when
        if when < self._rings_at:
            self._set(when)

    def drop(self, watch: Watch) -> None:
        """Do not ring a watch; does nothing if it rang already."""
        self._times.pop(watch, None)

    def clear(self) -> None:
        """Ring none."""
        self._times.clear()
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
            for watch in [one for one, when in self._times.items() if when <= now]:
                del self._times[watch]
                watch.ring()
        finally:
            self._rings_at = math.inf
            if self._times:
                self._set(max(min(self._times.values()), now + GRAIN))


class Watch:
    """The time limits of one attempt; it cancels the attempt's task unless it is stopped before.

    Args:
        deadlines: Rings at a time.
        guard: The attempt's guard.
        until: When an attempt ends, sent or not.
        listen_until: When a sent one ends, if that is later.
        overdue: Called once if the answer to a sent one is awaited beyond ``until``.
    """

    __slots__ = (
        "_before",
        "_deadlines",
        "_expired",
        "_guard",
        "_listen_until",
        "_next_pass",
        "_overdue",
        "_task",
    )

    def __init__(
        self,
        deadlines: Deadlines,
        guard: SendGuard,
        until: float,
        listen_until: float | None,
        overdue: Callable[[], None] | None,
    ) -> None:
        self._deadlines = deadlines
        self._guard = guard
        self._listen_until = listen_until
        self._overdue = overdue
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._before = self._task.cancelling()  # earlier cancellations, which it caught
        self._expired = False
        self._next_pass: asyncio.Handle | None = None
        deadlines.add(self, until)

    def stop(self) -> None:
        """Stop: the attempt is over."""
        self._deadlines.drop(self)
        if self._next_pass is not None:
            self._next_pass.cancel()

    def has_ended(self, error: BaseException) -> bool:
        """Whether this watch ended the attempt; if so, its cancellation is taken back.

        Two cancellations may arrive as one in the same tick: the other one (for example of
        ``aclose``, whose time is over as well) still counts.
        """
        if not self._expired:
            return False
        others = self._task.uncancel() > self._before
        return not (others and isinstance(error, asyncio.CancelledError))

    def ring(self, passes: int = PASSES) -> None:
        """Its time has come."""
        if not self._guard.sent:
            self._guard.withdraw()
            self._cut()
        elif passes:
            self._next_pass = self._task.get_loop().call_soon(self.ring, passes - 1)
        elif self._listen_until is not None and self._listen_until > self._deadlines.clock.now():
            self._deadlines.add(self, self._listen_until)
            self._listen_until = None
            if self._overdue is not None:
                self._overdue()
        else:
            self._cut()

    def _cut(self) -> None:
        self._expired = True
        self._task.cancel(CUT)
