"""Where a ledger is while workers are killed, and what befalls it there."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
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
        losses: The names of those after which nobody knows the rows of the dead.
    """

    where: str
    harms: Mapping[str, Harm]
    losses: frozenset[str] = frozenset()


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

    async def flush(_: float) -> None:
        await asyncio.to_thread(redis.ask, "FLUSHALL")

    def restart(how: signal.Signals, *, forgets: bool = False) -> Harm:
        async def harm(seconds: float) -> None:
            await asyncio.to_thread(redis.stop, how)
            if forgets:
                redis.forget()
            await asyncio.sleep(seconds)
            await asyncio.to_thread(redis.start)

        return harm

    try:
        async with Relay(redis.port, delay=0.005) as way:
            ways = {"the network is cut": cut, "its connections are forgotten": forget}
            ends = {"it ends": restart(signal.SIGTERM), "it is killed": restart(signal.SIGKILL)}
            losses: dict[str, Harm] = {
                "it is flushed": flush,
                "it is killed, and its file is gone": restart(signal.SIGKILL, forgets=True),
            }
            harms = {**ways, **ends, **losses, "it is paused": pause}
            yield Site(way.url, harms, frozenset(losses))
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


def killed_one(programs: Sequence[Program], is_primary: Callable[[Program], bool]) -> Harm:
    """Kill the primary, and start it again when another one has taken its place."""

    async def harm(seconds: float) -> None:
        found = [one for one in programs if await asyncio.to_thread(is_primary, one)]
        for one in found:
            one.kill()
        await asyncio.sleep(seconds + 2)
        for one in found:
            one.start_again()

    return harm


@asynccontextmanager
async def sentinels(folder: Path) -> AsyncGenerator[Site]:
    """A primary, its replica and three Sentinels."""
    with watched(folder) as servers:
        ports = ",".join(str(port) for _, port in servers.addresses)

        def leads(one: Program) -> bool:
            told = servers.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
            return str(one.port) in told.split()

        both = [servers.primary, servers.replica]
        harms = {
            "the primary is frozen": frozen_one(both, leads),
            "the primary is killed": killed_one(both, leads),
        }
        yield Site(f"sentinels:{ports}", harms)


@asynccontextmanager
async def nodes(folder: Path) -> AsyncGenerator[Site]:
    """Three primaries and their replicas."""
    with cluster(folder) as programs:
        slot = int(programs[0].ask("CLUSTER", "KEYSLOT", "{equos}:rows"))
        first = (slot > 5460) + (slot > 10922)
        pair, others = ([programs[n % 3], programs[n % 3 + 3]] for n in (first, first + 1))

        def leads(one: Program) -> bool:
            return "role:master" in one.ask("INFO", "replication")

        seeds = ",".join(one.url for one in programs[:3])
        harms = {
            "the node is frozen": frozen_one(pair, leads),
            "the node is killed": killed_one(pair, leads),
            "another node is frozen": frozen_one(others, leads),
        }
        yield Site(seeds, harms)


@asynccontextmanager
async def one_machine(folder: Path) -> AsyncGenerator[Site]:
    """A file of SQLite."""
    path = folder / "ledger.db"
    path.touch()

    async def lock(seconds: float) -> None:
        with closing(sqlite3.connect(path, 30, check_same_thread=False)) as other:
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            await asyncio.sleep(seconds)

    async def remove(_: float) -> None:
        for part in (path, path.with_name("ledger.db-wal"), path.with_name("ledger.db-shm")):
            part.unlink(missing_ok=True)

    harms = {"a process keeps its lock": lock, "its file is removed": remove}
    yield Site(f"sqlite:{path}", harms, frozenset({"its file is removed"}))


SERVERS = {"one server": one_server, "Sentinel": sentinels, "cluster": nodes}
SITES = {"SQLite": one_machine, **SERVERS}
