"""The parts of a list to read in search of recent items, in whatever order the list is."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from enum import Enum
from itertools import chain, pairwise
from typing import Final, TypeAlias

from attrs import define, frozen

TAKE: Final = 50
"""Items in one request; SDK: at most 50."""

MAX_PAGES: Final = 20
"""Parts that one look reads of a list without a known order or dates."""

MAX_RECENT: Final = 80
"""Parts that one look reads of an ordered list: the list may grow by so many during the look."""

MAX_ITEMS: Final = 100_000
"""The largest number of items that a list can plausibly have."""

OVERLAP: Final = 5
"""Items that are read twice, because items move up when others leave the list."""

SLACK: Final = 60.0
"""Seconds by which ``createdAt`` and ``Date`` may differ, as they may come from two machines."""


class Order(Enum):
    """The order of a list, by the dates of its items."""

    NEWEST_FIRST = "newest first"
    OLDEST_FIRST = "oldest first"
    NONE = "no order that helps"


@frozen
class Span:
    """A part of a list to request."""

    skip: int
    take: int


@frozen
class Part:
    """A part of a list, as the server sent it.

    Attributes:
        count: The number of items.
        total: The number of items in the whole list; None: not said.
        created: The items' creation times in their order, by the server's clock; items without
            a date are left out.
        since: Items created before this time, by the server's clock, do not matter; None: the
            answer had no ``Date``.
    """

    count: int
    total: int | None
    created: Sequence[float]
    since: float | None


Reading: TypeAlias = Generator[Span, Part | None, None]
"""A generator that yields spans to request, and receives parts; None: the part was too large."""


def total_of(told: int | None, count: int, asked: int = TAKE) -> int | None:
    """The number of items in the whole list, as the server says with a part; None: not known.

    Some servers count the items of the part instead. A full part does not show which it is.

    Args:
        told: What the server says.
        count: The items of the part.
        asked: The largest number that a part may have.
    """
    return None if told is not None and told <= count >= asked else told


@define
class ListMemory:
    """What one look passes on to the next one.

    Attributes:
        take: Items in one request.
        cursor: Where reading of a list without order continues.
    """

    take: int = TAKE
    cursor: int = 0


def since(date: float | None, ago: float) -> float | None:
    """The time of a start by the server's clock, which may differ from ours by hours.

    Args:
        date: The time of an answer, by its ``Date``.
        ago: Seconds since the start was sent, on the client's clock.
    """
    return None if date is None else date - ago - SLACK


def order_of(created: Sequence[float]) -> Order:
    """Find the order of a list from a part of it."""
    if len(set(created)) > 1:
        if all(one >= other for one, other in pairwise(created)):
            return Order.NEWEST_FIRST
        if all(one <= other for one, other in pairwise(created)):
            return Order.OLDEST_FIRST
    return Order.NONE


def read(memory: ListMemory) -> Reading:
    """Read a list from its newest end until items are too old; without an order, from both ends."""
    first = yield from _ask(memory, 0, TAKE)
    if first is None or not first.count:
        return
    # A server may send fewer than it is asked for: steps are of what it sends.
    total, step = total_of(first.total, first.count, memory.take), min(first.count, memory.take)
    if total is not None and total <= first.count:
        return
    order = order_of(first.created)
    if order is Order.NEWEST_FIRST:
        if not _is_past(first):
            yield from _read_on(memory, first)
    elif total is None:
        memory.cursor = yield from _read_far(memory, max(memory.cursor, step))
    elif order is Order.OLDEST_FIRST:
        yield from _read_back(memory, first, min(total, MAX_ITEMS), step)
    else:
        yield from _read_around(memory, range(0, min(total, MAX_ITEMS), step))


def _ask(memory: ListMemory, skip: int, take: int) -> Generator[Span, Part | None, Part | None]:
    """Request a part, and a smaller one while it is too large; None: one item is too large.

    The next look has steps as small as this, and reads what is left out here.
    """
    while True:
        take = min(take, memory.take)
        part = yield Span(skip, take)
        if part is not None or take == 1:
            return part
        memory.take = take // 2


def _is_past(part: Part) -> bool:
    return part.since is not None and any(one < part.since for one in part.created)


def _most(part: Part) -> int:
    return MAX_PAGES if part.since is None else MAX_RECENT


def _read_on(memory: ListMemory, first: Part) -> Reading:
    """Newest first: read forward from the first part."""
    skip = max(1, first.count - OVERLAP)
    for _ in range(1, _most(first)):
        part = yield from _ask(memory, skip, TAKE)
        if part is not None and (part.count < first.count or _is_past(part)):
            return
        skip += 1 if part is None else max(1, part.count - OVERLAP)


def _read_back(memory: ListMemory, first: Part, end: int, step: int) -> Reading:
    """Oldest first: read backward from the end."""
    for _ in range(1, _most(first)):
        take = min(step, end)
        end -= take
        part = yield from _ask(memory, end, take)
        if not end or (part is not None and _is_past(part)):
            return


def _read_far(memory: ListMemory, skip: int) -> Generator[Span, Part | None, int]:
    """No known order or length: continue where the last look ended.

    Returns:
        Where the next look continues.
    """
    for _ in range(1, MAX_PAGES):
        part = yield from _ask(memory, skip, TAKE)
        if part is not None and not part.count:
            return 0
        skip += 1 if part is None else part.count
    return skip


def _read_around(memory: ListMemory, skips: range) -> Reading:
    """No order: read both ends in each look, and the parts between them in turns."""
    order = list(dict.fromkeys(chain.from_iterable(zip(skips, reversed(skips), strict=True))))
    end, between = order[1], order[2:]
    start = memory.cursor if memory.cursor < len(between) else 0
    room = MAX_PAGES - 2
    memory.cursor = start + room
    for skip in [end, *(between[start:] + between[:start])[:room]]:
        yield from _ask(memory, skip, skips.step)
