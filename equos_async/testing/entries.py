"""What the books hold: one entry for each billed thing, and a row for each kind of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from attrs import evolve, field, frozen

from .records import EmulatedSession, Resource, shorten
from .tokens import LiveKit

KEPT_BODY = 4096
"""Bytes of a start's body up to which the texts in it are kept as they are once it is history."""

KEPT_PAIRS = 20
"""How many variables are kept of a start whose body was larger."""


@frozen(eq=False)
class Kind:
    """A kind of billed thing: how the API spells it. The answers are literal dicts.

    Attributes:
        resource: The word for it.
        plural: Its key in the answer of a list.
        fields: What is read of a start's body: the fields, with the keys of those that are
            objects of known keys.
        seconds: The field that says how long it may run.
        default_seconds: How long it may run where its start did not say so; None: for ever.
        variables: The field of the variables.
        first_status: Its status until it is ``running``.
        problems: What the validation pipe says of a start's body.
        describe: The thing itself, with this status.
        begun: The answer to its start, made of the thing as it was described.
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
        """What a start's body asks for; null counts as absent."""
        return {
            name: {key: body[name][key] for key in keys} if keys else body[name]
            for name, keys in self.fields.items()
            if body.get(name) is not None
        }


@frozen
class Utterance:
    """What somebody said: ``user`` or ``character``."""

    id: str
    author: str
    content: str = field(repr=False)
    at: float


@frozen(eq=False)
class Entry:
    """A billed thing: what its start asked for, and what the server added to it.

    Attributes:
        number: Its place in the order of starts, from 1.
        wanted: What its start asked for, as :meth:`Kind.read` reads it.
        size: Bytes of that start's body.
        listed_at: From when on look-ups know it.
        joined_at: When somebody joined its room.
        said: What was said in it.
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
        """For whom it was started."""
        return self.wanted.get("client")

    def status(self, now: float, starting_for: float) -> str:
        """The word that the API has for its state."""
        if self.ended_at is not None:
            return "ended"
        return self.kind.first_status if now - self.started_at < starting_for else "running"

    def told(self, now: float, starting_for: float) -> EmulatedSession:
        """The same, for whoever asks the emulator."""
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
        """The same, bounded, whatever a caller sent."""
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
