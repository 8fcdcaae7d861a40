"""Programs of a client and of a fleet, ended in each way, and judged by what is left on the server.

Each is ended while sessions are live, starts are on the wire and others wait, and while the first
stops fail.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from equos_async.testing import Delay, EmulatorRequest, EquosEmulator, Status
from tests.fleet.programs import PATIENCE, Program, program
from tests.process.caller import ATTEMPT, EXIT_CODE, LIVE, ON_THE_WIRE

INT, TERM = signal.SIGINT, signal.SIGTERM
LOOPS = ["", "eager", "uvloop"] if sys.version_info >= (3, 12) else ["", "uvloop"]
HOLDERS = ["bare", "block", "fleet"]


async def seen(condition: Callable[[], object]) -> None:
    """Wait for something on the server, of which another process has no event."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def count(emulator: EquosEmulator, operation: str) -> int:
    """Requests of a kind that came."""
    return sum(one.operation == operation for one in emulator.requests)


def hold_up_starts(emulator: EquosEmulator) -> Callable[[], int]:
    """Let all but the first starts take their time; the function tells how many came."""
    arrived = 0

    def is_more(_: EmulatorRequest) -> bool:
        nonlocal arrived
        arrived += 1
        return arrived > LIVE

    emulator.faults.start.add(Delay(0.4), times=None, when=is_more)
    return lambda: arrived


@asynccontextmanager
async def caller(emulator: EquosEmulator, *arguments: str) -> AsyncGenerator[Program, None]:
    """The program, with what it holds, and with starts that are on the wire."""
    arrived = hold_up_starts(emulator)
    holder, *options = arguments
    env = {"LOOP": next((one for one in options if one in LOOPS), "")}
    options = [one for one in options if one not in LOOPS]
    async with program(
        emulator.endpoint, "-m", "tests.process.caller", holder, *options, **env
    ) as running:
        await seen(lambda: arrived() == LIVE + ON_THE_WIRE)
        yield running


def assert_nothing_left(emulator: EquosEmulator, ended: Program) -> None:
    """All that was live or on the wire is over, and known to be."""
    assert emulator.live_sessions == {}, ended.printed
    assert "unresolved: []" in ended.printed
    for complaint in ("never retrieved", "was destroyed"):
        assert complaint not in ended.printed


def assert_known(emulator: EquosEmulator, ended: Program) -> None:
    """Each session that is left was reported: by its id, or by its name if no answer came."""
    told = ended.printed.partition("unresolved: ")[2]  # the fleet tells of its own later
    by_name = [one for one in emulator.live_sessions.values() if one.id not in told]
    assert all(one.name == "more" for one in by_name), ended.printed
    assert len(by_name) <= told.count("'more'"), ended.printed


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("holder", HOLDERS)
async def test_ctrl_c(holder: str, loop: str, emulator: EquosEmulator) -> None:
    """Nothing is left, and what waited was not sent."""
    emulator.faults.stop.add(Status(503), times=2)
    async with caller(emulator, holder, loop) as running:
        assert await running.end(INT) == 0
    assert_nothing_left(emulator, running)
    assert count(emulator, "start") == LIVE + ON_THE_WIRE


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("holder", ["block", "fleet"])
async def test_ctrl_c_twice(holder: str, loop: str, emulator: EquosEmulator) -> None:
    """Each session that is left was reported.

    As a rule nothing is. But where the second one meets a task in the middle of a step, that task
    is over, and asyncio may give up all others.
    """
    emulator.faults.stop.add(Status(503), times=2)
    emulator.faults.stop.add(Delay(0.2), times=None)
    async with caller(emulator, holder, loop) as running:
        running.kill(INT)
        await seen(lambda: count(emulator, "stop") >= LIVE)
        await running.end_at_once(INT)
    assert_known(emulator, running)


