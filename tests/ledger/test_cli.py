"""``sessions`` and ``reap`` of the command line, on both engines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from attrs import evolve

from equos_async import (
    CreateSessionPassRequest,
    EquosClient,
    LedgerError,
    LedgerRow,
    RedisLedger,
    SQLiteLedger,
)
from equos_async.cli import main
from equos_async.testing import EquosEmulator, Status
from tests.conftest import API_KEY, KEY
from tests.kinds import TALK
from tests.ledger.conftest import RedisServer


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, emulator: EquosEmulator) -> None:
    """The keys and the endpoint come from the environment."""
    monkeypatch.setenv("EQUOS_CLIENT_KEY", KEY)
    monkeypatch.setenv("EQUOS_API_KEY", API_KEY)
    monkeypatch.setenv("EQUOS_ENDPOINT", emulator.endpoint)


@pytest.fixture
def where(tmp_path: Path) -> str:
    """A ledger in a file, as the command line names it."""
    return f"sqlite:{tmp_path / 'ledger.db'}"


async def leave(
    ledger: SQLiteLedger | RedisLedger,
    emulator: EquosEmulator,
    request: CreateSessionPassRequest,
) -> str:
    """A worker that started one session, was about to start another, and died."""
    async with EquosClient(KEY, endpoint=emulator.endpoint) as client:
        started = await client.start_session(request)
    row = LedgerRow(id="dead/1", key="guild", name="call", owner="dead", endpoint=emulator.endpoint)
    async with ledger:
        await ledger.record(evolve(row, session_id=started.session.id), seconds=600)
        intent = evolve(row, id="dead/2", key="b\x1b[2J")
        await ledger.place(intent, seconds=600, limit=9, wait=False, lease=15)
        await ledger.renew("dead", lease=0)
    return started.session.id


async def command(*argv: str) -> int:
    """Run a command in a thread, since it brings an event loop of its own."""
    return await asyncio.to_thread(main, argv)


async def test_what_is_open_and_what_is_left(
    emulator: EquosEmulator,
    request_: CreateSessionPassRequest,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The list shows both, in words that no terminal obeys; reaping stops the one it can."""
    session_id = await leave(SQLiteLedger(where[7:]), emulator, request_)
    assert await command("sessions", "--ledger", where) == 0
    shown, count = capsys.readouterr()
    head, first, second = shown.splitlines()
    columns = "WORKER KEY NAME RESOURCE SESSION AGE REMAINING ROW"
    assert head.split() == columns.split()
    assert f"session   {session_id}  0 s  600 s" in first + second
    assert "starting" in first + second
    assert "\x1b" not in shown
    assert count == "2 open\n"

    assert await command("reap", "--wait=0", "--ledger", where) == 0
    shown, told = capsys.readouterr()
    assert told == ""
    assert f"stopped session {session_id} of 'guild' left by dead" in shown
    assert r"unresolved session (id unknown) of 'b\x1b[2J' left by dead: may run for 600 s" in shown
    assert shown.endswith("1 stopped\n")
    assert emulator.live_sessions == {}

    assert await command("sessions", "--ledger", where) == 0
    assert "nobody" in capsys.readouterr().out
    assert await command("reap", "--wait=0", "--ledger", where) == 0
    assert capsys.readouterr().out == "0 stopped\n"


