"""The operations of the API, one row each, and the billed resources.

All of it is pure. Sources, as named in the comments: *reference* is the vendor's published API
reference (version 3), *SDK* the vendor's published client libraries, *NestJS* the documented
default behaviour of the vendor's server framework, *assumption* what no source says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from attrs import evolve, frozen

from equos_async._marker import with_marker
from equos_async._validate import Secret
from equos_async.errors import ConfigurationError, ResourceName
from equos_async.models import (
    CreateEquosConversationRequest,
    CreateEquosConversationResponse,
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    EquosConversation,
    EquosSession,
    HealthResponse,
    SessionStatus,
)

from .answers import (
    Looked,
    Page,
    Unreadable,
    decode_begun,
    decode_details,
    decode_looked,
    decode_page,
    decode_value,
)
from .codec import ENCODER, NOT_JSON, Structured, converter
from .effects import CREATE, END, READ, Effect

T_co = TypeVar("T_co", covariant=True)
RequestT = TypeVar("RequestT")
StartedT = TypeVar("StartedT")
ThingT = TypeVar("ThingT")

OVER: Final = frozenset({SessionStatus.ENDED, SessionStatus.ERROR, SessionStatus.BLOCKED})
"""The final statuses of both resources."""

MAX_LIST: Final = 8 << 20
"""Bytes that are read of a part of a list, whose items may contain whole transcripts."""


class Credential(Enum):
    """The key that a request carries; the value is the name of the client's argument."""

    NONE = ""
    CLIENT_KEY = "client_key"
    SERVER_KEY = "api_key"

    @property
    def variable(self) -> str:
        """The environment variable for it."""
        return f"EQUOS_{self.value.upper()}"


@frozen(kw_only=True, eq=False, repr=False)
class Operation(Generic[T_co]):
    """One operation of the API.

    Attributes:
        method: The HTTP method. It does not determine the effect.
        path: The path below the version, with ``{id}`` for the id.
        credential: Which key it needs.
        effect: The effect on the server.
        resource: The billed resource, if there is one.
        decode: Makes the value from a 2xx answer's body, with the paths that could not be read, or
            says why there is none.
        encode: Makes the body, for each attempt again; None: no body.
        names_id: Whether an answer contains the ``{id}`` of its request.
        max_answer: Bytes that are read of an answer, if it may be larger than usual.
    """

    method: str
    path: str
    credential: Credential
    effect: Effect
    resource: ResourceName | None
    decode: Callable[[bytes], Structured[T_co] | Unreadable]
    encode: Callable[[Any], bytes] | None = None
    names_id: bool = False
    max_answer: int | None = None

    @property
    def takes_id(self) -> bool:
        """Whether the path contains an id."""
        return "{id}" in self.path

    def url(
        self,
        base: str,
        session_id: str | None = None,
        query: Mapping[str, object] | None = None,
    ) -> str:
        """The full URL, percent-encoded."""
        url = base + self.path.replace("{id}", quote(session_id or "", safe=""))
        return f"{url}?{urlencode(query, quote_via=quote, safe='')}" if query else url

    def body(self, request: object) -> bytes:
        """Make the body for an attempt."""
        return b"" if self.encode is None else self.encode(request)


def _encode_model(request: object) -> bytes:
    """Make the body of a start; fields that are ``None`` are left out."""
    fields: dict[str, object] = converter().unstructure(request)
    try:
        return ENCODER.encode(fields).encode()
    except NOT_JSON as error:
        names = ", ".join(name for name, value in fields.items() if not _can_be_json(value))
        problem = f"{names} contains a value that JSON cannot hold ({type(error).__name__})"
    raise ConfigurationError(problem)


def _can_be_json(value: object) -> bool:
    try:
        ENCODER.encode(value)
    except NOT_JSON:
        return False
    return True


def _encode_empty(_: object) -> bytes:
    # SDK: both vendor SDKs send "{}" with a stop; an empty body with this content type is refused
    # by NestJS on Fastify (400), and so is aiohttp's default content type (415). Assumption: a
    # conversation's stop, for which the SDK names no body, takes the same.
    return b"{}"


