"""Follow a list through its parts to its end, whatever the server makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from .answers import Page

T = TypeVar("T")

MAX_STALE: Final = 3
"""Parts in a row that bring nothing new: a list that moves has one or two, one that loops more."""

MAX_ITEMS: Final = 100_000
"""Items of a list of which the server does not say how many it has."""

GROWTH: Final = 1000
"""Items by which a list may grow while it is read, beyond as many again as it had."""


class Listing(Generic[T]):
    """How far a list has been read. No id comes twice.

    The order is not documented, and things are begun while the list is read: an item may move
    from one part to another, and then is met twice, or not at all.

    Attributes:
        skip: Where the next part begins.
        is_over: Whether there is none.
        problem: The path of what made no sense, where the list ended by that.
    """

    def __init__(self) -> None:
        self.skip: int = 0
        self.is_over: bool = False
        self.problem: str | None = None
        self._seen: set[str] = set()
        self._stale = 0
        self._most: int | None = None

    def take(self, page: Page[T]) -> Iterator[T]:
        """The items of the next part that were not met before."""
        new: list[T] = []
        for item in page.items:
            one: Any = item
            if one.id not in self._seen:
                self._seen.add(one.id)
                new.append(item)
        self.skip += page.count
        self._stale = 0 if new else self._stale + 1
        if self._most is None:
            self._most = MAX_ITEMS if page.total is None else 2 * page.total + GROWTH
        if not page.count or (page.total is not None and self.skip >= page.total):
            self.is_over = True
        elif self._stale >= MAX_STALE:
            self.is_over, self.problem = True, "$.skip"
        elif self.skip >= self._most:
            self.is_over, self.problem = True, "$.total"
        return iter(new)
