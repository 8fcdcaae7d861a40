"""The programs work; mypy and pyright infer all types without casts."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from attrs import evolve

from equos_async import EquosClient, SessionFleet, SQLiteLedger
from equos_async.testing import EquosEmulator
from tests.conftest import REQUEST
from tests.typed import backend, batch, bot, service

PROGRAMS = [path for path in Path(__file__).parent.glob("[!_]*.py") if path != Path(__file__)]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_without_help(path: Path) -> None:
    """No cast, nothing that may be anything, and no complaint that is hushed up."""
    assert not re.search(r"\bcast\b|\bAny\b|ignore", path.read_text())


async def test_bot(emulator: EquosEmulator) -> None:
    """Its answers to each guild, by number."""
    assert await bot.main(emulator.endpoint) == {
        4711: ["come to wss://rtc.example.test", "bye, Gophers: stopped"],
        42: [
            "come to wss://rtc.example.test",
            "we are talking already",
            "bye, Hitchhikers: stopped",
        ],
    }


async def test_backend(emulator: EquosEmulator) -> None:
    """Two visitors have sessions, one of them asks twice, and the third has to wait."""
    async with TestClient(TestServer(backend.build(emulator.endpoint))) as http:
        answers = [await http.post(f"/{visitor}") for visitor in ("v-1", "v-1", "v-2", "v-3")]
        assert [answer.status for answer in answers] == [201, 409, 201, 503]
        assert await answers[1].text() == "v-1 is talking"
        assert int(answers[3].headers["Retry-After"]) > 0
        assert (await (await http.get("/")).json()).keys() == {"V-1", "V-2"}
    assert emulator.live_sessions == {}


async def test_batch(emulator: EquosEmulator) -> None:
    """Each call by its campaign and number."""
    assert await batch.main(emulator.endpoint) == {
        ("spring", number): "wss://rtc.example.test" for number in range(6)
    }


async def leave(endpoint: str, path: Path, key: str | int) -> None:
    """Start a session whose worker is gone at once."""
    async with EquosClient("key", endpoint=endpoint) as client, SQLiteLedger(path) as ledger:
        fleet: SessionFleet[str | int] = SessionFleet(client, ledger=ledger)
        async with fleet:
            await fleet.start(REQUEST, key=key)
            (row,) = await ledger.rows()
            started = await client.start_session(REQUEST)
        (end,) = fleet.report.stopped
        assert (end.key, type(end.key)) == (key, type(key))
        await ledger.renew("gone", lease=60)
        await ledger.record(evolve(row, owner="gone", session_id=started.session.id), seconds=60)
        await ledger.renew("gone", lease=0)


@pytest.mark.parametrize("room", [1, -5, 10**30])
async def test_service(emulator: EquosEmulator, tmp_path: Path, room: int) -> None:
    """A number in another worker's row is read as that number."""
    path = tmp_path / "rows"
    await leave(emulator.endpoint, path, room)
    bills = await service.main(emulator.endpoint, path, room)
    assert bills == {room + 1000: "tenant-42: reaped", 1007: "None: stopped"}
    assert emulator.live_sessions == {}


@pytest.mark.parametrize("key", [0, 1, "1", '"1"', "", "guild", '"', "01", "-0", "-5"])
async def test_keys_come_back(emulator: EquosEmulator, tmp_path: Path, key: str | int) -> None:
    """Reports have the keys in their original types, also on another worker."""
    path = tmp_path / "rows"
    await leave(emulator.endpoint, path, key)
    reaped: asyncio.Queue[str | int] = asyncio.Queue()
    async with (
        EquosClient("key", endpoint=emulator.endpoint) as client,
        SQLiteLedger(path) as ledger,
        SessionFleet[str | int](
            client, ledger=ledger, lease=0.5, on_end=lambda end: reaped.put_nowait(end.key)
        ),
    ):
        back = await reaped.get()
        assert (back, type(back)) == (key, type(key))
