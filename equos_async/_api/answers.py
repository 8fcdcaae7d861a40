"""What an answer holds: a value, a refusal in words, an id to be saved, or another call's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, cast
from urllib.parse import quote

from attrs import frozen

from equos_async import _validate
from equos_async._validate import Secret
from equos_async.errors import (
    APIStatusError,
    ConfigurationError,
    status_error_class,
)
from equos_async.models import CreateEquosSessionResponse

from .codec import UNUSABLE, Structured, describe_problem, parse_object, structure

T = TypeVar("T")

MAX_MESSAGE: Final = 2048
"""How many characters of a server's error text are kept."""

# Compiled when they are first needed, which in most programs is never.
_JWT = r"eyJ[\w-]+\.[\w-]+\.[\w-]*"
_SESSION_HEAD = rb'\s*\{\s*"session"\s*:\s*\{\s*"id"\s*:\s*"([^"\\]{1,256})"'


@frozen
class Unreadable:
    """Why the body of a 2xx answer cannot be used.

    Attributes:
        problem: What is wrong and where, by path and type; never a value.
        session_id: The id of what the answer is about, where one could be read all the same.
    """

    problem: str
    session_id: str | None = None


def decode_start(body: bytes) -> Structured[CreateEquosSessionResponse] | Unreadable:
    """The answer to an accepted start."""
    try:
        started = structure(parse_object(body), CreateEquosSessionResponse)
        session = started.value.session
        _validate.session_id(session.id)
        _validate.text("session.host.server_url", session.host.server_url)
    except UNUSABLE as error:
        return Unreadable(describe_problem(error), _salvaged_id(body))
    return started


def decode_details(cls: type[T]) -> Callable[[bytes], Structured[T | None] | Unreadable]:
    """The details of one thing; None where the server sent none.

    It documents null for what is not there, or is not running any more (reference), and NestJS
    sends null as an empty body.
    """

    def decode(body: bytes) -> Structured[T | None] | Unreadable:
        if body.strip() in {b"", b"null"}:
            return Structured(None)
        try:
            return structure(parse_object(body), cast("type[T | None]", cls))
        except UNUSABLE as error:
            return Unreadable(describe_problem(error))

    return decode


def is_foreign(body: bytes, session_id: str) -> bool:
    """Whether the answer to a stop speaks of another session, so that it answers another call."""
    if body.startswith(b'{"id":"%b"' % session_id.encode()):
        return False  # as the server writes it: no need to parse the answer twice
    try:
        return bool(parse_object(body).get("id", session_id) != session_id)
    except UNUSABLE:
        return False


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
        message = parse_object(body).get("message")
    except UNUSABLE:
        return ""  # a proxy's HTML, say: the body's text stands in
    if isinstance(message, list):
        return "; ".join(str(part) for part in cast("list[object]", message)[:100])
    return message if isinstance(message, str) else ""


def _salvaged_id(body: bytes) -> str | None:
    """The session's id from an answer that is otherwise unusable, even a truncated one."""
    try:
        found = parse_object(body)["session"]["id"]
    except (*UNUSABLE, TypeError, KeyError):
        head = re.match(_SESSION_HEAD, body)
        found = head and head[1].decode("utf-8", "replace")
    try:
        return _validate.session_id(found)
    except ConfigurationError:
        return None
