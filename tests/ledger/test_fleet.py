"""A fleet with a ledger: what is written when, one limit over all, and what others leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from equos_async import (
    APIConnectionError,
    ClientClosedError,
    ConfigurationError,
    CreateEquosConversationRequest,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
    FleetFullError,
    KeyInUseError,
    LedgerError,
    LedgerRow,
    Placing,
    RateLimitError,
    RedisLedger,
    SessionEnd,
    SessionFleet,
    SQLiteLedger,
    StartOutcomeUnknownError,
    StartUnreadableError,
)
from equos_async.fleet._engine import AT_ONCE
from equos_async.testing import EquosEmulator
from tests.clocks import FakeClock, begin_tasks_at_once, eventually, settle
from tests.fleet.support import REQUEST, Events, ScriptedClient, others
from tests.ledger.conftest import RedisServer

LEASE = 15.0


class Moody:
    """A ledger whose engine fails where a test says so, before or after the deed.

    Attributes:
        failing: The steps that fail before anything is done.
        deaf: The steps that are done, and whose answers are lost.
        hanging: The steps that are never answered.
        swallowing: The steps in which a cancellation is lost, as in ``asyncio.wait_for`` of 3.11.
        mistaken: The steps that raise what no ledger may raise.
        held: Keys whose ``place`` is not answered, and steps that wait for ``go``.
        late: The steps that are done, and answered when ``go`` is set.
        answered: All steps that were done.
        listening: How many listen for calls.
        most: How many steps were asked for at once, at most.
        calls: What is called to the worker before anything else; the calls end with it.
        asked: All steps that were asked for.
    """

    def __init__(self, engine: SQLiteLedger) -> None:
        self.engine = engine
        self.failing: set[str] = set()
        self.deaf: set[str] = set()
        self.hanging: set[str] = set()
        self.swallowing: set[str] = set()
        self.mistaken: set[str] = set()
        self.held: set[str] = set()
        self.go = asyncio.Event()
        self.listening = 0
        self.most = 0
        self._now = 0
        self.calls: list[str] = []
        self.asked: list[str] = []
        self.late: set[str] = set()
        self.answered: list[str] = []

    async def _do(self, step: str, *args: Any, **settings: Any) -> Any:
        self.asked.append(step)
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            return await self._act(step, *args, **settings)
        finally:
            self._now -= 1

    async def _act(self, step: str, *args: Any, **settings: Any) -> Any:
        await asyncio.sleep(0)
        if step in self.mistaken:
            raise TypeError("a field that nobody knows")
        if step in self.hanging or (step == "place" and args[0].key in self.held):
            await asyncio.get_running_loop().create_future()
        if step in self.held:
            await self.go.wait()
        if step in self.swallowing:
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
        if step in self.failing:
            raise LedgerError("the engine is down")
        answer = await getattr(self.engine, step)(*args, **settings)
        self.answered.append(step)
        if step in self.late:
            await self.go.wait()
        if step in self.deaf:
            raise LedgerError("the answer was lost")
        return answer

    async def place(
        self, row: LedgerRow, *, seconds: float, limit: int, wait: bool, lease: float
    ) -> Placing:
        placing: Placing = await self._do(
            "place", row, seconds=seconds, limit=limit, wait=wait, lease=lease
        )
        return placing

    async def record(self, row: LedgerRow, *, seconds: float) -> str:
        owner: str = await self._do("record", row, seconds=seconds)
        return owner

    async def remove(self, row_id: str) -> None:
        await self._do("remove", row_id)

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, str | None]:
        held: Mapping[str, str | None] = await self._do("renew", worker, lease=lease)
        return held

    async def claim(
        self, worker: str, *, endpoint: str, lease: float, at_once: bool = False
    ) -> Sequence[LedgerRow]:
        # At once: a test's clock stands still, the engine's does not.
        rows: Sequence[LedgerRow] = await self._do(
            "claim", worker, endpoint=endpoint, lease=lease, at_once=True
        )
        return rows

    async def rows(self) -> Sequence[LedgerRow]:
        return await self.engine.rows()

    async def turns(self, worker: str) -> AsyncIterator[str]:
        self.asked.append("turns")
        self.listening += 1
        try:
            if "turns" in self.failing:
                raise LedgerError("the engine is down")
            if "turns" in self.mistaken:
                raise TypeError("a field that nobody knows")
            if "turns" in self.swallowing:
                with suppress(asyncio.CancelledError):
                    await asyncio.get_running_loop().create_future()
            while self.calls:
                yield self.calls.pop()
                if not self.calls:
                    return
            async for row_id in self.engine.turns(worker):
                yield row_id
        finally:
            self.listening -= 1

    async def owners(self) -> dict[str, str | None]:
        """The sessions that are written down, by key."""
        return {row.key: row.session_id for row in await self.rows()}


class InBulk(Moody):
    """One that writes many rows at once."""

    async def record_all(
        self, worker: str, rows: Sequence[tuple[LedgerRow, float]], *, lease: float
    ) -> Sequence[str]:
        owners: Sequence[str] = await self._do("record_all", worker, rows, lease=lease)
        return owners


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Moody]:
    """One worker's view of a ledger in a file."""
    async with SQLiteLedger(tmp_path / "ledger.db") as engine:
        yield Moody(engine)


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Moody]:
    """Another worker's view of it."""
    async with SQLiteLedger(tmp_path / "ledger.db") as engine:
        yield Moody(engine)


def fleet_of(
    client: ScriptedClient, ledger: Moody, clock: FakeClock, **settings: Any
) -> SessionFleet:
    """A worker of a ledger."""
    return SessionFleet(client, ledger=ledger, clock=clock, lease=LEASE, **settings)


async def leave(ledger: Moody, scripted: ScriptedClient) -> None:
    """Leave a session of a dead worker, whose lease is not over yet."""
    left = LedgerRow(id="dead/1", key="x", name="x", owner="dead", endpoint=scripted.endpoint)
    await ledger.engine.record(evolve(left, session_id="s9"), seconds=600)