@pytest.mark.parametrize(
    ("holder", "loop"),
    [(holder, "") for holder in HOLDERS] + [("block", LOOPS[-2]), ("fleet", "uvloop")],
)
async def test_ctrl_c_three_times(holder: str, loop: str, emulator: EquosEmulator) -> None:
    """Within a tenth of a second, which is too early for any answer: all that is left is told."""
    emulator.faults.stop.add(Status(503), times=None)
    async with caller(emulator, holder, loop) as running:
        for _ in range(2):
            running.kill(INT)
            await asyncio.sleep(0.03)  # real time, as of a finger
        await running.end_at_once(INT)
    await seen(lambda: len(emulator.live_sessions) == LIVE + ON_THE_WIRE)
    assert_known(emulator, running)


@pytest.mark.parametrize(
    ("holder", "on_term", "loop", "code"),
    [(holder, "exit", loop, EXIT_CODE) for holder in HOLDERS for loop in LOOPS]
    + [(holder, "cancel", "", 0) for holder in HOLDERS]
    + [("fleet", "fleet", "", 0)],
)
async def test_sigterm(
    holder: str, on_term: str, loop: str, code: int, emulator: EquosEmulator
) -> None:
    """The same where a handler calls ``sys.exit``, cancels the main task, or is the fleet's."""
    emulator.faults.stop.add(Status(503), times=2)
    async with caller(emulator, holder, on_term, loop) as running:
        assert await running.end(TERM) == code
    assert_nothing_left(emulator, running)
    assert count(emulator, "start") == LIVE + ON_THE_WIRE


@pytest.mark.parametrize("way", ["event", "fleet"])
async def test_a_set_up_and_a_tear_down(way: str, emulator: EquosEmulator) -> None:
    """A program without a block ends on SIGTERM: nothing is left, and there is no traceback."""
    arrived = hold_up_starts(emulator)
    emulator.faults.stop.add(Status(503), times=2)
    async with program(emulator.endpoint, "-m", "tests.process.opened", way) as running:
        await seen(lambda: arrived() == LIVE + ON_THE_WIRE)
        await seen(lambda: len(emulator.live_sessions) >= LIVE)
        assert await running.end(TERM) == 0
    report, end = running.printed.splitlines()
    assert report.endswith("stopped, 0 had ended, 0 left")
    assert end == "the end"
    assert emulator.live_sessions == {}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("holder", HOLDERS)
async def test_it_is_frozen_and_goes_on(holder: str, loop: str, emulator: EquosEmulator) -> None:
    """Answers that came in a pause that was longer than each attempt's time are not lost."""
    async with caller(emulator, holder, loop) as running:
        running.kill(signal.SIGSTOP)
        await seen(lambda: len(emulator.live_sessions) == LIVE + ON_THE_WIRE)
        # Real time, of which a frozen process has no event: more than each attempt may take.
        await asyncio.sleep(ATTEMPT * 1.25)
        running.kill(signal.SIGCONT)
        assert await running.end(INT) == 0
    assert_nothing_left(emulator, running)


@pytest.mark.parametrize("holder", HOLDERS)
async def test_stops_that_cannot_be_done(holder: str, emulator: EquosEmulator) -> None:
    """A second Ctrl-C may end it before all outcomes are known: all of these are reported."""
    emulator.faults.stop.add(Status(400), times=None)
    async with caller(emulator, holder) as running:
        running.kill(INT)
        await seen(lambda: count(emulator, "stop") >= LIVE)
        await running.end_at_once(INT)
    assert sum(one.name == "held" for one in emulator.live_sessions.values()) == LIVE
    assert_known(emulator, running)


async def test_it_is_killed(emulator: EquosEmulator) -> None:
    """Nothing can be done then: the server ends by itself what it started, and no more."""
    async with caller(emulator, "block") as running:
        assert await running.end(signal.SIGKILL) == -signal.SIGKILL
    await seen(lambda: len(emulator.live_sessions) == LIVE + ON_THE_WIRE)
    emulator.advance(600)
    assert emulator.live_sessions == {}
    assert (count(emulator, "start"), count(emulator, "stop")) == (LIVE + ON_THE_WIRE, 0)
