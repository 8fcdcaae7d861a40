"""Where a ledger's Redis runs while workers are killed, and what befalls it there."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import frozen

from equos_async import RedisLedger, SQLiteLedger
from equos_async.cli.ledger import open_ledger
from tests.ledger.conftest import RedisServer
from tests.ledger.servers import Program, Relay, cluster, watched

Harm = Callable[[float], Awaitable[object]]


@frozen
class Site:
    """A way to a ledger, and what may befall it.

    Attributes:
        where: For :func:`ledger_at`.
        harms: By name; each takes so many seconds, and afterwards all is well, or becomes so.
    """

    where: str
    harms: Mapping[str, Harm]

    async def harm(self, chance: random.Random, seconds: float) -> str:
        """Let something befall it; the name of that."""
        name = chance.choice(sorted(self.harms))
        await self.harms[name](seconds)
        return name


def ledger_at(where: str) -> RedisLedger | SQLiteLedger:
    """The ledger of a site: ``sentinels:PORT,...``, several URLs of a cluster, or as at a shell."""
    if where.startswith("sentinels:"):
        ports = where.removeprefix("sentinels:").split(",")
        return RedisLedger.from_sentinel([("127.0.0.1", int(port)) for port in ports], "main")
    return RedisLedger(where.split(",")) if "," in where else open_ledger(where, "equos")


@asynccontextmanager
async def one_server(folder: Path) -> AsyncGenerator[Site]:
    """One with a file, 10 ms away over a network that can be cut."""
    redis = RedisServer(folder)
    await asyncio.to_thread(redis.start)

    async def cut(seconds: float) -> None:
        port, way.target = way.target, 1
        way.cut()
        await asyncio.sleep(seconds)
        way.target = port

    async def forget(_: float) -> None:
        way.forget()

    async def pause(seconds: float) -> None:
        await asyncio.to_thread(redis.ask, "CLIENT", "PAUSE", str(round(seconds * 1000)))
        await asyncio.sleep(seconds)

    def restart(how: signal.Signals) -> Harm:
        async def harm(seconds: float) -> None:
            await asyncio.to_thread(redis.stop, how)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(redis.start)

        return harm

    try:
        async with Relay(redis.port, delay=0.005) as way:
            ways = {"the network is cut": cut, "its connections are forgotten": forget}
            ends = {"it ends": restart(signal.SIGTERM), "it is killed": restart(signal.SIGKILL)}
            yield Site(way.url, {**ways, **ends, "it is paused": pause})
    finally:
        redis.stop(signal.SIGKILL)


def frozen_one(programs: Sequence[Program], is_primary: Callable[[Program], bool]) -> Harm:
    """Let the primary stand still for long enough that another one takes its place."""

    async def harm(seconds: float) -> None:
        found = [one for one in programs if await asyncio.to_thread(is_primary, one)]
        for one in found:
            one.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds + 2)  # a fail-over takes that long
        for one in found:
            one.process.send_signal(signal.SIGCONT)

    return harm


@asynccontextmanager
async def sentinels(folder: Path) -> AsyncGenerator[Site]:
    """A primary, its replica and three Sentinels."""
    with watched(folder) as servers:
        ports = ",".join(str(port) for _, port in servers.addresses)

        def leads(one: Program) -> bool:
            told = servers.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
            return str(one.port) in told.split()

        freeze = frozen_one([servers.primary, servers.replica], leads)
        yield Site(f"sentinels:{ports}", {"the primary is frozen": freeze})


@asynccontextmanager
async def nodes(folder: Path) -> AsyncGenerator[Site]:
    """Three primaries and their replicas."""
    with cluster(folder) as programs:
        slot = int(programs[0].ask("CLUSTER", "KEYSLOT", "{equos}:rows"))
        first = (slot > 5460) + (slot > 10922)
        pair = [programs[first], programs[first + 3]]

        def leads(one: Program) -> bool:
            return "role:master" in one.ask("INFO", "replication")

        freeze = frozen_one(pair, leads)
        seeds = ",".join(one.url for one in programs[:3])
        yield Site(seeds, {"the node is frozen": freeze})


SITES = {"one server": one_server, "Sentinel": sentinels, "cluster": nodes}
