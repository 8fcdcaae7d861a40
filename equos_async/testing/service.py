"""Answer requests by the documented contract of the API, without sockets.

The order is that of NestJS on Fastify: the body is parsed, the guard checks the key, the validation
pipe checks the fields, and then the handler acts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NoReturn, cast

from attrs import field, frozen
from multidict import MultiMapping

from . import replies
from .books import Books
from .entries import Entry, Kind
from .faults import ForgetVariables, Lag, RefuseVariables, Twice, Twist
from .keys import Key, Keys
from .replies import Reply
from .tokens import LiveKit
from .validation import fields_of, problems_of_page

ABSENT: Final = object()
"""The value of a missing body."""

VERSION: Final = "3.0.0"
"""Assumption: the ``version`` of the health check, like its ``status``."""

PageOrder = Literal["newest", "oldest", "shuffled"]


@frozen
class Incoming:
    """The parts of a request that the API reads.

    Attributes:
        method: The HTTP method.
        headers: Its headers.
        id: The id in the path; empty if there is none.
        query: The names and values of its query.
        body: The JSON value, :data:`ABSENT`, or the refusal of a body that is not JSON.
        size: Bytes of the body.
        twists: The faults that alter its start.
    """

    method: str
    headers: Mapping[str, str] = field(repr=False)
    id: str
    query: MultiMapping[str]
    body: object = field(repr=False)
    size: int
    twists: Sequence[Twist] = ()

    @property
    def name(self) -> str | None:
        """The ``name`` in the body, if there is one."""
        name = fields_of(self.body).get("name")
        return name if isinstance(name, str) else None

    @property
    def status(self) -> int:
        """The status of success: NestJS answers a POST with 201 and all else with 200."""
        return 201 if self.method == "POST" else 200


class Service:
    """One organisation's view of the API.

    Args:
        books: Its sessions and conversations.
        keys: The accepted keys.
        livekit: The LiveKit server of its rooms.
        seed: The random seed for shuffled pages.

    Attributes:
        suspended: Whether the organisation is suspended.
        limit_concurrent: How many sessions and conversations may be live at once.
        limit_duration: The largest duration that a start may ask for, in seconds.
        page_order: The order of lists.
    """

    def __init__(self, books: Books, keys: Keys, livekit: LiveKit, seed: int = 0) -> None:
        self._books = books
        self._keys = keys
        self._livekit = livekit
        self._random = random.Random(seed)  # noqa: S311 - an order, not cryptography
        self.suspended = False
        self.limit_concurrent: int | None = None
        self.limit_duration: float | None = None
        self.page_order: PageOrder = "newest"

    def refuse(self, key: Key | None, incoming: Incoming) -> Reply | None:
        """The refusal of a request whose body is not JSON or whose key is wrong; else None."""
        if isinstance(incoming.body, Reply):
            return incoming.body
        if key is None or self._keys.accept(key, incoming.headers):
            return None
        return replies.error(401, "Unauthorized")

    def start(self, kind: Kind, incoming: Incoming) -> Reply:
        """Start a session or a conversation."""
        if found := kind.problems(incoming.body):
            return replies.error(400, found, "Bad Request")
        wanted, twists = kind.read(cast("dict[str, Any]", incoming.body)), incoming.twists
        if (refusal := self._refuse_start(kind, wanted)) is not None:
            return refusal
        if found := _refused_variables(kind, wanted, twists):
            return replies.error(400, found, "Bad Request")
        entry = self._open(kind, _without_forgotten(kind, wanted, twists), incoming)
        if entry is None:
            # Assumption: 429, as NestJS's throttler would answer, without Retry-After.
            return replies.error(429, "Concurrent sessions limit reached")
        answer = kind.begun(entry, self._describe(entry), self._livekit)
        return replies.json_reply(incoming.status, answer)

    def stop(self, kind: Kind, incoming: Incoming) -> Reply:
        """Stop a session or a conversation; null if it is not live."""
        return self._tell(self._books.close(incoming.id, kind), incoming)

    def get(self, kind: Kind, incoming: Incoming) -> Reply:
        """Look one up by its id; null if it is not known."""
        return self._tell(self._books.find(incoming.id, kind), incoming)

    def page(self, kind: Kind, incoming: Incoming) -> Reply:
        """A page of a list."""
        query = incoming.query
        if found := problems_of_page(query):
            return replies.error(400, found, "Bad Request")
        take, skip = int(float(query.get("take", "20"))), int(float(query.get("skip", "0")))
        known = self._ordered(self._books.listed(kind, query.get("client")))
        page = {
            "skip": skip,
            "take": take,
            "total": len(known),
            kind.plural: [self._describe(entry) for entry in known[skip : skip + take]],
        }
        return replies.json_reply(incoming.status, page)

    def health(self) -> Reply:
        """The health check."""
        return replies.json_reply(200, {"status": "ok", "version": VERSION})

    def _refuse_start(self, kind: Kind, wanted: Mapping[str, Any]) -> Reply | None:
        if self.suspended:
            # Assumption: 403. Only the limits endpoint documents a suspension; the status of a
            # start is not documented.
            return replies.error(403, "Organization is suspended", "Forbidden")
        if self.limit_duration is not None and wanted.get(kind.seconds, 0) > self.limit_duration:
            # Assumption: 400. "maxDuration must be less than organization limit" is documented.
            return replies.error(
                400, f"{kind.seconds} must be less than organization limit", "Bad Request"
            )
        return None

    def _open(self, kind: Kind, wanted: Mapping[str, Any], incoming: Incoming) -> Entry | None:
        lag = sum(twist.seconds for twist in incoming.twists if isinstance(twist, Lag))
        twice = any(isinstance(twist, Twice) for twist in incoming.twists)
        opened = [
            self._books.open(kind, wanted, size=incoming.size, limit=self.limit_concurrent, lag=lag)
            for _ in range(1 + twice)
        ]
        return opened[0]

    def _ordered(self, entries: list[Entry]) -> list[Entry]:
        if self.page_order == "newest":
            entries.reverse()
        elif self.page_order == "shuffled":
            self._random.shuffle(entries)
        return entries

    def _tell(self, entry: Entry | None, incoming: Incoming) -> Reply:
        if entry is None:
            return replies.null(incoming.status)
        return replies.json_reply(incoming.status, self._describe(entry))

    def _describe(self, entry: Entry) -> dict[str, Any]:
        status = entry.status(self._books.clock.now(), self._books.starting_for)
        return entry.kind.describe(entry, status, self._livekit)


def _refused_variables(kind: Kind, wanted: Mapping[str, Any], twists: Sequence[Twist]) -> list[str]:
    prefixes = tuple(twist.prefix for twist in twists if isinstance(twist, RefuseVariables))
    return [
        f"{kind.variables}.property {name} should not exist"
        for name in wanted.get(kind.variables, {})
        if name.startswith(prefixes)
    ]


def _without_forgotten(
    kind: Kind, wanted: Mapping[str, Any], twists: Sequence[Twist]
) -> Mapping[str, Any]:
    prefixes = tuple(twist.prefix for twist in twists if isinstance(twist, ForgetVariables))
    if not prefixes or kind.variables not in wanted:
        return wanted
    kept = {k: v for k, v in wanted[kind.variables].items() if not k.startswith(prefixes)}
    return {**wanted, kind.variables: kept}


def parse(body: bytes, content_type: str | None) -> object:
    """A body's JSON value, :data:`ABSENT` if there is no body, or the refusal as a reply.

    Assumption: Fastify's rules. A request without a body needs no Content-Type, and a request with
    a Content-Type must have a body of that type.
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
