"""The emulator's clock, its counts, and the limits of its records."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import attrs
import pytest

from equos_async.testing import EmulatorClock, EquosEmulator, books, journal
from equos_async.testing.clock import WALL
from equos_async.testing.sessions import SESSION
from tests.emulator.support import KEY, STARTS, Caller


class TestTime:
    async def test_a_session_goes_through_its_life(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """It is starting, then running, and ended when its ``max_duration`` is over."""
        session_id = await caller.started_id(maxDuration=60)
        seen: list[str] = []
        for seconds in (0, 1.9, 0.1, 57.9):
            emulator.advance(seconds)
            seen.append(emulator.live_sessions[session_id].status)
        assert seen == ["starting", "starting", "running", "running"]
        emulator.advance(0.2)
        assert emulator.live_sessions == {}
        ended = emulator.ended_sessions[session_id]
        assert (ended.status, ended.seconds, ended.ended_at) == ("ended", 60.0, WALL + 60)
        assert (await caller.stop(session_id)).body == b""

    async def test_billing_counts_live_and_ended_seconds(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """A session is billed from its start to its end, and not a second longer."""
        first = await caller.started_id(maxDuration=None)
        emulator.advance(10)
        await caller.started_id(maxDuration=5)
        emulator.advance(100)
        assert emulator.billed_seconds == 110 + 5
        await caller.stop(first)
        emulator.advance(1000)
        assert emulator.billed_seconds == 115

    async def test_a_stopped_session_is_not_ended_again(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """At the end of its time nothing happens to a session that was stopped before."""
        await caller.stop(await caller.started_id(maxDuration=5))
        emulator.advance(10)
        assert emulator.ended_count == 1
        assert emulator.billed_seconds == 0

    async def test_the_server_can_end_a_session(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """A test can end a session behind its bot's back."""
        session_id = await caller.started_id()
        assert emulator.end_session(session_id) is True
        assert emulator.end_session(session_id) is False
        assert (await caller.stop(session_id)).body == b""

    @pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, 1e12])
    def test_there_are_times_that_never_come(self, seconds: float) -> None:
        """A clock moves neither backwards nor beyond the last date."""
        with pytest.raises(ValueError, match=f"by {seconds} seconds"):
            EmulatorClock().advance(seconds)

    async def test_a_clock_that_runs_by_itself_ends_a_sleep(self) -> None:
        """Without a push a sleep on a ticking clock takes as long as it takes."""
        clock = EmulatorClock()
        before = clock.now()
        await clock.sleep_until(before + 0.01)
        assert clock.now() - before >= 0.01

    async def test_a_sleep_goes_on_until_enough_time_has_passed(self) -> None:
        """A step of the clock that is too small ends no sleep."""
        clock = EmulatorClock(ticking=False)
        asleep = asyncio.create_task(clock.sleep_until(clock.now() + 10))
        await asyncio.sleep(0)
        clock.advance(9)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asleep.done()
        clock.advance(1)
        await asleep


class TestRequests:
    async def test_each_is_recorded_without_secrets(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """Method, path, operation, time and status are kept; key, token and context are not."""
        session_id = await caller.started_id()
        await caller.stop(session_id)
        start, stop = emulator.requests
        assert (start.number, start.operation, start.method) == (1, "start", "POST")
        assert (start.path, start.status, start.name) == (STARTS, 201, "support call")
        assert (stop.operation, stop.session_id, stop.status) == ("stop", session_id, 200)
        assert start.at == emulator.clock.now()
        told = repr((emulator.requests, emulator.live_sessions, emulator.ended_sessions))
        for secret in (KEY, "eyJ", "regular", "Paris", "user-7"):
            assert secret not in told

    def test_records_are_frozen(self) -> None:
        """A record cannot be changed."""
        request: Any = journal.Journal().write("start", "POST", STARTS, 0.0)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            request.status = 201

    async def test_who_wants_to_is_told_of_each(self, caller: Caller) -> None:
        """The hook gets each request when it is over, with its status."""
        told: list[tuple[str | None, int | None]] = []
        async with EquosEmulator(
            on_request=lambda request: told.append((request.operation, request.status))
        ) as emulator:
            await Caller(emulator, caller.http).start()
            await Caller(emulator, caller.http).start(name="")
        assert told == [("start", 201), ("start", 400)]


class TestMemory:
    def test_ended_sessions_are_forgotten_and_still_counted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond the limit the oldest go, and their texts are cut; the counts stay right."""
        monkeypatch.setattr(books, "KEPT", 3)
        clock = EmulatorClock(ticking=False)
        kept = books.Books(clock, starting_for=2.0)
        for number in range(5):
            entry = kept.open(
                SESSION, {"name": f"{number}" * 1000, "client": "c" * 1000}, size=10_000
            )
            assert entry is not None
            clock.advance(1)
            kept.close(entry.id)
        assert [one.name[:2] for one in kept.ended().values()] == ["22", "33", "44"]
        assert {len(one.name) for one in kept.ended().values()} == {256}
        assert {len(one.client or "") for one in kept.ended().values()} == {256}
        assert (kept.counts, kept.billed_seconds) == ((0, 5), 5.0)

    def test_requests_are_forgotten_and_still_counted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond the limit the oldest go, also those that are answered afterwards."""
        monkeypatch.setattr(journal, "KEPT", 2)
        kept = journal.Journal()
        written = [kept.write(None, "GET", "/" + "x" * 9999, 0.0) for _ in range(4)]
        for request in written:
            kept.answer(request, 404)
        assert [(one.number, one.status) for one in kept.requests] == [(3, 404), (4, 404)]
        assert {len(one.path) for one in kept.requests} == {256}
        assert kept.count == 4
