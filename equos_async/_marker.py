"""The marker by which a start whose answer was lost is known again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Final, cast

VARIABLE: Final = "equos_async_marker"
"""The template variable that holds it: the same in all releases, which may run side by side."""


def new_marker() -> str:
    """A marker that no other attempt has.

    It comes from the operating system, not from the client's source of chance: two clients with
    one seed, or a process and its fork, would take each other's sessions for their own.
    """
    return os.urandom(16).hex()


def markers_of(start: str) -> Iterator[str]:
    """The markers of a start's attempts.

    All begin with the start's own. So a ledger that holds that one needs no write for an attempt.
    """
    return (f"{start}.{attempt}" for attempt in count(1))


def start_of(marker: str) -> str:
    """What the markers of a start's attempts begin with."""
    return marker.partition(".")[0]


def with_marker(variables: Mapping[str, str] | None, marker: str) -> dict[str, str]:
    """Template variables with a marker, in place of one that they bring along."""
    return {**(variables or {}), VARIABLE: marker}


def without_marker(variables: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What a user gets to see of template variables; None where nothing else was in them."""
    if not variables or VARIABLE not in variables:
        return variables
    return {name: value for name, value in variables.items() if name != VARIABLE} or None


def marker_of(variables: object) -> str | None:
    """The marker in what the server shows, of whomever it is."""
    if not isinstance(variables, Mapping):
        return None
    marker = cast("Mapping[str, object]", variables).get(VARIABLE)
    return marker if isinstance(marker, str) else None


class MarkerUse:
    """What the server makes of markers, learned for one resource.

    Attributes:
        is_on: Whether starts carry one.
        is_accepted: Whether a start with one was ever accepted.
        is_shown: Whether the latest of those answers showed it: else waiting for a find is vain.
    """

    def __init__(self) -> None:
        self.is_on: bool = True
        self.is_accepted: bool = False
        self.is_shown: bool = True

    def accept(self, *, shown: bool) -> None:
        """A start with a marker was accepted."""
        self.is_accepted = True
        self.is_shown = shown

    def may_be_why(self, status: int, message: str) -> bool:
        """Whether a start may have been refused for its marker: it is worth one without."""
        return status in {400, 422} and (not self.is_accepted or VARIABLE in message)

    def accept_without(self, status: int, message: str) -> bool:
        """A start was accepted without a marker that was refused so with one.

        Returns:
            Whether that ends the use of markers, just now.
        """
        if not self.is_on or not self.may_be_why(status, message):
            return False
        self.is_on = False
        return True
