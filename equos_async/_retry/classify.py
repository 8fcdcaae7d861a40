"""Classify the outcome of an attempt."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from attrs import frozen

from equos_async.errors import OperationName
from equos_async.settings import RetryPolicy


class Verdict(Enum):
    """The meaning of one attempt's outcome for the call."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@frozen(kw_only=True, eq=False)
class Outcome:
    """The result of one attempt.

    Attributes:
        status: The answer's HTTP status; None if there was no answer.
        sent: Whether any part of the request may have been sent. An answer proves it.
        fatal: Whether a repetition cannot help, for example after a wrong certificate.
        retry_after: The server's valid Retry-After, in seconds.
        readable: Whether the body of a 2xx answer could be read.
        keyless: Whether nothing was sent because there was no key.
    """

    status: int | None = None
    sent: bool = True
    fatal: bool = False
    retry_after: float | None = None
    readable: bool = True
    keyless: bool = False

    @property
    def throttled(self) -> bool:
        """Whether the server said that it is overloaded."""
        return self.status in {429, 503}


@frozen(kw_only=True, eq=False, repr=False)
class RetryRules:
    """What may be sent again, how often and at what cost: columns of the table of effects.

    Attributes:
        name: The public word for the effect, also the name of its concurrency limit.
        doubtful: The verdict if the request was sent and no reliable answer came.
        conflict: The verdict on 409.
        see_other: The verdict on redirects that may come after the action: all except 307 and 308.
        unreadable: The verdict on a 2xx answer whose body is unusable.
        keyless: The verdict if there was no key.
        attempts: The largest number of attempts, the first included.
        patient: Whether a call also waits for a Retry-After above the policy's limit.
        pauses: Whose calls wait when the server asks for a pause.
        paid: Whether a retry is paid from the retry budget.
        gated: Whether a retry passes the retry gate.
    """

    name: OperationName
    doubtful: Verdict
    conflict: Verdict
    see_other: Verdict
    unreadable: Verdict
    keyless: Verdict
    attempts: Callable[[RetryPolicy], int]
    patient: bool
    pauses: OperationName
    paid: bool
    gated: bool


def classify(outcome: Outcome, rules: RetryRules) -> Verdict:
    """The verdict on an attempt's outcome under an effect's rules."""
    status = outcome.status
    if outcome.keyless:
        return rules.keyless
    if status is None:
        if outcome.fatal:
            return Verdict.REFUSED
        return rules.doubtful if outcome.sent else Verdict.RETRY
    if 200 <= status <= 299:
        return Verdict.ACCEPTED if outcome.readable else rules.unreadable
    if status in {421, 429} or (status == 503 and outcome.retry_after is not None):
        return Verdict.RETRY
    if status in {408, 425} or not 300 <= status <= 499:
        return rules.doubtful
    if status == 409:
        return rules.conflict
    if status <= 399 and status not in {307, 308}:
        return rules.see_other
    return Verdict.REFUSED