# Reference: operation ids sessionPassesControllerStartV3 and sessionPassesControllerStopV3.
START_SESSION: Final = Operation(
    method="POST",
    path="/session-passes",
    credential=Credential.CLIENT_KEY,
    effect=CREATE,
    resource="session",
    encode=_encode_model,
    decode=decode_begun(CreateEquosSessionResponse, "session", "host.server_url"),
)
STOP_SESSION: Final = Operation(
    method="PATCH",
    path="/session-passes/{id}/stop",
    credential=Credential.CLIENT_KEY,
    effect=END,
    resource="session",
    encode=_encode_empty,
    decode=decode_details(EquosSession),
    names_id=True,
)
# SDK, like all operations with a server key. Assumption: the sessions of session passes are found
# here, too, with the same types and ids.
STOP_SESSION_BY_SERVER: Final = Operation(
    method="PATCH",
    path="/sessions/{id}/stop",
    credential=Credential.SERVER_KEY,
    effect=END,
    resource="session",
    encode=_encode_empty,
    decode=decode_details(EquosSession),
    names_id=True,
)
GET_SESSION: Final = Operation(
    method="GET",
    path="/sessions/{id}",
    credential=Credential.SERVER_KEY,
    effect=READ,
    resource="session",
    decode=decode_details(EquosSession),
    names_id=True,
)
LIST_SESSIONS: Final = Operation(
    method="GET",
    path="/sessions",
    credential=Credential.SERVER_KEY,
    effect=READ,
    resource="session",
    decode=decode_page(EquosSession, "sessions"),
    max_answer=MAX_LIST,
)
START_CONVERSATION: Final = Operation(
    method="POST",
    path="/conversations",
    credential=Credential.SERVER_KEY,
    effect=CREATE,
    resource="conversation",
    encode=_encode_model,
    decode=decode_begun(CreateEquosConversationResponse, "conversation"),
)
STOP_CONVERSATION: Final = Operation(
    method="POST",
    path="/conversations/{id}/stop",
    credential=Credential.SERVER_KEY,
    effect=END,
    resource="conversation",
    encode=_encode_empty,
    decode=decode_details(EquosConversation),
    names_id=True,
)
GET_CONVERSATION: Final = Operation(
    method="GET",
    path="/conversations/{id}",
    credential=Credential.SERVER_KEY,
    effect=READ,
    resource="conversation",
    decode=decode_details(EquosConversation),
    names_id=True,
)
LIST_CONVERSATIONS: Final = Operation(
    method="GET",
    path="/conversations",
    credential=Credential.SERVER_KEY,
    effect=READ,
    resource="conversation",
    decode=decode_page(EquosConversation, "conversations"),
    max_answer=MAX_LIST,
)
PING: Final = Operation(
    method="GET",
    path="/health",
    credential=Credential.NONE,
    effect=READ,
    resource=None,
    decode=decode_value(HealthResponse),
)


def _look(listed: Operation[Any], items: str, variables: str) -> Operation[Looked]:
    """The operation that reads a list in search of markers."""
    return Operation(
        method=listed.method,
        path=listed.path,
        credential=listed.credential,
        effect=listed.effect,
        resource=listed.resource,
        decode=decode_looked(items, variables, MAX_LIST),
        max_answer=MAX_LIST,
    )


@frozen(kw_only=True, eq=False, repr=False)
class Resource(Generic[RequestT, StartedT, ThingT]):
    """A billed resource and its operations.

    Attributes:
        word: Its name, also in a ledger's rows.
        request: The type of a start's request.
        create: Starts one.
        ends: Stop one; the first operation whose key the client has is used.
        get: Reads one.
        list: Reads the list, part by part.
        id_of: Reads the id from the answer to a start.
        address_of: Reads the address to join; None: not said.
        seconds_of: Reads the time limit of a request, in seconds; None: no limit.
        with_seconds: Returns a request with another time limit.
        granted_of: Reads the time limit from the server's answer; None: not said.
        status_of: Reads the status, if there is one.
        look: Reads the list in search of markers.
        marked: Returns a request with a marker.
    """

    word: ResourceName
    request: type[RequestT]
    create: Operation[StartedT]
    ends: tuple[Operation[ThingT | None], ...]
    get: Operation[ThingT | None]
    list: Operation[Page[ThingT]]
    id_of: Callable[[StartedT], str]
    address_of: Callable[[StartedT], str | None]
    seconds_of: Callable[[RequestT], float | None]
    with_seconds: Callable[[RequestT, float], RequestT]
    granted_of: Callable[[StartedT], float | None]
    status_of: Callable[[StartedT], str | None]
    look: Operation[Looked]
    marked: Callable[[RequestT, str], RequestT]


