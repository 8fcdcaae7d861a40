"""Two fleets in one process: a signal reaches both, in whichever order they begin and end."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from equos_async import EquosClient, SessionFleet
from tests.clocks import FakeClock
from tests.fleet.support import REQUEST, ScriptedClient


async def serve(fleet: SessionFleet[str], ready: asyncio.Event, grace: float | None = None) -> None:
    """A program that a signal ends."""
    async with fleet:
        fleet.stop_on_signals(grace=grace)
        await fleet.start(REQUEST, key="k")
        ready.set()
        await asyncio.Event().wait()


async def begin(fleet: SessionFleet[str], grace: float | None = None) -> asyncio.Task[None]:
    """Let a program run until it serves."""
    ready = asyncio.Event()
    task = asyncio.create_task(serve(fleet, ready, grace))
    await ready.wait()
    return task


async def test_one_in_each_task(scripted: ScriptedClient) -> None:
    """One signal ends both, and the handlers are as before."""
    before = signal.getsignal(signal.SIGTERM)
    fleets = [SessionFleet[str](scripted) for _ in range(3)]
    tasks = [await begin(fleet) for fleet in fleets]
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.gather(*tasks)
    assert [len(fleet.report.stopped) for fleet in fleets] == [1, 1, 1]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("gone", [0, 1, 2])
async def test_one_is_closed_before(scripted: ScriptedClient, gone: int) -> None:
    """The others are ended by a signal all the same."""
    before = signal.getsignal(signal.SIGTERM)
    fleets = [SessionFleet[str](scripted) for _ in range(3)]
    tasks = [await begin(fleet) for fleet in fleets]
    await fleets[gone].aclose()
    assert signal.getsignal(signal.SIGTERM) != before
    os.kill(os.getpid(), signal.SIGTERM)
    del fleets[gone]
    tasks.pop(gone).cancel()
    await asyncio.gather(*tasks)
    assert [len(fleet.report.stopped) for fleet in fleets] == [1, 1]
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_was_never_left() -> None:
    """A fleet of an earlier loop, which is closed, takes no signal, and keeps none from others."""
    before = signal.getsignal(signal.SIGTERM)

    async def forget() -> None:
        client = ScriptedClient()
        fleet = SessionFleet[str](client)
        await fleet.open()
        fleet.stop_on_signals(signal.SIGTERM)
        await client.aclose()

    async def go_on() -> None:
        async with ScriptedClient() as client:
            fleet = SessionFleet[str](client)
            task = await begin(fleet)
            os.kill(os.getpid(), signal.SIGTERM)
            await task
        assert len(fleet.report.stopped) == 1

    try:
        asyncio.run(forget())
        asyncio.run(go_on())
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_both_in_one_block(scripted: ScriptedClient) -> None:
    """A signal ends both blocks, and the program goes on after the outer one."""
    client: EquosClient = scripted
    async with SessionFleet(client) as outer:
        outer.stop_on_signals()
        async with SessionFleet(client) as inner:
            inner.stop_on_signals()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        raise AssertionError("the outer block goes on")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_one_winds_down(scripted: ScriptedClient, still: FakeClock) -> None:
    """Each has its own steps: the second signal ends the one that winds down."""
    at_once, slow = SessionFleet[str](scripted), SessionFleet[str](scripted, clock=still)
    tasks = [await begin(at_once), await begin(slow, grace=600)]
    os.kill(os.getpid(), signal.SIGTERM)
    await tasks[0]
    assert (slow.accepting, len(slow.live)) == (False, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    await tasks[1]
    assert len(slow.report.stopped) == 1
