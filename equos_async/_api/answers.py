"""What an answer holds: a value, a refusal in words, an id to be saved, or another call's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Final, cast
from urllib.parse import quote

from equos_async import _validate
from equos_async._validate import Secret
from equos_async.errors import (
    APIStatusError,
    ConfigurationError,
    StartUnreadableError,
    status_error_class,
)
from equos_async.models import CreateEquosSessionResponse, EquosSession

from .codec import UNUSABLE, converter, describe_problem, parse_object

MAX_MESSAGE: Final = 2048
"""How many characters of a server's error text are kept."""

# Compiled when they are first needed, which in most programs is never.
_JWT = r"eyJ[\w-]+\.[\w-]+\.[\w-]*"
_SESSION_HEAD = rb'\s*\{\s*"session"\s*:\s*\{\s*"id"\s*:\s*"([^"\\]{1,256})"'


def decode_start(body: bytes) -> CreateEquosSessionResponse:
    """The answer to an accepted start.

    Raises:
        StartUnreadableError: The body is unusable; it carries the session's id where one could
            be read, so that the session can be stopped.
    """
    try:
        started = converter().structure(parse_object(body), CreateEquosSessionResponse)
        _validate.session_id(started.session.id)
    except UNUSABLE as error:
        problem = describe_problem(error)
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
        return converter().structure(parse_object(body), EquosSession) if body else None
    except UNUSABLE:
        return None


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
