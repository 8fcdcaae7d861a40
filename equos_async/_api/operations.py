"""The operations of the API, one row each, with what their effects mean and what they act on.

All of it is pure. Sources, as named in the comments: *reference* is the vendor's published API
reference (version 3), *SDK* the vendor's published client libraries, *NestJS* the documented
default behaviour of the vendor's server framework.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

from attrs import Factory, field, frozen

from equos_async._retry.classify import RetryRules, Verdict
from equos_async._validate import Secret
from equos_async.errors import ConfigurationError, OperationName
from equos_async.models import (
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    EquosSession,
    SessionStatus,
)
from equos_async.settings import Timeouts

from .answers import Unreadable, decode_details, decode_start
from .codec import ENCODER, NOT_JSON, Structured, converter

T_co = TypeVar("T_co", covariant=True)
RequestT = TypeVar("RequestT")
StartedT = TypeVar("StartedT")

OVER: Final = frozenset({SessionStatus.ENDED, SessionStatus.ERROR, SessionStatus.BLOCKED})
"""What the server says of something that is not live, and will not be."""

READ_DEADLINE: Final = 30.0
"""Seconds for a whole call that only reads, unless ``Timeouts.deadline`` is shorter."""


class Alone(Enum):
    """What becomes of a call that its caller left, or whose client is closing."""

    LISTENS = "withdrawn where it was not sent; else its answer is awaited, and undone"
    GOES_ON = "carried to its end, with its retries; taken on also while the client closes"
    ENDS = "withdrawn or cut off"


class Stake(Enum):
    """What may be running, and billed, where a call does not succeed."""

    NOTHING = "nothing"
    BEGUN = "a session that it began, where its outcome is unknown"
    RUNNING = "the session that it should have ended"


def _name_of(effect: Effect) -> OperationName:
    return effect.retry.name


@frozen(kw_only=True, eq=False, repr=False)
class Effect:
    """What a call does on the server, and all that follows from it. Nothing else asks.

    Attributes:
        retry: What may be sent again.
        name: The public word for it, in errors and events.
        attempt: Seconds for one attempt.
        deadline: Seconds for the whole call.
        alone: What becomes of it without its caller.
        stake: What may be running where it does not succeed, so that this is reported.
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


@frozen(kw_only=True, eq=False, repr=False)
class Operation(Generic[T_co]):
    """One operation of the API.

    Attributes:
        method: The HTTP method. It does not tell the effect.
        path: Below the version; ``{id}`` stands for the id of what it is about.
        effect: What it does on the server.
        decode: The value of a 2xx answer's body, with what of it could not be read, or why there
            is none.
        encode: The body, made anew for each attempt; None where there is none.
        names_id: Whether an answer names the ``{id}`` that it is about.
    """

    method: str
    path: str
    effect: Effect
    decode: Callable[[bytes], Structured[T_co] | Unreadable]
    encode: Callable[[Any], bytes] | None = None
    names_id: bool = False

    @property
    def takes_id(self) -> bool:
        """Whether it is about one thing, by its id."""
        return "{id}" in self.path

    def url(self, base: str, session_id: str | None = None) -> str:
        """The full URL, percent-encoded once and for all."""
        return base + self.path.replace("{id}", quote(session_id or "", safe=""))

    def body(self, request: object) -> bytes:
        """The body for an attempt."""
        return b"" if self.encode is None else self.encode(request)


def _encode_model(request: object) -> bytes:
    """The body of a start; fields that are ``None`` are left out."""
    fields: dict[str, object] = converter().unstructure(request)
    try:
        return ENCODER.encode(fields).encode()
    except NOT_JSON as error:
        names = ", ".join(name for name, value in fields.items() if not _can_be_json(value))
        problem = f"{names} holds a value that JSON cannot hold ({type(error).__name__})"
    raise ConfigurationError(problem)


def _can_be_json(value: object) -> bool:
    try:
        ENCODER.encode(value)
    except NOT_JSON:
        return False
    return True


def _encode_empty(_: object) -> bytes:
    # SDK: both vendor SDKs send "{}" with a stop; an empty body with this content type is refused
    # by NestJS on Fastify (400), and so is aiohttp's default content type (415).
    return b"{}"


START_SESSION: Final = Operation(
    method="POST",
    path="/session-passes",
    effect=CREATE,
    encode=_encode_model,
    decode=decode_start,
)
STOP_SESSION: Final = Operation(
    method="PATCH",
    path="/session-passes/{id}/stop",
    effect=END,
    encode=_encode_empty,
    decode=decode_details(EquosSession),
    names_id=True,
)


@frozen(kw_only=True, eq=False, repr=False)
class Resource(Generic[RequestT, StartedT]):
    """A billed thing, and the operations that begin and end it.

    Attributes:
        word: What it is called.
        request: The type of what is asked for.
        create: Begins one.
        end: Ends one; with it what nobody holds is ended.
        id_of: The id of what was begun.
        seconds_of: What a request allows it to run, in seconds; None: for ever.
        granted_of: The same, as the server answered; None: it did not say.
        status_of: What the server says of it, where it does.
    """

    word: str
    request: type[RequestT]
    create: Operation[StartedT]
    end: Operation[Any]
    id_of: Callable[[StartedT], str]
    seconds_of: Callable[[RequestT], float | None]
    granted_of: Callable[[StartedT], float | None]
    status_of: Callable[[StartedT], str | None]


SESSION: Final = Resource[CreateSessionPassRequest, CreateEquosSessionResponse](
    word="session",
    request=CreateSessionPassRequest,
    create=START_SESSION,
    end=STOP_SESSION,
    id_of=lambda started: started.session.id,
    seconds_of=lambda request: request.max_duration,
    granted_of=lambda started: started.session.max_duration,
    status_of=lambda started: started.session.status,
)


def headers(key: str, *, body: bool) -> dict[str, str]:
    """The headers of every request of an operation, with a body or without.

    Reference, ``clientAuth``: the key is a bearer token. NestJS on Fastify refuses an empty body
    under a JSON content type, so a request without a body names none.
    """
    return {
        "Accept": "application/json",
        **({"Content-Type": "application/json"} if body else {}),
        # A compressed answer buys nothing at this size and has to be bounded after decompression.
        "Accept-Encoding": "identity",
        "Authorization": Secret(f"Bearer {key}"),
    }
