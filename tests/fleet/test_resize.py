"""Another ``max_live`` while the fleet runs."""

from __future__ import annotations

import asyncio

import pytest

from equos_async import ConfigurationError, FleetFullError, SessionFleet, SessionLedger
from tests.clocks import settle
from tests.fleet.support import REQUEST, MemoryLedger, ScriptedClient


@pytest.mark.parametrize("ledger", [None, MemoryLedger()], ids=["alone", "ledger"])
async def test_more(scripted: ScriptedClient, ledger: SessionLedger | None) -> None:
    """As many of those that wait get slots as there are new ones."""
    async with SessionFleet(scripted, max_live=1, ledger=ledger) as fleet:
        starts = [asyncio.create_task(fleet.start(REQUEST, key=key)) for key in range(4)]
        await settle()
        assert (len(fleet.live), fleet.stats().waiting) == (1, 3)
        fleet.resize(3)
        await asyncio.gather(*starts[:3])
        assert fleet.stats().waiting == 1
        fleet.resize(10)
        await starts[3]
        assert fleet.stats().free == 6
    assert scripted.most == 4


async def test_less(scripted: ScriptedClient) -> None:
    """Nothing is stopped; returned slots are dropped until there are as few as wanted."""
    async with SessionFleet(scripted, max_live=4) as fleet:
        for key in range(4):
            await fleet.start(REQUEST, key=key)
        waiting = asyncio.create_task(fleet.start(REQUEST, key="next"))
        await settle()
        fleet.resize(2)
        assert (len(fleet.live), fleet.stats().free) == (4, 0)
        for key in range(2):
            await fleet.stop(key)
        await settle()
        assert not waiting.done()
        with pytest.raises(FleetFullError, match="all 2 slots"):
            await fleet.start(REQUEST, key="other", wait=False)
        await fleet.stop(2)
        await waiting
        assert len(fleet.live) == 2
        assert "0 free" in repr(fleet)


async def test_bad_input(scripted: ScriptedClient) -> None:
    """It is refused, and changes nothing."""
    async with SessionFleet(scripted, max_live=4) as fleet:
        with pytest.raises(ConfigurationError, match="max_live"):
            fleet.resize(0)
        assert fleet.stats().free == 4
