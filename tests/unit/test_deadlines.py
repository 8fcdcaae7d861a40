"""The times of many attempts, on one timer of the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equos_async._http.deadlines import Watch
from equos_async._http.request import SendGuard
from equos_async.clock import GRAIN, Deadlines
from tests.clocks import FakeClock


class NotedGuard(SendGuard):
    """Tells when it is withdrawn, which is the first thing that happens at an attempt's time."""

    def __init__(self, withdrawn: Callable[[], None]) -> None:
        super().__init__()
        self._withdrawn = withdrawn

    def withdraw(self) -> None:
        self._withdrawn()
        super().withdraw()


async def attempt(
    deadlines: Deadlines[Watch], until: float, over: asyncio.Event, rang: Callable[[], None]
) -> bool:
    """An attempt that is never sent; returns whether its time ended it."""
    watch = Watch(deadlines, NotedGuard(rang), until, None, None)
    try:
        await over.wait()
    except asyncio.CancelledError as error:
        return watch.has_ended(error)
    finally:
        watch.stop()
    return False


async def begun(*attempts: asyncio.Task[bool]) -> None:
    """All of them wait."""
    await asyncio.sleep(0)
    assert not any(one.done() for one in attempts)


SECONDS = st.integers(1, 12)


@given(plan=st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=1, max_size=8))
def test_each_attempt_ends_at_its_own_time(plan: list[tuple[int, int, int]]) -> None:
    """Whenever it began, however long it may take, and whatever else began and ended meanwhile.

    Args:
        plan: Of each attempt, when it begins, how long it may take, and how long it takes.
    """

    async def main() -> None:
        clock = FakeClock()
        start = clock.now()
        deadlines = Deadlines(clock, Watch.ring)
        rang: dict[int, float] = {}
        overs = [asyncio.Event() for _ in plan]
        tasks: dict[int, asyncio.Task[bool]] = {}

        def note(number: int) -> None:
            rang[number] = clock.now()

        for second in range(30):
            for number, (begins, limit, takes) in enumerate(plan):
                if second == begins:
                    one = attempt(
                        deadlines, clock.now() + limit, overs[number], partial(note, number)
                    )
                    tasks[number] = asyncio.ensure_future(one)
                if second == begins + takes:
                    overs[number].set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(clock.due) <= 1
            clock.advance(1)
        for number, (begins, limit, takes) in enumerate(plan):
            ended = await tasks[number]
            assert ended is (limit <= takes)
            if ended:
                assert rang[number] == start + begins + limit
        assert not clock.due

    asyncio.run(main())


async def test_a_signal_that_strikes_at_one_attempts_time_spares_the_others() -> None:
    """Those that are due then, and those that are due later."""
    clock, rang = FakeClock(), list[float]()
    deadlines, over = Deadlines(clock, Watch.ring), asyncio.Event()

    def strike() -> None:
        raise KeyboardInterrupt

    def note() -> None:
        rang.append(clock.now())

    now = clock.now()
    struck = asyncio.ensure_future(attempt(deadlines, now + 5, over, strike))
    others = [
        asyncio.ensure_future(attempt(deadlines, now + seconds, over, note)) for seconds in (5, 7)
    ]
    await begun(struck, *others)
    with pytest.raises(KeyboardInterrupt):
        clock.advance(5)
    clock.advance(7)
    assert [await one for one in others] == [True, True]
    assert rang == [now + 5 + GRAIN, now + 7]
    over.set()
    assert not await struck


async def test_nothing_rings_after_the_transport_has_closed() -> None:
    """The event loop keeps no timer of it."""
    clock = FakeClock()
    deadlines, over = Deadlines(clock, Watch.ring), asyncio.Event()
    deadlines.clear()
    waiting = asyncio.ensure_future(attempt(deadlines, clock.now() + 5, over, over.clear))
    await begun(waiting)
    deadlines.clear()
    assert not clock.due
    clock.advance(10)
    await begun(waiting)
    over.set()
    assert not await waiting


async def test_many_that_end_one_after_the_other_are_looked_at_together() -> None:
    """In an outage thousands end within a second; none ends early, and none much later."""
    clock, rang = FakeClock(), list[float]()
    deadlines, over, start = Deadlines(clock, Watch.ring), asyncio.Event(), clock.now()
    times = [start + 5 + number / 10_000 for number in range(1000)]

    def note() -> None:
        rang.append(clock.now())

    tasks = [asyncio.ensure_future(attempt(deadlines, when, over, note)) for when in times]
    await begun(*tasks)
    clock.advance(6)
    assert all(await asyncio.gather(*tasks))
    assert all(0 <= at - when <= GRAIN + 1e-6 for at, when in zip(rang, times, strict=True))
    assert len(set(rang)) <= 0.1 / GRAIN + 1
