"""A program that ends without closing anything: what can be stopped is, and the rest is told."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from equos_async.testing import Delay, EmulatorRequest, EquosEmulator, Hang
from tests.fleet.programs import program
from tests.process.test_callers import count, seen
from tests.process.unclosed import NAMES


def starts(*loops: str) -> Callable[[EmulatorRequest], bool]:
    """The requests that are under way on some loops when the program ends."""
    names = {f"{loop}, starting" for loop in loops}
    return lambda request: request.name in names


@pytest.mark.parametrize("loop", ["", "uvloop"])
async def test_it_just_ends(loop: str, emulator: EquosEmulator) -> None:
    """A loop that runs in a thread gets its grace; what the others have left is named."""
    emulator.faults.start.add(Delay(0.1), when=starts(NAMES[0]))
    emulator.faults.start.add(Hang(), times=None, when=starts(*NAMES[1:]))
    async with program(emulator.endpoint, "-m", "tests.process.unclosed", LOOP=loop) as running:
        for number in range(1, len(NAMES) + 1):
            await seen(lambda: count(emulator, "start") == 2 * number)  # noqa: B023
            running.write("it is on the wire")
        assert await running.end() == 0
    await seen(lambda: len(emulator.live) + len(emulator.ended_sessions) == 2 * len(NAMES))
    left = {one.name: one.id for one in emulator.live_sessions.values()}
    assert set(left) == {f"{name}, {how}" for name in NAMES[1:] for how in ("live", "starting")}
    told = re.findall("the program ended, and may leave running: .*", running.printed)
    for name in NAMES[1:]:
        starting, live = repr(f"{name}, starting"), left[f"{name}, live"]
        assert any(starting in line and live in line for line in told), running.printed
    assert len(told) == 2, running.printed
