"""The outcome of a call, as a value and as an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import frozen

from equos_async._api import answers
from equos_async._api.answers import Unreadable
from equos_async._api.effects import Stake
from equos_async._http.request import Failure, Reply
from equos_async._shown import shown
from equos_async.errors import (
    APIConnectionError,
    APITimeoutError,
    EquosError,
    OverloadedError,
    StartOutcomeUnknownError,
    StartUnreadableError,
)

from .call import Call

T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=EquosError)
Mask: TypeAlias = Callable[[str], str]


@frozen(eq=False, repr=False)
class Accepted(Generic[T]):
    """The server accepted the call."""

    value: T


@frozen(eq=False, repr=False)
class Refused:
    """The server refused the call, and there is no further attempt."""

    reply: Reply
    retry_after: float | None


@frozen(eq=False, repr=False)
class Unsent:
    """Nothing was done: no attempt was sent, or each was refused.

    Attributes:
        failure: Why the last attempt was not sent, if there was one.
        pause: Seconds for which the server wants a pause that is too long for the call.
    """

    failure: Failure | None = None
    pause: float | None = None


@frozen(eq=False, repr=False)
class Unknown:
    """The call was sent, and there was no usable answer.

    Attributes:
        reply: The answer or failure instead.
        unreadable: The error in a 2xx answer.
    """

    reply: Reply | Failure
    unreadable: Unreadable | None = None


@frozen(eq=False)
class Ended:
    """The answer was lost; the session was found, and its end is confirmed."""


Result: TypeAlias = Accepted[T] | Refused | Unsent | Unknown | Ended


def reason_of(reply: Reply | Failure, mask: Mask) -> str:
    """The result of an attempt in words."""
    return f"status {reply.status}" if isinstance(reply, Reply) else shown(mask(reply.reason))


def error_of(result: Refused | Unsent | Unknown | Ended, call: Call[Any], mask: Mask) -> EquosError:
    """The error for the caller."""
    if isinstance(result, Refused):
        reply = result.reply
        error: EquosError = answers.status_error(
            reply.status, reply.body, mask=mask, retry_after=result.retry_after
        )
        return describe(error, call, reply)
    if isinstance(result, Ended):
        what = f"its {call.target.resource} was found and ended; nothing exists"
        return describe(APIConnectionError(f"the answer to the start was lost; {what}"), call)
    if isinstance(result, Unsent):
        return describe(_unsent_error(result, call, mask), call)
    if call.effect.stake is Stake.BEGUN:
        error = _begun_error(result, call, mask)
    elif result.unreadable is not None:
        error = APIConnectionError(f"the answer is unusable ({result.unreadable.problem})")
    else:
        error = _connection_error(result.reply, mask)
    return describe(error, call, result.reply)


def describe(error: ErrorT, call: Call[Any], reply: Reply | Failure | None = None) -> ErrorT:
    """Add the facts of a call to an error."""
    error.operation = call.effect.name
    error.attempts = call.attempts
    error.session_id = error.session_id or call.target.session_id
    if isinstance(reply, Reply):
        error.request_id = answers.request_id(reply.headers)
    return error


def _unsent_error(result: Unsent, call: Call[Any], mask: Mask) -> EquosError:
    if result.pause is not None:
        sent = "it was not sent again" if call.attempts else "nothing was sent"
        return OverloadedError(
            f"the server asked for a pause of {result.pause:.1f} s more, which ends after the "
            f"deadline of this call; {sent}",
            retry_after=result.pause,
        )
    if result.failure is not None:
        return _connection_error(result.failure, mask)
    return APITimeoutError(
        "too many calls at once: no connection was free before the deadline; nothing was sent"
    )


def _begun_error(result: Unknown, call: Call[Any], mask: Mask) -> StartOutcomeUnknownError:
    if result.unreadable is not None:
        return StartUnreadableError(
            "the server accepted the start, but its answer is unusable "
            f"({result.unreadable.problem})",
            session_id=result.unreadable.session_id,
        )
    seconds = call.target.max_duration
    return StartOutcomeUnknownError(
        "the start was sent, but no usable answer came "
        f"({reason_of(result.reply, mask)}): a billed {call.target.resource} may exist; "
        + (
            f"the server ends it after {seconds:g} s"
            if seconds
            else "it has no time limit of its own"
        )
    )


def _connection_error(reply: Reply | Failure, mask: Mask) -> APIConnectionError:
    timed_out = isinstance(reply, Failure) and reply.timed_out
    kind = APITimeoutError if timed_out else APIConnectionError
    unsent = isinstance(reply, Failure) and not reply.sent
    return kind(reason_of(reply, mask) + ("; nothing was sent" if unsent else ""))
