"""The decisions of the retry layer: no loop, no clock, no chance but what is passed in."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, cast

import pytest

from equos_async import ConfigurationError, Limits, RetryPolicy, Timeouts
from equos_async._api.effects import CREATE, END, READ
from equos_async._retry.backoff import backoff, delay, parse_retry_after
from equos_async._retry.classify import Outcome, RetryRules, Verdict, classify
from equos_async._retry.throttle import (
    AdaptiveLimit,
    Again,
    ClientThrottle,
    ConcurrencyLimit,
    RetryBudget,
    RetryGate,
)
from tests.clocks import WALL

ACCEPTED, RETRY, REFUSED, UNKNOWN = (
    Verdict.ACCEPTED,
    Verdict.RETRY,
    Verdict.REFUSED,
    Verdict.UNKNOWN,
)

TABLE = [
    # what happened                                   a start   a stop   a read
    (Outcome(sent=False), RETRY, RETRY, RETRY),
    (Outcome(sent=False, fatal=True), REFUSED, REFUSED, REFUSED),
    (Outcome(sent=True), UNKNOWN, RETRY, RETRY),
    (Outcome(status=200), ACCEPTED, ACCEPTED, ACCEPTED),
    (Outcome(status=201), ACCEPTED, ACCEPTED, ACCEPTED),
    (Outcome(status=204), ACCEPTED, ACCEPTED, ACCEPTED),
    (Outcome(status=299), ACCEPTED, ACCEPTED, ACCEPTED),
    (Outcome(status=200, readable=False), UNKNOWN, ACCEPTED, RETRY),
    (Outcome(status=429), RETRY, RETRY, RETRY),
    (Outcome(status=429, retry_after=2.0), RETRY, RETRY, RETRY),
    (Outcome(status=503, retry_after=2.0), RETRY, RETRY, RETRY),
    (Outcome(status=503), UNKNOWN, RETRY, RETRY),
    (Outcome(status=421), RETRY, RETRY, RETRY),
    (Outcome(status=408), UNKNOWN, RETRY, RETRY),
    (Outcome(status=425), UNKNOWN, RETRY, RETRY),
    (Outcome(status=409), REFUSED, RETRY, REFUSED),
    *[
        (Outcome(status=s), REFUSED, REFUSED, REFUSED)
        for s in (400, 401, 402, 403, 404, 405, 410, 413, 422)
    ],
    *[(Outcome(status=s), UNKNOWN, RETRY, RETRY) for s in (500, 501, 502, 504, 505, 520, 599)],
    *[(Outcome(status=s), UNKNOWN, REFUSED, REFUSED) for s in (300, 301, 302, 303, 304, 305)],
    *[(Outcome(status=s), REFUSED, REFUSED, REFUSED) for s in (307, 308)],
    *[(Outcome(status=s), UNKNOWN, RETRY, RETRY) for s in (100, 101, 103, 199, 600, 999)],
]


@pytest.mark.parametrize(("outcome", "start", "stop", "read"), TABLE, ids=str)
def test_what_an_outcome_means(
    outcome: Outcome, start: Verdict, stop: Verdict, read: Verdict
) -> None:
    """The table of what is retried."""
    assert classify(outcome, CREATE.retry) is start
    assert classify(outcome, END.retry) is stop
    assert classify(outcome, READ.retry) is read


def waits(outcome: Outcome, **changes: Any) -> float | None:
    """The default policy's wait, for a start's first attempt with an hour left."""
    given: dict[str, Any] = {"rules": CREATE.retry, "attempts": 1, "left": 3600.0, "chance": 0.5}
    return delay(RetryPolicy(), outcome=outcome, **given | changes)


class TestDelay:
    @pytest.mark.parametrize(
        ("status", "attempts", "expected"),
        [(None, 1, 0.25), (None, 2, 0.5), (429, 1, 0.5), (429, 2, 1.0), (503, 2, 1.0)],
    )
    def test_backoff_is_a_uniform_share_of_a_doubling_step(
        self, status: int | None, attempts: int, expected: float
    ) -> None:
        """Half the chance is half the step; after 429 and 503 the steps are longer."""
        assert waits(Outcome(status=status, sent=False), attempts=attempts) == expected

    def test_backoff_is_capped_however_often_it_failed(self) -> None:
        """The exponent is clamped and the step is never above the cap."""
        assert backoff(RetryPolicy(), 10_000, throttled=False, chance=1.0) == 20.0

    @pytest.mark.parametrize(
        ("rules", "last"), [(CREATE.retry, 3), (END.retry, 8), (READ.retry, 3)]
    )
    def test_attempts_are_counted(self, rules: RetryRules, last: int) -> None:
        """A start is tried three times, a stop eight times."""
        outcome = Outcome(status=429)
        assert waits(outcome, rules=rules, attempts=last - 1) is not None
        assert waits(outcome, rules=rules, attempts=last) is None

    def test_misdirected_is_worth_one_more_connection(self) -> None:
        """421 is tried again once."""
        assert waits(Outcome(status=421)) is not None
        assert waits(Outcome(status=421), attempts=2) is None

    def test_nothing_waits_beyond_the_deadline(self) -> None:
        """A wait that would end after the deadline is not begun."""
        assert waits(Outcome(status=429), left=0.6) == 0.5
        assert waits(Outcome(status=429), left=0.5) is None

    @pytest.mark.parametrize(
        ("asked", "chance", "expected"),
        [(0.0, 0.5, 0.5), (2.0, 0.0, 2.0), (2.0, 1.0, 2.5), (10.0, 1.0, 12.0), (30.0, 1.0, 35.0)],
    )
    def test_retry_after_is_spread_out(self, asked: float, chance: float, expected: float) -> None:
        """The server's wish is the least, with a spread of a fifth, half a second to five."""
        assert waits(Outcome(status=429, retry_after=asked), chance=chance) == expected

    def test_a_start_does_not_wait_for_ever(self) -> None:
        """Asked to wait for more than 30 s a start fails at once; a stop waits."""
        outcome = Outcome(status=429, retry_after=30.5)
        assert waits(outcome) is None
        assert waits(outcome, rules=END.retry) is not None


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({"Retry-After": "2"}, 2.0),
            ({"Retry-After": " 0 "}, 0.0),
            ({"Retry-After": "999999999"}, 999999999.0),
            ({"Retry-After-Ms": "1500"}, 1.5),
            ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5),
            ({"Retry-After-Ms": "soon", "Retry-After": "9"}, 9.0),
            ({"Retry-After": "Wed, 10 Dec 2025 09:11:57 GMT"}, 10.0),
            ({"Retry-After": "Wednesday, 10-Dec-25 09:11:57 GMT"}, 10.0),
            ({"Retry-After": "Wed Dec 10 09:11:57 2025"}, 10.0),
            ({"Retry-After": "Wed, 10 Dec 2025 09:00:00 GMT"}, 0.0),
            (
                {
                    "Retry-After": "Wed, 10 Dec 2025 12:00:05 GMT",
                    "Date": "Wed, 10 Dec 2025 12:00:00 GMT",
                },
                5.0,
            ),
            ({"Retry-After": "Wed, 10 Dec 2025 09:11:57 GMT", "Date": "today"}, 10.0),
        ],
    )
    def test_what_is_valid(self, headers: dict[str, str], expected: float) -> None:
        """Seconds, milliseconds and the dates of RFC 9110; the past is now."""
        assert parse_retry_after(headers, WALL) == expected

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "-1",
            "+1",
            "1.5",
            "1e3",
            "nan",
            "inf",
            "0x10",
            "２",
            "1, 2",
            "1234567890",
            "9" * 5000,
            "tomorrow",
            "Wed, 10 Dec 99999 09:11:57 GMT",
            "Wed, 32 Dec 2025 09:11:57 GMT",
            "Wed, 10 Dec 2025 25:11:57 GMT",
            "Wed, 10 Foo 2025 09:11:57 GMT",
            "Wed, 10 Dec 2025 09:11:57 +0000",
        ],
    )
    def test_what_counts_as_absent(self, value: str) -> None:
        """Anything else is no wish, and no crash."""
        assert parse_retry_after({"Retry-After": value}, WALL) is None

    def test_nothing_sent(self) -> None:
        """No header, no wish."""
        assert parse_retry_after({}, WALL) is None


