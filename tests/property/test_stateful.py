"""Random lives of a client: whatever happens, what is open is in somebody's hands or reported."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from equos_async import CreateSessionPassRequest, EquosClient, EquosError, RetryPolicy, Timeouts
from tests.clocks import SkippingClock
from tests.conftest import KEY
from tests.faults.server import Behaviour, Connection, RawServer, error_body, good
from tests.faults.test_matrix import ends

TIMEOUTS = Timeouts(connect=0.5, start_attempt=0.05, stop_attempt=0.05, deadline=30)


async def throttled(connection: Connection) -> None:
    """Refused, with a wish."""
    await connection.reply(429, error_body(429, "later"), "Retry-After: 0\r\n")


async def broken(connection: Connection) -> None:
    """Acts, and says that it failed."""
    connection.act()
    await connection.reply(500, error_body(500, "oops"))


async def cut(connection: Connection) -> None:
    """Acts, and tells no more than the id."""
    body = connection.act()
    await connection.reply(connection.good_status, body[:60])


WEATHER: list[Behaviour] = [
    good,
    good,
    throttled,
    broken,
    cut,
    ends("fin", act=False),
    ends("rst", act=True),
    ends("hang", act=True),
]


class Life:
    """One client, and all that was ever done with it."""

    def __init__(self, client: EquosClient, server: RawServer, chance: random.Random) -> None:
        self.client = client
        self.server = server
        self.chance = chance
        self.held: set[str] = set()
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, request: CreateSessionPassRequest) -> None:
        """A caller that keeps what it gets."""
        with suppress(EquosError):  # what it means is what this is about
            self.held.add((await self.client.start_session(request)).session.id)

    async def run_block(self, request: CreateSessionPassRequest) -> None:
        """A caller with a block."""
        with suppress(EquosError):
            async with self.client.session(request):
                await asyncio.sleep(0)

    async def stop(self, session_id: str) -> None:
        """A caller that lets go of what is stopped."""
        with suppress(EquosError):  # then it is still held
            await self.client.stop_session(session_id)
            self.held.discard(session_id)

    def step(self, request: CreateSessionPassRequest) -> None:
        """One thing that happens."""
        match self.chance.choice(["start", "start", "block", "stop", "cancel", "weather"]):
            case "start":
                self.tasks.append(asyncio.create_task(self.start(request)))
            case "block":
                self.tasks.append(asyncio.create_task(self.run_block(request)))
            case "stop" if self.held:
                session_id = self.chance.choice(sorted(self.held))
                self.tasks.append(asyncio.create_task(self.stop(session_id)))
            case "cancel" if self.tasks:
                self.chance.choice(self.tasks).cancel()
            case _:
                self.server.always = self.chance.choice(WEATHER)

    def check(self) -> None:
        """What is live is held, or known by its id, or one of the starts that are unknown."""
        unresolved = self.client.unresolved
        known = self.held | {one.session_id for one in unresolved}
        unknown = [one for one in unresolved if one.operation == "start"]
        assert len(self.server.live - known) <= len(unknown)


@pytest.mark.parametrize("seed", range(40))
async def test_a_random_life(seed: int, request_: CreateSessionPassRequest) -> None:
    """Starts, blocks, stops, cancellations, outages and a close, in an order drawn from a seed."""
    chance = random.Random(seed)
    async with RawServer() as server:
        client = EquosClient(
            KEY,
            endpoint=server.endpoint,
            timeouts=TIMEOUTS,
            retry=RetryPolicy(gate_delay=0.001, gate_max_delay=0.002),
            clock=SkippingClock(seed),
        )
        life = Life(client, server, chance)
        for _ in range(40):
            life.step(request_)
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
        server.always = good
        if chance.random() < 0.5:
            await asyncio.wait(life.tasks, timeout=0.2)
        await client.aclose(deadline=0.2)
        await asyncio.gather(*life.tasks, return_exceptions=True)
        life.check()
