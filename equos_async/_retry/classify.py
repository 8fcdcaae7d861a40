"""What the outcome of one attempt means for its call."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from attrs import frozen

from equos_async.errors import OperationName
from equos_async.settings import RetryPolicy


class Verdict(Enum):
    """What one attempt's outcome means for the call."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@frozen(kw_only=True, eq=False)
class Outcome:
    """What is known after one attempt.

    Attributes:
        status: The answer's HTTP status; None where no answer came.
        sent: Whether any of the request may have left. An answer proves it.
        fatal: Whether no repetition can help: a certificate that does not fit, say.
        retry_after: The server's valid wish, in seconds.
        readable: Whether the body of a 2xx answer could be read.
        keyless: Whether nothing was sent because no key could be had.
    """

    status: int | None = None
    sent: bool = True
    fatal: bool = False
    retry_after: float | None = None
    readable: bool = True
    keyless: bool = False

    @property
    def throttled(self) -> bool:
        """Whether the server said that it has too much to do."""
        return self.status in {429, 503}


@frozen(kw_only=True, eq=False, repr=False)
class RetryRules:
    """What may be sent again, how often, and at whose cost: columns of the table of effects.

    Attributes:
        name: The public word for the effect; the concurrency limit of its calls bears it, too.
        doubtful: The verdict where the request was sent and no answer came that can be trusted.
        conflict: The verdict on 409.
        see_other: The verdict on redirects that may follow the deed: all but 307 and 308.
        unreadable: The verdict on a 2xx answer whose body is unusable.
        keyless: The verdict where no key could be had.
        attempts: How many a call may make, the first included.
        patient: Whether a call waits for a Retry-After that is above the policy's limit.
        pauses: Whose calls wait when the server asks for time.
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
    """What an attempt's outcome means under an effect's rules."""
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
