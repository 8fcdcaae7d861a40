"""State that the calls of one client share: limits, retry budget, pause and retry gate."""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import frozen

from equos_async.errors import OperationName
from equos_async.settings import Limits, RetryPolicy

from .backoff import cost, delay
from .classify import Outcome, RetryRules, Verdict, classify


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
        """Pay for one retry; if there are too few tokens, take none and return False."""
        self.give(max(0.0, now - self.updated) * self.policy.budget_refill)
        self.updated = now
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True

    def give(self, tokens: float) -> None:
        """Return tokens: the cost of a retry that succeeded, or one for a first attempt."""
        self.tokens = min(self.policy.budget, self.tokens + tokens)


class ConcurrencyLimit:
    """A number of permits. A call that waits for one has sent nothing yet."""

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.in_flight: int = 0

    def enter(self, now: float) -> float:
        """0: a permit is taken. Else seconds to wait; inf: until the limit changes."""
        if self.in_flight >= self.limit:
            return math.inf
        self.in_flight += 1
        return 0.0

    def leave(self) -> None:
        """Give a permit back."""
        self.in_flight -= 1

    def pause_left(self, now: float) -> float:
        """Seconds until calls may be sent again."""
        return 0.0

    def refused(self, now: float) -> None:
        """The server was too busy for a call."""

    def succeeded(self) -> None:
        """A call was accepted."""


class AdaptiveLimit(ConcurrencyLimit):
    """Permits that are held back while the server wants a pause, and returned slowly afterwards.

    ``window`` is the number of calls in flight; None: the whole limit. After a pause it begins
    small and grows by one with each success, so that the waiting calls are not sent all at once. A
    refusal halves it. From then on it grows by one with each window of successes: as in TCP (RFC
    5681), fast until the first refusal, and slowly afterwards.
    """

    def __init__(self, limit: int, policy: RetryPolicy) -> None:
        super().__init__(limit)
        self.policy: RetryPolicy = policy
        self.paused_until: float = -math.inf
        self.window: float | None = None
        self.careful: bool = False

    def enter(self, now: float) -> float:
        """0: a permit is taken. Else seconds to wait; inf: until the limit changes."""
        if now < self.paused_until:
            return self.paused_until - now
        if self.window is not None and self.in_flight >= self.window:
            return math.inf
        return super().enter(now)

    def pause_left(self, now: float) -> float:
        """Seconds until calls may be sent again."""
        return max(0.0, self.paused_until - now)

    def pause(self, now: float, seconds: float) -> float | None:
        """The server asked one call to wait for ``seconds``; this applies to all calls.

        Returns:
            The seconds of the pause; None if an earlier pause ends later.
        """
        if self.window is None:
            self.window = min(self.policy.slow_start, self.limit)
        until = now + min(seconds, self.policy.max_retry_after)
        if until <= max(now, self.paused_until):
            return None
        self.paused_until = until
        return until - now

    def refused(self, now: float) -> None:
        """A call was answered 429 or 503; those sent before the pause do not count against it."""
        if self.window is not None and now >= self.paused_until:
            self.window = max(1.0, self.window / 2)
            self.careful = True

    def succeeded(self) -> None:
        """A call was accepted."""
        if self.window is None:
            return
        self.window += 1 / self.window if self.careful else 1
        if self.window >= self.limit:
            self.window, self.careful = None, False


class RetryGate(ConcurrencyLimit):
    """The number of concurrent retries of stops (``limit``), and the time between them.

    A stop is never given up to save load. Its retries wait instead: few at a time, and further
    apart the longer they fail.
    """

    limit: int  # another one after each answer

    def __init__(self, policy: RetryPolicy) -> None:
        super().__init__(policy.gate_width)
        self.policy: RetryPolicy = policy
        self.gap: float = 0.0
        self.not_before: float = -math.inf

    def enter(self, now: float) -> float:
        """0: a permit is taken. Else seconds to wait; inf: until the limit changes."""
        return self.not_before - now if now < self.not_before else super().enter(now)

    def failed(self, now: float, chance: float) -> None:
        """A retry failed: fewer at once, and further apart."""
        self.limit = max(1, self.limit // 2)
        self.gap = min(self.policy.gate_max_delay, max(self.policy.gate_delay, 2.0 * self.gap))
        self.not_before = now + (0.5 + 0.5 * chance) * self.gap

    def succeeded(self) -> None:
        """The server answered a stop, and the answer needs no retry."""
        self.limit = min(self.policy.gate_max_width, self.limit + 1)
        self.gap = 0.0
        self.not_before = -math.inf


@frozen
class Again:
    """A further attempt.

    Attributes:
        wait: Seconds until it may be made.
        paid: Tokens that it cost.
    """

    wait: float
    paid: float


class ClientThrottle:
    """All that the calls of one client share: limits, retry budget, retry gate and pauses."""

    def __init__(self, policy: RetryPolicy, limits: Limits) -> None:
        self.policy: RetryPolicy = policy
        self.budget: RetryBudget = RetryBudget(policy)
        self.starts: AdaptiveLimit = AdaptiveLimit(limits.start_connections, policy)
        self.stops: ConcurrencyLimit = ConcurrencyLimit(limits.stop_connections)
        self.reads: AdaptiveLimit = AdaptiveLimit(limits.read_connections, policy)
        self.gate: RetryGate = RetryGate(policy)
        self.limits: Mapping[OperationName, ConcurrencyLimit] = {
            "start": self.starts,
            "stop": self.stops,
            "read": self.reads,
        }

    def learn(
        self,
        outcome: Outcome,
        rules: RetryRules,
        *,
        attempts: int,
        paid: float,
        now: float,
        chance: float,
    ) -> tuple[Verdict, float | None]:
        """Classify an attempt, and update the state that all calls share.

        Afterwards any limit may have changed: check every queue.

        Returns:
            The verdict, and the seconds of a pause that the attempt began or prolonged.

        Args:
            outcome: The outcome of the attempt.
            rules: What holds for the call's effect.
            attempts: The number of attempts that the call has made.
            paid: The cost of the call's last retry; 0 for its first attempt.
            now: The time.
            chance: One draw, uniform in [0, 1).
        """
        verdict, pause = classify(outcome, rules), None
        limit = self.limits[rules.name]
        if outcome.throttled:
            limit.refused(now)
            if outcome.retry_after is not None:
                paused = self.reads if rules.pauses == "read" else self.starts
                pause = paused.pause(now, outcome.retry_after)
        if verdict is Verdict.ACCEPTED:
            limit.succeeded()
            if rules.paid:
                self.budget.give(paid or 1.0)
        if rules.gated:
            if verdict is not Verdict.RETRY:
                self.gate.succeeded()
            elif attempts > 1:
                self.gate.failed(now, chance)
        return verdict, pause

    def again(
        self,
        outcome: Outcome,
        rules: RetryRules,
        *,
        attempts: int,
        left: float,
        now: float,
        chance: float,
    ) -> Again | None:
        """The next attempt, or None: fail now. A start's retry is paid from the budget."""
        wait = delay(self.policy, rules, outcome, attempts=attempts, left=left, chance=chance)
        if wait is None:
            return None
        price = cost(self.policy, outcome) if rules.paid else 0.0
        return Again(wait, price) if self.budget.take(price, now) else None
