"""The emulator on a clock that stands still, and a plain HTTP client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from equos_async.testing import EmulatorClock, EquosEmulator
from tests.emulator.support import Caller


@pytest.fixture
async def emulator() -> AsyncIterator[EquosEmulator]:
    """A local server on whose clock no time passes by itself."""
    async with EquosEmulator(clock=EmulatorClock(ticking=False)) as emulator:
        yield emulator


@pytest.fixture
async def caller(emulator: EquosEmulator) -> AsyncIterator[Caller]:
    """A plain HTTP client of that server."""
    async with aiohttp.ClientSession() as http:
        yield Caller(emulator, http)
