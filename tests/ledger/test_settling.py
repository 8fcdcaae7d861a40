"""A start whose worker died before its answer came is found and ended by another worker."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from attrs import evolve, field, frozen

from equos_async import (
    CreateEquosConversationRequest,
    EquosClient,
    FleetEvent,
    LedgerError,
    LedgerRow,
    SessionEnd,
    SessionFleet,
    Settle,
    SQLiteLedger,
    Timeouts,
)
from equos_async.cli.ledger import open_ledger
from equos_async.ledger.protocol import NOBODY
from equos_async.testing import Delay, EquosEmulator, Hang, Status
from tests.clocks import until
from tests.conftest import REQUEST
from tests.ledger.conftest import RedisServer
from tests.settling.clock import FastClock

LEASE = 1.0


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A ledger of each kind."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        yield server.url
        return
    (tmp_path / "ledger.db").touch()
    yield f"sqlite:{tmp_path / 'ledger.db'}"


@frozen
class Other:
    """Another worker, with its events."""

    fleet: SessionFleet
    client: EquosClient
    ledger: Any
    events: list[FleetEvent] = field(factory=list[FleetEvent])
    ends: list[SessionEnd] = field(factory=list[SessionEnd])

    @property
    def told(self) -> list[str]:
        """Which kinds of events."""
        return [one.kind for one in self.events]


@asynccontextmanager
async def other(emulator: EquosEmulator, ledger: Any, **settings: Any) -> AsyncGenerator[Other]:
    """A worker that can look, for a while that is short."""
    by_default: dict[str, Any] = {
        "clock": FastClock(),
        "settle": Settle(patience=1, look_for=10),
        "api_key": "any",
    }
    settings = by_default | settings
    events: list[FleetEvent] = []
    ends: list[SessionEnd] = []
    async with (
        EquosClient("any-key", endpoint=emulator.endpoint, **settings) as client,
        SessionFleet(
            client,
            max_live=9,
            ledger=ledger,
            lease=LEASE,
            on_event=events.append,
            on_end=ends.append,
        ) as fleet,
    ):
        yield Other(fleet, client, ledger, events, ends)


async def kill_while_it_starts(emulator: EquosEmulator, where: str) -> None:
    """Have a worker start something, and die before the answer."""
    argv = (sys.executable, "-m", "tests.ledger.starter", emulator.endpoint, where)
    process = await asyncio.create_subprocess_exec(*argv)
    before = emulator.request_count
    while emulator.request_count == before:  # noqa: ASYNC110 - another process has no event of ours
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def leave_intent(ledger: Any, emulator: EquosEmulator, **changes: Any) -> LedgerRow:
    """An intent of a worker that is gone."""
    row = LedgerRow(
        id="gone/1",
        key="lost",
        name=REQUEST.name,
        client=REQUEST.client,
        owner="gone",
        endpoint=emulator.endpoint,
        marker="m1",
    )
    row = evolve(row, **changes)
    await ledger.place(row, seconds=600, limit=9, wait=False, lease=LEASE)
    await ledger.renew("gone", lease=0)
    return row


async def test_sigkill_before_the_answer(where: str) -> None:
    """Within the lease and two looks nothing is left, on the server and in the ledger."""
    async with EquosEmulator() as emulator, open_ledger(where, "equos") as ledger:
        emulator.faults.start.add(Hang("after"), times=1)
        await kill_while_it_starts(emulator, where)
        (session_id,) = emulator.live
        async with other(emulator, ledger) as worker:
            await until(lambda: worker.ends)
            assert emulator.live == {}
            (end,) = worker.ends
            assert (end.session_id, end.outcome, end.key) == (session_id, "reaped", "lost")
            assert end.client == REQUEST.client
            assert worker.told == ["reaped"]
            assert await ledger.rows() == []


async def test_what_is_not_found_is_nobodys(where: str) -> None:
    """As with a client key alone: its slot stays taken, and its key is free."""
    async with EquosEmulator() as emulator, open_ledger(where, "equos") as ledger:
        await leave_intent(ledger, emulator)
        async with other(emulator, ledger) as worker:
            await until(lambda: "unknown" in worker.told)
            assert [row.owner for row in await ledger.rows()] == [NOBODY]
            await worker.fleet.start(REQUEST, key="lost")
        assert "a session may run for" in worker.events[0].reason


async def test_a_key_that_may_not_list(tmp_path: Path) -> None:
    """The outcome is reported as unknown at once; the next start is not searched for."""
    async with EquosEmulator() as emulator, SQLiteLedger(tmp_path / "ledger.db") as ledger:
        emulator.faults.read.add(Status(403), times=None)
        await leave_intent(ledger, emulator)
        async with other(emulator, ledger, settle=Settle(look_for=1e6)) as worker:
            await until(lambda: worker.told == ["unknown"])
            await ledger.remove("gone/1", worker=NOBODY)
            await leave_intent(ledger, emulator)
            await until(lambda: worker.told == ["unknown"] * 2)
            assert emulator.request_count == 1


async def test_who_leaves_lets_others_look(tmp_path: Path) -> None:
    """It does not wait for what it looks for."""
    async with EquosEmulator() as emulator, SQLiteLedger(tmp_path / "ledger.db") as ledger:
        await leave_intent(ledger, emulator)
        async with other(emulator, ledger, settle=Settle(look_for=1e6)) as worker:
            await until(lambda: emulator.request_count)
        assert worker.told == []
        (row,) = await ledger.rows()
        assert row.owner == worker.fleet.worker
        async with other(emulator, ledger) as worker:
            await until(lambda: worker.told == ["unknown"])


async def test_its_client_closes(tmp_path: Path) -> None:
    """The search ends; the row still belongs to the worker, and others can claim it."""
    async with EquosEmulator() as emulator, SQLiteLedger(tmp_path / "ledger.db") as ledger:
        await leave_intent(ledger, emulator)
        async with other(emulator, ledger, settle=Settle(look_for=1e6)) as worker:
            await until(lambda: emulator.request_count)
            await worker.client.aclose(deadline=0)
            await until(lambda: "failed" in worker.told)
            assert [row.owner for row in await ledger.rows()] == [worker.fleet.worker]


async def leave_session(ledger: Any, emulator: EquosEmulator, marker: str = "m1.1") -> str:
    """Leave the session of a start whose worker is gone."""
    await leave_intent(ledger, emulator)
    async with EquosClient("any-key", endpoint=emulator.endpoint) as client:
        variables = {"equos_async_marker": marker}
        started = await client.start_session(evolve(REQUEST, template_vars=variables))
    return started.session.id


async def test_an_end_that_is_not_confirmed(tmp_path: Path) -> None:
    """Its stop is repeated until it is; if the worker leaves before, another one continues."""
    async with EquosEmulator() as emulator, SQLiteLedger(tmp_path / "ledger.db") as ledger:
        session_id = await leave_session(ledger, emulator)
        emulator.faults.stop.add(Status(500), times=None)
        async with other(emulator, ledger) as worker:
            await until(lambda: any(one.status == 500 for one in emulator.requests))
            await worker.client.aclose(deadline=0)
            await until(lambda: "failed" in worker.told)
            assert worker.events[-1].session_id == session_id
        emulator.faults.clear()
        async with other(emulator, ledger) as worker:
            await until(lambda: worker.ends)
            assert worker.ends[0].session_id == session_id
        assert await ledger.rows() == []


async def test_each_of_two_is_ended(tmp_path: Path) -> None:
    """A proxy may have sent the start twice, or the worker another attempt."""
    async with EquosEmulator() as emulator, SQLiteLedger(tmp_path / "ledger.db") as ledger:
        await leave_session(ledger, emulator, "m1.1")
        await ledger.remove("gone/1", worker="gone")
        await leave_session(ledger, emulator, "m1.12")
        async with other(emulator, ledger) as worker:
            await until(lambda: worker.ends)
            assert emulator.live == {}
        assert await ledger.rows() == []


async def test_what_only_a_newer_release_knows(tmp_path: Path) -> None:
    """No list is known for it: the row loses its owner at once."""
    async with EquosEmulator() as emulator, SQLiteLedger(tmp_path / "ledger.db") as ledger:
        await leave_intent(ledger, emulator, resource="dance")
        async with other(emulator, ledger, settle=Settle(look_for=1e6)) as worker:
            await until(lambda: worker.told == ["unknown"])
            assert [row.owner for row in await ledger.rows()] == [NOBODY]


async def test_with_the_client_key_alone(tmp_path: Path) -> None:
    """There is no marker and no search: it is reported, and keeps its slot."""
    async with EquosEmulator() as emulator, SQLiteLedger(tmp_path / "ledger.db") as ledger:
        await leave_session(ledger, emulator)
        async with other(emulator, ledger, api_key=None) as worker:
            await until(lambda: worker.told == ["unknown"])
            assert [row.owner for row in await ledger.rows()] == [NOBODY]
            emulator.faults.start.add(Hang("after"), times=1)
            starting = asyncio.create_task(worker.fleet.start(REQUEST, key="new"))
            await until(lambda: len(emulator.live) == 2)
            assert [row.marker for row in await ledger.rows()] == ["m1", None]
            starting.cancel()
            await asyncio.wait([starting])
            await worker.fleet.drain(0)


async def test_what_a_start_writes(tmp_path: Path) -> None:
    """Its markers' beginning before the first attempt; no further attempt has to write anything."""
    async with EquosEmulator() as emulator, Counted(tmp_path / "ledger.db") as ledger:
        emulator.faults.start.add(Status(429), times=2)
        async with other(emulator, ledger) as worker:
            live = await worker.fleet.start(REQUEST, key="new")
            assert ledger.steps == ["place", "record"]
            (placed,) = ledger.placed
            assert placed.marker
            assert await markers_at(emulator) == [f"{placed.marker}.3"]
            assert [row.marker for row in await ledger.rows()] == [None]
            await live.stop()