class TestBudget:
    def test_retries_are_paid_until_it_is_empty(self) -> None:
        """500 tokens are 50 retries after failed connections, and then none."""
        budget = RetryBudget(RetryPolicy())
        assert [budget.take(10.0, 0.0) for _ in range(51)] == [True] * 50 + [False]

    def test_it_flows_back(self) -> None:
        """Five tokens a second, never above the size; time that runs backwards gives nothing."""
        budget = RetryBudget(RetryPolicy(budget=10.0))
        assert budget.take(10.0, 100.0)
        assert not budget.take(10.0, 101.0)
        assert budget.take(10.0, 102.0)
        assert not budget.take(1.0, 50.0)
        assert budget.take(10.0, 10_000.0)
        assert budget.tokens == 0.0

    def test_success_gives_back(self) -> None:
        """A success refunds, and the budget never grows above its size."""
        budget = RetryBudget(RetryPolicy(budget=20.0))
        budget.take(15.0, 0.0)
        budget.give(10.0)
        assert budget.tokens == 15.0
        budget.give(100.0)
        assert budget.tokens == 20.0


class TestLimits:
    def test_a_lane_has_so_many_permits(self) -> None:
        """A call that finds no permit gets one when one is returned."""
        limit = ConcurrencyLimit(2)
        assert [limit.enter(0.0) for _ in range(3)] == [0.0, 0.0, math.inf]
        limit.leave()
        assert limit.enter(0.0) == 0.0

    def test_a_pause_holds_starts_back(self) -> None:
        """Until its end there are no permits; a shorter one changes nothing."""
        limit = AdaptiveLimit(100, RetryPolicy())
        limit.pause(10.0, 5.0)
        limit.pause(10.0, 2.0)
        assert limit.enter(12.0) == 3.0
        assert limit.pause_left(12.0) == 3.0
        assert limit.enter(15.0) == 0.0
        assert limit.pause_left(16.0) == 0.0
        limit.pause(20.0, 3600.0)
        assert limit.pause_left(20.0) == 30.0

    def test_after_a_pause_starts_come_slowly(self) -> None:
        """Four at once, one more with each success, until the limit is open again."""
        limit = AdaptiveLimit(7, RetryPolicy())
        limit.pause(0.0, 1.0)
        assert [limit.enter(2.0) for _ in range(5)] == [0.0] * 4 + [math.inf]
        limit.succeeded()
        assert limit.enter(2.0) == 0.0
        assert limit.enter(2.0) == math.inf
        limit.succeeded()
        limit.succeeded()
        assert limit.window is None
        assert [limit.enter(2.0) for _ in range(3)] == [0.0, 0.0, math.inf]

    def test_another_refusal_halves_the_window(self) -> None:
        """Those after the pause count, those that were sent before it do not; one stays."""
        limit = AdaptiveLimit(100, RetryPolicy())
        limit.refused(0.0)
        assert limit.window is None
        limit.pause(0.0, 1.0)
        limit.refused(0.5)
        assert limit.window == 4
        for expected in (2, 1, 1):
            limit.refused(1.5)
            assert limit.window == expected

    def test_after_a_refusal_it_grows_carefully(self) -> None:
        """By one with each window of successes, and quickly again once the limit was open."""
        limit = AdaptiveLimit(5, RetryPolicy(slow_start=4))
        limit.pause(0.0, 1.0)
        limit.refused(1.5)
        assert limit.window == 2
        for expected in (2.5, 2.9):
            limit.succeeded()
            assert limit.window == expected
        until_open(limit)
        limit.pause(2.0, 1.0)
        limit.succeeded()
        assert limit.window is None

    def test_a_narrow_lane_starts_with_what_it_has(self) -> None:
        """The window is never wider than the limit."""
        limit = AdaptiveLimit(2, RetryPolicy())
        limit.pause(0.0, 1.0)
        assert limit.window == 2
        limit.succeeded()
        assert limit.window is None

    def test_a_success_without_a_window_changes_nothing(self) -> None:
        """Most of the time there is no window."""
        limit = AdaptiveLimit(2, RetryPolicy())
        limit.succeeded()
        assert limit.window is None


