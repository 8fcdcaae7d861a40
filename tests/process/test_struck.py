"""What a signal handler raises may strike the library anywhere: nothing is left then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import pytest

from equos_async import EquosClient, SessionFleet
from equos_async.testing import EquosEmulator
from tests.conftest import KEY
from tests.fleet.programs import program
from tests.process.caller import REQUEST
from tests.process.test_callers import LOOPS


@pytest.mark.parametrize(
    ("holder", "wire", "loop", "stride"),
    [
        ("bare", "direct", "", 53),
        ("bare", "session", "", 53),
        ("block", "direct", "", 53),
        ("block", "session", "", 53),
        ("block", "direct", "uvloop", 131),
        ("fleet", "direct", "", 149),
        ("fleet", "direct", "uvloop", 149),
        ("fleet", "session", LOOPS[-2], 149),
    ],
)
async def test_anywhere(holder: str, wire: str, loop: str, stride: int) -> None:
    """Usually no session is left; if the signal hits the reading of an answer, it is reported.

    What nobody closed, because the loop ended early, warns.
    """
    async with program(
        "", "-m", "tests.process.struck", holder, wire, str(stride), LOOP=loop
    ) as struck:
        assert await struck.end() == 0
    lines = struck.printed.splitlines()
    (last,) = [line for line in lines if line.endswith(" strikes")]
    found = [line.partition(": ")[2] for line in lines if ": left " in line]
    assert set(found) <= {"left 0, told 1", "left 1, told 1"}, struck.printed
    strikes = int(last.removesuffix(" strikes"))
    assert found.count("left 1, told 1") * 10 < strikes > 20


async def close(client: EquosClient) -> None:
    """What a block holds is stopped by its client."""
    block = client.session(REQUEST)
    await block.__aenter__()
    strike()
    await client.aclose()


async def stop(client: EquosClient) -> None:
    """What a fleet holds that nobody leaves."""
    fleet = SessionFleet(client)
    await fleet.open()
    live = await fleet.start(REQUEST, key=1)
    strike()
    await live.stop()


def strike() -> None:
    """Raise at the next future: that is the first step of a call, and of waiting for a task."""

    def create_future() -> NoReturn:
        del vars(loop)["create_future"]
        raise KeyboardInterrupt

    loop = asyncio.get_running_loop()
    vars(loop)["create_future"] = create_future


@pytest.mark.parametrize("end", [close, stop])
def test_before_a_stop_is_launched(end: Callable[[EquosClient], Coroutine[Any, Any, None]]) -> None:
    """It is held until then, and so the event loop's shutdown stops it."""
    with EquosEmulator() as emulator, asyncio.Runner() as runner:
        client = EquosClient(KEY, endpoint=emulator.endpoint)
        with pytest.raises(KeyboardInterrupt):
            runner.run(end(client))
        runner.run(runner.get_loop().shutdown_asyncgens())
        assert (emulator.live_sessions, client.unresolved) == ({}, ())
        runner.run(client.aclose())