async def test_its_own_start_comes_back(tmp_path: Path) -> None:
    """The worker that took it over is dead, too; its caller still waits: no search."""
    async with EquosEmulator() as emulator, SQLiteLedger(tmp_path / "ledger.db") as ledger:
        patient = Timeouts(start_attempt=1000, deadline=1000)
        async with other(emulator, ledger, timeouts=patient) as worker:
            emulator.faults.start.add(Delay(2.5), times=1)
            request = CreateEquosConversationRequest(
                character_id="ch_1", consumer=REQUEST.consumer_identity, name="slow"
            )
            starting = asyncio.create_task(worker.fleet.start(request, key="slow"))
            await until(lambda: emulator.request_count)
            (row,) = await ledger.rows()
            await ledger.renew(row.owner, lease=0)
            await ledger.claim(
                "w2", endpoint=emulator.endpoint, lease=LEASE, at_once=True, settles=True
            )
            await ledger.renew("w2", lease=0)
            while (await ledger.rows())[0].owner != row.owner:  # noqa: ASYNC110 - no event of ours
                await asyncio.sleep(0.01)
            live = await starting
            assert worker.told == ["started"]
            await live.stop()
        assert await ledger.rows() == []


async def markers_at(emulator: EquosEmulator) -> list[str]:
    """Of all sessions, as the server has them: no client shows them."""
    async with (
        aiohttp.ClientSession(emulator.endpoint, headers={"X-Api-Key": "any"}) as http,
        http.get("/v3/sessions") as answer,
    ):
        listed = await answer.json()
    return [one["templateVars"]["equos_async_marker"] for one in listed["sessions"]]


