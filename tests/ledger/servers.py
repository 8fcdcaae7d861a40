"""Real parts for the tests of a ledger in Redis: Sentinels, clusters, and a relay."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from attrs import define, field

from equos_async import LedgerError
from tests.fleet.programs import free_port

PATIENCE = 60
"""Seconds that a fail-over may take on a busy machine."""


async def until_it_works(step: Callable[[], Awaitable[Any]]) -> Any:
    """Ask as a worker does, again and again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await step()
            except LedgerError:
                await asyncio.sleep(0.1)


LOCAL = ("--bind", "127.0.0.1", "--save", "")


@define
class Program:
    """A redis-server as some kind of node.

    Attributes:
        port: Where it is asked.
        process: It.
    """

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"redis://127.0.0.1:{self.port}"

    def ask(self, *words: str) -> str:
        """What it answers to an operator; nothing where it is gone."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, check=False, text=True).stdout

    def wait_for(self, told: str, *words: str) -> None:
        """Send a command until its answer contains a text."""
        for _ in range(1500):
            if told in self.ask(*words):
                return
            time.sleep(0.02)
        raise RuntimeError(f"no {told} of {words}: {self.ask(*words)}")

    def wait_for_replica(self) -> None:
        """Until the replica has all that was written here."""
        for _ in range(1500):
            told = self.ask("INFO", "replication")
            offset = re.search(r"master_repl_offset:(\d+)", told)
            if offset and f"offset={offset[1]}," in told:
                return
            time.sleep(0.02)
        raise RuntimeError("the replica does not keep up")

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Start it as it was started, with the file that it has of its settings."""
        self.process = subprocess.Popen(self.process.args, stdout=subprocess.DEVNULL)


@contextmanager
def program(folder: Path, *options: str, sentinel: bool = False) -> Generator[Program, None, None]:
    """A redis-server with a folder of its own, on another port where one was taken meanwhile."""
    folder.mkdir()
    config = folder / "redis.conf"
    while True:
        port = free_port()
        words = [str(free_port()) if word == "a free port" else word for word in options]
        config.write_text("")
        command = ["redis-server", str(config), *(["--sentinel"] if sentinel else [])]
        process = subprocess.Popen(
            [*command, "--port", str(port), "--dir", str(folder), *words], stdout=subprocess.DEVNULL
        )
        one = Program(port, process)
        try:
            while process.poll() is None and "PONG" not in one.ask("PING"):
                time.sleep(0.02)
            if process.poll() is None:
                yield one
                return
        finally:
            one.kill()


@define
class Watched:
    """A primary, its replica, and three Sentinels that watch them."""

    primary: Program
    replica: Program
    sentinels: list[Program]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Of the Sentinels."""
        return [("127.0.0.1", one.port) for one in self.sentinels]


@contextmanager
def watched(folder: Path) -> Generator[Watched, None, None]:
    """A set that fails over within two seconds."""
    with ExitStack() as stack:
        quick = (*LOCAL, "--repl-diskless-sync-delay", "0")
        primary = stack.enter_context(program(folder / "primary", *quick))
        follow = ("--replicaof", f"127.0.0.1 {primary.port}")
        replica = stack.enter_context(program(folder / "replica", *quick, *follow))
        primary.wait_for("state=online", "INFO", "replication")
        sentinels = [
            stack.enter_context(program(folder / f"sentinel-{n}", *LOCAL[:2], sentinel=True))
            for n in range(3)
        ]
        for one in sentinels:
            one.ask("SENTINEL", "MONITOR", "main", "127.0.0.1", str(primary.port), "2")
            one.ask("SENTINEL", "SET", "main", "down-after-milliseconds", "500")
            one.ask("SENTINEL", "SET", "main", "failover-timeout", "2000")
        for one in sentinels:
            one.wait_for("sentinels=3", "INFO", "sentinel")
            one.wait_for("slaves=1", "INFO", "sentinel")
        yield Watched(primary, replica, sentinels)


@contextmanager
def cluster(folder: Path) -> Generator[list[Program], None, None]:
    """Three primaries, and three replicas of them in the same order."""
    with ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        nodes = [
            stack.enter_context(
                program(folder / f"{n}", *LOCAL, *options, "--cluster-port", "a free port")
            )
            for n in range(6)
        ]
        slots = (("0", "5460"), ("5461", "10922"), ("10923", "16383"))
        for one, (first, last) in zip(nodes[:3], slots, strict=True):
            one.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for one in nodes[1:]:
            bus = one.ask("CONFIG", "GET", "cluster-port").split()[1]
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(one.port), bus)
        for one in nodes:
            one.wait_for("cluster_known_nodes:6", "CLUSTER", "INFO")
        for primary, replica in zip(nodes[:3], nodes[3:], strict=True):
            name = primary.ask("CLUSTER", "MYID").strip()
            replica.wait_for(name, "CLUSTER", "NODES")
            replica.wait_for("OK", "CLUSTER", "REPLICATE", name)
        for one in nodes:
            one.wait_for("cluster_state:ok", "CLUSTER", "INFO")
        for replica in nodes[3:]:
            replica.wait_for("master_link_status:up", "INFO", "replication")
        yield nodes


@define
class Relay:
    """A way to a server that has a length, can lead elsewhere, and can fall silent.

    Attributes:
        target: The port that new connections lead to.
        delay: Seconds that each byte is under way.
        refuses: The error with which new connections answer for good; empty for none.
        what: The word of what they refuse.
        is_silent: Whether new connections are accepted, and get no answer.
        port: Where it is reached.
    """

    target: int
    delay: float = 0.0
    refuses: str = ""
    what: bytes = b"EVAL"
    is_silent: bool = False
    port: int = field(default=0, init=False)
    _open: list[tuple[int, asyncio.StreamWriter, asyncio.StreamWriter]] = field(
        factory=list[tuple[int, asyncio.StreamWriter, asyncio.StreamWriter]], init=False
    )
    _silent: set[int] = field(factory=set[int], init=False)
    _server: asyncio.Server | None = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def silent(self) -> frozenset[int]:
        """The connections that have fallen silent, by their far ends' ports."""
        return frozenset(self._silent)

    def forget(self, *ports: int) -> None:
        """Let connections fall silent without an end, as a NAT does: by their far ends' ports.

        Without ports all that are open do.
        """
        self._silent.update(ports or [name for name, _, _ in self._open])

    def cut(self) -> None:
        """End all connections."""
        for _name, near, far in self._open:
            near.transport.abort()
            far.transport.abort()
        self._open.clear()

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            far, there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            back.transport.abort()
            return
        name: int = there.get_extra_info("sockname")[1]
        self._open.append((name, back, there))
        if self.is_silent:
            self._silent.add(name)
        answer = f"-{self.refuses}\r\n".encode() if self.refuses else None

        def refused(data: bytes) -> bool:
            if answer and self.what in data:
                back.write(answer)
                return True
            return False

        await asyncio.gather(
            self._pump(near, there, name, refused), self._pump(far, back, name, lambda _: False)
        )

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        name: int,
        refused: Callable[[bytes], bool],
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(65536):
                if name not in self._silent and not refused(data):
                    loop.call_later(self.delay, sink.write, data)
        except ConnectionError:
            sink.transport.abort()
        if name not in self._silent:
            loop.call_later(self.delay, sink.close)
