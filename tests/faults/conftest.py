"""Every fault is met on both wires: the direct one, and the session's; many on each loop, too."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests import wires
from tests.clocks import PatientLoop

from .loops import LOOPS, Loop

ON_ALL_LOOPS = {"test_ways_out.py", "test_cancellation.py", "test_matrix.py"}
"""Files whose tests run on each of them: how a task begins and ends depends on its loop."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Loop]:
    """The loops of a test."""
    if item.path.name in ON_ALL_LOOPS:
        return LOOPS
    return {"asyncio": PatientLoop}


OF_NO_LOOP = {
    "test_a_thousand_stops_over_an_outage",
    "test_a_server_that_does_not_read",
    "test_nothing_is_left_behind_in_development_mode",
    "test_a_lent_session",
    "test_cancelled_with_a_lent_session",
}
"""Tests of other things than a loop: the retry gate, the kernel's buffers, who has the session."""

LIKE_ANOTHER = {
    "conversation",
    "sibling",
    "cancel twice",
    "anyio",
    "answers too late",
    "head dripped byte by byte",
    "hangs inside, after the id",
}
"""Rows that take their time, and end as others do that run on each loop."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what says nothing new on another loop than asyncio's."""
    items[:] = [one for one in items if not (isinstance(one, pytest.Function) and is_idle(one))]


def is_idle(item: pytest.Function) -> bool:
    """Whether a test need not run on its loop: only the direct wire meets many faults there."""
    if item.path.name not in ON_ALL_LOOPS - {"test_ways_out.py"}:
        return False
    given = item.callspec.params
    if {"uvloop", "eager"}.isdisjoint(item.callspec.id.split("-")):
        return False
    named = {getattr(one, "word", one) for one in given.values() if not callable(one)}
    return (
        item.originalname in OF_NO_LOOP
        or given["wire"] == "session"
        or not LIKE_ANOTHER.isdisjoint(named)
    )


@pytest.fixture(params=wires.WIRES, autouse=True)
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of them the test takes."""
    wire: str = request.param
    wires.take(wire, monkeypatch)
    return wire