class Counted(SQLiteLedger):
    """A ledger that notes what is written of sessions."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.steps: list[str] = []
        self.placed: list[LedgerRow] = []

    async def place_in_group(self, row: LedgerRow, **settings: Any) -> Any:
        self.steps.append("place")
        self.placed.append(row)
        return await super().place_in_group(row, **settings)

    async def record(self, row: LedgerRow, *, seconds: float) -> str:
        self.steps.append("record")
        return await super().record(row, seconds=seconds)


class Deaf(SQLiteLedger):
    """A ledger that forgets to answer one claim, or to carry out one step."""

    failing = ""

    async def claim(self, worker: str, **settings: Any) -> Any:
        claimed = await super().claim(worker, **settings)
        if claimed and self.failing == "claim":
            self.failing = ""
            raise LedgerError("the answer was lost")
        return claimed

    async def give_up(self, worker: str, row_id: str) -> None:
        if self.failing == "give_up":
            self.failing = ""
            raise LedgerError("the engine is down")
        await super().give_up(worker, row_id)


@pytest.mark.parametrize("failing", ["claim", "give_up"])
async def test_an_engine_that_fails(failing: str, tmp_path: Path) -> None:
    """The next renewal shows that the row is this worker's, which then searches."""
    async with EquosEmulator() as emulator, Deaf(tmp_path / "ledger.db") as ledger:
        ledger.failing = failing
        await leave_intent(ledger, emulator)
        async with other(emulator, ledger) as worker:
            await until(lambda: "unknown" in worker.told)
            assert worker.told == ["failed"] * (failing == "give_up") + ["unknown"]
        assert [row.owner for row in await ledger.rows()] == [NOBODY]
