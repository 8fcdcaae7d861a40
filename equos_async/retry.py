"""The retry layer's decisions: whether to try again, when, and who may go first.

Everything here is plain values and arithmetic. No clock, no random source and no sleep: the time
``now`` (seconds on any monotonic clock) and ``chance`` (uniform in [0, 1)) come in as arguments,
so that a test, a simulation and the client drive the same objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

from attrs import Attribute, field, frozen

from . import checks

# Patterns are compiled at first use: most programs never need them, and all would wait for it.
_DIGITS = r"[0-9]{1,9}"
_HTTP_DATE = (
    # RFC 9110, 5.6.7: the preferred form, and the two obsolete ones that must be accepted.
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT"
    r"|[A-Z][a-z]{5,8}, [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2} [0-9:]{8} GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [0-9]{4}"
)


def _number(_: object, attribute: Attribute[Any], value: object) -> None:
    checks.number(attribute.name, value)


def _number_or_zero(_: object, attribute: Attribute[Any], value: object) -> None:
    checks.number(attribute.name, value, zero=True)


def _count(_: object, attribute: Attribute[Any], value: object) -> None:
    checks.count(attribute.name, value)


@frozen(kw_only=True)
class Timeouts:
    """How long things may take, in seconds.

    Attributes:
        connect: One connection: name look-up, TCP and TLS handshakes.
        start_attempt: One attempt of a start. A start that was sent is not cancelled then: its
            caller gets ``StartOutcomeUnknownError``, and a late answer is awaited in the
            background until ``deadline``, so that its session can be stopped.
        stop_attempt: One attempt of a stop.
        deadline: A whole call, with all its attempts and all waiting.
    """

    connect: float = field(default=5.0, validator=_number)
    start_attempt: float = field(default=30.0, validator=_number)
    stop_attempt: float = field(default=10.0, validator=_number)
    deadline: float = field(default=60.0, validator=_number)


@frozen(kw_only=True)
class Limits:
    """How many connections at once, and how long idle ones are kept.

    Starts and stops have lanes of their own: in one shared pool slow starts make stops wait.

    Attributes:
        start_connections: Starts on the wire at once.
        stop_connections: Stops on the wire at once.
        keepalive: Seconds that an idle connection is kept; 0 means a fresh one for each request.
            Node closes idle connections after 5 s by default, and a start that meets such a close
            cannot be proved unsent: stay below the server's limit.
    """

    start_connections: int = field(default=100, validator=_count)
    stop_connections: int = field(default=256, validator=_count)
    keepalive: float = field(default=4.0, validator=_number_or_zero)


class Verdict(Enum):
    """What one attempt's outcome means for the call."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@frozen(kw_only=True)
class Outcome:
    """What is known after one attempt.

    Attributes:
        status: The answer's HTTP status; None where no answer came.
        sent: Whether any of the request may have left. An answer proves it.
        fatal: Whether no repetition can help: a certificate that does not fit, say.
        retry_after: The server's valid wish, in seconds.
    """

    status: int | None = None
    sent: bool = True
    fatal: bool = False
    retry_after: float | None = None

    @property
    def throttled(self) -> bool:
        """Whether the server said that it has too much to do."""
        return self.status in {429, 503}


def judge(outcome: Outcome, *, repeatable: bool) -> Verdict:
    """What an attempt's outcome means.

    A call that is not ``repeatable`` is tried again only where the attempt was provably not
    processed, and its outcome is unknown wherever the server may have acted.
    """
    doubtful = Verdict.RETRY if repeatable else Verdict.UNKNOWN
    status = outcome.status
    if status is None:
        if outcome.fatal:
            return Verdict.REFUSED
        return doubtful if outcome.sent else Verdict.RETRY
    if 200 <= status <= 299:
        return Verdict.ACCEPTED
    if status in {421, 429} or (status == 503 and outcome.retry_after is not None):
        return Verdict.RETRY
    if status in {408, 425} or not 300 <= status <= 499:
        return doubtful
    if (status == 409 and repeatable) or (_may_follow_the_deed(status) and not repeatable):
        return doubtful
    return Verdict.REFUSED


