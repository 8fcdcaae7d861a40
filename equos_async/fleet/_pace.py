"""The stops of a drain, begun as fast as they are carried out."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from equos_async.clock import in_loop

from ._session import SessionRecord


class Pace:
    """Begins as many stops at once as the client sends, and one for each that has its answer.

    A hundred thousand that are begun in one moment take half as long again: all but a few wait for
    the client, each in a task, and the garbage collector goes through all of these again and
    again. What hangs holds up no other stop here that could be sent, and what waits to be sent
    again holds up none.

    Args:
        begin: Begins to stop a session.
        width: How many stops are under way at once.
    """

    def __init__(self, begin: Callable[[SessionRecord], object], width: int) -> None:
        self._begin = begin
        self._width = width
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[SessionRecord] = deque()
        self._under_way: set[SessionRecord] = set()

    def add(self, records: Iterable[SessionRecord]) -> None:
        """Begin to stop some sessions, each in its turn."""
        self._loop = asyncio.get_running_loop()
        self._waiting.extend(records)
        self._go_on(self._width)

    def over(self, record: SessionRecord) -> None:
        """A stop has its answer, or will be sent again later; harmless where it had no turn."""
        if record in self._under_way:
            self._under_way.discard(record)
            self._go_on_in_loop(self._width)

    def hurry(self) -> None:
        """Begin all that wait, now."""
        self._go_on_in_loop(math.inf)

    def _go_on_in_loop(self, width: float) -> None:
        """Nothing can begin elsewhere, and a stop's coroutine may be collected anywhere."""
        if self._waiting and self._loop is not None:
            in_loop(self._loop, partial(self._go_on, width))

    def _go_on(self, width: float) -> None:
        while self._waiting and len(self._under_way) < width:
            record = self._waiting.popleft()
            if record.is_to_stop:  # nobody else has begun it meanwhile
                self._under_way.add(record)
                self._begin(record)