class TestRetryGate:
    def test_it_lets_a_few_retries_go_at_once(self) -> None:
        """Four to begin with, one more with each success, eight at most."""
        gate = RetryGate(RetryPolicy())
        assert [gate.enter(0.0) for _ in range(5)] == [0.0] * 4 + [math.inf]
        for expected in (5, 6, 7, 8, 8):
            gate.succeeded()
            assert gate.limit == expected

    def test_failures_make_it_narrow_and_slow(self) -> None:
        """Each failed retry halves the width and doubles the gap, up to five seconds."""
        gate = RetryGate(RetryPolicy())
        for width, gap in ((2, 0.25), (1, 0.5), (1, 1.0), (1, 2.0), (1, 4.0), (1, 5.0), (1, 5.0)):
            gate.failed(100.0, 1.0)
            assert (gate.limit, gate.gap) == (width, gap)
        assert gate.enter(100.0) == 5.0
        gate.failed(100.0, 0.0)
        assert gate.enter(100.0) == 2.5
        assert gate.enter(102.5) == 0.0
        gate.leave()
        gate.succeeded()
        assert gate.enter(100.0) == 0.0


def until_open(limit: AdaptiveLimit) -> None:
    """Let answers arrive until the limit has no window any more."""
    while limit.window is not None:
        limit.succeeded()


def learn(throttle: ClientThrottle, outcome: Outcome, **changes: Any) -> Verdict:
    """Let all calls learn from a start's first attempt at time 0."""
    given: dict[str, Any] = {
        "rules": CREATE.retry,
        "attempts": 1,
        "paid": 0.0,
        "now": 0.0,
        "chance": 0.5,
        **changes,
    }
    return throttle.learn(outcome, **given)[0]


