"""The wait before the next attempt, and the server's Retry-After."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from equos_async.settings import RetryPolicy

from .classify import Outcome, RetryRules

# Patterns are compiled at first use: most programs never need them, and all would wait for it.
_DIGITS = r"[0-9]{1,9}"
_HTTP_DATE = (
    # RFC 9110, 5.6.7: the preferred form, and the two obsolete ones that must be accepted.
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT"
    r"|[A-Z][a-z]{5,8}, [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2} [0-9:]{8} GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [0-9]{4}"
)


def delay(
    policy: RetryPolicy,
    rules: RetryRules,
    outcome: Outcome,
    *,
    attempts: int,
    left: float,
    chance: float,
) -> float | None:
    """Seconds to wait before the next attempt, or None: fail now.

    Args:
        policy: The retry policy.
        rules: The rules for the call's effect.
        outcome: The outcome of the last attempt, which is to be retried.
        attempts: The number of attempts made.
        left: Seconds until the call's deadline; a wait that would end after it is not begun.
        chance: A random number, uniform in [0, 1).
    """
    asked = outcome.retry_after
    if attempts >= rules.attempts(policy):
        return None
    if outcome.status == 421 and attempts > 1:
        return None  # RFC 9110, 15.5.20: worth one more connection, no more
    if asked is not None and not rules.patient and asked > policy.max_retry_after:
        return None
    wait = backoff(
        policy, attempts - 1, throttled=outcome.throttled, chance=chance, retry_after=asked
    )
    return wait if wait < left else None


def last_wait(left: float, attempt: float) -> float:
    """Seconds to wait before a last attempt, if the server asked for more than what is left.

    The server's clock may be wrong, and it may recover earlier: try late, with time for an answer.
    """
    return max(left / 2, left - attempt)


def backoff(
    policy: RetryPolicy,
    retries: int,
    *,
    throttled: bool,
    chance: float,
    retry_after: float | None = None,
) -> float:
    """Full jitter: a share of an exponential step, but no less than what the server asked for."""
    base = policy.throttled_base if throttled else policy.base
    wait = chance * min(policy.cap, base * 2.0 ** min(retries, 60))
    if retry_after is None:
        return wait
    # A herd that was sent away together must not come back together.
    return max(wait, retry_after + chance * min(5.0, max(0.5, 0.2 * retry_after)))


def cost(policy: RetryPolicy, outcome: Outcome) -> float:
    """Tokens that a start's retry takes from the retry budget."""
    return policy.connection_cost if outcome.status is None else policy.throttled_cost


def parse_retry_after(headers: Mapping[str, str], wall: float) -> float | None:
    """The server's Retry-After in seconds, or None if it sent no valid one.

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
    until = http_date(value)
    if until is None:
        return None
    sent = http_date(headers.get("Date", "").strip())
    return max(0.0, until - (wall if sent is None else sent))


def http_date(value: str) -> float | None:
    """A date in a header (RFC 9110, 5.6.7) as seconds since the epoch; None if it is not one."""
    if not re.fullmatch(_HTTP_DATE, value):
        return None
    try:
        moment: datetime = parsedate_to_datetime(value)
        return moment.replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
