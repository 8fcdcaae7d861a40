"""Read a list part by part to its end, also if the server repeats or changes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from equos_async._retry.pages import total_of

from .answers import Page

T = TypeVar("T")

MAX_STALE: Final = 3
"""Parts in a row without new items: a list that changes has one or two, a repeated one more."""

MAX_ITEMS: Final = 100_000
"""The largest number of items of a list without a total."""

GROWTH: Final = 1000
"""Items by which a list may grow while it is read, in addition to its own length."""


class Listing(Generic[T]):
    """How far a list has been read. No id is returned twice.

    The order is not documented, and items are added while the list is read. So an item may move
    from one part to another, and appear twice or not at all.

    Attributes:
        skip: The start of the next part.
        is_over: Whether the end was reached.
        problem: The path of the error that ended the list, if one did.
    """

    def __init__(self) -> None:
        self.skip: int = 0
        self.is_over: bool = False
        self.problem: str | None = None
        self._seen: set[str] = set()
        self._stale = 0
        self._most: int | None = None

    def take(self, page: Page[T]) -> Iterator[T]:
        """Take the next part; returns its items that are new."""
        new: list[T] = []
        for item in page.items:
            one: Any = item
            if one.id not in self._seen:
                self._seen.add(one.id)
                new.append(item)
        self.skip += page.count
        total = total_of(page.total, page.count)
        self._stale = 0 if new else self._stale + 1
        if self._most is None:
            self._most = MAX_ITEMS if total is None else 2 * total + GROWTH
        if not page.count or (total is not None and self.skip >= total):
            self.is_over = True
        elif self._stale >= MAX_STALE:
            self.is_over, self.problem = True, "$.skip"
        elif self.skip >= self._most:
            self.is_over, self.problem = True, "$.total"
        return iter(new)
