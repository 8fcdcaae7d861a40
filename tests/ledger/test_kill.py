"""Kill anything at any time: no session stays behind that the ledger knew of."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.ledger.chaos import Chaos, befall
from tests.ledger.conftest import RedisServer
from tests.ledger.sites import SERVERS

LEASE = 2.0


@pytest.mark.parametrize("name", SERVERS)
async def test_redis(redis_program: None, tmp_path: Path, name: str) -> None:
    """Workers are killed while something befalls the Redis of their ledger."""
    async with (
        SERVERS[name](tmp_path) as site,
        Chaos(where=site.where, sessions=8, limit=18, lease=LEASE, hold=2, seed=1) as chaos,
    ):
        await chaos.spawn(4)
        await chaos.busy(12)
        await befall(chaos, site, chaos.chance.choice(sorted(site.harms)))
        await chaos.leave()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, None])
async def test_a_shutdown(own_redis: RedisServer, how: signal.Signals | None) -> None:
    """Workers that are told to end do so, with all of their sessions stopped, Redis or no Redis."""
    async with Chaos(
        where=own_redis.url, sessions=30, limit=60, lease=LEASE, hold=0.3, seed=3
    ) as chaos:
        await chaos.spawn(3)
        await chaos.busy(40)
        assert own_redis.process is not None
        if how is not None:
            own_redis.process.send_signal(how)
            await asyncio.sleep(0.3)
        await chaos.end()
        own_redis.process.send_signal(signal.SIGCONT)
        assert chaos.emulator.live == {}
        assert chaos.refused == 0


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
        await chaos.orphans_gone(LEASE)
        paused = await chaos.pause(LEASE * 1.5)
        chaos.kill()
        await chaos.orphans_gone(LEASE)
        await chaos.spawn(1)
        await chaos.busy(9)
        await asyncio.sleep(0.5)
        assert paused.process.returncode in {None, -9}
        await chaos.leave()
