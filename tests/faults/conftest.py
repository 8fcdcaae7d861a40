"""Every fault is met on both wires: the direct one, and the session's; many on each loop, too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from tests import wires

from .loops import LOOPS, Loop

ON_ALL_LOOPS = {"test_ways_out.py", "test_cancellation.py", "test_matrix.py"}
"""Files whose tests run on each of them: how a task begins and ends depends on its loop."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Loop]:
    """The loops of a test."""
    if item.path.name in ON_ALL_LOOPS:
        return LOOPS
    return {"asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what says nothing new: on each loop, only the direct wire meets every fault."""
    items[:] = [item for item in items if not (isinstance(item, pytest.Function) and twice(item))]


def twice(item: pytest.Function) -> bool:
    """Whether a test that takes its time is on another loop than asyncio's, and the like of one."""
    if item.path.name not in ON_ALL_LOOPS - {"test_ways_out.py"}:
        return False
    given = item.callspec.id.split("-")
    like = item.callspec.params["wire"] == "session" or "conversation" in given
    return like and not {"uvloop", "eager"}.isdisjoint(given)


@pytest.fixture(params=wires.WIRES, autouse=True)
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of them the test takes."""
    wire: str = request.param
    wires.take(wire, monkeypatch)
    return wire
