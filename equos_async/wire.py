"""The wire contract: one row an endpoint, and the functions between bytes and models.

All of it is pure. Sources, as named in the comments: *reference* is the vendor's published API
reference (version 3), *SDK* the vendor's published client libraries, *NestJS* the documented
default behaviour of the vendor's server framework.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, cast, get_args, get_origin
from urllib.parse import quote

import attrs
from attrs import frozen

from . import checks
from .checks import Secret
from .errors import (
    APIStatusError,
    ConfigurationError,
    Operation,
    StartUnreadableError,
    status_error_class,
)
from .models import CreateEquosSessionResponse, CreateSessionPassRequest, EquosSession

if TYPE_CHECKING:
    from cattrs import Converter

T_co = TypeVar("T_co", covariant=True)

# SDK: both vendor SDKs send "{}" with a stop; an empty body with this content type is refused
# by NestJS on Fastify (400), and so is aiohttp's default content type (415).
EMPTY_BODY: Final = b"{}"

_HEADERS: Final = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    # A compressed answer buys nothing at this size and has to be bounded after decompression.
    "Accept-Encoding": "identity",
}

MAX_MESSAGE: Final = 2048
"""How many characters of a server's error text are kept."""

_UNUSABLE = (ValueError, RecursionError, ExceptionGroup)  # a group is what cattrs raises
# Compiled when they are first needed, which in most programs is never.
_JWT = r"eyJ[\w-]+\.[\w-]+\.[\w-]*"
_SESSION_HEAD = rb'\s*\{\s*"session"\s*:\s*\{\s*"id"\s*:\s*"([^"\\]{1,256})"'


@frozen(eq=False)
class Endpoint(Generic[T_co]):
    """One operation of the API.

    ``repeatable`` is stated, not derived from the verb: each accepted start makes another billed
    session, while a second stop of a session is answered with null (reference).
    """

    operation: Operation
    method: str
    path: str
    decode: Callable[[bytes], T_co]
    repeatable: bool

    def url(self, base: str, session_id: str = "") -> str:
        """The full URL, percent-encoded once and for all."""
        path = self.path.format(id=quote(session_id, safe="")) if session_id else self.path
        return base + path


def encode(request: CreateSessionPassRequest) -> bytes:
    """The body of a start; fields that are ``None`` are left out."""
    return _ENCODER.encode(_converter().unstructure(request)).encode()


def decode_start(body: bytes) -> CreateEquosSessionResponse:
    """The answer to an accepted start.

    Raises:
        StartUnreadableError: The body is unusable; it carries the session's id where one could
            be read, so that the session can be stopped.
    """
    try:
        started = _converter().structure(_object(body), CreateEquosSessionResponse)
        checks.session_id(started.session.id)
    except _UNUSABLE as error:
        problem = _problem(error)
    else:
        return started
    session_id = _salvaged_id(body)
    # Raised outside the handler, and without the body: a chained exception, or this frame's
    # locals, could show its tokens in a traceback.
    del body
    raise StartUnreadableError(
        f"the server accepted the start, but its answer is unusable ({problem})",
        operation="start",
        session_id=session_id,
    )


def decode_stop(body: bytes) -> EquosSession | None:
    """The answer to an accepted stop.

    ``None`` where the server sent no details: it documents null for "already stopped or not
    found" (reference), and NestJS sends null as an empty body. A body that cannot be read is no
    reason to fail either: the server said that it is done.
    """
    try:
        return _converter().structure(_object(body), EquosSession) if body else None
    except _UNUSABLE:
        return None


def is_foreign(body: bytes, session_id: str) -> bool:
    """Whether the answer to a stop speaks of another session, so that it answers another call."""
    if body.startswith(b'{"id":"%b"' % session_id.encode()):
        return False  # as the server writes it: no need to parse the answer twice
    try:
        return bool(_object(body).get("id", session_id) != session_id)
    except _UNUSABLE:
        return False


START: Final = Endpoint("start", "POST", "/session-passes", decode_start, repeatable=False)
STOP: Final = Endpoint("stop", "PATCH", "/session-passes/{id}/stop", decode_stop, repeatable=True)


def status_error(
    status: int, body: bytes, *, mask: Callable[[str], str], retry_after: float | None
) -> APIStatusError:
    """The exception for a refusal, with the server's words bounded and secrets masked."""
    # Masked before they are cut: half a key would not be found.
    text = mask(body.decode("utf-8", "replace"))[:MAX_MESSAGE]
    message = " ".join(mask(_message(body)).split()) or " ".join(text.split())
    return status_error_class(status)(
        message[:MAX_MESSAGE] or "the server gave no reason",
        status=status,
        retry_after=retry_after,
        body=text,
    )


def request_id(headers: Mapping[str, str]) -> str | None:
    """The server's name for the exchange, where it sent a plain one."""
    value = headers.get("X-Request-Id", "")
    return value if 0 < len(value) <= 200 and value.isascii() and value.isprintable() else None


