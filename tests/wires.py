"""Let a test choose the wire that requests of the client's own session take."""

from __future__ import annotations

from typing import Final

import pytest

from equos_async._http import gate

WIRES: Final = ("direct", "session")


def take(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients made from now on take this wire."""
    monkeypatch.setattr(gate, "find_misfit", refuse if wire == "session" else find_misfit)
    # Else a test of the direct wire would say nothing about it.
    assert wire == "session" or find_misfit() is None


find_misfit = gate.find_misfit


def refuse() -> str:
    """The misfit that a test reports, so that requests do not take the direct wire."""
    return "the test wants the session"
