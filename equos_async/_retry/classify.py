"""What the outcome of one attempt means for its call."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


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
