"""The queue before a limit, without a clock or a loop."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from equos_async import RetryPolicy
from equos_async._retry.queue import Admission, Queue
from equos_async._retry.throttle import AdaptiveLimit, ConcurrencyLimit, RetryGate


def never(_: object) -> bool:
    """No waiter has left."""
    return False


def test_first_come_first_served() -> None:
    """A newcomer does not overtake, and who is admitted leaves the queue."""
    queue = Queue[str](ConcurrencyLimit(1), never)
    assert queue.enter(0.0)
    assert not queue.enter(0.0)
    for name in "abc":
        queue.join(name, 60.0)
    assert queue.admit(0.0) == Admission([], math.inf)
    queue.leave()
    assert not queue.enter(0.0), "a is before it"
    assert queue.admit(0.0) == Admission(["a"], math.inf)
    assert len(queue.waiting) == 2


def test_it_tells_when_to_look_again() -> None:
    """A pause ends at a time; a full limit when a permit is returned."""
    limit = AdaptiveLimit(1, RetryPolicy())
    queue = Queue[str](limit, never)
    limit.pause(10.0, 5.0)
    queue.join("a", 60.0)
    queue.join("b", 60.0)
    assert queue.admit(12.0) == Admission([], 15.0)
    assert queue.admit(15.0) == Admission(["a"], math.inf)


def test_a_gate_that_opens_lets_in_at_once() -> None:
    """A success changes the limit: the queue need not wait for the earlier time."""
    gate = RetryGate(RetryPolicy())
    queue = Queue[str](gate, never)
    gate.failed(0.0, 1.0)
    queue.join("a", 60.0)
    assert queue.admit(0.0) == Admission([], 0.25)
    gate.succeeded()
    assert queue.admit(0.0) == Admission(["a"], math.inf)


def test_who_is_gone_gets_no_permit() -> None:
    """Neither a waiter that has left by itself, nor one that was dropped."""
    gone = {"a"}
    limit = ConcurrencyLimit(9)
    queue = Queue[str](limit, gone.__contains__)
    for name in "abc":
        queue.join(name, 60.0)
    queue.drop("b")
    queue.drop("b")
    assert queue.admit(0.0).admitted == ["c"]
    assert (len(queue.waiting), limit.in_flight) == (0, 1)


def test_who_cannot_wait_so_long() -> None:
    """The queue names those whose deadline is not after a time, and does not drop them."""
    queue = Queue[str](ConcurrencyLimit(1), never)
    for name, deadline in (("a", 5.0), ("b", 50.0), ("c", 20.0)):
        queue.join(name, deadline)
    assert queue.before(20.0) == ["a", "c"]
    assert len(queue.waiting) == 3


@given(st.lists(st.sampled_from("jld"), max_size=60), st.integers(1, 3))
def test_permits_are_never_lost(moves: list[str], size: int) -> None:
    """Never more permits than the limit are taken, and none is free while a call waits."""
    limit = ConcurrencyLimit(size)
    queue = Queue[int](limit, never)
    waiting: list[int] = []
    inside = 0
    for number, move in enumerate(moves):
        if move == "j":
            waiting.append(number)
            queue.join(number, 60.0)
        elif move == "l" and inside:
            inside -= 1
            queue.leave()
        elif move == "d" and waiting:
            queue.drop(waiting.pop())
        admitted = queue.admit(0.0).admitted
        assert admitted == waiting[: len(admitted)], "in their order"
        del waiting[: len(admitted)]
        inside += len(admitted)
        assert limit.in_flight == inside <= size
        assert not waiting or inside == size