async def beat(clock: FakeClock, ledger: Moody) -> None:
    """Let a worker renew its lease once more, and see to all that comes of it."""
    await quiet(ledger)
    renewals = ledger.asked.count("renew")
    clock.advance(LEASE / 3)
    await eventually(lambda: ledger.asked.count("renew") > renewals)
    await quiet(ledger)


async def quiet(ledger: Moody) -> None:
    """Let everything happen that can without time passing."""
    for _ in range(5):
        await ledger.rows()  # after all that stands in its thread's queue
        await settle()


async def written(ledger: Moody, owners: dict[str, str | None]) -> None:
    """Wait until exactly these sessions are written down, by key."""
    async with asyncio.timeout(60):
        while await ledger.owners() != owners:  # noqa: ASYNC110 - as in `eventually`
            await asyncio.sleep(0.001)


async def kill(fleet: SessionFleet, ledger: Moody) -> None:
    """Let a worker say no word any more, as if its process were gone; nothing else may run."""
    assert fleet.worker is not None
    await quiet(ledger)
    working = others()
    assert working
    for task in working:
        task.cancel()
    await asyncio.wait(working)
    await ledger.engine.renew(fleet.worker, lease=0)


class TestOneSession:
    """What is written when."""

    async def test_from_the_intent_to_the_end(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """The intent is there before the POST, the session before start returns; then nothing."""
        async with fleet_of(scripted, ledger, still) as fleet:
            scripted.starts_go.clear()
            starting = asyncio.create_task(fleet.start(REQUEST, key="guild"))
            await eventually(lambda: scripted.requests)
            (intent,) = await ledger.rows()
            assert (intent.key, intent.session_id, intent.owner) == ("guild", None, fleet.worker)
            assert (intent.name, intent.client) == (REQUEST.name, REQUEST.client)
            assert intent.endpoint == scripted.endpoint
            assert 650 < intent.remaining <= 660  # it may be started as late as the deadline
            scripted.starts_go.set()
            live = await starting
            (row,) = await ledger.rows()
            assert (row.session_id, row.started) == (live.session.id, intent.started)
            assert 590 < row.remaining <= 600
            await live.stop()
            assert await ledger.rows() == []
        assert fleet.report.left == ()

    async def test_what_the_server_grants(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A session for which the server grants less expires sooner, in the ledger too."""
        scripted.grant = 30.0
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(REQUEST, key="guild")
            (row,) = await ledger.rows()
            assert 25 < row.remaining <= 30

    async def test_a_refused_start_leaves_no_row(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """Nothing exists, so nothing is written down, and the key is free."""
        scripted.start_errors = [RateLimitError("no", status=429)]
        async with fleet_of(scripted, ledger, still) as fleet:
            with pytest.raises(RateLimitError):
                await fleet.start(REQUEST, key="guild", wait=False)
            await fleet.start(REQUEST, key="guild")
            assert await ledger.owners() == {"guild": "s2"}

    async def test_an_unknown_start_keeps_its_row(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """Its place is taken until its time is over."""
        scripted.start_errors = [StartOutcomeUnknownError("gone")]
        async with fleet_of(scripted, ledger, still, max_live=1) as fleet:
            with pytest.raises(StartOutcomeUnknownError):
                await fleet.start(REQUEST, key="guild")
            assert await ledger.owners() == {"guild": None}
            with pytest.raises(FleetFullError):
                await fleet.start(REQUEST, key="guild", wait=False)
            still.advance(600)
            await eventually(lambda: "remove" in ledger.asked)
            assert await fleet.start(REQUEST, key="guild")

    async def test_an_unreadable_start_is_forgotten(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """Its session has been stopped: its row goes."""
        scripted.start_errors = [StartUnreadableError("bad", session_id="s9")]
        async with fleet_of(scripted, ledger, still) as fleet:
            with pytest.raises(StartUnreadableError):
                await fleet.start(REQUEST, key="guild")
            await written(ledger, {})

    async def test_a_stop_that_fails_keeps_its_row(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """It may run, so it is written down, until a stop is confirmed."""
        async with fleet_of(scripted, ledger, still) as fleet:
            live = await fleet.start(REQUEST, key="guild")
            scripted.stop_errors = [APIConnectionError("down")]
            with pytest.raises(APIConnectionError):
                await live.stop()
            assert await ledger.owners() == {"guild": "s1"}
            await live.stop()
            assert await ledger.rows() == []

    async def test_its_time_is_over(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """The last stop failed, but the session's time is over: the row goes."""
        async with fleet_of(scripted, ledger, still) as fleet:
            live = await fleet.start(REQUEST, key="guild")
            scripted.stop_errors = [APIConnectionError("down")]
            still.advance(600)
            assert (await live.ended()).outcome == "failed"
            await written(ledger, {})

    async def test_a_renewal_has_a_row_of_its_own(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """Old and new session share a key and a worker."""
        replaced = asyncio.Event()
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(
                REQUEST, key="guild", renew=True, on_renewed=lambda old, new: replaced.set()
            )
            still.advance(570)
            await asyncio.wait_for(replaced.wait(), 60)
            await eventually(lambda: scripted.stopped == ["s1"] and "remove" in ledger.asked)
            assert await ledger.owners() == {"guild": "s2"}

    async def test_a_key_that_no_engine_can_carry(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """Half a character is refused before anybody is asked."""
        async with fleet_of(scripted, ledger, still) as fleet:
            with pytest.raises(ConfigurationError, match="lone surrogate"):
                await fleet.start(REQUEST, key="\ud800")
        assert "place" not in ledger.asked

    @pytest.mark.parametrize("key", [("a", 1), 1.5, None])
    async def test_keys_that_others_cannot_read(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock, key: Any
    ) -> None:
        """Only strings and integers are the same on every machine."""
        async with fleet_of(scripted, ledger, still) as fleet:
            with pytest.raises(ConfigurationError, match="key must be a string or an integer"):
                await fleet.start(REQUEST, key=key)
            await fleet.start(REQUEST, key=7)
            assert await ledger.owners() == {"7": "s1"}
        assert scripted.live == {}

    async def test_without_a_ledger(self, scripted: ScriptedClient) -> None:
        """There is no worker then."""
        assert SessionFleet(scripted).worker is None


class TestSecrets:
    """What is written down, as it lies on the disk."""

    @pytest.mark.parametrize("engine", ["sqlite", "redis"])
    async def test_none_is_written(
        self, own_redis: RedisServer, emulator: EquosEmulator, tmp_path: Path, engine: str
    ) -> None:
        """Neither the key nor a token, a context, a variable or an identity; names and ids are."""
        request = evolve(
            REQUEST,
            name="a call",
            client="tenant-42",
            additional_ctx="secret-context",
            template_vars={"who": "secret-variable"},
            consumer_identity=EquosParticipantIdentity(identity="secret-id", name="secret-name"),
        )
        db = SQLiteLedger(tmp_path / "ledger.db")
        ledger = db if engine == "sqlite" else RedisLedger(own_redis.url)
        async with (
            ledger,
            EquosClient("pk_secret", endpoint=emulator.endpoint) as client,
            SessionFleet(client, ledger=ledger) as fleet,
        ):
            live = await fleet.start(request, key="guild-7")
            assert live.consumer_access_token is not None
            secrets = ["secret", live.consumer_access_token]
            names = ["guild-7", "a call", "tenant-42", live.session.id]
            parts = "ledger.db*" if engine == "sqlite" else "appendonlydir/*.aof"
            found = b"".join(part.read_bytes() for part in sorted(tmp_path.glob(parts)))  # noqa: ASYNC240
        assert [name for name in names if name.encode() not in found] == []
        assert [secret for secret in secrets if secret.encode() in found] == []


class TestOneLimit:
    """Over all workers."""

    async def test_never_more(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """Two workers with twenty starts each never have more sessions than the limit."""
        async with (
            fleet_of(scripted, ledger, still, max_live=3) as one,
            fleet_of(scripted, other, still, max_live=3) as two,
        ):

            async def use(fleet: SessionFleet, key: str) -> None:
                async with await fleet.start(REQUEST, key=key):
                    await asyncio.sleep(0)

            async with asyncio.timeout(60):
                await asyncio.gather(
                    *(use(one, f"a{n}") for n in range(20)), *(use(two, f"b{n}") for n in range(20))
                )
            assert scripted.most <= 3
            assert len(scripted.stopped) == 40
            assert one.stats().waiting == two.stats().waiting == 0

    async def test_without_waiting(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """With ``wait=False`` the error says that the ledger is full; nothing is sent."""
        async with fleet_of(scripted, ledger, still, max_live=1) as one:
            await one.start(REQUEST, key="a")
            async with fleet_of(scripted, other, still, max_live=1) as two:
                with pytest.raises(FleetFullError, match="all 1 slots of the ledger"):
                    await two.start(REQUEST, key="b", wait=False)
                assert two.stats().refused == 1
        assert len(scripted.requests) == 1

    async def test_a_key_is_unique(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """The error of the second start names the holder."""
        async with fleet_of(scripted, ledger, still) as one:
            await one.start(REQUEST, key="guild")
            async with fleet_of(scripted, other, still) as two:
                with pytest.raises(KeyInUseError, match=f"in worker {one.worker}") as taken:
                    await two.start(REQUEST, key="guild", if_taken="replace")
                assert (taken.value.key, taken.value.holder) == ("guild", one.worker)
                with pytest.raises(KeyInUseError):
                    await two.start(REQUEST, key="guild", if_taken="return")
        assert len(scripted.requests) == 1

    @pytest.mark.parametrize("way", ["cancel", "stop", "leave"])
    async def test_leaving_the_line(
        self,
        scripted: ScriptedClient,
        ledger: Moody,
        other: Moody,
        still: FakeClock,
        way: str,
    ) -> None:
        """A start that leaves the queue keeps neither a slot nor its key."""
        events = Events()
        async with fleet_of(scripted, ledger, still, max_live=1) as one:
            live = await one.start(REQUEST, key="a")
            async with fleet_of(scripted, other, still, max_live=1, on_event=events) as two:
                waiting = asyncio.create_task(two.start(REQUEST, key="b"))
                await eventually(lambda: two.stats().waiting)
                if way == "cancel":
                    waiting.cancel()
                    with suppress(asyncio.CancelledError):
                        await waiting
                    assert [event.waiting for event in events.all] == [1, 0]
                elif way == "stop":
                    assert await two.stop("b") is None
                    with pytest.raises(EquosError, match="before the session was live"):
                        await waiting
            if way == "leave":
                with pytest.raises(ClientClosedError):
                    await waiting
            assert two.stats().waiting == 0
            await live.stop()
            await one.start(REQUEST, key="b")
            assert await ledger.owners() == {"b": "s2"}

    async def test_called_off_before_it_is_placed(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A start that is called off while the ledger is asked is not sent."""
        async with fleet_of(scripted, ledger, still) as fleet:
            starting = asyncio.create_task(fleet.start(REQUEST, key="guild"))
            await eventually(lambda: ledger.asked)
            await fleet.stop("guild")
            with pytest.raises(EquosError, match="before the session was live"):
                await starting
        assert scripted.requests == []
        assert await ledger.rows() == []

    async def test_the_fleets_own_place(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A row whose fleet has no place for it after all is given back."""
        async with fleet_of(scripted, ledger, still, max_live=1) as fleet:
            await fleet.start(REQUEST, key="a")
            (row,) = await ledger.rows()
            await ledger.engine.remove(row.id, worker=row.owner)  # as an engine that forgets
            with pytest.raises(FleetFullError, match="of the fleet"):
                await fleet.start(REQUEST, key="b", wait=False)
            await written(ledger, {})


class TestOthers:
    """What workers leave behind, and take over."""

    async def test_who_dies_is_cleaned_up_after(
        self,
        scripted: ScriptedClient,
        ledger: Moody,
        other: Moody,
        still: FakeClock,
    ) -> None:
        """Its sessions are stopped, its slots are free, and its starts in progress are reported."""
        events = Events()
        scripted.start_errors = [None, StartOutcomeUnknownError("gone")]
        one = await fleet_of(scripted, ledger, still).__aenter__()
        live = await one.start(REQUEST, key="a")
        with pytest.raises(StartOutcomeUnknownError):
            await one.start(REQUEST, key="b")
        await kill(one, ledger)
        async with fleet_of(scripted, other, still, on_event=events) as two:
            await two.start(REQUEST, key="c")
            await eventually(lambda: two.stats().reaped)
            assert scripted.stopped == [live.session.id]
            kinds = events.kinds
            assert ("reaped", "a") in kinds
            assert ("unknown", "b") in kinds
            assert any(str(one.worker) in event.reason for event in events.all)
            await written(other, {"b": None, "c": "s3"})
        await one.__aexit__(None, None, None)

    async def test_any_number_is_taken_over_at_once(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A beat is enough for more sessions than an engine gives at a time."""
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(REQUEST, key="a")
            for n in range(600):
                left = LedgerRow(
                    id=f"dead/{n}", key=f"{n}", name="x", owner="dead", endpoint=scripted.endpoint
                )
                await ledger.engine.record(evolve(left, session_id=f"d{n}"), seconds=600)
            await ledger.engine.renew("dead", lease=0)
            await beat(still, ledger)
            await eventually(lambda: fleet.stats().reaped == 600)

    async def test_who_was_only_slow_learns_of_it(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """It lets go of what another worker claimed, once, and says by whom."""
        events = Events()
        ends: list[SessionEnd] = []

        def group(request: CreateSessionPassRequest | CreateEquosConversationRequest) -> str:
            return request.name

        settings: dict[str, Any] = {
            "group": group,
            "on_event": events,
            "on_end": ends.append,
        }
        async with fleet_of(scripted, ledger, still, **settings) as one:
            live = await one.start(REQUEST, key="a")
            await quiet(ledger)
            await other.renew(str(one.worker), lease=0)
            async with fleet_of(scripted, other, still, **settings) as two:
                await two.start(REQUEST, key="b")
                await eventually(lambda: two.stats().reaped)
                await beat(still, ledger)
                end = await asyncio.wait_for(live.ended(), 60)
                assert end.outcome == "lost"
                assert str(two.worker) in end.reason
                assert one.stats().lost == 1
                assert ("lost", "a") in events.kinds
                await beat(still, ledger)
                assert await ledger.owners() == {"b": "s2"}
        assert {(told.outcome, told.group) for told in [end, *ends]} == {
            ("lost", REQUEST.name),
            ("reaped", REQUEST.name),
            ("stopped", REQUEST.name),
        }
        assert {event.group for event in events.all} == {REQUEST.name}

    async def test_a_start_that_comes_too_late(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """Its place was given away when its session came: the session is stopped."""
        async with fleet_of(scripted, ledger, still) as fleet:
            scripted.starts_go.clear()
            starting = asyncio.create_task(fleet.start(REQUEST, key="a"))
            await eventually(lambda: scripted.requests)
            (intent,) = await other.rows()
            await other.renew("w2", lease=60)  # it lives, so that this fleet claims nothing back
            await other.engine.remove(intent.id, worker=intent.owner)
            await other.record(evolve(intent, owner="w2", session_id="s7"), seconds=600)
            scripted.starts_go.set()
            with pytest.raises(EquosError, match="worker w2 took its place"):
                await starting
            assert scripted.live == {}

    async def test_a_reaper_that_fails_tries_again(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """What it could not stop stays written down, and is found by the next renewal."""
        ends: list[SessionEnd] = []
        async with fleet_of(scripted, ledger, still, on_end=ends.append) as fleet:
            await fleet.start(REQUEST, key="a")
            await leave(ledger, scripted)
            scripted.stop_errors = [APIConnectionError("down")]
            await ledger.engine.renew("dead", lease=0)
            await beat(still, ledger)
            await eventually(lambda: fleet.stats().failed)
            assert await ledger.owners() == {"a": "s1", "x": "s9"}
            await beat(still, ledger)
            await eventually(lambda: fleet.stats().reaped)
            await written(ledger, {"a": "s1"})
            assert LEASE / 3 <= ends[0].seconds < LEASE, "all seconds until its stop"

    @pytest.mark.parametrize("works", [True, False])
    async def test_what_it_stopped_and_could_not_remove(
        self, works: bool, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """On the way out its row is removed: no other worker may be there to do that."""
        ends: list[SessionEnd] = []
        async with fleet_of(scripted, ledger, still, on_end=ends.append) as fleet:
            await fleet.start(REQUEST, key="a")
            await leave(ledger, scripted)
            ledger.failing = {"remove"}
            await ledger.engine.renew("dead", lease=0)
            await beat(still, ledger)
            await eventually(lambda: fleet.stats().reaped)
            await beat(still, ledger)
            assert await ledger.owners() == {"a": "s1", "x": "s9"}
            assert scripted.asked == ["s9"], "it is stopped once"
            if works:
                ledger.failing.clear()
        assert ("x" in await ledger.owners()) is not works
        assert [(end.key, end.outcome) for end in ends] == [("x", "reaped"), ("a", "stopped")]

    async def test_what_it_could_not_stop(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """On the way out it is left to other workers, at once."""
        scripted.stop_errors = [APIConnectionError("down")]
        async with fleet_of(scripted, other, still) as two:
            await two.start(REQUEST, key="b")
            async with fleet_of(scripted, ledger, still) as one:
                await one.start(REQUEST, key="a")
            assert len(one.report.left) == 1
            await beat(still, other)
            await eventually(lambda: two.stats().reaped)
            assert scripted.stopped == ["s2"]


class TestTheEngineFails:
    """Nothing is lost, nothing blocks."""

    async def test_starts_fail_before_anything_is_sent(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A session that cannot be written down is not started; afterwards it can."""
        ledger.failing = {"place", "renew", "claim", "remove"}
        async with fleet_of(scripted, ledger, still) as fleet:
            with pytest.raises(LedgerError, match="down") as caught:
                await fleet.start(REQUEST, key="a")
            assert caught.value.operation == "start"
            assert scripted.requests == []
            ledger.failing = set()
            await fleet.start(REQUEST, key="a")

    async def test_starts_go_on_without(
        self,
        scripted: ScriptedClient,
        ledger: Moody,
        still: FakeClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """By an explicit setting; what was started is written down when the engine is back."""
        caplog.set_level("INFO", "equos_async")
        ledger.failing = {"place", "record", "renew", "claim"}
        async with fleet_of(scripted, ledger, still, ledger_required=False) as fleet:
            await fleet.start(REQUEST, key="a")
            assert await ledger.owners() == {}
            ledger.failing = set()
            await beat(still, ledger)
            await written(ledger, {"a": "s1"})
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    async def test_a_session_that_came_meanwhile(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """The engine fails between the intent and the session: it is kept, and written later."""
        ledger.failing = {"record"}
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(REQUEST, key="a")
            assert await ledger.owners() == {"a": None}
            ledger.failing = set()
            await beat(still, ledger)
            await written(ledger, {"a": "s1"})

    async def test_stops_go_on(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A stop does not need the engine; its row goes when that is back."""
        async with fleet_of(scripted, ledger, still) as fleet:
            live = await fleet.start(REQUEST, key="a")
            ledger.failing = {"remove"}
            await live.stop()
            assert await ledger.owners() == {"a": "s1"}
            ledger.failing = set()
            await beat(still, ledger)
            await written(ledger, {})

    async def test_an_engine_that_forgets(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """All live sessions are written again."""
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(REQUEST, key="a")
            for row in await ledger.rows():
                await ledger.engine.remove(row.id, worker=row.owner)
            await beat(still, ledger)
            await written(ledger, {"a": "s1"})

    async def test_what_is_forgotten_is_written_anew_in_bulk(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """Once, with the lease; what is over meanwhile goes again before its stop returns."""
        bulk = InBulk(ledger.engine)
        async with fleet_of(scripted, bulk, still) as fleet:
            for key in ("a", "b", "c"):
                await fleet.start(REQUEST, key=key)
            for row in await bulk.rows():
                await bulk.engine.remove(row.id, worker=row.owner)
            bulk.asked.clear()
            bulk.held = {"record_all"}
            still.advance(LEASE / 3)
            await eventually(lambda: "record_all" in bulk.asked)
            assert bulk.asked.count("record") == 0
            stopping = asyncio.create_task(fleet.stop("a"))
            await quiet(bulk)
            assert not stopping.done()
            bulk.go.set()
            await stopping
            assert await bulk.owners() == {"b": "s2", "c": "s3"}
            assert bulk.asked.count("record_all") == 1
            assert bulk.asked.count("record") == 0

    async def test_a_bulk_that_fails_is_written_again(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """At the next look, as all that could not be written."""
        bulk = InBulk(ledger.engine)
        async with fleet_of(scripted, bulk, still) as fleet:
            await fleet.start(REQUEST, key="a")
            (row,) = await bulk.rows()
            await bulk.engine.remove(row.id, worker=row.owner)
            bulk.failing = {"record_all", "record"}
            await beat(still, bulk)
            assert await bulk.owners() == {}
            bulk.failing = set()
            await beat(still, bulk)
            await written(bulk, {"a": "s1"})

    async def test_an_engine_that_forgets_an_unknown_start(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """Its place is taken again, for as long as its session may run."""
        scripted.start_errors = [StartOutcomeUnknownError("gone")]
        async with fleet_of(scripted, ledger, still) as fleet:
            with pytest.raises(StartOutcomeUnknownError):
                await fleet.start(REQUEST, key="a")
            (row,) = await ledger.rows()
            await ledger.engine.remove(row.id, worker=row.owner)
            await beat(still, ledger)
            await written(ledger, {"a": None})
            (row,) = await ledger.rows()
            assert 640 < row.remaining < 660

    async def test_an_engine_that_makes_mistakes(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """What no ledger may raise is a failure like any other, and the upkeep goes on."""
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(REQUEST, key="a")
            ledger.mistaken = {"place", "claim", "renew"}
            with pytest.raises(LedgerError, match="TypeError") as caught:
                await fleet.start(REQUEST, key="b")
            assert isinstance(caught.value.__cause__, TypeError)
            await beat(still, ledger)
            ledger.mistaken = set()
            await beat(still, ledger)
            assert await ledger.owners() == {"a": "s1"}

    async def test_many_starts_at_once(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """The engine is asked for a few at a time; when it fails, those behind fail with it."""
        async with fleet_of(scripted, ledger, still, max_live=9 * AT_ONCE) as fleet:
            many = 2 * AT_ONCE
            await asyncio.gather(*(fleet.start(REQUEST, key=n) for n in range(many)))
            assert ledger.most <= 3 * AT_ONCE + 1
            ledger.failing = {"place"}
            asked = ledger.asked.count("place")
            starts = (fleet.start(REQUEST, key=n) for n in range(many, 2 * many))
            failures = await asyncio.gather(*starts, return_exceptions=True)
            assert {type(failure) for failure in failures} == {LedgerError}
            assert ledger.asked.count("place") - asked == AT_ONCE
            assert len(scripted.requests) == many

    async def test_who_stands_first_waits_for_no_newcomer(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """A worker with many starts that are new does not hold up the line of all."""
        async with fleet_of(scripted, other, still, max_live=1) as two:
            live = await two.start(REQUEST, key="a")
            async with fleet_of(scripted, ledger, still, max_live=1) as one:
                waiting = asyncio.create_task(one.start(REQUEST, key="b"))
                await eventually(lambda: one.stats().waiting)
                ledger.held = {f"new {n}" for n in range(AT_ONCE)}
                newcomers = [asyncio.create_task(one.start(REQUEST, key=k)) for k in ledger.held]
                await eventually(lambda: ledger.asked.count("place") >= 1 + AT_ONCE)
                await live.stop()
                assert await asyncio.wait_for(waiting, 60)
                assert not any(newcomer.done() for newcomer in newcomers)
                for newcomer in newcomers:
                    newcomer.cancel()
                await asyncio.wait(newcomers)

    async def test_what_cannot_be_written_anew_keeps_nobody_waiting(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """What dead workers left is stopped, though this one's own rows cannot be made good yet."""
        ledger.failing = {"record"}
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(REQUEST, key="a")
            await leave(ledger, scripted)
            await ledger.engine.renew("dead", lease=0)
            await beat(still, ledger)
            await eventually(lambda: scripted.stopped == ["s9"])

    async def test_an_answer_that_is_lost(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """An intent that was written all the same, for a start that failed, goes again."""
        ledger.deaf = {"place"}
        ledger.failing = {"remove"}
        async with fleet_of(scripted, ledger, still) as fleet:
            with pytest.raises(LedgerError):
                await fleet.start(REQUEST, key="a")
            await eventually(lambda: "remove" in ledger.asked)
            assert await ledger.owners() == {"a": None}
            ledger.failing = set()
            await beat(still, ledger)
            await written(ledger, {})

    async def test_a_turn_that_nobody_waits_for(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """A start that left the queue while the engine was down delays no other start later."""
        async with fleet_of(scripted, other, still, max_live=1) as two:
            live = await two.start(REQUEST, key="a")
            async with fleet_of(scripted, ledger, still, max_live=1) as one:
                waiting = asyncio.create_task(one.start(REQUEST, key="b"))
                await eventually(lambda: one.stats().waiting)
                ledger.failing = {"remove"}
                waiting.cancel()
                await eventually(lambda: "remove" in ledger.asked)
                ledger.failing = set()
                await live.stop()
                behind = asyncio.create_task(two.start(REQUEST, key="c"))
                await quiet(other)
                await beat(still, ledger)
                still.advance(1)
                assert await asyncio.wait_for(behind, 60)

    async def test_a_claim_that_is_lost(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """Sessions that became this worker's without its knowing are stopped all the same."""
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(REQUEST, key="a")
            await leave(ledger, scripted)
            await ledger.engine.renew("dead", lease=0)
            ledger.deaf = {"claim"}
            await beat(still, ledger)
            ledger.deaf = set()
            await beat(still, ledger)
            await eventually(lambda: scripted.stopped == ["s9"])

    async def test_those_of_a_claim_that_is_lost(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """Each is stopped as its own resource; one of an unknown resource stays."""
        events = Events()
        ends: list[SessionEnd] = []
        async with fleet_of(scripted, ledger, still, on_event=events, on_end=ends.append):
            left = LedgerRow(
                id="dead/1", key="7", name="x", owner="dead", endpoint=scripted.endpoint
            )
            await ledger.engine.record(
                evolve(left, session_id="c1", resource="conversation"), seconds=600
            )
            newer = evolve(left, id="dead/2", key="8", session_id="t1", resource="telepathy")
            await ledger.engine.record(newer, seconds=600)
            await ledger.engine.renew("dead", lease=0)
            ledger.deaf = {"claim"}
            await beat(still, ledger)
            ledger.deaf = set()
            await beat(still, ledger)
            await eventually(lambda: scripted.stopped == ["conversation c1"])
            await eventually(lambda: {"reaped", "failed"} <= {one.kind for one in events.all})
            told = {(one.kind, one.key, one.resource) for one in events.all}
            assert told == {("reaped", 7, "conversation"), ("failed", 8, None)}
            assert "telepathy" in str(events.all)
            await beat(still, ledger)
            assert [one.session_id for one in await ledger.engine.rows()] == ["t1"]
            (end,) = ends
            assert (end.key, end.session_id, end.outcome) == (7, "c1", "reaped")
            assert (end.name, end.resource) == ("x", "conversation")

    async def test_a_reaper_without_an_engine(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """What it stopped is stopped; that its row is still there is seen later."""
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(REQUEST, key="a")
            await leave(ledger, scripted)
            await ledger.engine.renew("dead", lease=0)
            ledger.failing = {"remove"}
            await beat(still, ledger)
            await eventually(lambda: "remove" in ledger.asked)
            ledger.failing = set()
            await beat(still, ledger)
            await written(ledger, {"a": "s1"})

    async def test_those_in_the_line(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """They fail fast when the engine does."""
        async with fleet_of(scripted, ledger, still, max_live=1) as fleet:
            await fleet.start(REQUEST, key="a")
            waiting = asyncio.create_task(fleet.start(REQUEST, key="b"))
            await eventually(lambda: fleet.stats().waiting)
            ledger.failing = {"place", "renew", "claim"}
            still.advance(LEASE)
            with pytest.raises(LedgerError):
                await asyncio.wait_for(waiting, 60)

    @pytest.mark.parametrize("how", ["failing", "mistaken"])
    async def test_turns_that_are_lost(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock, how: str
    ) -> None:
        """If no call can arrive, the starts ask for their turns, and calls are asked for again."""
        async with fleet_of(scripted, other, still, max_live=1) as two:
            live = await two.start(REQUEST, key="a")
            async with fleet_of(scripted, ledger, still, max_live=1) as one:
                getattr(ledger, how).add("turns")
                waiting = asyncio.create_task(one.start(REQUEST, key="b"))
                await eventually(lambda: one.stats().waiting)
                await live.stop()
                getattr(ledger, how).clear()
                still.advance(1)
                assert await asyncio.wait_for(waiting, 60)

    async def test_a_call_that_is_lost(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """The first start of a worker's queue asks whenever the lease is renewed."""
        async with fleet_of(scripted, other, still, max_live=1) as two:
            live = await two.start(REQUEST, key="a")
            async with fleet_of(scripted, ledger, still, max_live=1) as one:
                ledger.swallowing = {"turns"}  # says nothing
                waiting = asyncio.create_task(one.start(REQUEST, key="b"))
                await eventually(lambda: one.stats().waiting)
                await live.stop()
                await beat(still, ledger)
                assert await asyncio.wait_for(waiting, 60)

    async def test_nobody_listens_for_nothing(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A worker listens only while one of its starts waits."""
        async with fleet_of(scripted, ledger, still, max_live=1) as fleet:
            live = await fleet.start(REQUEST, key="a")
            for key in ("b", "c"):
                assert ledger.listening == 0
                waiting = asyncio.create_task(fleet.start(REQUEST, key=key))
                await eventually(lambda: "turns" in ledger.asked)
                await beat(still, ledger)
                assert ledger.listening == 1
                await live.stop()
                live = await asyncio.wait_for(waiting, 60)
                await beat(still, ledger)
                ledger.asked.remove("turns")

    async def test_calls_for_nobody(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A call for a start that is gone has no effect; an ended stream is opened again."""
        async with fleet_of(scripted, ledger, still, max_live=1) as fleet:
            live = await fleet.start(REQUEST, key="a")
            ledger.calls = ["gone"]
            waiting = asyncio.create_task(fleet.start(REQUEST, key="b"))
            await eventually(lambda: "turns" in ledger.asked and not ledger.calls)
            await live.stop()
            await quiet(ledger)
            still.advance(1)
            assert await asyncio.wait_for(waiting, 60)

    async def test_a_stop_while_a_row_is_written_anew(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """What is written and what is removed come one after the other, never the wrong way."""
        async with fleet_of(scripted, ledger, still) as fleet:
            live = await fleet.start(REQUEST, key="a")
            (row,) = await ledger.rows()
            await ledger.engine.remove(row.id, worker=row.owner)  # it forgets
            ledger.held = {"remove"}
            stopping = asyncio.create_task(live.stop())
            await eventually(lambda: "remove" in ledger.asked)
            recorded = ledger.asked.count("record")
            await beat(still, ledger)  # the row is missing, and is to be written anew
            ledger.go.set()
            await stopping
            await quiet(ledger)
            assert await ledger.owners() == {}
            assert ledger.asked.count("record") == recorded

    async def test_an_engine_that_hangs(
        self,
        scripted: ScriptedClient,
        ledger: Moody,
        still: FakeClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It is waited for no longer than anybody's patience lasts."""
        async with fleet_of(scripted, ledger, still) as fleet:
            live = await fleet.start(REQUEST, key="a")
            monkeypatch.setattr("equos_async.fleet._engine.PATIENCE", 0.05)
            ledger.hanging = {"place", "remove", "renew"}
            with pytest.raises(LedgerError, match="did not answer within"):
                await fleet.start(REQUEST, key="b")
            await live.stop()
        assert scripted.live == {}
        assert fleet.report.left == ()

    @pytest.mark.parametrize("failing", [set[str](), {"place"}])
    async def test_an_engine_that_loses_a_cancellation(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock, failing: set[str]
    ) -> None:
        """A start that is cancelled ends as cancelled, whatever its engine makes of that."""
        async with fleet_of(scripted, ledger, still) as fleet:
            ledger.swallowing, ledger.failing = {"place"}, failing
            starting = asyncio.create_task(fleet.start(REQUEST, key="a"))
            await eventually(lambda: "place" in ledger.asked)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await written(ledger, {})
        assert scripted.requests == []

    async def test_calls_that_lose_a_cancellation(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A fleet that was left listens no more."""
        async with fleet_of(scripted, ledger, still, max_live=1) as fleet:
            await fleet.start(REQUEST, key="a")
            ledger.swallowing = {"turns"}
            waiting = asyncio.create_task(fleet.start(REQUEST, key="b"))
            await eventually(lambda: "turns" in ledger.asked)
            waiting.cancel()
            assert ledger.listening == 1
        await settle()
        assert ledger.listening == 0
        assert others() == set()

    async def test_a_reaper_that_hangs(
        self,
        scripted: ScriptedClient,
        ledger: Moody,
        still: FakeClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Leaving does not wait for it: another worker will do it."""
        async with fleet_of(scripted, ledger, still) as fleet:
            live = await fleet.start(REQUEST, key="a")
            await live.stop()
            await leave(ledger, scripted)
            await ledger.engine.renew("dead", lease=0)
            scripted.stops_go.clear()
            await beat(still, ledger)
            monkeypatch.setattr("equos_async.fleet._engine.PATIENCE", 0.2)
        assert [(row.session_id, row.owner) for row in await ledger.rows()] == [
            ("s9", fleet.worker)
        ]


class TestOneWriter:
    """What changes while an answer is on its way."""

    async def test_a_row_that_goes_while_the_lease_is_renewed(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """It is in the answer but is no orphan: it is stopped once, not as reaped."""
        async with fleet_of(scripted, ledger, still) as fleet:
            live = await fleet.start(REQUEST, key="a")
            await quiet(ledger)
            ledger.late, renewals = {"renew"}, ledger.answered.count("renew")
            still.advance(LEASE / 3)
            await eventually(lambda: ledger.answered.count("renew") > renewals)
            await live.stop()
            ledger.go.set()
            await quiet(ledger)
            assert scripted.stopped == ["s1"]
            assert fleet.stats().reaped == 0

    async def test_a_removal_that_failed_is_made_good(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """The row of a session that was stopped goes later; it is not stopped and reaped again."""
        async with fleet_of(scripted, ledger, still) as fleet:
            live = await fleet.start(REQUEST, key="a")
            ledger.failing = {"remove"}
            await live.stop()
            ledger.failing = set()
            await beat(still, ledger)
            await written(ledger, {})
            assert scripted.stopped == ["s1"]
            assert fleet.stats().reaped == 0

    async def test_an_idle_worker_reaps(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """A fleet that has started nothing ends what others left; keys come back as they were."""
        events = Events()
        for key in ("4711", '"4711"'):
            left = LedgerRow(
                id=f"dead/{key}", key=key, name="x", owner="dead", endpoint=scripted.endpoint
            )
            await ledger.engine.record(evolve(left, session_id=f"s{key}"), seconds=600)
        await ledger.engine.renew("dead", lease=0)
        async with fleet_of(scripted, ledger, still, on_event=events) as fleet:
            await eventually(lambda: fleet.stats().reaped == 2)
        assert {event.key for event in events.all} == {4711, "4711"}

    async def test_one_and_the_same_in_words_only(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """1 and "1" are two keys."""
        async with fleet_of(scripted, ledger, still) as fleet:
            await fleet.start(REQUEST, key=1)
            await fleet.start(REQUEST, key="1")
            assert set(await ledger.owners()) == {"1", '"1"'}

    async def test_an_intent_that_another_key_took(
        self, scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
    ) -> None:
        """A start that was taken for dead learns of it when its session comes, and not before."""
        async with fleet_of(scripted, ledger, still) as fleet:
            scripted.starts_go.clear()
            starting = asyncio.create_task(fleet.start(REQUEST, key="a"))
            await eventually(lambda: scripted.requests)
            (intent,) = await other.rows()
            await other.renew("w2", lease=60)
            await other.engine.remove(intent.id, worker=intent.owner)
            await other.record(evolve(intent, id="w2/1", owner="w2", session_id="s7"), seconds=600)
            for _ in range(2):
                await beat(still, ledger)
            assert ledger.asked.count("record") == 1
            assert not starting.done()
            scripted.starts_go.set()
            with pytest.raises(EquosError, match="worker w2 took its place"):
                await starting
            assert scripted.live == {}

    async def test_a_lost_row_of_a_session_that_is_stopped(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """There is nothing to remove: the task for that is over before anybody waits for it."""
        begin_tasks_at_once()
        async with fleet_of(scripted, ledger, still) as fleet:
            live = await fleet.start(REQUEST, key="a")
            (row,) = await ledger.rows()
            await quiet(ledger)
            await ledger.engine.remove(row.id, worker=row.owner)
            ledger.held = {"claim"}
            renewals = ledger.answered.count("renew")
            still.advance(LEASE / 3)
            await eventually(lambda: ledger.answered.count("renew") > renewals)
            await settle()
            async with asyncio.timeout(60):
                await live.stop()
            ledger.go.set()
        assert await ledger.rows() == []

    async def test_a_session_that_comes_while_its_intent_is_written_anew(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """The last that is written is what is known last."""
        async with fleet_of(scripted, ledger, still) as fleet:
            scripted.starts_go.clear()
            starting = asyncio.create_task(fleet.start(REQUEST, key="a"))
            await eventually(lambda: scripted.requests)
            (intent,) = await ledger.rows()
            await ledger.engine.remove(intent.id, worker=intent.owner)
            ledger.held = {"record"}
            await beat(still, ledger)
            assert ledger.asked.count("record") == 1
            scripted.starts_go.set()
            await quiet(ledger)
            assert ledger.asked.count("record") == 1
            ledger.go.set()
            await starting
            await written(ledger, {"a": "s1"})

    async def test_a_row_that_comes_while_the_lease_is_renewed(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """It is in the answer although it came after the request: it is no orphan, either."""
        async with fleet_of(scripted, ledger, still) as fleet:
            await quiet(ledger)
            ledger.held, renewals = {"renew"}, ledger.asked.count("renew")
            still.advance(LEASE / 3)
            await eventually(lambda: ledger.asked.count("renew") > renewals)
            await fleet.start(REQUEST, key="a")
            ledger.go.set()
            await quiet(ledger)
            assert await ledger.owners() == {"a": "s1"}
            assert scripted.stopped == []

    async def test_an_intent_that_nobody_has(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """What an engine does after it was given up on is undone."""
        async with fleet_of(scripted, ledger, still) as fleet:
            await quiet(ledger)
            worker = str(fleet.worker)
            late = LedgerRow(
                id=f"{worker}-9", key="x", name="x", owner=worker, endpoint=scripted.endpoint
            )
            await ledger.engine.place(late, seconds=60, limit=9, wait=False, lease=LEASE)
            await beat(still, ledger)
            await written(ledger, {})

    async def test_left_without_being_entered(
        self, scripted: ScriptedClient, ledger: Moody, still: FakeClock
    ) -> None:
        """The ledger does not know the worker, and is not used."""
        assert (await fleet_of(scripted, ledger, still).aclose()).left == ()
        assert ledger.asked == []


@pytest.mark.parametrize("twice", [False, True])
async def test_cancelled_anywhere_nothing_is_written(ledger: Moody, twice: bool) -> None:
    """Cancelled at each step, once or twice, a fleet leaves no session, no row, and no task."""
    for steps in range(0, 120, 3):
        client, clock = ScriptedClient(), FakeClock()
        fleet = fleet_of(client, ledger, clock, max_live=2)

        async def bot(fleet: SessionFleet = fleet) -> None:
            async with fleet:
                live = await fleet.start(REQUEST, key="a")
                async with asyncio.TaskGroup() as group:
                    for key in ("b", "c"):
                        group.create_task(fleet.start(REQUEST, key=key))
                    await live.stop()

        task = asyncio.create_task(bot())
        for _ in range(steps):
            await ledger.rows()  # a step of the engine's thread, and of all that waits for it
        task.cancel()
        if twice:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: not others())
        assert not client.live, steps
        assert client.most <= 2
        assert [row.session_id for row in await ledger.rows() if row.session_id] == [], steps


async def test_claimed_when_its_time_is_over(
    scripted: ScriptedClient, ledger: Moody, other: Moody, still: FakeClock
) -> None:
    """An expired session does not count as lost if another worker claims it then."""
    async with fleet_of(scripted, ledger, still) as fleet:
        live = await fleet.start(REQUEST, key="a")
        await quiet(ledger)
        scripted.stops_go.clear()
        await other.renew(str(fleet.worker), lease=0)
        assert await other.claim("w2", endpoint=scripted.endpoint, lease=60)
        still.advance(600)
        await eventually(lambda: fleet.stats().lost)
        scripted.stops_go.set()
        assert (await live.ended()).reason == "its time was over"
        assert fleet.stats().expired == 1
