"""A worker with a name ends what its dead predecessor left, and nothing of the living."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from equos_async import (
    ClientClosedError,
    ConfigurationError,
    EquosClient,
    KeyInUseError,
    LedgerError,
    RedisLedger,
    SessionEnd,
    SessionFleet,
    SQLiteLedger,
)
from equos_async.cli.ledger import open_ledger
from equos_async.fleet._names import PROC, checked, is_dead, name_of, new_id, own_process
from equos_async.ledger.protocol import LedgerRow
from equos_async.testing import EquosEmulator
from tests.clocks import eventually, settle
from tests.fleet.support import REQUEST, MemoryLedger, ScriptedClient
from tests.ledger.conftest import RedisServer
from tests.unit.test_bad_input import Word


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger."""
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis")
        return redis.url
    (tmp_path / "ledger.db").touch()
    return f"sqlite:{tmp_path / 'ledger.db'}"


@pytest.fixture
async def ledger(where: str) -> AsyncIterator[SQLiteLedger | RedisLedger]:
    """This process's view of it."""
    async with open_ledger(where, "equos") as one:
        yield one


@contextmanager
def process(
    where: str, emulator: EquosEmulator, *, lease: float = 60.0
) -> Generator[subprocess.Popen[bytes]]:
    """Another process with three sessions, whose worker is called "bot"."""
    one = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.ledger.worker", "--name", "w", "--worker", "bot"),
            *("--endpoint", emulator.endpoint, "--ledger", where, "--sessions", "3"),
            *("--limit", "3", "--lease", str(lease), "--hold", "500"),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield one
    finally:
        one.kill()
        one.wait()


async def live_sessions(ledger: SQLiteLedger | RedisLedger) -> None:
    """Wait until those of the other process are written down."""
    async with asyncio.timeout(60):
        while [row.session_id is not None for row in await ledger.rows()] != [True] * 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def client_of(emulator: EquosEmulator) -> EquosClient:
    """A client that reaches all of its sessions."""
    return EquosClient("any-key", api_key="any", endpoint=emulator.endpoint, settle=None)


@pytest.mark.parametrize("is_reaped", [True, False])
async def test_a_killed_process(
    where: str, ledger: SQLiteLedger | RedisLedger, *, is_reaped: bool
) -> None:
    """Its sessions are ended at once, also while its parent has not asked how it ended."""
    ends: list[SessionEnd] = []
    how = os.WEXITED | (0 if is_reaped else os.WNOWAIT)
    async with AsyncExitStack() as stack:
        emulator = stack.enter_context(EquosEmulator())
        other = stack.enter_context(process(where, emulator))
        client = await stack.enter_async_context(client_of(emulator))
        await live_sessions(ledger)
        other.kill()
        await asyncio.to_thread(os.waitid, os.P_PID, other.pid, how)
        fleet = SessionFleet(client, max_live=3, ledger=ledger, worker="bot", on_end=ends.append)
        async with fleet, asyncio.timeout(30):
            assert fleet.worker == "bot"
            live = await fleet.start(REQUEST, key="w/0")
            await eventually(lambda: len(ends) == 3)
            assert set(emulator.live) == {live.session_id}
        assert {(end.outcome, end.reason) for end in ends[:3]} == {("reaped", "left by worker bot")}
        assert await ledger.rows() == []


async def test_a_living_process(where: str, ledger: SQLiteLedger | RedisLedger) -> None:
    """Its name is refused, and its sessions run on; when it has ended the name is free."""
    async with AsyncExitStack() as stack:
        emulator = stack.enter_context(EquosEmulator())
        other = stack.enter_context(process(where, emulator, lease=3))
        client = await stack.enter_async_context(client_of(emulator))
        await live_sessions(ledger)
        fleet = SessionFleet(client, ledger=ledger, worker="bot", lease=3)
        with pytest.raises(ConfigurationError, match="'bot' is taken: its worker bot#.* is alive"):
            await fleet.open()
        assert not fleet.accepting
        assert len(emulator.live) == 3
        assert emulator.ended_count == 0
        other.send_signal(signal.SIGTERM)
        await asyncio.to_thread(other.wait)
        await fleet.open()
        assert (await fleet.aclose()).left == ()


@asynccontextmanager
async def elsewhere(
    ledger: SQLiteLedger | RedisLedger, endpoint: str, *, lease: float
) -> AsyncGenerator[None]:
    """A worker on another machine, with a session."""
    told = json.dumps({**json.loads(own_process()), "boot": "another"})
    assert await ledger.enlist("bot#1", name="bot", process=told, lease=lease) is None
    row = LedgerRow(id="1", key="a", name="a", owner="bot#1", endpoint=endpoint, session_id="s9")
    assert await ledger.record(row, seconds=600) == "bot#1"
    yield


async def test_one_that_is_silent(
    ledger: SQLiteLedger | RedisLedger, scripted: ScriptedClient
) -> None:
    """Where its death cannot be proved, its lease has to be over."""
    fleet = SessionFleet(scripted, ledger=ledger, worker="bot", lease=0.6)
    async with elsewhere(ledger, scripted.endpoint, lease=0.6):
        opening = asyncio.create_task(fleet.open())
        await settle()
        with pytest.raises(ConfigurationError, match="entered already"):
            await fleet.open()
        with pytest.raises(ConfigurationError, match="not open"):
            await fleet.start(REQUEST, key="b")
        assert not opening.done()
        await asyncio.wait_for(opening, 60)
        await eventually(lambda: scripted.stopped == ["s9"])
        await fleet.aclose()


