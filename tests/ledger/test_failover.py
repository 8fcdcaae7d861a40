"""What a worker's ledger does while another server takes over, or the way to it breaks."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from redis import asyncio as engine

from equos_async import ConfigurationError, LedgerError, RedisLedger
from equos_async.testing.ledger_contract import LEASE, claim, ids, live, place, row
from tests.clocks import eventually
from tests.ledger.conftest import RedisServer
from tests.ledger.servers import (
    PATIENCE,
    Program,
    Relay,
    Watched,
    cluster,
    program,
    until_it_works,
    watched,
)


class TestOneAddress:
    """A name or a balancer that leads to whichever server is the primary."""

    async def test_a_demoted_primary(self, redis_program: None, tmp_path: Path) -> None:
        """Its connections stay open, and take nothing: new ones lead to the primary."""
        with (
            program(tmp_path / "one", "--repl-diskless-sync-delay", "0") as one,
            program(tmp_path / "two", "--replicaof", f"127.0.0.1 {one.port}") as two,
        ):
            one.wait_for("state=online", "INFO", "replication")
            async with Relay(one.port) as address, RedisLedger(address.url) as ledger:
                await asyncio.gather(*(live(ledger, row(f"{n}"), f"s{n}") for n in range(8)))
                one.wait_for_replica()
                two.ask("REPLICAOF", "NO", "ONE")
                one.ask("REPLICAOF", "127.0.0.1", str(two.port))
                address.target = two.port
                told = [ledger.renew("worker-1", lease=LEASE) for _ in range(8)]
                assert [len(held) for held in await asyncio.gather(*told)] == [8] * 8

    async def test_a_primary_that_nobody_follows(self, redis_program: None, tmp_path: Path) -> None:
        """It refuses writes but answers its listeners: they leave it, too."""
        lonely = ("--repl-diskless-sync-delay", "0", "--min-replicas-to-write", "1")
        with (
            program(tmp_path / "one", *lonely) as one,
            program(tmp_path / "two", "--replicaof", f"127.0.0.1 {one.port}") as two,
        ):
            one.wait_for("state=online", "INFO", "replication")
            async with (
                Relay(one.port) as address,
                RedisLedger(address.url, timeout=1.0) as ledger,  # each step has to be done in it
                RedisLedger(two.url) as other,
            ):
                await live(ledger, row("a"), "s1")
                assert not await place(ledger, row("b"), limit=1)
                told = asyncio.ensure_future(first_turn(ledger))
                await the_listeners(one)
                one.wait_for_replica()
                two.ask("REPLICAOF", "NO", "ONE")
                one.wait_for("connected_slaves:0", "INFO", "replication")
                address.target = two.port
                held = await ledger.renew("worker-1", lease=LEASE)
                assert held == {"worker-1/a": "s1", "worker-1/b": None}
                await other.remove("worker-1/a", worker="worker-1")
                # The listener's own step publishes without a write: where its connection was in use
                # meanwhile, the next heartbeat is what is refused there.
                async with asyncio.timeout(PATIENCE):
                    while not told.done():
                        await ledger.renew("worker-1", lease=LEASE)
                        await asyncio.wait([told], timeout=0.1)
                assert told.result() == "worker-1/b"

    @pytest.mark.parametrize(
        "word", ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "ERR x: -READONLY"]
    )
    async def test_one_that_is_not_ready(self, redis: RedisServer, word: str) -> None:
        """Whatever the word is for it: the next connection is a new one."""
        async with (
            Relay(redis.port, refuses=f"{word} not now") as address,
            RedisLedger(address.url) as ledger,
        ):
            with pytest.raises(LedgerError, match="not now"):
                await ledger.rows()
            address.refuses = ""
            assert await ledger.rows() == []

    async def test_one_that_does_not_tell_its_nodes(self, redis: RedisServer) -> None:
        """The step was done all the same."""
        async with (
            Relay(redis.port, refuses="LOADING not now", what=b"SLOTS") as address,
            RedisLedger(address.url) as ledger,
        ):
            assert await place(ledger, row("a"))

    async def test_a_node_without_a_name(self, redis: RedisServer) -> None:
        """It is at another port of the same host."""
        async with (
            Relay(redis.port, refuses=f"MOVED 866 :{redis.port}") as address,
            RedisLedger(address.url) as ledger,
        ):
            assert await place(ledger, row("a"))

    async def test_several_steps_that_fail_together(self, redis: RedisServer) -> None:
        """They go on to the next address once, not each of them."""
        async with RedisLedger(["redis://127.0.0.1:1", redis.url]) as ledger:
            steps = (ledger.rows() for _ in range(4))
            told = await asyncio.gather(*steps, return_exceptions=True)
            assert [type(one) for one in told] == [LedgerError] * 4
            assert await ledger.rows() == []

    async def test_a_silent_listener(self, redis: RedisServer) -> None:
        """A connection that was dropped silently is noticed, and replaced."""
        async with (
            Relay(redis.port) as address,
            RedisLedger(address.url, timeout=0.5) as mine,
            RedisLedger(redis.url) as other,
        ):
            told, found = await one_that_waits(mine, other, redis)
            address.forget(*found)
            await other.remove("worker-2/a")
            assert await asyncio.wait_for(told, PATIENCE) == "worker-1/b"

    async def test_a_new_connection_that_is_silent(self, redis: RedisServer) -> None:
        """A listener gives up on one that is accepted and never answered."""
        async with (
            Relay(redis.port, is_silent=True) as address,
            RedisLedger(address.url, timeout=0.1) as ledger,
        ):
            with pytest.raises(LedgerError, match="no answer"):
                await anext(ledger.turns("worker-1"))

    async def test_a_listener_whose_next_connection_is_silent(self, redis: RedisServer) -> None:
        """The client connects again by itself while it reads: then the listener gives up, too."""
        async with (
            Relay(redis.port) as address,
            RedisLedger(address.url, timeout=0.3) as mine,
            RedisLedger(redis.url) as other,
        ):
            told, _ = await one_that_waits(mine, other, redis)
            address.is_silent = True
            address.cut()
            await eventually(lambda: address.silent)
            address.is_silent = False
            await other.remove("worker-2/a")
            assert await asyncio.wait_for(told, PATIENCE) == "worker-1/b"

    async def test_a_quiet_listener(self, redis: RedisServer) -> None:
        """Where nothing is published, its answers keep it."""
        async with RedisLedger(redis.url) as ledger, RedisLedger(redis.url) as other:
            await place(other, row("a"), limit=1)
            await place(other, row("b"), limit=1)
            told = asyncio.ensure_future(anext(ledger.turns("worker-1")))
            found = await the_listeners(redis)
            await asyncio.wait([told], timeout=2.5)
            assert listeners(redis) == found
            await other.remove("worker-1/a", worker="worker-1")
            assert await asyncio.wait_for(told, PATIENCE) == "worker-1/b"


async def first_turn(ledger: RedisLedger) -> str:
    """The first call, to a listener that listens again after a failure."""
    told: str = await until_it_works(lambda: anext(ledger.turns("worker-1")))
    return told


def listeners(server: RedisServer | Program) -> list[int]:
    """The ports of those that have subscribed."""
    clients = server.ask("CLIENT", "LIST", "TYPE", "pubsub")
    return list(map(int, re.findall(r" addr=[^ ]*:(\d+)", clients)))


async def the_listeners(server: RedisServer | Program) -> list[int]:
    """The same, as soon as there is one."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := listeners(server):
                return found
            await asyncio.sleep(0.01)


