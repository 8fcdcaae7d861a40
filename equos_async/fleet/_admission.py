"""The slots of a fleet, taken in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable

from equos_async.errors import EquosError


class Slots:
    """A number of slots and the queue before them: first come, first served.

    A slot that is given back goes straight to the first in the queue, so that nobody overtakes. A
    waiter that is cancelled passes on the slot that it was given in that very tick.
    """

    def __init__(self, count: int) -> None:
        self.free: int = count
        self._queue: OrderedDict[Hashable, asyncio.Future[None]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many stand in the queue."""
        return len(self._queue)

    def take(self) -> bool:
        """Take a slot, if one is free; then nobody is waiting."""
        if self.free == 0:
            return False
        self.free -= 1
        return True

    def join(self, who: Hashable) -> asyncio.Future[None]:
        """Stand in the queue."""
        turn = self._queue[who] = asyncio.get_running_loop().create_future()
        return turn

    async def wait(self, who: Hashable, turn: asyncio.Future[None]) -> None:
        """Wait for one's turn; then the slot is taken."""
        try:
            await turn
        except asyncio.CancelledError:
            self._queue.pop(who, None)
            if not turn.cancelled() and turn.exception() is None:
                self.give()
            raise

    def give(self) -> None:
        """Give a slot back."""
        while self._queue:
            _, turn = self._queue.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def turn_away(self, who: Hashable, error: EquosError) -> None:
        """Send somebody home who waits."""
        turn = self._queue.pop(who, None)
        if turn is not None and not turn.done():
            turn.set_exception(error)
