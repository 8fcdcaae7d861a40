"""End each attempt at its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from equos_async.clock import Deadlines

from .request import CUT, SendGuard

PASSES: Final = 3
"""Passes of the event loop after an attempt's time in which its answer may still be found.

After the loop was blocked, a timer may expire while a socket has the unread answer. asyncio reads
the sockets in the pass before, uvloop in the pass after, and a task wakes up one pass later.
"""


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
        deadlines: Deadlines[Watch],
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