async def one_that_waits(
    mine: RedisLedger, other: RedisLedger, server: RedisServer
) -> tuple[asyncio.Future[str], list[int]]:
    """A start waits behind another worker's; its turn, and the listener that will hear of it."""
    await place(other, row("a", "worker-2"), limit=1)
    await place(other, row("b"), limit=1)
    told = asyncio.ensure_future(first_turn(mine))
    return told, await the_listeners(server)


class TestSentinel:
    """One primary, one replica, three Sentinels."""

    @pytest.fixture
    def servers(self, redis_program: None, tmp_path: Path) -> Iterator[Watched]:
        with watched(tmp_path) as servers:
            yield servers

    async def test_a_primary_dies(self, servers: Watched) -> None:
        """The replica is found, with all that it was sent, and calls; one Sentinel is gone."""
        servers.sentinels[0].kill()
        async with RedisLedger.from_sentinel(servers.addresses, "main", timeout=4) as ledger:
            await live(ledger, row("a"), "s1")
            servers.primary.wait_for_replica()
            servers.sentinels[1].ask("SENTINEL", "CKQUORUM", "main")
            servers.primary.kill()
            held = await until_it_works(lambda: ledger.renew("worker-1", lease=0.2))
            assert held == {"worker-1/a": "s1"}
            assert not await place(ledger, row("b"), limit=1)
            told = asyncio.ensure_future(anext(ledger.turns("worker-1")))
            await ledger.remove("worker-1/a", worker="worker-1")
            assert await asyncio.wait_for(told, PATIENCE) == "worker-1/b"

    def test_wrong_settings(self) -> None:
        """They are refused before any I/O."""
        with pytest.raises(ConfigurationError, match="sentinels"):
            RedisLedger.from_sentinel([], "main")
        with pytest.raises(ConfigurationError, match="service"):
            RedisLedger.from_sentinel([("127.0.0.1", 1)], "")


