"""Queues of groups that take turns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """One queue for each group; the groups take turns.

    Within a group it is first come, first served. A group that is held has no turns until it is
    resumed; then it is last. None is the group of those without one.
    """

    def __init__(self) -> None:
        self._queues: dict[str | None, OrderedDict[Hashable, T]] = {}
        # The groups in the order of their turns.
        self._order: OrderedDict[str | None, None] = OrderedDict()
        self._held: set[str | None] = set()
        self._count = 0

    @property
    def groups(self) -> AbstractSet[str | None]:
        """The groups with waiting members."""
        return self._queues.keys()

    def count(self, group: str | None) -> int:
        """The number of a group's waiting members."""
        return len(self._queues.get(group, ()))

    def __len__(self) -> int:
        return self._count

    def join(self, group: str | None, who: Hashable, what: T, *, first: bool = False) -> None:
        """Join the queue of a group, at its end or at its front."""
        queue = self._queues.setdefault(group, OrderedDict())
        queue[who] = what
        self._count += 1
        if first:
            queue.move_to_end(who, last=False)
        if group not in self._held:
            self._order.setdefault(group)

    def leave(self, group: str | None, who: Hashable) -> T | None:
        """Leave the queue; returns the value given on joining, or None if it was not in it."""
        queue = self._queues.get(group)
        if queue is None or who not in queue:
            return None
        return self._take_out(group, who)

    def next(self) -> tuple[str | None, T] | None:
        """Remove and return the next one."""
        if not self._order:
            return None
        group = next(iter(self._order))
        self._order.move_to_end(group)
        return group, self._take_out(group, next(iter(self._queues[group])))

    def hold(self, group: str | None) -> None:
        """Give a group no turns."""
        self._held.add(group)
        self._order.pop(group, None)

    def resume(self, group: str | None) -> None:
        """Give it turns again."""
        self._held.discard(group)
        if group in self._queues:
            self._order.setdefault(group)

    def _take_out(self, group: str | None, who: Hashable) -> T:
        queue = self._queues[group]
        what = queue.pop(who)
        self._count -= 1
        if not queue:
            del self._queues[group]
            self._order.pop(group, None)
        return what