async def test_a_conversation(
    emulator: EquosEmulator, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list names its resource, and it is stopped as a conversation."""
    async with EquosClient(api_key=API_KEY, endpoint=emulator.endpoint) as client:
        talk_id = (await client.start_conversation(TALK)).conversation.id
    row = LedgerRow(id="dead/1", key="guild", name="call", owner="dead", endpoint=emulator.endpoint)
    async with SQLiteLedger(where[7:]) as ledger:
        known = evolve(row, session_id=talk_id, resource="conversation")
        await ledger.record(known, seconds=600)
        await ledger.record(
            evolve(known, id="dead/2", key="b", session_id="t1", resource="tele\x1bpathy"),
            seconds=9,
        )
        await ledger.renew("dead", lease=0)
    assert await command("sessions", "--ledger", where) == 0
    assert f"conversation     {talk_id}" in capsys.readouterr().out
    assert await command("reap", "--wait=0", "--ledger", where) == 4
    shown = capsys.readouterr().out
    assert f"stopped conversation {talk_id} of 'guild' left by dead" in shown
    assert r"failed 'tele\x1bpathy' t1 of 'b' left by dead: this release knows no" in shown
    assert "\x1b" not in shown
    assert emulator.live == {}


async def test_as_json(
    emulator: EquosEmulator,
    request_: CreateSessionPassRequest,
    where: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both commands print JSON for programs."""
    session_id = await leave(SQLiteLedger(where[7:]), emulator, request_)
    monkeypatch.setenv("EQUOS_LEDGER", where)
    assert await command("sessions", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["session_id"] for row in listed} == {session_id, None}
    assert all(0 <= row["age"] < 60 < row["remaining"] for row in listed)
    assert await command("reap", "--wait=0", "--json") == 0
    reaped = json.loads(capsys.readouterr().out)
    assert {(one["session_id"], one["outcome"]) for one in reaped} == {
        (session_id, "stopped"),
        (None, "unresolved"),
    }


@pytest.mark.parametrize("marker", ["m1", "m2"])
async def test_a_start_that_was_lost(
    marker: str,
    emulator: EquosEmulator,
    request_: CreateSessionPassRequest,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its session is found and stopped; if there is none, the row loses its owner."""
    intent = LedgerRow(
        id="dead/1", key="a", name="call", owner="dead", endpoint=emulator.endpoint, marker="m1"
    )
    async with (
        SQLiteLedger(where[7:]) as ledger,
        EquosClient(KEY, endpoint=emulator.endpoint, settle=None) as client,
    ):
        await ledger.place(intent, seconds=600, limit=9, wait=False, lease=15)
        await ledger.renew("dead", lease=0)
        variables = {"equos_async_marker": f"{marker}.1"}
        started = await client.start_session(evolve(request_, template_vars=variables))
        assert await command("reap", "--ledger", where, "--wait", "0", "--deadline", "0.5") == 0
        assert [row.owner for row in await ledger.rows()] == [""] * (marker == "m2")
        await client.stop_session(started.session.id)
    found, lost = f"stopped session {started.session.id}", "unresolved session (id unknown)"
    told = found if marker == "m1" else lost
    assert f"{told} of 'a' left by dead" in capsys.readouterr().out


async def test_a_namespace_of_a_redis(
    emulator: EquosEmulator,
    request_: CreateSessionPassRequest,
    redis: RedisServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is a ledger of its own, for both commands."""
    session_id = await leave(RedisLedger(redis.url, namespace="mine"), emulator, request_)
    monkeypatch.setenv("EQUOS_LEDGER", redis.url)
    assert await command("sessions", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert await command("sessions", "--json", "--namespace=mine") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["session_id"] for row in listed} == {session_id, None}
    assert await command("reap", "--wait=0", "--json", "--namespace=mine") == 0
    reaped = json.loads(capsys.readouterr().out)
    assert (session_id, "stopped") in {(one["session_id"], one["outcome"]) for one in reaped}


async def test_a_stop_that_fails(
    emulator: EquosEmulator,
    request_: CreateSessionPassRequest,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is reported, and stays in the ledger for the next try."""
    session_id = await leave(SQLiteLedger(where[7:]), emulator, request_)
    emulator.faults.stop.add(Status(401))
    assert await command("reap", "--wait=0", "--ledger", where) == 4
    assert f"failed session {session_id}" in capsys.readouterr().out
    assert await command("reap", "--wait=0", "--ledger", where) == 0
    assert emulator.live_sessions == {}


async def test_those_that_come_back(
    emulator: EquosEmulator,
    request_: CreateSessionPassRequest,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After an outage of the engine a living worker keeps its sessions, and a dead one does not."""
    session_id = await leave(SQLiteLedger(where[7:]), emulator, request_)
    async with SQLiteLedger(where[7:]) as ledger:
        alive = LedgerRow(id="w/1", key="x", name="x", owner="w", endpoint=emulator.endpoint)
        await ledger.record(evolve(alive, session_id="s9"), seconds=600)
        await ledger.renew("w", lease=0.2)
        await asyncio.sleep(0.3)
        reaping = asyncio.create_task(command("reap", "--wait=0.8", "--ledger", where))
        while not reaping.done():
            await ledger.renew("w", lease=0.8)
            await asyncio.sleep(0.05)
        assert await reaping == 0
        assert [row.id for row in await ledger.rows() if row.session_id] == ["w/1"]
    shown, told = capsys.readouterr()
    assert f"stopped session {session_id}" in shown
    first, last = told.splitlines()
    assert first == "searching for stalled workers for 0.8 s"
    assert last.startswith("1 more in the ledger: the leases")


async def test_what_was_done_is_told(
    emulator: EquosEmulator,
    request_: CreateSessionPassRequest,
    where: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine that fails in the middle takes nothing from the report."""
    session_id = await leave(SQLiteLedger(where[7:]), emulator, request_)

    async def fail(*_: object, **__: object) -> None:
        raise LedgerError("the engine is down")

    monkeypatch.setattr(SQLiteLedger, "renew", fail)
    assert await command("reap", "--wait=0", "--ledger", where) == 4
    told = capsys.readouterr()
    assert f"stopped session {session_id}" in told.out
    assert "the engine is down" in told.err


async def test_a_row_that_stays(
    emulator: EquosEmulator,
    request_: CreateSessionPassRequest,
    where: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session that is stopped is, though its row could not be removed: the next one does it."""
    session_id = await leave(SQLiteLedger(where[7:]), emulator, request_)

    async def fail(*_: object, **__: object) -> None:
        raise LedgerError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(SQLiteLedger, "remove", fail)
        assert await command("reap", "--wait=0", "--ledger", where) == 0
    assert f"stopped session {session_id}" in capsys.readouterr().out
    async with SQLiteLedger(where[7:]) as ledger:
        assert session_id in {row.session_id for row in await ledger.rows()}
        assert await command("reap", "--wait=0", "--ledger", where) == 0
        assert session_id not in {row.session_id for row in await ledger.rows()}


async def test_no_time_to_wait(capsys: pytest.CaptureFixture[str]) -> None:
    """Anything but a number of seconds is wrong usage."""
    assert await command("reap", "--wait=-1", "--ledger=sqlite:x") == 2
    assert "--wait must be a finite number" in capsys.readouterr().err


_SCHEMES = "--ledger must begin with redis://, rediss://, unix:// or sqlite:"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "--ledger is missing"),
        (["--ledger", "sqlite:/nowhere/at/all.db"], "there is no file /nowhere/at/all.db"),
        (["--ledger", "postgres://x"], _SCHEMES),
        (["--ledger", "/path/to.db"], _SCHEMES),
    ],
)
async def test_no_ledger(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A text that names no ledger is wrong usage."""
    assert await command("sessions", *options) == 2
    assert told in capsys.readouterr().err


async def test_a_ledger_that_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    """The message does not contain the password."""
    assert await command("sessions", "--ledger", "redis://:hunter2@127.0.0.1:1") == 4
    told = capsys.readouterr().err
    assert told.startswith("LedgerError: Redis: ")
    assert "hunter2" not in told