class TestCluster:
    """Three primaries and their replicas."""

    @pytest.fixture
    def nodes(self, redis_program: None, tmp_path: Path) -> Iterator[list[Program]]:
        with cluster(tmp_path) as nodes:
            yield nodes

    async def test_a_node_dies(self, nodes: list[Program]) -> None:
        """Whichever was named: its owner's replica is found by any node that is left."""
        slot = int(nodes[0].ask("CLUSTER", "KEYSLOT", "{equos}:rows"))
        owner = (slot > 5460) + (slot > 10922)
        client: Any = cast("Any", engine.RedisCluster).from_url(nodes[(owner + 2) % 3].url)
        async with (
            RedisLedger(nodes[owner].url) as by_owner,
            RedisLedger(nodes[(owner + 1) % 3].url) as by_another,
            RedisLedger([nodes[owner].url, nodes[owner + 3].url]) as by_two,
            client,
            RedisLedger(client=client) as by_client,
        ):
            ledgers = [by_owner, by_another, by_two, by_client]
            for n, ledger in enumerate(ledgers):
                await live(ledger, row(f"{n}"), f"s{n}")
            nodes[owner].wait_for_replica()
            nodes[owner].kill()
            held = [
                await until_it_works(partial(ledger.renew, "worker-1", lease=LEASE))
                for ledger in ledgers
            ]
            assert [len(one) for one in held] == [4] * 4


async def test_made_before_a_fork(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that is made in one process and used in another one, step by step."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        ledger = RedisLedger(redis.url)
    async with ledger:
        await live(ledger, row("a"), "s1")
        assert await ids(ledger) == ["worker-1/a"]


async def test_a_fork(redis: RedisServer) -> None:
    """A child that inherits open connections makes its own, and leaves the others alone."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.ledger.redis_forker", redis.url),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        told, _ = await program.communicate()
    assert told.decode() == "worker-1/a worker-2/b\n"


class TestClient:
    """A client of the caller's own."""

    async def test_it_is_used_and_left_open(self, redis: RedisServer) -> None:
        """One that answers with bytes, too; and calls come over it."""
        client: Any = cast("Any", engine.Redis).from_url(redis.url)
        async with RedisLedger(client=client) as ledger:
            await live(ledger, row("a"), "s1")
            assert not await place(ledger, row("b"), limit=1)
            told = asyncio.ensure_future(anext(ledger.turns("worker-1")))
            await ledger.remove("worker-1/a", worker="worker-1")
            assert await asyncio.wait_for(told, PATIENCE) == "worker-1/b"
            await ledger.renew("worker-1", lease=0)
            assert len(await claim(ledger, "worker-2")) == 0
        assert await client.ping()
        await client.aclose()

    async def test_one_that_finds_no_cluster(self) -> None:
        """Its own errors are a ledger's."""
        client = cast("Any", engine.RedisCluster)(host="127.0.0.1", port=1)
        async with RedisLedger(client=client) as ledger:
            with pytest.raises(LedgerError, match="Redis: "):
                await ledger.rows()
        await client.aclose()

    @pytest.mark.parametrize(
        "settings", [{}, {"url": "redis://127.0.0.1", "client": object()}, {"client": object()}]
    )
    def test_wrong_settings(self, settings: dict[str, Any]) -> None:
        """It is either a URL or a client that can do what is needed."""
        with pytest.raises(ConfigurationError, match="client"):
            RedisLedger(**settings)
