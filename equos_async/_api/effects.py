"""The effects of operations on the server, and all rules that depend on them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from attrs import Factory, field, frozen

from equos_async._retry.classify import RetryRules, Verdict
from equos_async.errors import OperationName
from equos_async.settings import Timeouts

READ_DEADLINE: Final = 30.0
"""Seconds for a whole call that only reads, unless ``Timeouts.deadline`` is shorter."""


class Alone(Enum):
    """What the client does with a call after its caller has gone, or while the client closes."""

    LISTENS = "withdrawn if it was not sent; else its answer is awaited, and its session stopped"
    GOES_ON = "continued to its end, with its retries; also accepted while the client closes"
    ENDS = "withdrawn or cancelled"


class Stake(Enum):
    """What may be running, and billed, if a call does not succeed."""

    NOTHING = "nothing"
    BEGUN = "a session that it started, if its outcome is unknown"
    RUNNING = "the session that it should have stopped"


def _name_of(effect: Effect) -> OperationName:
    return effect.retry.name


@frozen(kw_only=True, eq=False, repr=False)
class Effect:
    """An effect of an operation on the server; all rules that depend on it are here.

    Attributes:
        retry: The rules for retries.
        name: Its public word, in errors and events.
        attempt: Seconds for one attempt.
        deadline: Seconds for the whole call.
        alone: What the client does with the call without its caller.
        stake: What may be running if the call does not succeed; this is reported.
    """

    retry: RetryRules
    name: OperationName = field(init=False, default=Factory(_name_of, takes_self=True))
    attempt: Callable[[Timeouts], float]
    deadline: Callable[[Timeouts], float]
    alone: Alone
    stake: Stake


# Each accepted start makes another billed session (reference): what may have been done is not
# done again.
CREATE: Final = Effect(
    retry=RetryRules(
        name="start",
        doubtful=Verdict.UNKNOWN,
        conflict=Verdict.REFUSED,
        see_other=Verdict.UNKNOWN,
        unreadable=Verdict.UNKNOWN,
        keyless=Verdict.REFUSED,
        attempts=lambda policy: policy.start_attempts,
        patient=False,
        pauses="start",
        paid=True,
        gated=False,
    ),
    attempt=lambda timeouts: timeouts.start_attempt,
    deadline=lambda timeouts: timeouts.deadline,
    alone=Alone.LISTENS,
    stake=Stake.BEGUN,
)

# A second stop of a session is answered with null (reference): it may be sent as often as wanted.
END: Final = Effect(
    retry=RetryRules(
        name="stop",
        doubtful=Verdict.RETRY,
        conflict=Verdict.RETRY,
        see_other=Verdict.REFUSED,
        unreadable=Verdict.ACCEPTED,  # the server said that it is done
        keyless=Verdict.RETRY,
        attempts=lambda policy: policy.stop_attempts,
        patient=True,
        pauses="start",
        paid=False,
        gated=True,
    ),
    attempt=lambda timeouts: timeouts.stop_attempt,
    deadline=lambda timeouts: timeouts.deadline,
    alone=Alone.GOES_ON,
    stake=Stake.RUNNING,
)

READ: Final = Effect(
    retry=RetryRules(
        name="read",
        doubtful=Verdict.RETRY,
        conflict=Verdict.REFUSED,
        see_other=Verdict.REFUSED,
        unreadable=Verdict.RETRY,
        keyless=Verdict.REFUSED,
        attempts=lambda policy: policy.read_attempts,
        patient=False,
        pauses="read",
        paid=False,
        gated=False,
    ),
    attempt=lambda timeouts: timeouts.read_attempt,
    deadline=lambda timeouts: min(READ_DEADLINE, timeouts.deadline),
    alone=Alone.ENDS,
    stake=Stake.NOTHING,
)
