"""The starts of one worker that wait in a ledger's queue, by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import chain, islice

from ._rows import Entry


class Line:
    """The rows in the queue; those whose groups are at their limits over all workers are parked."""

    def __init__(self) -> None:
        self._entries: dict[Entry, None] = {}
        self._counts: Counter[str | None] = Counter()
        self._parked: dict[str | None, dict[Entry, None]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @property
    def groups(self) -> AbstractSet[str | None]:
        """The groups of the starts."""
        return self._counts.keys()

    def count(self, group: str | None) -> int:
        """The number of a group's starts."""
        return self._counts[group]

    def join(self, entry: Entry) -> None:
        """A start has to wait."""
        self._entries[entry] = None
        self._counts[entry.group] += 1

    def leave(self, entry: Entry) -> None:
        """A start waits no longer, if it did."""
        if entry in self._entries:
            del self._entries[entry]
            self._counts[entry.group] -= 1
            if not self._counts[entry.group]:
                del self._counts[entry.group]
            self.unpark(entry)

    def park(self, entry: Entry) -> None:
        """The group of a waiting start is full."""
        self._parked.setdefault(entry.group, {})[entry] = None

    def unpark(self, entry: Entry) -> None:
        """The group of a start is not full, or it waits no longer."""
        parked = self._parked.get(entry.group, {})
        parked.pop(entry, None)
        if not parked:
            self._parked.pop(entry.group, None)

    def parked(self, group: str | None) -> list[Entry]:
        """The first parked start of a group, if there is one."""
        return list(islice(self._parked.get(group, ()), 1))

    def firsts(self) -> list[Entry]:
        """The first start, and the first parked one of each group."""
        return list(islice(self._entries, 1)) + list(
            chain.from_iterable(map(self.parked, self._parked))
        )
