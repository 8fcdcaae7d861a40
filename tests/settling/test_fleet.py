"""A fleet on a client that looks for what it lost."""

from __future__ import annotations

import pytest

from equos_async import EquosClient, SessionFleet, Settle, StartOutcomeUnknownError, Timeouts
from equos_async.testing import Delay, Drop, EquosEmulator, Fault, Lag, Status
from equos_async.testing.faults import Mishap
from tests.clocks import until
from tests.conftest import API_KEY, KEY, REQUEST
from tests.settling.clock import SPEED, FastClock, ServerClock


def make(emulator: EquosEmulator, settle: Settle) -> EquosClient:
    """A client that looks, for whom a start's time is short."""
    return EquosClient(
        KEY,
        api_key=API_KEY,
        endpoint=emulator.endpoint,
        settle=settle,
        clock=FastClock(),
        timeouts=Timeouts(start_attempt=3),
    )


async def test_a_lost_start_is_live_all_the_same() -> None:
    """The fleet sees nothing of it."""
    async with EquosEmulator(clock=ServerClock()) as emulator:
        emulator.faults.start.add(Drop("after"), times=1)
        async with make(emulator, Settle(patience=50)) as client, SessionFleet(client) as fleet:
            live = await fleet.start(REQUEST, key=1)
            assert list(emulator.live) == [live.session.id]
        assert emulator.live == {}


@pytest.mark.parametrize("lost", [Drop("after"), Delay(30, "after")], ids=["dropped", "overdue"])
async def test_what_is_found_late_frees_its_place(lost: Mishap) -> None:
    """After the caller was told that nobody knows."""
    async with EquosEmulator(clock=ServerClock()) as emulator:
        emulator.faults.start.add(Lag(9 / SPEED), lost, times=1)
        async with (
            make(emulator, Settle(patience=1.5)) as client,
            SessionFleet(client, max_live=1, budget_seconds=1000) as fleet,
        ):
            with pytest.raises(StartOutcomeUnknownError):
                await fleet.start(REQUEST, key=1)
            assert (fleet.stats().unknown, fleet.stats().budget_left) == (1, 400)
            await until(lambda: not client.unresolved)
            await until(lambda: fleet.stats().budget_left == 1000)
            live = await fleet.start(REQUEST, key=2)
            assert list(emulator.live) == [live.session.id]


@pytest.mark.parametrize(
    "answer",
    [(Lag(60), Delay(12 / SPEED, "after")), (Delay(12 / SPEED), Status(422))],
    ids=["accepted", "refused"],
)
async def test_what_answers_after_the_looking_frees_its_place(answer: tuple[Fault, ...]) -> None:
    """It is listed too late to be found; its own late answer tells what became of it."""
    async with EquosEmulator(clock=ServerClock()) as emulator:
        emulator.faults.start.add(*answer, times=1)
        async with (
            make(emulator, Settle(patience=1.5, look_for=2)) as client,
            SessionFleet(client, max_live=1) as fleet,
        ):
            with pytest.raises(StartOutcomeUnknownError):
                await fleet.start(REQUEST, key=1)
            assert fleet.stats().unknown == 1
            await until(lambda: not client.unresolved)
            assert emulator.live == {}
            assert fleet.stats().free == 1
            live = await fleet.start(REQUEST, key=2)
            assert list(emulator.live) == [live.session.id]
