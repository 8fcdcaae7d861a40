"""The queue before a limit: fair, bounded by deadlines, and not disturbed by waiters that leave."""

from __future__ import annotations

import asyncio

import pytest

from equos_async import Clock, RetryPolicy
from equos_async._calls.limiter import Limiter
from equos_async._retry.throttle import AdaptiveLimit, ConcurrencyLimit
from equos_async.clock import set_unless_done
from tests.clocks import FakeClock, settle


async def test_first_come_first_served() -> None:
    """The longest waiter gets a permit first, in whatever order permits are returned."""
    clock, entered = FakeClock(), list[int]()
    limiter = Limiter(ConcurrencyLimit(1), clock, set())

    async def visit(number: int) -> None:
        assert await limiter.enter(clock.now() + 60)
        entered.append(number)

    tasks = [asyncio.create_task(visit(number)) for number in range(4)]
    await settle()
    for expected in ([0], [0, 1], [0, 1, 2], [0, 1, 2, 3]):
        assert entered == expected
        limiter.leave()
        await settle()
    await asyncio.gather(*tasks)
    assert clock.due == []


async def test_the_deadline_ends_the_wait() -> None:
    """A waiter without a permit by then is told so, and gets none later."""
    clock = FakeClock()
    limit = ConcurrencyLimit(1)
    limiter = Limiter(limit, clock, set())
    assert await limiter.enter(clock.now() + 5)
    waiting = asyncio.create_task(limiter.enter(clock.now() + 5))
    await settle()
    clock.advance(5)
    assert await waiting is False
    limiter.leave()
    assert limit.in_flight == 0


async def test_each_waits_until_its_own_deadline_on_one_timer() -> None:
    """However many wait: in an outage thousands do."""
    clock = FakeClock()
    limiter = Limiter(ConcurrencyLimit(1), clock, set())
    assert await limiter.enter(clock.now() + 60)
    waiting = [asyncio.create_task(limiter.enter(clock.now() + seconds)) for seconds in (7, 5, 9)]
    await settle()
    over: list[list[bool]] = []
    for seconds in (4, 2, 2, 2):
        assert len(clock.due) == 1
        clock.advance(seconds)
        await settle()
        over.append([task.done() for task in waiting])
    assert over == [[False] * 3, [False, True, False], [True, True, False], [True] * 3]
    assert clock.due == []


async def test_a_cancelled_waiter_takes_nothing_with_it() -> None:
    """The next one in the queue takes its position."""
    clock = FakeClock()
    limit = ConcurrencyLimit(1)
    limiter = Limiter(limit, clock, set())
    assert await limiter.enter(clock.now() + 60)
    gone, next_ = (asyncio.create_task(limiter.enter(clock.now() + 60)) for _ in range(2))
    await settle()
    gone.cancel()
    await settle()
    limiter.leave()
    assert await next_ is True
    limiter.leave()
    assert limit.in_flight == 0


async def test_cancelled_in_the_tick_of_its_admission() -> None:
    """The permit that it was just given goes to the next."""
    clock = FakeClock()
    limit = ConcurrencyLimit(1)
    limiter = Limiter(limit, clock, set())
    assert await limiter.enter(clock.now() + 60)
    gone, next_ = (asyncio.create_task(limiter.enter(clock.now() + 60)) for _ in range(2))
    await settle()
    limiter.leave()  # admits the first of them ...
    gone.cancel()  # ... which is cancelled before it runs
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await next_ is True
    limiter.leave()
    assert limit.in_flight == 0


async def test_a_pause_ends_by_itself() -> None:
    """The queue moves on at the limit's time, also if the pause has become longer meanwhile."""
    clock = FakeClock()
    limit = AdaptiveLimit(10, RetryPolicy())
    limiter = Limiter(limit, clock, set())
    limit.pause(clock.now(), 5)
    waiting = [asyncio.create_task(limiter.enter(clock.now() + 60)) for _ in range(2)]
    await settle()
    clock.advance(4)
    limit.pause(clock.now(), 5)
    clock.advance(4)
    await settle()
    assert not any(task.done() for task in waiting)
    clock.advance(1)
    assert await asyncio.gather(*waiting) == [True, True]


async def test_those_who_cannot_wait_are_turned_away() -> None:
    """A waiter whose deadline is before the end of a pause learns that at once."""
    clock = FakeClock()
    limiter = Limiter(ConcurrencyLimit(1), clock, set())
    assert await limiter.enter(clock.now() + 60)
    short, long = (asyncio.create_task(limiter.enter(clock.now() + s)) for s in (5, 50))
    await settle()
    limiter.turn_away(clock.now() + 20)
    assert await short is False
    limiter.leave()
    assert await long is True


async def test_the_real_clock() -> None:
    """It reads the loop's time, sleeps, and draws uniformly."""
    clock = Clock()
    begun, wall = clock.now(), clock.wall()
    await clock.sleep(0.001)
    assert clock.now() > begun
    assert clock.wall() >= wall
    assert 0.0 <= clock.chance() < 1.0


async def test_sleep_is_called_off_with_its_sleeper() -> None:
    """A cancelled sleep leaves no timer behind."""
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(5))
    await settle()
    assert clock.due == [5.0]
    task.cancel()
    await settle()
    assert clock.due == []


async def test_a_result_is_set_once() -> None:
    """The second result is ignored."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    set_unless_done(future, 1)
    set_unless_done(future, 2)
    assert await future == 1
