"""Random lives of a client: each open session has a holder or is reported."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from equos_async import EquosClient, EquosError
from tests.clocks import FakeClock, settle
from tests.conftest import API_KEY, KEY
from tests.faults.server import Behaviour, Connection, RawServer, error_body, good
from tests.faults.test_matrix import ends
from tests.kinds import CONVERSATION, SESSION, Kind


async def throttled(connection: Connection) -> None:
    """Refused, with a wish."""
    await connection.reply(429, error_body(429, "later"), "Retry-After: 0\r\n")


async def broken(connection: Connection) -> None:
    """Acts, and says that it failed."""
    connection.act()
    await connection.reply(500, error_body(500, "oops"))


async def cut(connection: Connection) -> None:
    """Acts, and sends no more of the answer than the id."""
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

    def __init__(self, server: RawServer, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = FakeClock(seed)
        self.server = server
        self.client = EquosClient(
            KEY, api_key=API_KEY, endpoint=server.endpoint, settle=None, clock=self.clock
        )
        self.held: dict[str, Kind] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, kind: Kind) -> None:
        """A caller that keeps what it gets."""
        with suppress(EquosError):  # what it means is what this is about
            self.held[await kind.started_id(self.client)] = kind

    async def run_block(self, kind: Kind) -> None:
        """A caller with a block."""
        with suppress(EquosError):
            async with kind.block(self.client, kind.request):
                await asyncio.sleep(0)

    async def stop(self, held_id: str, kind: Kind) -> None:
        """A caller that lets go of what is stopped."""
        with suppress(EquosError):  # then it is still held
            await kind.stop(self.client, held_id)
            self.held.pop(held_id, None)

    def step(self) -> None:
        """One thing that happens."""
        kind = self.chance.choice([SESSION, CONVERSATION])
        match self.chance.choice(["start", "start", "block", "stop", "cancel", "time", "weather"]):
            case "start":
                self.tasks.append(asyncio.create_task(self.start(kind)))
            case "block":
                self.tasks.append(asyncio.create_task(self.run_block(kind)))
            case "stop" if self.held:
                held_id = self.chance.choice(sorted(self.held))
                self.tasks.append(asyncio.create_task(self.stop(held_id, self.held[held_id])))
            case "cancel" if self.tasks:
                self.chance.choice(self.tasks).cancel()
            case "time":
                self.clock.advance(self.chance.choice([0.1, 1, 10, 31]))
            case _:
                self.server.always = self.chance.choice(WEATHER)

    async def end(self) -> None:
        """Let good weather return, and close, at once or in a while."""
        self.server.always = good
        if self.chance.random() < 0.5:
            await settle()
        closing = asyncio.ensure_future(self.client.aclose(deadline=self.chance.choice([0, 10])))
        while not closing.done():
            await settle()
            self.clock.advance(0.1)
        results = await asyncio.gather(*self.tasks, return_exceptions=True)
        assert {type(one) for one in results} <= {type(None), asyncio.CancelledError}

    def check(self) -> None:
        """Each live session has a holder, or is known by its id, or is of an unknown start."""
        unresolved = self.client.unresolved
        known = {one.session_id for one in unresolved} | self.held.keys()
        unknown = [one for one in unresolved if one.operation == "start"]
        assert len(self.server.live - known) <= len(unknown)


@pytest.mark.parametrize("seed", range(40))
async def test_a_random_life(seed: int) -> None:
    """Sessions and conversations, starts, blocks, stops, cancellations, outages and a close.

    Their order is drawn from a seed, and time passes only where that says so.
    """
    async with RawServer() as server:
        life = Life(server, seed)
        for _ in range(40):
            life.step()
            await settle(life.chance.randrange(6))
        await life.end()
        life.check()
