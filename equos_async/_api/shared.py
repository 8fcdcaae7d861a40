"""One value for equal descriptions: many answers describe the same avatar and agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, cast

import attrs

MAX_KNOWN: Final = 16
"""Descriptions of a kind that are kept to be compared with; the oldest goes first."""

_PLAIN: Final = frozenset({str, bool, int, float, type(None), dict})
"""The types of what is shared; of dicts only those that callers get copies of."""


@attrs.frozen(eq=False)
class _Known:
    """A description that was read before.

    Attributes:
        found: As it was in the answer.
        kinds: The types of all that is in it: 1 is equal to True.
        value: What it was made into.
        again: Makes the same once more, with dicts of its own.
    """

    found: dict[str, Any]
    kinds: list[type]
    value: Any
    again: Callable[..., Any]


class SharedReader:
    """Reads descriptions of a kind, or hands out what an equal one was made into.

    Every answer describes its avatar and its agent in full, and a service talks to few of them.
    Without this each session of a fleet holds some KiB of texts that all others hold, too, and
    reading a description takes longer than finding it equal to one that was read before.

    Args:
        read: Makes a frozen value of a JSON object.
        loose: Fields that are left as they are in the answer, with their wire names; a dict in
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
        if known is not None and known.found == found and known.kinds == self._kinds(found):
            own = self._dicts(known.found)
            return known.again(**own) if own else known.value
        value = self._read(found, cls)
        copies = {self._loose[name]: one for name, one in self._dicts(found).items()}
        kinds = self._kinds(found)
        if _PLAIN.issuperset(kinds) and kinds.count(dict) == len(copies):
            self._known.pop(name, None)  # an older one, say
            if len(self._known) == MAX_KNOWN:
                del self._known[next(iter(self._known))]
            fields = {one.name: getattr(value, one.name) for one in attrs.fields(cls)}
            self._known[name] = _Known(found | copies, kinds, value, partial(cls, **fields))
        return value

    def _dicts(self, found: dict[str, Any]) -> dict[str, Any]:
        """Copies of the dicts that it is to have as they are."""
        loose = {name: found.get(wire) for name, wire in self._loose.items()}
        return {name: one.copy() for name, one in loose.items() if type(one) is dict}

    def _kinds(self, found: dict[str, Any]) -> list[type]:
        """The types of its fields, and of what is in those dicts."""
        kinds: list[type] = [*map(type, found.values())]
        for name in self._loose.values():
            one = found.get(name)
            if type(one) is dict:
                kinds += map(type, cast("dict[str, Any]", one).values())
        return kinds
