"""Begin the stops of a drain as fast as the client sends them."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from equos_async.clock import in_loop

from ._session import SessionRecord


class Pace:
    """Begins as many stops as the client sends at once, and one more for each answer.

    If a hundred thousand stops begin at the same time, they take half as long again: most of them
    wait for the client, each in a task, and the garbage collector goes through all of these tasks
    repeatedly. A stop that waits for its next attempt delays no other stop.

    Args:
        begin: Begins to stop a session.
        width: The number of concurrent stops.
    """

    def __init__(self, begin: Callable[[SessionRecord], object], width: int) -> None:
        self._begin = begin
        self._width = width
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[SessionRecord] = deque()
        self._under_way: set[SessionRecord] = set()

    def add(self, records: Iterable[SessionRecord]) -> None:
        """Begin to stop some sessions, one after the other."""
        self._loop = asyncio.get_running_loop()
        self._waiting.extend(records)
        self._go_on(self._width)

    def over(self, record: SessionRecord) -> None:
        """A stop was answered, or is repeated later; harmless if it was not begun here."""
        if record in self._under_way:
            self._under_way.discard(record)
            self._go_on_in_loop(self._width)

    def hurry(self) -> None:
        """Begin all waiting stops now."""
        self._go_on_in_loop(math.inf)

    def _go_on_in_loop(self, width: float) -> None:
        """Stops begin in the event loop only, but a stop's coroutine may be collected anywhere."""
        if self._waiting and self._loop is not None:
            in_loop(self._loop, partial(self._go_on, width))

    def _go_on(self, width: float) -> None:
        while self._waiting and len(self._under_way) < width:
            record = self._waiting.popleft()
            if record.is_to_stop:  # no stop of it has begun meanwhile
                self._under_way.add(record)
                self._begin(record)
