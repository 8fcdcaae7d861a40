"""A start for a key that has a session already, and one for which there is no place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from equos_async import (
    APIConnectionError,
    ConfigurationError,
    EquosError,
    FleetFullError,
    KeyInUseError,
    LedgerRow,
    LiveSession,
    Placing,
    SessionFleet,
    SessionLedger,
    StartOutcomeUnknownError,
)
from tests.clocks import FakeClock, settle
from tests.fleet.support import REQUEST, MemoryLedger, ScriptedClient


async def test_it_is_told_who_has_it(scripted: ScriptedClient) -> None:
    """The key as it is, and the session as soon as there is one."""
    async with SessionFleet(scripted) as fleet:
        starting = asyncio.create_task(fleet.start(REQUEST, key=(1, "a")))
        await settle(1)
        with pytest.raises(KeyInUseError) as taken:
            await fleet.start(REQUEST, key=(1, "a"))
        assert (taken.value.key, taken.value.session_id) == ((1, "a"), None)
        live = await starting
        with pytest.raises(KeyInUseError) as taken:
            await fleet.start(REQUEST, key=(1, "a"))
        assert (taken.value.session_id, taken.value.holder) == (live.session_id, None)
        assert taken.value.operation == "start"
        assert not isinstance(taken.value, ConfigurationError)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"key": 1, "if_taken": "keep"}, "if_taken must be one of raise, return, replace"),
        ({"key": [], "if_taken": "return"}, "key must be hashable, which list is not"),
    ],
)
async def test_bad_input(scripted: ScriptedClient, arguments: dict[str, Any], told: str) -> None:
    """It is refused before anything is sent, or stopped."""
    async with SessionFleet(scripted) as fleet:
        with pytest.raises(ConfigurationError, match=told):
            await fleet.start(REQUEST, **arguments)
    assert not scripted.requests


class TestReturn:
    """``if_taken="return"``."""

    async def test_what_is_live(self, scripted: ScriptedClient) -> None:
        """It is the same session; without one it is a start like any other."""
        async with SessionFleet(scripted) as fleet:
            live = await fleet.start(REQUEST, key=1, if_taken="return")
            assert await fleet.start(REQUEST, key=1, if_taken="return") is live
        assert len(scripted.requests) == 1

    async def test_a_double_click(self, scripted: ScriptedClient) -> None:
        """All of them get the one that is under way, in the line for a place, too."""
        async with SessionFleet(scripted, max_live=1) as fleet:
            other = await fleet.start(REQUEST, key=0)
            clicks = [start(fleet) for _ in range(3)]
            await settle()
            await other.stop()
            first, second, third = await asyncio.gather(*clicks)
            assert first is second is third
        assert len(scripted.requests) == 2

    async def test_it_outlives_its_first_caller(self, scripted: ScriptedClient) -> None:
        """What was sent goes on for those who still wait; the last to go takes it with them."""
        scripted.starts_go.clear()
        async with SessionFleet(scripted) as fleet:
            first, second, third = (start(fleet) for _ in range(3))
            await settle()
            first.cancel()
            await settle()
            third.cancel()
            await settle()
            scripted.starts_go.set()
            assert (await second).state == "live"
            assert scripted.stopped == []
        assert len(scripted.requests) == 1

    async def test_all_callers_are_gone(self, scripted: ScriptedClient) -> None:
        """Then it is as with one."""
        scripted.starts_go.clear()
        async with SessionFleet(scripted) as fleet:
            clicks = [start(fleet) for _ in range(2)]
            await settle()
            for click in clicks:
                click.cancel()
            await settle()
            scripted.starts_go.set()
            await settle()
            assert scripted.live == {}
            assert not fleet.live
            assert await fleet.start(REQUEST, key="k")

    async def test_a_caller_that_goes_as_it_arrives(self, scripted: ScriptedClient) -> None:
        """It is for the others, if there are any."""
        async with SessionFleet(scripted) as fleet:
            first, second = start(fleet), start(fleet)
            while not fleet.live:  # noqa: ASYNC110 - in the very tick
                await asyncio.sleep(0)
            first.cancel()
            assert (await second).state == "live"
            await asyncio.wait([first])
            assert scripted.stopped == []

    async def test_its_first_caller_goes_while_it_waits(self, scripted: ScriptedClient) -> None:
        """Those who joined go on by themselves."""
        async with SessionFleet(scripted, max_live=1) as fleet:
            other = await fleet.start(REQUEST, key=0)
            first, second = start(fleet), start(fleet)
            await settle()
            first.cancel()
            await settle()
            assert fleet.stats().waiting == 1
            await other.stop()
            assert (await second).state == "live"

    @pytest.mark.parametrize("gone", [False, True])
    async def test_one_that_fails(self, scripted: ScriptedClient, gone: bool) -> None:
        """All callers get the error, and no second start is made: a session may be running."""
        scripted.starts_go.clear()
        scripted.start_errors = [StartOutcomeUnknownError("who knows")]
        async with SessionFleet(scripted) as fleet:
            first, second = start(fleet), start(fleet)
            await settle()
            if gone:
                first.cancel()
                await settle()
            scripted.starts_go.set()
            with pytest.raises(StartOutcomeUnknownError):
                await second
            await asyncio.wait([first])
            assert first.cancelled() is gone
        assert len(scripted.requests) == 1
        assert gone or isinstance(first.exception(), StartOutcomeUnknownError)

    async def test_one_that_is_refused_a_place(self, scripted: ScriptedClient) -> None:
        """So are all."""
        async with SessionFleet(scripted, budget_seconds=700) as fleet:
            await fleet.start(REQUEST, key=0)
            for outcome in await asyncio.gather(start(fleet), start(fleet), return_exceptions=True):
                assert isinstance(outcome, FleetFullError)

    async def test_one_that_is_called_off(self, scripted: ScriptedClient) -> None:
        """All are told."""
        scripted.starts_go.clear()
        async with SessionFleet(scripted) as fleet:
            clicks = [start(fleet) for _ in range(2)]
            await settle()
            stop = asyncio.create_task(fleet.stop("k"))
            await settle()
            scripted.starts_go.set()
            await stop
            for outcome in await asyncio.gather(*clicks, return_exceptions=True):
                assert "stop() was called before" in str(outcome)

    async def test_one_that_is_being_stopped(self, scripted: ScriptedClient) -> None:
        """A new one is started when it is gone; where its stop fails it is there still."""
        async with SessionFleet(scripted) as fleet:
            old = await fleet.start(REQUEST, key="k")
            scripted.stop_errors = [APIConnectionError("down")]
            scripted.stops_go.clear()
            stop = asyncio.create_task(old.stop())
            await settle()
            again = start(fleet)
            await settle()
            scripted.stops_go.set()
            assert await again is old
            with pytest.raises(APIConnectionError):
                await stop
            scripted.stops_go.clear()
            stop = asyncio.create_task(old.stop())
            await settle()
            new = start(fleet)
            await settle()
            assert not new.done()
            scripted.stops_go.set()
            assert await new is not old
            await stop


class TestReplace:
    """``if_taken="replace"``."""

    async def test_what_is_live(self, scripted: ScriptedClient) -> None:
        """It is stopped before anything is started; without one it is a start like any other."""
        async with SessionFleet(scripted, max_live=1) as fleet:
            old = await fleet.start(REQUEST, key="k", if_taken="replace")
            new = await fleet.start(REQUEST, key="k", if_taken="replace")
            assert (old.state, new.state) == ("ended", "live")
            assert (scripted.stopped, scripted.most) == ([old.session_id], 1)

    async def test_a_start_under_way(self, scripted: ScriptedClient) -> None:
        """It is called off; of several the last one wins."""
        scripted.starts_go.clear()
        async with SessionFleet(scripted, max_live=1) as fleet:
            replaced = [
                asyncio.create_task(fleet.start(REQUEST, key="k", if_taken="replace"))
                for _ in range(3)
            ]
            await settle()
            scripted.starts_go.set()
            *others, last = await asyncio.gather(*replaced, return_exceptions=True)
            assert isinstance(last, LiveSession)
            for other in others:
                assert isinstance(other, EquosError)
                assert "a later start replaced it" in str(other)
            assert list(scripted.live) == [last.session_id]

    async def test_a_stop_that_fails(self, scripted: ScriptedClient) -> None:
        """It is raised, and nothing is started."""
        async with SessionFleet(scripted) as fleet:
            old = await fleet.start(REQUEST, key="k")
            scripted.stop_errors = [APIConnectionError("down")]
            with pytest.raises(APIConnectionError):
                await fleet.start(REQUEST, key="k", if_taken="replace")
            assert fleet.live["k"] is old
        assert len(scripted.requests) == 1


class TestFull:
    """What a refusal tells of when to come again."""

    async def test_the_next_end(self, scripted: ScriptedClient, still: FakeClock) -> None:
        """That of the session, known or unknown, that is over first."""
        async with SessionFleet(scripted, max_live=2, clock=still) as fleet:
            await fleet.start(REQUEST, key=1)
            scripted.start_errors = [StartOutcomeUnknownError("who knows")]
            with pytest.raises(StartOutcomeUnknownError):
                await fleet.start(evolve(REQUEST, max_duration=100), key=2)
            still.advance(30)
            with pytest.raises(FleetFullError) as full:
                await fleet.start(REQUEST, key=3, wait=False)
            assert (full.value.retry_after, full.value.budget_left) == (70, None)

    async def test_too_many_run(self, scripted: ScriptedClient, still: FakeClock) -> None:
        """The first ends bring their number down to a smaller limit; the next one frees a slot."""
        async with SessionFleet(scripted, max_live=4, clock=still) as fleet:
            for seconds in (300, 100, 200, 400):
                await fleet.start(evolve(REQUEST, max_duration=seconds), key=seconds)
            fleet.resize(2)
            with pytest.raises(FleetFullError) as full:
                await fleet.start(REQUEST, key="k", wait=False)
            assert full.value.retry_after == 298, "two seconds before the server's end"

    async def test_no_end_is_known(self, scripted: ScriptedClient) -> None:
        """All are only being started."""
        scripted.starts_go.clear()
        async with SessionFleet(scripted, max_live=1, budget_seconds=1000) as fleet:
            first = asyncio.create_task(fleet.start(REQUEST, key=1))
            await settle()
            with pytest.raises(FleetFullError) as full:
                await fleet.start(evolve(REQUEST, max_duration=100), key=2, wait=False)
            assert (full.value.retry_after, full.value.budget_left) == (None, 400)
            scripted.starts_go.set()
            await first

    async def test_the_budget(self, scripted: ScriptedClient) -> None:
        """It has no ``retry_after``, because waiting does not help; ``budget_left`` is set."""
        async with SessionFleet(scripted, budget_seconds=700) as fleet:
            await fleet.start(REQUEST, key=1)
            with pytest.raises(FleetFullError) as full:
                await fleet.start(REQUEST, key=2)
            assert (full.value.retry_after, full.value.budget_left) == (None, 100)

    @pytest.mark.parametrize("ledger", [None, MemoryLedger()], ids=["alone", "ledger"])
    async def test_those_that_wait(
        self, scripted: ScriptedClient, ledger: SessionLedger | None
    ) -> None:
        """A start above the limit of the queue is refused, and delays no other start."""
        async with SessionFleet(scripted, max_live=1, max_waiting=2, ledger=ledger) as fleet:
            live = await fleet.start(REQUEST, key=0)
            waiting = [asyncio.create_task(fleet.start(REQUEST, key=key)) for key in (1, 2)]
            await settle()
            with pytest.raises(FleetFullError, match="2 starts wait already") as full:
                await fleet.start(REQUEST, key=3)
            assert full.value.retry_after == pytest.approx(600, abs=5)
            assert (fleet.stats().waiting, fleet.stats().refused) == (2, 1)
            for start in waiting:
                await live.stop()
                live = await start
        assert len(scripted.requests) == 3

    async def test_a_renewal_waits(self, scripted: ScriptedClient, still: FakeClock) -> None:
        """It goes on with what is there, and is not one too many."""

        def hand_over(_: LiveSession, __: LiveSession) -> None:
            """Nothing is to be moved."""

        async with SessionFleet(
            scripted, max_live=1, max_waiting=0, clock=still, renew_before=10
        ) as fleet:
            await fleet.start(REQUEST, key=1, renew=True, on_renewed=hand_over)
            still.advance(590)
            await settle()
            assert (fleet.stats().waiting, fleet.stats().refused) == (1, 0)

    async def test_bad_input(self, scripted: ScriptedClient) -> None:
        """It is refused."""
        with pytest.raises(ConfigurationError, match="max_waiting"):
            SessionFleet(scripted, max_waiting=-1)

    async def test_a_ledger(self, scripted: ScriptedClient) -> None:
        """It may be counting its places anew, which is another matter than to be full."""

        class Forgetful(MemoryLedger):
            """It was restarted just now."""

            async def place(self, row: LedgerRow, **_: Any) -> Placing:
                return Placing(placed=False, recovers_in=7.5)

        async with SessionFleet(scripted, ledger=Forgetful()) as fleet:
            with pytest.raises(FleetFullError, match="may have lost rows") as full:
                await fleet.start(REQUEST, key="k", wait=False)
            assert full.value.retry_after == 7.5


def start(fleet: SessionFleet) -> asyncio.Task[LiveSession]:
    """One of several callers who want the same."""
    return asyncio.create_task(fleet.start(REQUEST, key="k", if_taken="return"))
