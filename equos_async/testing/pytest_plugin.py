"""The pytest plugin: an emulator for each test, and a check that no session is left live.

pytest imports this file in every project that has this library installed, so it imports nothing
heavy before one of its fixtures is used.
"""

# ruff: noqa: PLC0415 - imported where they are used, see above

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from equos_async.client import EquosClient

    from .emulator import EquosEmulator

MARKER = (
    "equos_allow_live: the test may leave sessions and conversations live on the `equos_emulator`"
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def equos_emulator(request: pytest.FixtureRequest) -> Iterator[EquosEmulator]:
    """An ``EquosEmulator`` for this test, in its own thread; for synchronous tests, too.

    The test fails if a session or a conversation is still live after the test and its other
    fixtures; ``@pytest.mark.equos_allow_live`` turns this check off.
    """
    from equos_async.client import EquosClient
    from equos_async.fleet._fleet import SessionFleet

    from .callsites import CallSites
    from .emulator import EquosEmulator
    from .leaks import HINT_OF_PYTEST, lines_of, report

    sites = CallSites()
    starts = ("start_session", "session", "start_conversation", "conversation")
    watched = [*((EquosClient, name) for name in starts), (SessionFleet, "start")]
    with EquosEmulator() as emulator, sites.watch(*watched):
        yield emulator
    # After the emulator has stopped, so that no start can still be in progress.
    if emulator.live and request.node.get_closest_marker("equos_allow_live") is None:
        lines = lines_of(sites, request.config.rootpath)
        left = report(
            emulator.live.values(), emulator.requests, lines=lines, allowed_by=HINT_OF_PYTEST
        )
        pytest.fail(left, pytrace=False)


def _async_fixture(function: Callable[..., Any]) -> Any:
    """A fixture for any runner of async tests; pytest-asyncio in strict mode needs its own kind."""
    try:
        # By name: pip may leave a folder without it, which would still be imported.
        from pytest_asyncio import fixture
    except ImportError:
        return pytest.fixture(function)
    return fixture(function)


@_async_fixture
async def equos_client(equos_emulator: EquosEmulator) -> AsyncIterator[EquosClient]:
    """An ``EquosClient`` of this test's emulator, with both keys; closed after the test."""
    from equos_async.client import EquosClient

    endpoint = equos_emulator.endpoint
    async with EquosClient("test-key", api_key="test-api-key", endpoint=endpoint) as client:
        yield client
