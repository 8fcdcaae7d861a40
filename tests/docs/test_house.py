"""The picture of the house is the house."""

from __future__ import annotations

from pathlib import Path

from tests.docs.house import arcs, draw, imports, ordered

PICTURE = Path(__file__).parent.parent.parent / ".docs" / "house.svg"


def test_it_is_up_to_date() -> None:
    """A new file, import or first sentence has to be drawn: run `nox -s docs`."""
    assert PICTURE.read_text(encoding="utf-8") == draw()


def test_every_arc_leads_upwards() -> None:
    """Each file is below all that it imports, and is drawn once."""
    house = imports()
    order = ordered(house)
    assert sorted(order) == sorted(house)
    assert all(order.index(one) < order.index(name) for name, one in arcs(house))
    assert ("client", "_calls.blocks") in arcs(house)
    assert "errors" in house["client"]
    assert ("client", "errors") not in arcs(house)
