"""The slots of a fleet, taken in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable

from equos_async.errors import EquosError


class Slots:
    """A number of slots and the queue before them: first come, first served.

    A slot that is given back goes straight to the first in the queue, so that nobody overtakes,
    except those that go on with what is there already: they stand before all newcomers. A waiter
    that is cancelled passes on the slot that it was given in that very tick.
    """

    def __init__(self, count: int) -> None:
        self.count: int = count
        self.free: int = count
        self._renewals: OrderedDict[Hashable, asyncio.Future[None]] = OrderedDict()
        self._newcomers: OrderedDict[Hashable, asyncio.Future[None]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many stand in the queue."""
        return len(self._renewals) + len(self._newcomers)

    def take(self) -> bool:
        """Take a slot, if one is free; then nobody is waiting."""
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    def join(self, who: Hashable, *, renews: bool) -> asyncio.Future[None]:
        """Stand in the queue."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._renewals if renews else self._newcomers
        queue[who] = turn
        return turn

    async def wait(self, who: Hashable, turn: asyncio.Future[None]) -> None:
        """Wait for one's turn; then the slot is taken."""
        try:
            await turn
        except (asyncio.CancelledError, GeneratorExit):
            if self._leave(who) is None and turn.done() and _was_given(turn):
                self.give()
            raise

    def give(self) -> None:
        """Give a slot back."""
        self.free += 1
        self._hand_out()

    def resize(self, count: int) -> None:
        """Have another number of slots; below 0 are free where more are taken than there are."""
        self.free += count - self.count
        self.count = count
        self._hand_out()

    def _hand_out(self) -> None:
        for queue in (self._renewals, self._newcomers):
            while queue and self.free > 0:
                _, turn = queue.popitem(last=False)
                if not turn.done():
                    self.free -= 1
                    turn.set_result(None)

    def turn_away(self, who: Hashable, error: EquosError) -> None:
        """Send somebody home who waits."""
        turn = self._leave(who)
        if turn is not None and not turn.done():
            turn.set_exception(error)

    def _leave(self, who: Hashable) -> asyncio.Future[None] | None:
        return self._newcomers.pop(who, None) or self._renewals.pop(who, None)


def _was_given(turn: asyncio.Future[None]) -> bool:
    return not turn.cancelled() and turn.exception() is None