def _may_follow_the_deed(status: int) -> bool:
    """Post/Redirect/Get: all redirects but 307 and 308, which say "not here", may come after."""
    return 300 <= status <= 399 and status not in {307, 308}


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how soon a call is tried again.

    Attributes:
        start_attempts: Attempts of a start, the first included.
        stop_attempts: Attempts of a stop, the first included.
        base: Seconds; the first retry waits a uniform share of it, each further one of double.
        throttled_base: The same after 429 or 503.
        cap: Seconds; no backoff is longer, unless the server asks for it.
        max_retry_after: Seconds; a start whose server asks for more fails at once, and no shared
            pause is longer.
        budget: Tokens for the retries of all starts of one client.
        budget_refill: Tokens that flow back each second.
        connection_cost: Tokens that a start's retry costs after a connection failed.
        throttled_cost: Tokens that it costs after the server refused.
        gate_width: Retries of stops in flight at once, to begin with.
        gate_max_width: The same, after successes.
        gate_delay: Seconds between retries of stops, after the first that failed.
        gate_max_delay: The same, after many that failed.
        slow_start: Starts in flight at once when a shared pause ends.
    """

    start_attempts: int = field(default=3, validator=_count)
    stop_attempts: int = field(default=8, validator=_count)
    base: float = field(default=0.5, validator=_number)
    throttled_base: float = field(default=1.0, validator=_number)
    cap: float = field(default=20.0, validator=_number)
    max_retry_after: float = field(default=30.0, validator=_number)
    budget: float = field(default=500.0, validator=_number_or_zero)
    budget_refill: float = field(default=5.0, validator=_number_or_zero)
    connection_cost: float = field(default=10.0, validator=_number_or_zero)
    throttled_cost: float = field(default=10.0, validator=_number_or_zero)
    gate_width: int = field(default=4, validator=_count)
    gate_max_width: int = field(default=8, validator=_count)
    gate_delay: float = field(default=0.25, validator=_number)
    gate_max_delay: float = field(default=5.0, validator=_number)
    slow_start: int = field(default=4, validator=_count)

    def delay(
        self, outcome: Outcome, *, repeatable: bool, attempts: int, left: float, chance: float
    ) -> float | None:
        """Seconds to wait before the next attempt, or None: fail now.

        Args:
            outcome: What came of the last attempt, judged worth a retry.
            repeatable: Whether the call is a stop.
            attempts: How many were made.
            left: Seconds until the call's deadline; no wait that would end after it is begun.
            chance: One draw, uniform in [0, 1).
        """
        asked = outcome.retry_after
        if attempts >= (self.stop_attempts if repeatable else self.start_attempts):
            return None
        if outcome.status == 421 and attempts > 1:
            return None  # RFC 9110, 15.5.20: worth one more connection, no more
        if asked is not None and not repeatable and asked > self.max_retry_after:
            return None
        wait = self.backoff(attempts - 1, throttled=outcome.throttled, chance=chance)
        if asked is not None:
            # A herd that was sent away together must not come back together.
            wait = max(wait, asked + chance * min(5.0, max(0.5, 0.2 * asked)))
        return wait if wait < left else None

    def backoff(self, retries: int, *, throttled: bool, chance: float) -> float:
        """Full jitter: a uniform share of an exponential step."""
        base = self.throttled_base if throttled else self.base
        return chance * min(self.cap, base * 2.0 ** min(retries, 60))

    def cost(self, outcome: Outcome) -> float:
        """Tokens that a start's retry takes from the budget."""
        return self.connection_cost if outcome.status is None else self.throttled_cost