class TestThrottle:
    def test_a_refusal_with_a_wish_pauses_starts_even_if_it_met_a_stop(self) -> None:
        """429 and 503 with a valid Retry-After hold all starts back; a stop's too."""
        for status, rules in product((429, 503), (CREATE.retry, END.retry)):
            throttle = ClientThrottle(RetryPolicy(), Limits())
            learn(throttle, Outcome(status=status, retry_after=2.0), rules=rules)
            assert throttle.starts.pause_left(0.0) == 2.0

    def test_other_answers_pause_nothing(self) -> None:
        """A Retry-After of another status pauses no other call."""
        throttle = ClientThrottle(RetryPolicy(), Limits())
        learn(throttle, Outcome(status=400, retry_after=2.0))
        learn(throttle, Outcome(status=429))
        assert throttle.starts.pause_left(0.0) == 0.0

    def test_success_pays_back(self) -> None:
        """A first-try success gives one token, a retried one what its retry cost."""
        throttle = ClientThrottle(RetryPolicy(budget=100.0), Limits())
        throttle.budget.tokens = 50.0
        learn(throttle, Outcome(status=201))
        assert throttle.budget.tokens == 51.0
        learn(throttle, Outcome(status=201), attempts=2, paid=10.0)
        assert throttle.budget.tokens == 61.0

    def test_a_failed_first_stop_says_nothing_of_retries(self) -> None:
        """Only retries narrow the gate, and any final answer widens it."""
        throttle = ClientThrottle(RetryPolicy(), Limits())
        learn(throttle, Outcome(sent=True), rules=END.retry)
        assert throttle.gate.limit == 4
        learn(throttle, Outcome(sent=True), rules=END.retry, attempts=2)
        assert throttle.gate.limit == 2
        learn(throttle, Outcome(status=404), rules=END.retry)
        assert (throttle.gate.limit, throttle.gate.gap) == (3, 0.0)

    def test_a_start_pays_for_its_retry_and_a_stop_does_not(self) -> None:
        """An empty budget ends a start's retries at once, and never a stop's."""
        throttle = ClientThrottle(RetryPolicy(budget=10.0, budget_refill=0.0), Limits())
        given: dict[str, Any] = {"attempts": 1, "left": 60.0, "now": 0.0, "chance": 0.5}
        refused = Outcome(status=429)
        assert throttle.again(refused, CREATE.retry, **given) == Again(wait=0.5, paid=10.0)
        assert throttle.again(refused, CREATE.retry, **given) is None
        for free in (END.retry, READ.retry):
            assert throttle.again(refused, free, **given) == Again(wait=0.5, paid=0.0)
        given["left"] = 0.1
        assert throttle.again(refused, END.retry, **given) is None

    def test_a_read_delays_reads_only(self) -> None:
        """A pause of look-ups does not delay starts; successful look-ups open their limit again."""
        throttle = ClientThrottle(RetryPolicy(slow_start=7), Limits())
        learn(throttle, Outcome(status=429, retry_after=2.0), rules=READ.retry)
        assert throttle.starts.pause_left(0.0) == 0.0
        assert throttle.reads.pause_left(0.0) == 2.0
        assert throttle.budget.tokens == 500.0
        learn(throttle, Outcome(status=200), rules=READ.retry)
        assert throttle.reads.window is None
        assert (throttle.gate.limit, throttle.gate.in_flight) == (4, 0)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Timeouts(connect=0), "connect"),
        (lambda: Timeouts(deadline=cast("Any", None)), "deadline"),
        (lambda: Timeouts(start_attempt=math.inf), "start_attempt"),
        (lambda: Timeouts(stop_attempt=True), "stop_attempt"),
        (lambda: Limits(start_connections=0), "start_connections"),
        (lambda: Limits(stop_connections=cast("Any", 1.5)), "stop_connections"),
        (lambda: Timeouts(read_attempt=0), "read_attempt"),
        (lambda: Limits(read_connections=0), "read_connections"),
        (lambda: RetryPolicy(read_attempts=0), "read_attempts"),
        (lambda: Limits(keepalive=-1), "keepalive"),
        (lambda: RetryPolicy(start_attempts=0), "start_attempts"),
        (lambda: RetryPolicy(base=float("nan")), "base"),
        (lambda: RetryPolicy(cap=10**400), "cap"),
        (lambda: RetryPolicy(budget=-1), "budget"),
    ],
)
def test_a_wrong_setting_is_named(make: Any, named: str) -> None:
    """A setting that cannot be is refused with its name."""
    with pytest.raises(ConfigurationError, match=f"^{named} must be"):
        make()