def headers(client_key: str) -> dict[str, str]:
    """The headers of every request. Reference, ``clientAuth``: the key is a bearer token."""
    return {**_HEADERS, "Authorization": Secret(f"Bearer {client_key}")}


def masker(client_key: str) -> Callable[[str], str]:
    """A function that takes the key out of a text, however a server would echo it, and JWTs.

    The key lives in its closure, where no repr and no ``vars()`` shows it.
    """
    forms = tuple(
        map(Secret, {client_key, json.dumps(client_key)[1:-1], quote(client_key, safe="")})
    )

    def mask(text: str) -> str:
        for form in forms:
            text = text.replace(form, "***")
        return re.sub(_JWT, "***", text)

    return mask


def _message(body: bytes) -> str:
    """NestJS: ``{"statusCode", "message": string or list of strings, "error"?}``."""
    try:
        message = _object(body).get("message")
    except _UNUSABLE:
        return ""  # a proxy's HTML, say: the body's text stands in
    if isinstance(message, list):
        return "; ".join(str(part) for part in cast("list[object]", message)[:100])
    return message if isinstance(message, str) else ""


def _salvaged_id(body: bytes) -> str | None:
    """The session's id from an answer that is otherwise unusable, even a truncated one."""
    try:
        found = _object(body)["session"]["id"]
    except (*_UNUSABLE, TypeError, KeyError):
        head = re.match(_SESSION_HEAD, body)
        found = head and head[1].decode("utf-8", "replace")
    try:
        return checks.session_id(found)
    except ConfigurationError:
        return None


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object that every answer with details is.

    Raises:
        ValueError: It is not JSON, or JSON of another kind.
        RecursionError: It is nested deeper than any answer.
    """
    text = body.decode().strip(_WHITESPACE)
    value, end = _DECODER.raw_decode(text)
    if not isinstance(value, dict) or end != len(text):
        raise ValueError
    return cast("dict[str, Any]", value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: `json.loads` and `json.dumps` with an argument make one for each call.
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_WHITESPACE: Final = " \t\n\r"  # RFC 8259, 2
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


def _problem(error: Exception) -> str:
    """What is wrong and where, by path and type; never a value."""
    if isinstance(error, ExceptionGroup):
        from cattrs import transform_error  # noqa: PLC0415 - as in `_converter`

        return "; ".join(transform_error(cast("Exception", error))[:5])
    return str(error) if isinstance(error, ConfigurationError) else "not a JSON object"


def camel(name: str) -> str:
    """SDK: wire names are the camelCase of snake_case names, without exception."""
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


@cache
def _converter() -> Converter:
    """The one converter; made at first use, because making it costs import time."""
    from cattrs import Converter  # noqa: PLC0415 - most of what importing this package would cost
    from cattrs.gen import (  # noqa: PLC0415
        make_dict_structure_fn,
        make_dict_unstructure_fn,
        override,
    )

    converter = Converter()
    # cattrs would turn None into "None" and "no" into True; the wire is held to its types.
    converter.register_structure_hook(str, _structure_text)
    converter.register_structure_hook(bool, _structure_flag)
    converter.register_structure_hook(float, _structure_number)
    converter.register_structure_hook(datetime, _structure_datetime)
    converter.register_unstructure_hook(datetime, _unstructure_datetime)

    def wire_names(cls: type) -> dict[str, Any]:
        return {one.name: override(rename=camel(one.name)) for one in attrs.fields(cls)}

    # What cattrs has looks the inner hook up again for each value.
    @converter.register_structure_hook_factory(_is_optional)
    def optional(union: Any) -> Callable[[Any, Any], Any]:
        (inner,) = set(get_args(union)) - {NoneType}
        if inner is str:
            return _structure_text_or_none
        hook = converter.get_structure_hook(inner)
        return lambda value, _: None if value is None else hook(value, inner)

    @converter.register_structure_hook_factory(attrs.has)
    def structure(cls: type) -> Callable[[Any, Any], Any]:
        return cast(
            "Callable[[Any, Any], Any]",
            make_dict_structure_fn(cls, converter, **wire_names(cls)),
        )

    @converter.register_unstructure_hook_factory(attrs.has)
    def unstructure(cls: type) -> Callable[[Any], Any]:
        return make_dict_unstructure_fn(
            cls, converter, _cattrs_omit_if_default=True, **wire_names(cls)
        )

    return converter


def _is_optional(union: Any) -> bool:
    return get_origin(union) is UnionType and NoneType in get_args(union)


def _structure_text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _structure_text_or_none(value: object, _: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value


def _structure_flag(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _structure_number(value: object, _: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    # 1e999 is valid JSON, and infinity in Python; an int may be too large for any float.
    if not -1e300 < value < 1e300:
        raise ValueError
    return value


def _structure_datetime(value: object, _: object) -> datetime:
    """SDK: RFC 3339 with milliseconds and ``Z``."""
    moment = datetime.fromisoformat(cast("str", value))  # a TypeError if it is none
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _unstructure_datetime(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
