"""Share the values made from equal descriptions, such as those of one avatar in many answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import attrs

MAX_KNOWN: Final = 16
"""The number of descriptions of a kind that are kept; the oldest is dropped first."""

_TEXTS: Final = frozenset({str, type(None)})
"""The types whose equal values are interchangeable."""

_PLAIN: Final = _TEXTS | {bool, int, float}
"""The types of values that cannot be changed."""


@attrs.frozen(eq=False)
class _Known:
    """A description that was read before.

    Attributes:
        found: The description, as in its answer.
        others: Its fields that are neither texts nor null, whose types are compared because 1
            equals True.
        dicts: Those of them that are dicts, by their wire names, with their names in the value.
        value: The value that was made from it.
        again: Makes another such value, with dicts of its own.
    """

    found: dict[str, Any]
    others: tuple[str, ...]
    dicts: dict[str, str]
    value: Any
    again: Callable[..., Any]

    def is_as(self, found: dict[str, Any]) -> bool:
        """Whether another description is equal, with values of the same types."""
        if self.found != found:
            return False
        for name in self.others:
            known, other = self.found[name], found[name]
            if type(known) is not type(other) or (name in self.dicts and not _alike(known, other)):
                return False
        return True


def _alike(known: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the values of two equal dicts are of the same types."""
    return [*map(type, known.values())] == [*map(type, other.values())]


class SharedReader:
    """Makes values from descriptions of a kind, or returns the value made from an equal one.

    Every answer describes its avatar and its agent in full, and a service uses few of them. Without
    this each session of a fleet keeps some KiB of the same texts. A comparison with an earlier
    description also takes less time than reading it.

    Args:
        read: Makes a frozen value from a JSON object.
        loose: Fields that are unchanged from the answer, by their wire names; each caller gets its
            own copy of a dict in them.
    """

    def __init__(self, read: Callable[[Any, Any], Any], loose: Mapping[str, str]) -> None:
        self._read = read
        self._loose = loose
        self._known: dict[str, _Known] = {}

    def __call__(self, found: dict[str, Any], cls: Any) -> Any:
        """Make a value of a JSON object.

        Raises:
            ExceptionGroup: A field has a wrong type.
        """
        name = found.get("id")
        if type(name) is not str:
            return self._read(found, cls)
        known = self._known.get(name)
        if known is not None and known.is_as(found):
            if not known.dicts:
                return known.value
            # Copied from the known one, because texts of this answer would be kept for each
            # session.
            return known.again(
                **{own: known.found[wire].copy() for wire, own in known.dicts.items()}
            )
        value = self._read(found, cls)
        self._remember(name, found, cls, value)
        return value

    def _remember(self, name: str, found: dict[str, Any], cls: Any, value: Any) -> None:
        """Keep a description if nothing but the dicts in its loose fields can be changed."""
        others = tuple(wire for wire, one in found.items() if type(one) not in _TEXTS)
        dicts = {wire: own for wire, own in self._loose.items() if type(found.get(wire)) is dict}
        copies: dict[str, dict[str, Any]] = {wire: found[wire].copy() for wire in dicts}
        inside = [one for copy in copies.values() for one in copy.values()]
        fixed = [found[wire] for wire in others if wire not in dicts]
        if not _PLAIN.issuperset(map(type, fixed + inside)):
            return
        self._known.pop(name, None)  # an older description with the same id
        if len(self._known) == MAX_KNOWN:
            del self._known[next(iter(self._known))]
        fields = {one.name: getattr(value, one.name) for one in attrs.fields(cls)}
        self._known[name] = _Known(found | copies, others, dicts, value, partial(cls, **fields))
