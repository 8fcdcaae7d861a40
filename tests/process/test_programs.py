"""The examples and the commands, ended in each way, and judged by what is left on the server.

Each holds sessions then, or has starts on the wire. All of them run at the same time: they wait
more than they compute.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum

import aiohttp
import pytest

from equos_async import EquosClient, StartOutcomeUnknownError
from equos_async.testing import Delay, EquosEmulator, Status
from tests.fleet.programs import EXAMPLES, KEY, Program, call, free_port, program
from tests.process.caller import REQUEST
from tests.process.test_callers import count, seen

INT, TERM, STOP, CONT = signal.SIGINT, signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT
SLOW = 0.6
"""Seconds that a start takes on the server."""

Drive = Callable[[Program], Awaitable[None]]
Way = Sequence[signal.Signals | float]


async def nothing(_: Program) -> None:
    """It begins by itself."""


async def talk(bot: Program) -> None:
    """Three guilds want to talk."""
    for guild in range(3):
        bot.write(f"guild-{guild} /talk")


def visit(url: str, ready: str) -> Drive:
    """Three visitors press the button."""

    async def press() -> None:
        with suppress(aiohttp.ClientError):  # it ends meanwhile
            await call("POST", url, json={"name": "Ada"})

    async def drive(backend: Program) -> None:
        await backend.expect(ready)
        visitors.extend(asyncio.create_task(press()) for _ in range(3))

    visitors: list[asyncio.Task[None]] = []
    return drive


def programs() -> dict[str, tuple[Sequence[str], dict[str, str], Drive]]:
    """What is started, with what environment, and what makes it start sessions."""
    aio, fast = str(free_port()), str(free_port())
    command = ("-m", "equos_async", "start", "--avatar=a", "--agent=b", "--identity=c")
    return {
        "service": ([str(EXAMPLES / "service.py")], {}, nothing),
        "bot": ([str(EXAMPLES / "bot.py")], {}, talk),
        "aiohttp": (
            [str(EXAMPLES / "web_backend.py")],
            {"PORT": aio},
            visit(f"http://127.0.0.1:{aio}/sessions", "Running on"),
        ),
        "fastapi": (
            [str(EXAMPLES / "fastapi_backend.py")],
            {"PORT": fast},
            visit(f"http://127.0.0.1:{fast}/sessions", "Uvicorn running"),
        ),
        "conversations": (
            [str(EXAMPLES / "conversations.py")],
            {"EQUOS_API_KEY": KEY, "TALK_SECONDS": "60"},
            nothing,
        ),
        "start": (command, {}, nothing),
    }


FEWER = {"conversations": 2, "start": 1}
"""Programs that do not begin three at once."""


class Stage(Enum):
    """What a program has when it is ended."""

    ON_WIRE = "starts on the wire"
    LIVE = "sessions that are live"
    STOPS_FAIL = "the same, and their first stops fail"

    def reached(self, emulator: EquosEmulator) -> int:
        """How many of them there are."""
        return count(emulator, "start") if self is Stage.ON_WIRE else len(emulator.live)


@asynccontextmanager
async def started(name: str, stage: Stage) -> AsyncGenerator[tuple[EquosEmulator, Program], None]:
    """A program that has come to a stage."""
    arguments, env, drive = programs()[name]
    async with EquosEmulator() as emulator:
        if stage is Stage.ON_WIRE:
            emulator.faults.start.add(Delay(SLOW), times=None)
        if stage is Stage.STOPS_FAIL:
            emulator.faults.stop.add(Status(503), times=2)
        async with program(emulator.endpoint, *arguments, **env) as running:
            await drive(running)
            await seen(lambda: stage.reached(emulator) >= FEWER.get(name, 3))
            yield emulator, running


def made(emulator: EquosEmulator) -> int:
    """The sessions and conversations that there were."""
    ended = len(emulator.ended_sessions) + len(emulator.ended_conversations)
    return len(emulator.live) + ended


async def ended(name: str, way: Way, stage: Stage = Stage.ON_WIRE) -> None:
    """End one, and judge it."""
    async with started(name, stage) as (emulator, running):
        *first, last = way
        for one in first:
            if isinstance(one, signal.Signals):
                running.kill(one)
            else:
                await asyncio.sleep(one)
        assert isinstance(last, signal.Signals)
        code = await (running.end_at_once(last) if INT in first else running.end(last))
        # Also what nobody waits for any more.
        await seen(lambda: made(emulator) == count(emulator, "start"))
    told = f"{name}: exit code {code}\n{running.printed}"
    left = [
        one
        for one in emulator.live.values()
        if not any(name in told for name in (one.id, one.name, one.client or one.id))
    ]
    assert (left, "never retrieved" in told, KEY in told) == ([], False, False), told
    if len(way) == 1 or STOP in way:
        assert (emulator.live, "Traceback" in told) == ({}, False), told


@pytest.mark.parametrize(
    "way",
    [[INT], [TERM], [STOP, 1.0, CONT, TERM], [INT, 0.05, INT], [TERM, 0.1, TERM]],
    ids=lambda way: "-".join(str(getattr(one, "name", one)) for one in way),
)
async def test_signals(way: Way) -> None:
    """Nothing is left after one, nor after a freeze; after more, nothing that is not told."""
    async with asyncio.TaskGroup() as group:
        for name in programs():
            group.create_task(ended(name, way))


@pytest.mark.parametrize("number", [INT, TERM])
@pytest.mark.parametrize("stage", [Stage.LIVE, Stage.STOPS_FAIL], ids=lambda stage: stage.name)
async def test_live_sessions(stage: Stage, number: signal.Signals) -> None:
    """All are ended, although a stop fails at first."""
    async with asyncio.TaskGroup() as group:
        for name in programs().keys() - {"start"}:  # whose session is to live on
            group.create_task(ended(name, [number], stage))


@pytest.mark.parametrize("way", [[TERM, 0.05, INT], [INT, 0.05, INT, 0.05, INT]], ids=len)
async def test_servers_that_are_hurried(way: Way) -> None:
    """What is left is told, where uvicorn and aiohttp give up waiting."""
    async with asyncio.TaskGroup() as group:
        for name in ("aiohttp", "fastapi"):
            group.create_task(ended(name, way))


@pytest.mark.parametrize("number", [INT, TERM])
async def test_three_at_once(number: signal.Signals) -> None:
    """They come before any answer: what may be left is told."""
    async with asyncio.TaskGroup() as group:
        for name in ("service", "bot", "start"):
            group.create_task(ended(name, [number, 0.03, number, 0.03, number]))


@pytest.mark.parametrize("number", [INT, TERM])
async def test_an_emulator(number: signal.Signals) -> None:
    """It ends well and at once: what it has not answered is not waited for."""
    faults = "--fault=start:delay=60"
    async with program("", "-m", "equos_async", "emulator", "--port=0", faults) as server:
        said = await server.expect("http://")
        (endpoint,) = re.findall(r"http://[\w.:]+", said)
        async with EquosClient(KEY, endpoint=endpoint) as client:
            start = asyncio.create_task(client.start_session(REQUEST))
            await asyncio.sleep(0)  # it is begun first, and so it arrives first
            await client.ping()
            assert await server.end(number) == 0
            with pytest.raises(StartOutcomeUnknownError):
                await start
    assert "Traceback" not in server.printed


@pytest.mark.parametrize(("number", "code"), [(INT, 130), (TERM, 143)])
async def test_a_demo(number: signal.Signals, code: int) -> None:
    """It stops its sessions, and no process of it is left."""
    async with program("", "-m", "equos_async", "demo", "--sessions=100000") as demo:
        await demo.expect("started")
        assert await demo.end(number) == code  # reads until nobody writes
    (left,) = [line for line in demo.printed.splitlines() if line.startswith("left on the server")]
    assert (left.split()[-1], "Traceback" in demo.printed) == ("0", False)


async def test_a_killed_demo_leaves_no_server() -> None:
    """The emulator that it started ends with it."""
    async with program("", "-m", "equos_async", "demo", "--sessions=100000") as demo:
        await demo.expect("started")
        assert await demo.end(signal.SIGKILL) == -signal.SIGKILL  # reads until nobody writes
