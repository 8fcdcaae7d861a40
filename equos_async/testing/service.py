"""The service: what the API answers to a request, by the documented contract; no sockets.

NestJS on Fastify does things in this order: the body is parsed, the guard looks at the key, the
validation pipe at the fields, and only then the handler acts.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn, cast

from attrs import field, frozen

from . import replies
from .books import Books
from .replies import Reply
from .validation import fields_of, problems

ABSENT: Final = object()
"""In place of a body where there is none."""


@frozen
class Incoming:
    """What the API looks at in a request.

    Attributes:
        body: The JSON value, :data:`ABSENT`, or the refusal of a body that is not JSON.
        authorization: The header's value.
    """

    body: object = field(repr=False)
    authorization: str = field(default="", repr=False)

    @property
    def name(self) -> str | None:
        """The name of the session that is asked for, where there is one."""
        name = fields_of(self.body).get("name")
        return name if isinstance(name, str) else None


class Service:
    """One organisation's view of the API.

    Args:
        books: Where its sessions are kept.
        client_key: The only key that is accepted; None: any.

    Attributes:
        client_key: The only key that is accepted; None: any that is not revoked.
        revoked: Keys that are refused.
        suspended: Whether the organisation is suspended.
        limit_concurrent: How many sessions may be live at once.
        limit_duration: How many seconds a session may ask for.
    """

    def __init__(self, books: Books, client_key: str | None = None) -> None:
        self._books = books
        self.client_key = client_key
        self.revoked: set[str] = set()
        self.suspended = False
        self.limit_concurrent: int | None = None
        self.limit_duration: float | None = None

    def start(self, incoming: Incoming) -> Reply:
        """``POST /v3/session-passes``."""
        if (refusal := self._refuse(incoming)) is not None:
            return refusal
        if found := problems(incoming.body):
            return replies.error(400, found, "Bad Request")
        return self._open(cast("dict[str, Any]", incoming.body))

    def stop(self, incoming: Incoming, session_id: str) -> Reply:
        """``PATCH /v3/session-passes/{id}/stop``."""
        if (refusal := self._refuse(incoming)) is not None:
            return refusal
        ended = self._books.close(session_id)
        return replies.NULL if ended is None else replies.stopped(ended)

    def _refuse(self, incoming: Incoming) -> Reply | None:
        """What stands between a request and its handler: a body that is not JSON, a wrong key."""
        if isinstance(incoming.body, Reply):
            return incoming.body
        scheme, _, key = incoming.authorization.partition(" ")
        key = key.strip()
        if scheme.lower() == "bearer" and key and self._accepts(key):
            return None
        return replies.error(401, "Unauthorized")

    def _accepts(self, key: str) -> bool:
        return key not in self.revoked and self.client_key in {None, key}

    def _open(self, body: dict[str, Any]) -> Reply:
        if self.suspended:
            # Assumption: 403. The limits endpoint knows a suspension with a reason; the status
            # of a start then is not documented.
            return replies.error(403, "Organization is suspended", "Forbidden")
        if self.limit_duration is not None and (body.get("maxDuration") or 0) > self.limit_duration:
            # Assumption: 400. "maxDuration must be less than organization limit" is documented.
            return replies.error(
                400, "maxDuration must be less than organization limit", "Bad Request"
            )
        entry = self._books.open(body, self.limit_concurrent)
        if entry is None:
            # Assumption: 429, as NestJS's throttler would answer, without Retry-After.
            return replies.error(429, "Concurrent sessions limit reached")
        return replies.started(entry)


def parse(body: bytes, content_type: str | None) -> object:
    """A body's JSON value, :data:`ABSENT` where there is none, or the refusal as a reply.

    Assumption: Fastify's rules, under which a request without a body may also do without a
    Content-Type, and one with a Content-Type has to have a body of that type.
    """
    if content_type is None and not body:
        return ABSENT
    media_type = "" if content_type is None else content_type.partition(";")[0].strip().lower()
    if media_type != "application/json":
        return replies.error(415, f"Unsupported Media Type: {content_type or 'undefined'}")
    if not body:
        return replies.error(400, f"Body cannot be empty when {_SAYS_JSON}")
    try:
        return _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        return replies.error(400, f"Body is not valid JSON but {_SAYS_JSON}")


_SAYS_JSON: Final = "content-type is set to 'application/json'"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