SESSION: Final = Resource[CreateSessionPassRequest, CreateEquosSessionResponse, EquosSession](
    word="session",
    request=CreateSessionPassRequest,
    create=START_SESSION,
    ends=(STOP_SESSION, STOP_SESSION_BY_SERVER),
    get=GET_SESSION,
    list=LIST_SESSIONS,
    id_of=lambda started: started.session.id,
    address_of=lambda started: started.session.host.server_url,
    seconds_of=lambda request: request.max_duration,
    with_seconds=lambda request, seconds: evolve(request, max_duration=seconds),
    granted_of=lambda started: started.session.max_duration,
    status_of=lambda started: started.session.status,
    look=_look(LIST_SESSIONS, "sessions", "templateVars"),
    marked=lambda request, marker: evolve(
        request, template_vars=with_marker(request.template_vars, marker)
    ),
)
CONVERSATION: Final = Resource[
    CreateEquosConversationRequest, CreateEquosConversationResponse, EquosConversation
](
    word="conversation",
    request=CreateEquosConversationRequest,
    create=START_CONVERSATION,
    ends=(STOP_CONVERSATION,),
    get=GET_CONVERSATION,
    list=LIST_CONVERSATIONS,
    id_of=lambda started: started.conversation.id,
    address_of=lambda started: started.conversation.server_url,
    seconds_of=lambda request: request.max_seconds,
    with_seconds=lambda request, seconds: evolve(request, max_seconds=seconds),
    granted_of=lambda started: started.conversation.max_seconds,
    status_of=lambda started: started.conversation.status,
    look=_look(LIST_CONVERSATIONS, "conversations", "promptTemplateVars"),
    marked=lambda request, marker: evolve(
        request, prompt_template_vars=with_marker(request.prompt_template_vars, marker)
    ),
)
RESOURCES: Final[Mapping[ResourceName, Resource[Any, Any, Any]]] = {
    one.word: one for one in (SESSION, CONVERSATION)
}
"""All resources, by name."""


def resource_of(request: object) -> Resource[Any, Any, Any]:
    """The resource of a request, by its type.

    Raises:
        ConfigurationError: It is not a request.
    """
    for one in RESOURCES.values():
        if isinstance(request, one.request):
            return one
    names = " or ".join(one.request.__name__ for one in RESOURCES.values())
    raise ConfigurationError(f"request must be a {names}, not {type(request).__name__}")


def headers(credential: Credential, key: str | None, *, body: bool) -> dict[str, str]:
    """The headers of every request of an operation, with a body or without.

    NestJS on Fastify refuses an empty body under a JSON content type, so a request without a body
    names none.
    """
    return {
        "Accept": "application/json",
        **({"Content-Type": "application/json"} if body else {}),
        # A compressed answer buys nothing at this size and has to be bounded after decompression.
        "Accept-Encoding": "identity",
        **({} if key is None else _AUTHORIZE[credential](key)),
    }


_AUTHORIZE: Final[Mapping[Credential, Callable[[str], dict[str, str]]]] = {
    Credential.NONE: lambda _: {},
    # Reference, `clientAuth`: the key is a bearer token.
    Credential.CLIENT_KEY: lambda key: {"Authorization": Secret(f"Bearer {key}")},
    Credential.SERVER_KEY: lambda key: {"X-Api-Key": Secret(key)},  # SDK
}
