"""Leaks: what a failing test says of the sessions that it left live."""

from __future__ import annotations

from pathlib import Path

from .callsites import CallSite, CallSites
from .emulator import EquosEmulator
from .records import EmulatedSession

_HINT = (
    "Stop what is started, or allow it with @pytest.mark.equos_allow_live: "
    "on the real service each would be billed on."
)


def report(emulator: EquosEmulator, sites: CallSites, root: Path) -> str:
    """Name each live session, and where it was started."""
    live = emulator.live.values()
    head = "1 session was left live:" if len(live) == 1 else f"{len(live)} sessions were left live:"
    lines = [f"  {_name(one)}, started {_origin(one, emulator, sites, root)}" for one in live]
    return "\n".join([head, *lines, _HINT])


def _name(session: EmulatedSession) -> str:
    client = "" if session.client is None else f", client {session.client!r}"
    return f"{session.name!r} (id {session.id}{client})"


def _origin(session: EmulatedSession, emulator: EquosEmulator, sites: CallSites, root: Path) -> str:
    """By which line; where no line is known, by which request to the emulator."""
    if lines := [_line(site, root) for site in sites.of(session)]:
        return f"at {' or '.join(lines)}"
    numbers = [
        str(request.number)
        for request in emulator.requests
        if request.operation == "start" and request.name == session.name
    ]
    return f"by request {' or '.join(numbers)} to the emulator, from a line that is not known"


def _line(site: CallSite, root: Path) -> str:
    file = Path(site.file)
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    return f"{shown}:{site.line}"
