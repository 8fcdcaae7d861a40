"""An entry for each session or conversation of the emulator, and a row for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from attrs import evolve, field, frozen

from .records import EmulatedSession, Resource, shorten
from .tokens import LiveKit

KEPT_BODY = 4096
"""Bytes; if a start's body is larger, its texts are cut when the session has ended."""

KEPT_PAIRS = 20
"""The number of variables that are kept of a start with a larger body."""


@frozen(eq=False)
class Kind:
    """How the API spells sessions, or conversations.

    Attributes:
        resource: ``session`` or ``conversation``.
        plural: The key of its items in a list.
        fields: The fields of a start's body that are read; for objects, with their keys.
        seconds: The field with the longest time that it may run.
        default_seconds: That time for a start without the field; None: no limit.
        variables: The field with the template variables.
        first_status: Its status until it is ``running``.
        problems: Returns the messages of the validation pipe for a start's body.
        describe: Makes the JSON object of an entry with a status.
        begun: Makes the answer to a start, from the JSON object of its entry.
    """

    resource: Resource
    plural: str
    fields: Mapping[str, tuple[str, ...]]
    seconds: str
    default_seconds: float | None
    variables: str
    first_status: str
    problems: Callable[[object], list[str]]
    describe: Callable[[Entry, str, LiveKit], dict[str, Any]]
    begun: Callable[[Entry, dict[str, Any], LiveKit], dict[str, Any]]

    def read(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The known fields of a start's body; null counts as absent."""
        return {
            name: {key: body[name][key] for key in keys} if keys else body[name]
            for name, keys in self.fields.items()
            if body.get(name) is not None
        }


@frozen
class Utterance:
    """A line of a transcript; its author is ``user`` or ``character``."""

    id: str
    author: str
    content: str = field(repr=False)
    at: float


@frozen(eq=False)
class Entry:
    """A session or a conversation: the fields of its request, and what the server added.

    Attributes:
        number: Its place in the order of starts, from 1.
        wanted: The fields of its request, as :meth:`Kind.read` returns them.
        size: The size of the request's body, in bytes.
        listed_at: The time from which look-ups find it.
        joined_at: The time when the first participant joined.
        said: Its transcript.
    """

    id: str
    number: int
    kind: Kind
    wanted: Mapping[str, Any] = field(repr=False)
    size: int
    started_at: float
    max_duration: float | None
    listed_at: float
    joined_at: float | None = None
    ended_at: float | None = None
    said: tuple[Utterance, ...] = ()

    @property
    def client(self) -> str | None:
        """The ``client`` in its request."""
        return self.wanted.get("client")

    def status(self, now: float, starting_for: float) -> str:
        """Its status, as the API spells it."""
        if self.ended_at is not None:
            return "ended"
        return self.kind.first_status if now - self.started_at < starting_for else "running"

    def told(self, now: float, starting_for: float) -> EmulatedSession:
        """Its public description."""
        return EmulatedSession(
            id=self.id,
            name=self.wanted["name"],
            client=self.client,
            started_at=self.started_at,
            max_duration=self.max_duration,
            status=self.status(now, starting_for),
            ended_at=self.ended_at,
            seconds=(now if self.ended_at is None else self.ended_at) - self.started_at,
            resource=self.kind.resource,
            number=self.number,
            joined_at=self.joined_at,
        )

    def as_history(self) -> Entry:
        """The entry as it is kept after its end: of limited size."""
        return self if self.size <= KEPT_BODY else evolve(self, wanted=_shrink(self.wanted))


def _shrink(value: Any, depth: int = 2) -> Any:
    if isinstance(value, str):
        return shorten(value)
    if not isinstance(value, dict | list):
        return value
    if isinstance(value, list) or not depth:
        return None
    pairs = list(cast("dict[str, Any]", value).items())[:KEPT_PAIRS]
    return {shorten(name): _shrink(one, depth - 1) for name, one in pairs}