async def test_one_that_is_heard_of(
    ledger: SQLiteLedger | RedisLedger, scripted: ScriptedClient
) -> None:
    """It lives: nothing is ended."""
    fleet = SessionFleet(scripted, ledger=ledger, worker="bot", lease=3)
    async with elsewhere(ledger, scripted.endpoint, lease=3):
        opening = asyncio.create_task(fleet.open())
        while not opening.done():  # before and after it is looked at for the first time
            await ledger.renew("bot#1", lease=3)
        with pytest.raises(ConfigurationError, match="taken"):
            await opening
        assert scripted.stopped == []


async def test_closed_meanwhile(
    ledger: SQLiteLedger | RedisLedger, scripted: ScriptedClient
) -> None:
    """A fleet that is closed while it waits for its name is not opened."""
    fleet = SessionFleet(scripted, ledger=ledger, worker="bot", lease=0.3)
    async with elsewhere(ledger, scripted.endpoint, lease=0.3):
        opening = asyncio.create_task(fleet.open())
        await settle()
        await fleet.aclose()
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(opening, 60)


async def test_two_at_once(ledger: SQLiteLedger | RedisLedger, scripted: ScriptedClient) -> None:
    """A name belongs to one fleet within a process, too; errors name the holder by it."""
    one = SessionFleet(scripted, ledger=ledger, worker="one")
    async with one, SessionFleet(scripted, ledger=ledger, worker="two", lease=0.9) as two:
        with pytest.raises(ConfigurationError, match="'two' is taken"):
            await SessionFleet(scripted, ledger=ledger, worker="two", lease=0.9).open()
        await one.start(REQUEST, key="a")
        for fleet in (one, two):
            with pytest.raises(KeyInUseError, match="already has a session") as taken:
                await fleet.start(REQUEST, key="a")
            assert taken.value.holder == "one"


async def test_without_the_engine(tmp_path: Path, scripted: ScriptedClient) -> None:
    """A fleet that needs its ledger is not opened; another one has its name later."""
    ledger = SQLiteLedger(tmp_path / "no such directory" / "ledger.db")
    with pytest.raises(LedgerError):
        await SessionFleet(scripted, ledger=ledger, worker="bot").open()
    async with SessionFleet(scripted, ledger=ledger, worker="bot", ledger_required=False) as fleet:
        await fleet.start(REQUEST, key="a")
    assert scripted.stopped == ["s1"]


def test_a_name_from_an_enum() -> None:
    """It is the string, not the name of the enum's member."""
    assert name_of(new_id(checked(Word.NAME))) == "name"


@pytest.mark.parametrize("name", ["", ".", ".bot", "a\0b", "a\nb", "\x1b[2J", 5])
async def test_wrong_names(scripted: ScriptedClient, tmp_path: Path, name: str) -> None:
    """Refused before anything is done, and without a ledger, too."""
    for ledger in (SQLiteLedger(tmp_path / "ledger.db"), None):
        with pytest.raises(ConfigurationError, match="worker must"):
            SessionFleet(scripted, ledger=ledger, worker=name)


async def test_an_engine_that_knows_no_names(scripted: ScriptedClient) -> None:
    """It cannot be had."""
    with pytest.raises(ConfigurationError, match="NamedLedger"):
        SessionFleet(scripted, ledger=MemoryLedger(), worker="bot")


def test_what_proves_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process id that is free, or that another process has now; nothing else."""
    me = own_process()
    told = json.loads(me)
    assert not is_dead(me)
    assert is_dead(json.dumps({**told, "started": "1"})), "its number is another one's now"
    gone = json.dumps({**told, "pid": 2**22 + 1})  # above what Linux gives
    assert is_dead(gone)
    for changed in ({"host": "b"}, {"boot": "b"}, {"namespace": "pid:[1]"}, {"pid": -1}):
        assert not is_dead(json.dumps({**told, "pid": 2**22 + 1, **changed}))
    for nonsense in ("", "{}", "[]", "5", "null", '{"pid": {}}'):
        assert not is_dead(nonsense)
    nothing = own_process(tmp_path)
    assert json.loads(nothing)["started"] is None
    assert not is_dead(nothing, tmp_path), "this system tells nothing"
    assert not is_dead(nothing, PROC)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not is_dead(gone), "it is another user's"


def test_a_process_that_is_hidden(tmp_path: Path) -> None:
    """One that is there, and of which the system tells nothing, is not dead."""
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("boot\n")
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").symlink_to("pid:[1]")
    (tmp_path / str(os.getpid())).mkdir()
    stat = tmp_path / str(os.getpid()) / "stat"
    stat.write_text(f"1 (a) b) S {' '.join('0' * 18)} 77 0")
    told = own_process(tmp_path)
    assert json.loads(told)["started"] == "77"
    assert not is_dead(told, tmp_path)
    stat.write_text(f"1 (a) b) Z {' '.join('0' * 18)} 77 0")
    assert is_dead(told, tmp_path)
    stat.write_text("nonsense")
    assert not is_dead(told, tmp_path)
    stat.unlink()
    assert not is_dead(told, tmp_path)
