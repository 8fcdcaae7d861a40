"""Fixtures of the fleet's tests: a scripted client, and a clock that stands still."""

from __future__ import annotations

import pytest

from tests.clocks import FakeClock
from tests.fleet.support import Events, ScriptedClient


@pytest.fixture
async def scripted() -> ScriptedClient:
    """A client that answers when the test lets it."""
    return ScriptedClient()


@pytest.fixture
def still() -> FakeClock:
    """A clock that stands still until a test moves it."""
    return FakeClock()


@pytest.fixture
def events() -> Events:
    """An ``on_event`` that remembers."""
    return Events()
