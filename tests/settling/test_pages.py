"""The parts of a list that are read, in any order of the list."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from equos_async._retry.pages import (
    MAX_ITEMS,
    MAX_PAGES,
    MAX_RECENT,
    ListMemory,
    Order,
    Part,
    Reading,
    Span,
    order_of,
    read,
    since,
)

NOW = 1_000_000.0
TOTALS = st.integers(0, 3000)


@frozen(kw_only=True)
class Listed:
    """A list on a server; an item is the time at which it was begun."""

    items: list[float]
    tells_total: bool = True
    tells_count: bool = False
    has_date: bool = True
    most: int = 50
    largest: int = 50
    memory: ListMemory = field(factory=ListMemory)

    def look(self) -> tuple[list[Span], set[float]]:
        """One look for the starts of the last 100 s."""
        spans: list[Span] = []
        seen: set[float] = set()
        reading = read(self.memory)
        span = next(reading)
        while True:
            spans.append(span)
            items = self.items[span.skip : span.skip + min(span.take, self.most)]
            total = len(items if self.tells_count else self.items) if self.tells_total else None
            after = since(NOW if self.has_date else None, 100.0)
            part = Part(len(items), total, items, after) if span.take <= self.largest else None
            seen.update(items if part else [])
            try:
                span = reading.send(part)
            except StopIteration:
                return spans, seen


def rest_of(reading: Reading, part: Part | None) -> list[Span]:
    """The further requests, if all parts are the same."""
    spans: list[Span] = []
    try:
        while True:
            spans.append(reading.send(part))
    except StopIteration:
        return spans


def dated(total: int, *, apart: float = 1000.0, newest: float = NOW - 10) -> list[float]:
    """Times that are apart, newest first."""
    return [newest - apart * number for number in range(total)]


@given(TOTALS, st.booleans(), st.integers(1, 60), st.booleans())
def test_the_newest_end_is_read(total: int, oldest: bool, most: int, has_date: bool) -> None:
    """A few parts are read if dates show where to stop."""
    items = dated(total)
    listed = Listed(items=items[::-1] if oldest else items, most=most, has_date=has_date)
    spans, seen = listed.look()
    assert not items or items[0] in seen
    assert len(spans) <= (2 if has_date and most > 1 else MAX_PAGES)


@pytest.mark.parametrize("oldest", [False, True])
def test_all_that_is_new_is_read(oldest: bool) -> None:
    """Others are busy, too."""
    items = dated(2000, apart=0.1)
    new = {one for one in items if one >= NOW - 100}
    spans, seen = Listed(items=items[::-1] if oldest else items).look()
    assert len(new) > 850
    assert new <= seen
    assert len(spans) < 45


@pytest.mark.parametrize("oldest", [False, True])
def test_it_ends_where_all_is_new(oldest: bool) -> None:
    """At the end of the list, and for a list without one."""
    items = dated(120, apart=0.1)
    assert Listed(items=items[::-1] if oldest else items).look()[1] == set(items)
    endless = dated(20_000, apart=0.001)
    spans, _ = Listed(items=endless[::-1] if oldest else endless).look()
    assert len(spans) == MAX_RECENT


def test_clocks_may_differ_by_hours() -> None:
    """The time of the start is reckoned from the server's own date."""
    assert since(50_000.0, 100.0) == 50_000 - 100 - 60
    assert since(None, 100.0) is None


def unordered(total: int) -> list[float]:
    """Times in no order, in the first part already."""
    return [NOW - 10 - (number * 7919) % 9973 for number in range(total)]


def oldest_first(total: int) -> list[float]:
    """Times far apart, oldest first."""
    return dated(total)[::-1]


@given(st.integers(2, 3000))
def test_a_list_without_order_is_read_in_turns(total: int) -> None:
    """Both ends each time, 20 parts at most; after a few looks all of it was read."""
    listed = Listed(items=unordered(total))
    seen: set[float] = set()
    for _ in range(4):
        spans, found = listed.look()
        assert {listed.items[0], listed.items[-1]} <= found
        assert len(spans) <= MAX_PAGES
        seen |= found
    assert seen == set(listed.items)


@pytest.mark.parametrize("make", [unordered, oldest_first])
def test_a_list_that_does_not_tell_its_end_is_read_on(
    make: Callable[[int], list[float]],
) -> None:
    """The next look continues where this one stopped."""
    listed = Listed(items=make(1600), tells_total=False)
    seen: set[float] = set()
    for _ in range(2):
        spans, found = listed.look()
        assert len(spans) <= MAX_PAGES
        seen |= found
    assert seen == set(listed.items)
    assert listed.memory.cursor == 0


@pytest.mark.parametrize("make", [unordered, oldest_first, dated])
def test_a_total_may_be_of_one_part_only(make: Callable[[int], list[float]]) -> None:
    """Then the list is read on, as one that does not tell its end."""
    listed = Listed(items=make(400), tells_count=True)
    assert max(listed.items) in listed.look()[1]


def test_a_total_is_no_reason_to_read_for_ever() -> None:
    """A server may say anything."""
    reading = read(ListMemory())
    next(reading)
    span = reading.send(Part(50, 10**18, [1.0, 2.0], None))
    assert span.skip < MAX_ITEMS
    assert len(rest_of(reading, Part(0, 10**18, [], None))) == MAX_PAGES - 2


@pytest.mark.parametrize("tells_total", [True, False])
@pytest.mark.parametrize("oldest", [True, False])
def test_less_is_asked_for_where_a_part_is_too_large(oldest: bool, tells_total: bool) -> None:
    """From then on: items may hold whole transcripts."""
    items = dated(300)
    listed = Listed(items=items[::-1] if oldest else items, largest=12, tells_total=tells_total)
    spans, _ = listed.look()
    assert [one.take for one in spans][:4] == [50, 25, 12, 12][: len(spans)]
    assert listed.memory.take == 12
    seen: set[float] = set()
    for _ in range(3):
        seen |= listed.look()[1]
    assert items[0] in seen


def test_a_part_that_is_always_too_large_is_stepped_over() -> None:
    """Not even one item can be read: that of the first part, or a later one."""
    assert len(Listed(items=dated(9), largest=0).look()[0]) == 6
    for order in ([3.0, 2.0], [2.0, 3.0], [2.0, 2.0]):
        for total in (300, None):
            memory = ListMemory(take=1)
            reading = read(memory)
            next(reading)
            first = reading.send(Part(2, total, order, None))
            spans = [first, *rest_of(reading, None)]
            assert len(spans) == MAX_PAGES - 1
            assert len({one.skip for one in spans}) == MAX_PAGES - 1


def test_order_is_learned_from_dates() -> None:
    """If the dates are in an order."""
    assert order_of([3.0, 2.0, 2.0]) is Order.NEWEST_FIRST
    assert order_of([1.0, 2.0, 2.0]) is Order.OLDEST_FIRST
    assert order_of([1.0, 3.0, 2.0]) is Order.NONE
    assert order_of([1.0, 1.0]) is Order.NONE
    assert order_of([]) is Order.NONE
