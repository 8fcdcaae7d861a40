"""Share values of equal descriptions: many answers describe the same avatar and agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import attrs

MAX_KNOWN: Final = 16
"""Descriptions of a kind that are kept to be compared with; the oldest goes first."""

_TEXTS: Final = frozenset({str, type(None)})
"""The types whose values are the same where they are equal."""

_PLAIN: Final = _TEXTS | {bool, int, float}
"""The types of what cannot be changed."""


@attrs.frozen(eq=False)
class _Known:
    """A description that was read before.

    Attributes:
        found: As it was in the answer.
        others: Its fields that are neither texts nor null: 1 is equal to True.
        dicts: The names of those that are dicts, each with its wire name.
        value: What it was made into.
        again: Makes the same once more, with dicts of its own.
    """

    found: dict[str, Any]
    others: tuple[str, ...]
    dicts: dict[str, str]
    value: Any
    again: Callable[..., Any]

    def is_as(self, found: dict[str, Any]) -> bool:
        """Whether another description says the same, in the same types."""
        if self.found != found:
            return False
        for name in self.others:
            known, other = self.found[name], found[name]
            if type(known) is not type(other) or (name in self.dicts and not _alike(known, other)):
                return False
        return True


def _alike(known: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the values of equal dicts are of the same types."""
    return [*map(type, known.values())] == [*map(type, other.values())]


class SharedReader:
    """Reads descriptions of a kind, or hands out what an equal one was made into.

    Every answer describes its avatar and its agent in full, and a service talks to few of them.
    Without this each session of a fleet holds some KiB of texts that all others hold, too, and
    reading a description takes longer than finding it equal to one that was read before.

    Args:
        read: Makes a frozen value of a JSON object.
        loose: Fields that are left as they are in the answer, by their wire names; a dict in
            one is its caller's own.
    """

    def __init__(self, read: Callable[[Any, Any], Any], loose: Mapping[str, str]) -> None:
        self._read = read
        self._loose = loose
        self._known: dict[str, _Known] = {}

    def __call__(self, found: dict[str, Any], cls: Any) -> Any:
        """Make a value of a JSON object.

        Raises:
            ExceptionGroup: A field of it is not what it has to be.
        """
        name = found.get("id")
        if type(name) is not str:
            return self._read(found, cls)
        known = self._known.get(name)
        if known is not None and known.is_as(found):
            if not known.dicts:
                return known.value
            # Copies: the texts in this answer's own ones would be kept for each session.
            return known.again(
                **{own: known.found[wire].copy() for wire, own in known.dicts.items()}
            )
        value = self._read(found, cls)
        self._remember(name, found, cls, value)
        return value

    def _remember(self, name: str, found: dict[str, Any], cls: Any, value: Any) -> None:
        """Keep a description, unless more of it can be changed than the dicts in loose fields."""
        others = tuple(wire for wire, one in found.items() if type(one) not in _TEXTS)
        dicts = {wire: own for wire, own in self._loose.items() if type(found.get(wire)) is dict}
        copies: dict[str, dict[str, Any]] = {wire: found[wire].copy() for wire in dicts}
        inside = [one for copy in copies.values() for one in copy.values()]
        fixed = [found[wire] for wire in others if wire not in dicts]
        if not _PLAIN.issuperset(map(type, fixed + inside)):
            return
        self._known.pop(name, None)  # an older one, say
        if len(self._known) == MAX_KNOWN:
            del self._known[next(iter(self._known))]
        fields = {one.name: getattr(value, one.name) for one in attrs.fields(cls)}
        self._known[name] = _Known(found | copies, others, dicts, value, partial(cls, **fields))
