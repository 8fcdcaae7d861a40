"""The marker that identifies a start whose answer was lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Final, cast

VARIABLE: Final = "equos_async_marker"
"""The template variable for the marker: the same in all releases, which may run side by side."""


def new_marker() -> str:
    """Make a marker that no other attempt has.

    It comes from the operating system, not from the client's random numbers: two clients with the
    same seed, or a process and its fork, would confuse their sessions.
    """
    return os.urandom(16).hex()


def markers_of(start: str) -> Iterator[str]:
    """The markers of a start's attempts.

    All begin with the start's own marker, so a ledger that has it needs no write for each attempt.
    """
    return (f"{start}.{attempt}" for attempt in count(1))


def start_of(marker: str) -> str:
    """The common beginning of the markers of a start's attempts."""
    return marker.partition(".")[0]


def with_marker(variables: Mapping[str, str] | None, marker: str) -> dict[str, str]:
    """Template variables with a marker, which replaces one that they contain."""
    return {**(variables or {}), VARIABLE: marker}


def without_marker(variables: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Template variables without the marker; None if they contained nothing else."""
    if not variables or VARIABLE not in variables:
        return variables
    return {name: value for name, value in variables.items() if name != VARIABLE} or None


def marker_of(variables: object) -> str | None:
    """The marker in template variables from the server."""
    if not isinstance(variables, Mapping):
        return None
    marker = cast("Mapping[str, object]", variables).get(VARIABLE)
    return marker if isinstance(marker, str) else None


class MarkerUse:
    """What is known of the server's support for markers, for one resource.

    Attributes:
        is_on: Whether starts carry a marker.
        is_accepted: Whether a start with a marker was ever accepted.
        is_shown: Whether the latest of those answers showed the marker; else a search finds
        nothing.
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
        """Whether a start may have been refused because of its marker."""
        return status in {400, 422} and (not self.is_accepted or VARIABLE in message)

    def accept_without(self, status: int, message: str) -> bool:
        """A start was accepted without a marker after it was refused with one.

        Returns:
            Whether the use of markers ends with this.
        """
        if not self.is_on or not self.may_be_why(status, message):
            return False
        self.is_on = False
        return True
