"""Every fault is met on both wires: the direct one, and the session's."""

from __future__ import annotations

import pytest

from tests import wires


@pytest.fixture(params=wires.WIRES, autouse=True)
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of them the test takes."""
    wire: str = request.param
    wires.take(wire, monkeypatch)
    return wire