class RetryBudget:
    """Tokens for the retries of all starts of one client.

    In an outage the first attempts are the load that cannot be avoided; the budget keeps retries
    from multiplying it, however many callers there are.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy: RetryPolicy = policy
        self.tokens: float = policy.budget
        self.updated: float = 0.0

    def take(self, cost: float, now: float) -> bool:
        """Pay for one retry; False, and nothing taken, where that cannot be afforded."""
        self.give(max(0.0, now - self.updated) * self.policy.budget_refill)
        self.updated = now
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True

    def give(self, tokens: float) -> None:
        """Put tokens back: a retried success its cost, a first-try success one."""
        self.tokens = min(self.policy.budget, self.tokens + tokens)


class Lane:
    """A number of permits. Waiting for one means that nothing was sent yet."""

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.in_flight: int = 0

    def enter(self, now: float) -> float:
        """0: a permit is taken. Else seconds to wait; inf: until somebody leaves."""
        if self.in_flight >= self.limit:
            return math.inf
        self.in_flight += 1
        return 0.0

    def leave(self) -> None:
        """Give a permit back."""
        self.in_flight -= 1


class StartLane(Lane):
    """The permits of starts, held back while the server wants a pause, then let out slowly.

    ``window`` is how many may be in flight: None for the whole lane. After a pause it begins
    small and grows by one with each success, so that those who waited do not return as one herd.
    A refusal halves it, and from then on it grows by one with each window of successes: as in TCP
    (RFC 5681), fast until the limit was met once, and carefully afterwards.
    """

    def __init__(self, limit: int, policy: RetryPolicy) -> None:
        super().__init__(limit)
        self.policy: RetryPolicy = policy
        self.paused_until: float = -math.inf
        self.window: float | None = None
        self.careful: bool = False

    def enter(self, now: float) -> float:
        """0: a permit is taken. Else seconds to wait; inf: until somebody leaves."""
        if now < self.paused_until:
            return self.paused_until - now
        if self.window is not None and self.in_flight >= self.window:
            return math.inf
        return super().enter(now)

    def pause_left(self, now: float) -> float:
        """Seconds until starts may be sent again."""
        return max(0.0, self.paused_until - now)

    def pause(self, now: float, seconds: float) -> None:
        """Somebody was told to come back in ``seconds``: that holds for all starts."""
        self.paused_until = max(self.paused_until, now + min(seconds, self.policy.max_retry_after))
        if self.window is None:
            self.window = min(self.policy.slow_start, self.limit)

    def refused(self, now: float) -> None:
        """A start was answered 429 or 503; those sent before the pause do not count against it."""
        if self.window is not None and now >= self.paused_until:
            self.window = max(1.0, self.window / 2)
            self.careful = True

    def succeeded(self) -> None:
        """A start was accepted."""
        if self.window is None:
            return
        self.window += 1 / self.window if self.careful else 1
        if self.window >= self.limit:
            self.window, self.careful = None, False


class StopGate(Lane):
    """How many retries of stops go at once (``limit``), and how soon after one another.

    A stop is never given up to save load, so its retries wait instead: few at a time, and
    further apart the longer they fail.
    """

    limit: int  # another one after each answer

    def __init__(self, policy: RetryPolicy) -> None:
        super().__init__(policy.gate_width)
        self.policy: RetryPolicy = policy
        self.gap: float = 0.0
        self.not_before: float = -math.inf

    def enter(self, now: float) -> float:
        """0: a place is taken. Else seconds to wait; inf: until somebody leaves."""
        return self.not_before - now if now < self.not_before else super().enter(now)

    def failed(self, now: float, chance: float) -> None:
        """A retry failed: fewer at once, and further apart."""
        self.limit = max(1, self.limit // 2)
        self.gap = min(self.policy.gate_max_delay, max(self.policy.gate_delay, 2.0 * self.gap))
        self.not_before = now + (0.5 + 0.5 * chance) * self.gap

    def succeeded(self) -> None:
        """The server answered a stop, with anything that is not to be repeated."""
        self.limit = min(self.policy.gate_max_width, self.limit + 1)
        self.gap = 0.0
        self.not_before = -math.inf


class Traffic:
    """All that the calls of one client share: two lanes, the budget, the gate and the pause."""

    def __init__(self, policy: RetryPolicy, limits: Limits) -> None:
        self.policy: RetryPolicy = policy
        self.budget: RetryBudget = RetryBudget(policy)
        self.starts: StartLane = StartLane(limits.start_connections, policy)
        self.stops: Lane = Lane(limits.stop_connections)
        self.stop_retries: StopGate = StopGate(policy)

    def learn(
        self,
        outcome: Outcome,
        *,
        repeatable: bool,
        attempts: int,
        paid: float,
        now: float,
        chance: float,
    ) -> Verdict:
        """Judge an attempt, and let all other calls benefit from what it tells.

        Args:
            outcome: What came of the attempt.
            repeatable: Whether the call is a stop.
            attempts: How many attempts the call has made.
            paid: What the call's last retry cost, 0 where this was its first attempt.
            now: The time.
            chance: One draw, uniform in [0, 1).
        """
        verdict = judge(outcome, repeatable=repeatable)
        if outcome.throttled and not repeatable:
            self.starts.refused(now)
        if outcome.throttled and outcome.retry_after is not None:
            self.starts.pause(now, outcome.retry_after)
        if repeatable and verdict is not Verdict.RETRY:
            self.stop_retries.succeeded()
        elif repeatable and attempts > 1:
            self.stop_retries.failed(now, chance)
        elif verdict is Verdict.ACCEPTED:
            self.starts.succeeded()
            self.budget.give(paid or 1.0)
        return verdict

    def delay(
        self,
        outcome: Outcome,
        *,
        repeatable: bool,
        attempts: int,
        left: float,
        now: float,
        chance: float,
    ) -> float | None:
        """Seconds to wait before the next attempt, or None: fail now. A start's retry is paid."""
        wait = self.policy.delay(
            outcome, repeatable=repeatable, attempts=attempts, left=left, chance=chance
        )
        if wait is None or repeatable or self.budget.take(self.policy.cost(outcome), now):
            return wait
        return None


def parse_retry_after(headers: Mapping[str, str], wall: float) -> float | None:
    """The server's wish in seconds, or None where it sent no valid one.

    Args:
        headers: The answer's headers, looked up regardless of case.
        wall: Seconds since the epoch here, for a date in an answer without a ``Date`` of its own.
    """
    milliseconds = headers.get("Retry-After-Ms", "").strip()
    if re.fullmatch(_DIGITS, milliseconds):
        return int(milliseconds) / 1000
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(_DIGITS, value):
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    sent = _http_date(headers.get("Date", "").strip())
    return max(0.0, until - (wall if sent is None else sent))


def _http_date(value: str) -> float | None:
    if not re.fullmatch(_HTTP_DATE, value):
        return None
    try:
        moment: datetime = parsedate_to_datetime(value)
        return moment.replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
