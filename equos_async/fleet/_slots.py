"""Hand out the slots of a fleet, to groups in turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

from equos_async.errors import EquosError

from ._turns import Turns


class Waiter(Hashable, Protocol):
    """A start that waits for a slot."""

    @property
    def group(self) -> str | None:
        """The group whose limit applies to it; None: only the limit of all slots does."""
        ...


class Slots:
    """A number of slots, and the queue for them: groups take turns, and none exceeds its limit.

    A free slot goes directly to the next start in the queue, so that no later start overtakes it.
    Renewals come before all new starts. A waiter that is cancelled in the tick in which it got a
    slot passes the slot on.

    Args:
        count: The number of slots.
        per_group: The number of them that a group may have.
    """

    def __init__(self, count: int, per_group: float) -> None:
        self.count: int = count
        self.free: int = count
        self._per_group = per_group
        self._taken: Counter[str] = Counter()
        self._renewals: Final = Turns[asyncio.Future[None]]()
        self._newcomers: Final = Turns[asyncio.Future[None]]()

    @property
    def waiting(self) -> int:
        """The number of starts in the queue."""
        return len(self._renewals) + len(self._newcomers)

    @property
    def taken(self) -> Mapping[str, int]:
        """The number of slots of each group that has any."""
        return self._taken

    @property
    def waiting_groups(self) -> AbstractSet[str | None]:
        """The groups with starts in the queue."""
        return self._renewals.groups | self._newcomers.groups

    def waiting_of(self, group: str | None) -> int:
        """The number of a group's starts in the queue."""
        return self._renewals.count(group) + self._newcomers.count(group)

    def is_full(self, group: str | None) -> bool:
        """Whether a group has as many slots as it may have."""
        return group is not None and self._taken[group] >= self._per_group

    def take(self, group: str | None) -> bool:
        """Take a slot if one is free; then no start in the queue could use it."""
        if self.free <= 0 or self.is_full(group):
            return False
        self._take(group)
        return True

    def join(self, who: Waiter, *, renews: bool, first: bool = False) -> asyncio.Future[None]:
        """Join the queue, at its end or before all others of the group."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._renewals if renews else self._newcomers
        queue.join(who.group, who, turn, first=first)
        return turn

    async def wait(self, who: Waiter, turn: asyncio.Future[None]) -> None:
        """Wait for a turn; after that the slot is taken."""
        try:
            await turn
        except (asyncio.CancelledError, GeneratorExit):
            if self._leave(who) is None and turn.done() and _was_given(turn):
                self.give(who.group)
            raise

    def give(self, group: str | None) -> None:
        """Return a slot."""
        self.free += 1
        if group is not None:
            self._taken[group] -= 1
            if not self._taken[group]:
                del self._taken[group]
            for queue in (self._renewals, self._newcomers):
                queue.resume(group)
        self._hand_out()

    def resize(self, count: int) -> None:
        """Change the number of slots; ``free`` is negative while more are taken than there are."""
        self.free += count - self.count
        self.count = count
        self._hand_out()

    def _take(self, group: str | None) -> None:
        self.free -= 1
        if group is not None:
            self._taken[group] += 1
            if self.is_full(group):
                for queue in (self._renewals, self._newcomers):
                    queue.hold(group)

    def _hand_out(self) -> None:
        for queue in (self._renewals, self._newcomers):
            while self.free > 0 and (first := queue.next()) is not None:
                group, turn = first
                if not turn.done():
                    self._take(group)
                    turn.set_result(None)

    def turn_away(self, who: Waiter, error: EquosError) -> None:
        """End the wait of a start with an error."""
        turn = self._leave(who)
        if turn is not None and not turn.done():
            turn.set_exception(error)

    def _leave(self, who: Waiter) -> asyncio.Future[None] | None:
        in_line = self._newcomers.leave(who.group, who)
        return in_line or self._renewals.leave(who.group, who)


def _was_given(turn: asyncio.Future[None]) -> bool:
    return not turn.cancelled() and turn.exception() is None
