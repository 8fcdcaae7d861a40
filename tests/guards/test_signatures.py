"""The public surface in full, pinned: what can be called, passed and read."""

from __future__ import annotations

import difflib

from tests.guards import signatures


def test_the_public_surface() -> None:
    """A change is a decision: ``python -m tests.guards.signatures`` writes it down."""
    pinned = signatures.PATH.read_text(encoding="utf-8").splitlines()
    found = signatures.surface().splitlines()
    change = difflib.unified_diff(pinned, found, "pinned", "found", lineterm="", n=8)
    assert pinned == found, "\n".join(change)
