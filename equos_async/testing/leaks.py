"""The message about sessions and conversations that were left live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .records import EmulatedSession, EmulatorRequest

if TYPE_CHECKING:
    from .callsites import CallSite, CallSites  # which needs pytest

HINT_OF_PYTEST: Final = "@pytest.mark.equos_allow_live"

Lines = Callable[[EmulatedSession], Sequence[str]]


def _no_lines(_: EmulatedSession) -> Sequence[str]:
    return ()


def report(
    live: Iterable[EmulatedSession],
    requests: Iterable[EmulatorRequest],
    *,
    lines: Lines = _no_lines,
    allowed_by: str = "allow_live=True",
) -> str:
    """Name each session that was left live, and the line that started it.

    Args:
        live: The sessions and conversations that were left live.
        requests: The requests to the emulator.
        lines: Returns the lines that may have started a session.
        allowed_by: What the user can write to allow it.
    """
    left, asked = list(live), list(requests)
    told = [f"  {_name(one)}, started {_origin(one, asked, lines(one))}" for one in left]
    hint = (
        f"Stop each of them, or allow it with {allowed_by}: "
        "on the real service it would run on, and be billed."
    )
    return "\n".join([f"{_count(left)} left live:", *told, hint])


def lines_of(sites: CallSites, root: Path) -> Lines:
    """The lines of call sites, with paths relative to ``root``."""
    return lambda session: [_line(site, root) for site in sites.of(session)]


def _count(left: Sequence[EmulatedSession]) -> str:
    words = sorted({one.resource for one in left}, reverse=True)
    if len(left) == 1:
        return f"1 {words[0]} was"
    return f"{len(left)} {' and '.join(f'{word}s' for word in words)} were"


def _name(session: EmulatedSession) -> str:
    client = "" if session.client is None else f", client {session.client!r}"
    return f"{session.name!r} (id {session.id}{client})"


def _origin(
    session: EmulatedSession, requests: Sequence[EmulatorRequest], lines: Sequence[str]
) -> str:
    """The line that started a session; if it is not known, the request to the emulator."""
    if lines:
        return f"at {' or '.join(lines)}"
    looks = ("start", session.resource, session.name)
    numbers = [
        str(request.number)
        for request in requests
        if (request.operation, request.resource, request.name) == looks
    ]
    return f"by request {' or '.join(numbers)} to the emulator, from a line that is not known"


def _line(site: CallSite, root: Path) -> str:
    file = Path(site.file)
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    return f"{shown}:{site.line}"
