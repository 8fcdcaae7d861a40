"""Kill anything at any time: no session stays behind that the ledger knew of."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.ledger.chaos import SLACK, Chaos, sweep
from tests.ledger.conftest import RedisServer

LEASE = 2.0


async def test_redis(own_redis: RedisServer) -> None:
    """Workers are killed and paused, their Redis is stopped, started and paused."""
    told = await sweep(own_redis, workers=3, sessions=8, rounds=1, seed=1, lease=LEASE, hold=2)
    assert told.startswith("seed 1: 3 workers killed")


async def test_sqlite(tmp_path: Path) -> None:
    """Workers of one machine are killed and paused."""
    (tmp_path / "ledger.db").touch()
    async with Chaos(
        where=f"sqlite:{tmp_path / 'ledger.db'}",
        sessions=8,
        limit=18,
        lease=LEASE,
        hold=2,
        seed=2,
    ) as chaos:
        await chaos.spawn(3)
        await chaos.busy(12)
        chaos.kill()
        await chaos.orphans_gone(LEASE + SLACK)
        paused = await chaos.pause(LEASE * 1.5)
        chaos.kill()
        await chaos.orphans_gone(LEASE + SLACK)
        await chaos.spawn(1)
        await chaos.busy(9)
        await asyncio.sleep(0.5)
        assert paused.process.returncode in {None, -9}
        await chaos.leave()
