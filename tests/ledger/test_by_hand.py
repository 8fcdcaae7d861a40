"""``stop --key``, ``forget`` and ``sessions --watch``, as programs and on both engines."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
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
from equos_async.cli import listing, main
from equos_async.ledger.protocol import LedgerWorker
from equos_async.testing import EquosEmulator
from tests.conftest import KEY
from tests.ledger.conftest import RedisServer

PIPE = asyncio.subprocess.PIPE
ELSEWHERE = "http://elsewhere.example"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, emulator: EquosEmulator, where: str) -> None:
    """The key, the endpoint and the ledger come from the environment."""
    monkeypatch.setenv("EQUOS_CLIENT_KEY", KEY)
    monkeypatch.setenv("EQUOS_ENDPOINT", emulator.endpoint)
    monkeypatch.setenv("EQUOS_LEDGER", where)
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("LINES", "9")


@pytest.fixture
def where(tmp_path: Path) -> str:
    """A ledger in a file, as the command line names it."""
    return f"sqlite:{tmp_path / 'ledger.db'}"


@pytest.fixture
async def ledger(where: str) -> AsyncIterator[SQLiteLedger]:
    """That file, as a worker has it."""
    async with SQLiteLedger(where[7:]) as opened:
        yield opened


@pytest.fixture
async def row(
    emulator: EquosEmulator, ledger: SQLiteLedger, request_: CreateSessionPassRequest
) -> LedgerRow:
    """A session of a living worker."""
    async with EquosClient(KEY, endpoint=emulator.endpoint) as client:
        started = await client.start_session(request_)
    own = LedgerRow(id="w/1", key="guild", name="call", owner="w", endpoint=emulator.endpoint)
    own = evolve(own, session_id=started.session.id)
    await ledger.record(own, seconds=600)
    await ledger.renew("w", lease=60)
    return own


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[list[LedgerWorker] | LedgerError]:
    """A ledger whose workers are given for each look of a watch, until Ctrl-C."""
    told: list[list[LedgerWorker] | LedgerError] = []

    async def workers(_: SQLiteLedger) -> list[LedgerWorker]:
        if not told:
            raise KeyboardInterrupt
        one = told.pop(0)
        if isinstance(one, LedgerError):
            raise one
        return one

    monkeypatch.setattr(SQLiteLedger, "workers", workers)
    monkeypatch.setattr(listing, "EVERY", 0.01)
    return told


async def begin(*argv: str, stderr: int = PIPE) -> asyncio.subprocess.Process:
    """Start the command as a program."""
    words = (sys.executable, "-m", "equos_async", *argv)
    return await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=stderr)


async def run(*argv: str) -> tuple[int | None, str, str]:
    """Run the command as a program: its exit code, output and errors."""
    process = await begin(*argv)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def command(*argv: str) -> int:
    """Run a command in a thread, since it brings an event loop of its own."""
    return await asyncio.to_thread(main, argv)


class TestStop:
    async def test_what_a_living_worker_has(
        self, emulator: EquosEmulator, ledger: SQLiteLedger, row: LedgerRow
    ) -> None:
        """It ends, its worker learns of it, and a second stop finds nothing."""
        code, out, err = await run("stop", "--key=guild", "--deadline=20")
        assert (code, err) == (0, "")
        assert out == f"stopped session {row.session_id} of 'guild' held by w\n1 stopped\n"
        assert emulator.live_sessions == {}
        assert await ledger.renew("w", lease=60) == {}
        assert await ledger.record(row, seconds=600) == ""
        await ledger.remove(row.id, worker="w")
        assert await run("stop", "--key=guild") == (0, "0 stopped\n", "")

    async def test_as_json(self, row: LedgerRow, capsys: pytest.CaptureFixture[str]) -> None:
        """It prints what ``reap`` prints."""
        assert await command("stop", "--key=guild", "--json") == 0
        (one,) = json.loads(capsys.readouterr().out)
        assert (one["session_id"], one["worker"], one["outcome"]) == (
            row.session_id,
            "w",
            "stopped",
        )

    async def test_a_start_of_unknown_outcome(
        self, ledger: SQLiteLedger, row: LedgerRow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its session cannot be stopped: a line has the row's id."""
        intent = evolve(row, id="dead/2", owner="dead", key="lost", session_id=None)
        await ledger.place(intent, seconds=600, limit=9, wait=False, lease=60)
        await ledger.renew("dead", lease=0)
        await ledger.claim("w", endpoint=row.endpoint, lease=60, at_once=True)
        assert await command("stop", "--key=lost") == 0
        out, err = capsys.readouterr()
        assert out == "0 stopped\n"
        assert err.startswith("left in the ledger: session (id unknown) of 'lost' at http://")
        assert err.endswith(" s, row dead/2\n")

    async def test_another_endpoint(
        self, ledger: SQLiteLedger, row: LedgerRow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A session of another endpoint stays, and the exit code says so."""
        await ledger.record(evolve(row, endpoint=ELSEWHERE), seconds=600)
        assert await command("stop", "--key=guild") == 4
        out, err = capsys.readouterr()
        assert out == "0 stopped\n"
        assert f"is at {ELSEWHERE}, which this client does not reach" in err
        assert len(await ledger.rows()) == 1

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ([], "pass either ID, or --ledger and --key"),
            (["ID", "--key=guild"], "pass either ID, or --ledger and --key"),
            (["ID", "--ledger=sqlite:x"], "--ledger needs --key"),
            (["--key=guild", "--conversation"], "--conversation goes with an ID"),
            (["--key=guild", "--ledger=x"], "--ledger must begin with"),
        ],
    )
    async def test_wrong_usage(
        self, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A stop of both an id and a key, or of neither, is wrong usage."""
        assert await command("stop", *options) == 2
        assert told in capsys.readouterr().err


class TestForget:
    async def test_a_row_that_nobody_may_end(self, ledger: SQLiteLedger, row: LedgerRow) -> None:
        """It is removed, and its session is printed; a second time it is not found."""
        await ledger.record(evolve(row, endpoint=ELSEWHERE, key="b\x1b[2J"), seconds=590)
        code, out, err = await run("forget", "w/1")
        assert (code, err) == (0, "")
        what = f"session {row.session_id} of 'b\\x1b[2J' at {ELSEWHERE}"
        assert out.startswith(f"row w/1 is forgotten: {what} may run for 5")
        assert await ledger.rows() == []
        assert await ledger.record(row, seconds=600) == ""  # its worker lets go
        await ledger.remove("w/1", worker="w")
        assert await run("forget", "w/1") == (0, "row w/1 is not in the ledger\n", "")

    async def test_as_json(self, row: LedgerRow, capsys: pytest.CaptureFixture[str]) -> None:
        """The row, or null; nothing is stopped."""
        assert await command("forget", row.id, "--json") == 0
        forgotten = json.loads(capsys.readouterr().out)
        assert forgotten["session_id"] == row.session_id
        assert 599 < forgotten["remaining"] <= 600
        assert await command("forget", row.id, "--json") == 0
        assert json.loads(capsys.readouterr().out) is None

    async def test_what_cannot_be_read(
        self, where: str, row: LedgerRow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A row of nonsense is not listed, and can be forgotten by its id."""
        with closing(sqlite3.connect(where[7:])) as db, db:
            db.execute("UPDATE rows SET started = 'nonsense'")
        assert await command("sessions", "--json") == 0
        assert json.loads(capsys.readouterr().out) == []
        assert await command("forget", row.id) == 0
        assert capsys.readouterr().out == "row w/1 is forgotten; it could not be read\n"
        assert await command("forget", row.id) == 0
        assert capsys.readouterr().out == "row w/1 is not in the ledger\n"

    async def test_in_words(self, row: LedgerRow, capsys: pytest.CaptureFixture[str]) -> None:
        """The same, for people."""
        assert await command("forget", row.id) == 0
        assert capsys.readouterr().out.startswith("row w/1 is forgotten: session ")
        assert await command("forget", row.id) == 0
        assert capsys.readouterr().out == "row w/1 is not in the ledger\n"


class TestWatch:
    async def test_until_ctrl_c(self, ledger: SQLiteLedger, row: LedgerRow) -> None:
        """A pipe gets one text after the other: sessions, queue and workers."""
        await ledger.place(
            evolve(row, id="v/1", key="x", owner="v"), seconds=600, limit=1, wait=True, lease=60
        )
        await ledger.record(evolve(row, id="u/1", key="y", owner="u\x1b"), seconds=600)
        process = await begin("sessions", "--watch")
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode().rstrip() for _ in range(12)]
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert (process.returncode, err) == (130, b"")
        assert lines[0][8:] == "  2 open, 1 waiting, 3 workers"
        assert lines[2].split() == ["WORKER", "OPEN", "WAITING", "LEASE"]
        assert [line.split()[:3] for line in lines[3:6]] == [
            [r"'u\x1b'", "1", "0"],
            ["v", "0", "1"],
            ["w", "1", "0"],
        ]
        assert lines[3].endswith("stalled")
        assert lines[5].endswith(" s")
        assert lines[7].split()[-1] == "ROW"
        assert lines[8].endswith("u/1")
        assert lines[9].endswith("w/1")
        assert lines[11].endswith("  2 open, 1 waiting, 3 workers")  # the next look

    async def test_a_terminal(self, ledger: SQLiteLedger, row: LedgerRow) -> None:
        """It is redrawn each second, and does not scroll."""
        for number in range(20):
            await ledger.record(evolve(row, id=f"w/{number}", name="n" * 99), seconds=600)
        mine, its = pty.openpty()
        words = (sys.executable, "-m", "equos_async", "sessions", "--watch")
        process = await asyncio.create_subprocess_exec(*words, stdout=its)
        os.close(its)
        shown = ""
        while shown.count("\x1b[H\x1b[2J") < 2:
            shown += (await asyncio.to_thread(os.read, mine, 9999)).decode()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        os.close(mine)
        lines = shown.split("\x1b[H\x1b[2J")[1].splitlines()
        assert len(lines) == 7
        assert max(map(len, lines)) <= 70
        assert lines[-1] == "... 20 more lines"

    @pytest.mark.parametrize("height", [99, 6])
    async def test_the_height_of_a_terminal(
        self,
        height: int,
        row: LedgerRow,
        looks: list[list[LedgerWorker] | LedgerError],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Lines that do not fit are counted."""
        looks.append([LedgerWorker("v", 9, 0), LedgerWorker("w", -1, 2)])
        monkeypatch.setenv("LINES", str(height))
        monkeypatch.setenv("COLUMNS", "999")
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        assert await command("sessions", "--watch") == 130
        shown = capsys.readouterr().out
        assert shown.startswith("\x1b[H\x1b[2J")
        lines = shown.splitlines()
        assert lines[0].endswith("  1 open, 1 waiting, 2 workers")
        assert lines[-1].endswith("w/1" if height == 99 else "... 5 more lines")
        assert len(lines) == min(8, height - 2)

    @pytest.mark.parametrize("option", [(), ("--json",)])
    async def test_a_ledger_that_fails_for_a_while(
        self,
        option: tuple[str, ...],
        row: LedgerRow,
        looks: list[list[LedgerWorker] | LedgerError],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The failure is shown, and then what there is again; Ctrl-C ends it."""
        looks += [[], LedgerError("it\x1b is down"), []]
        assert await command("sessions", "--watch", *option) == 130
        out, err = capsys.readouterr()
        assert err == ""
        if option:
            first, failed, last = map(json.loads, out.splitlines())
            assert failed == {"error": "it\x1b is down"}
            assert [one["id"] for one in first["sessions"]] == [row.id]
            assert last["workers"] == []
        else:
            assert r"  LedgerError: 'it\x1b is down'" in out
            assert out.count("1 open, 0 waiting, 0 workers") == 2

    async def test_a_ledger_that_never_worked(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It is an error at once, as without the option."""
        assert await command("sessions", "--watch", "--ledger=redis://127.0.0.1:1") == 4
        assert capsys.readouterr().err.startswith("LedgerError: ")

    async def test_as_json(self, row: LedgerRow) -> None:
        """Each second one line, with workers as they are counted."""
        process = await begin("sessions", "--watch", "--json")
        assert process.stdout is not None
        look = json.loads(await process.stdout.readline())
        process.terminate()
        await process.communicate()
        assert process.returncode == 143
        assert [one["session_id"] for one in look["sessions"]] == [row.session_id]
        (worker,) = look["workers"]
        assert 0 < worker.pop("lease_left") <= 60
        assert worker == {"id": "w", "open": 1, "waiting": 0}


@pytest.mark.parametrize("is_redis", [False, True])
async def test_the_workers_of_an_engine(
    is_redis: bool, where: str, row: LedgerRow, request: pytest.FixtureRequest
) -> None:
    """They are listed in order, with the numbers of their rows and their starts in the queue."""
    redis: RedisServer | None = request.getfixturevalue("redis") if is_redis else None
    async with RedisLedger(redis.url) if redis else SQLiteLedger(where[7:]) as ledger:
        await ledger.record(row, seconds=600)
        await ledger.renew("w", lease=60)
        for number in range(2):
            turn = evolve(row, id=f"w/q{number}", key=f"q{number}", session_id=None)
            await ledger.place(turn, seconds=600, limit=1, wait=True, lease=60)
        await ledger.renew("a", lease=0)
        first, second = await ledger.workers()
    assert (first.id, first.held, second.id, second.held) == ("a", 0, "w", 3)
    assert -5 < first.lease_left <= 0 < second.lease_left <= 60


def test_nobody_is_there_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the errors go to the closed pipe, too, nothing more is said."""
    discarded: list[object] = []

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    for module in ("cli", "cli.output"):
        monkeypatch.setattr(f"equos_async.{module}.print", closed, raising=False)
    monkeypatch.setattr("equos_async.cli.output.discard", discarded.append)  # they are pytest's
    assert main(["completion", "bash"]) == 141
    assert discarded == [sys.stdout, sys.stderr]


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "stop --help",
        "completion bash",
        "sessions",
        "sessions --watch",
        "stop --key=guild",
        "forget w/1",
        "reap --wait=0",
    ],
)
@pytest.mark.parametrize("is_one", [False, True])
async def test_a_closed_pipe(words: str, is_one: bool, row: LedgerRow) -> None:
    """As of ``| head -1`` and ``2>&1 | head -1``: no traceback, and the code that shells have."""
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "equos_async", *words.split()),
        stdout=writing,
        stderr=writing if is_one else PIPE,
    )
    os.close(writing)
    _, err = await process.communicate()
    assert process.returncode == 141
    if not is_one:
        told = err.decode().splitlines()
        assert told[-1] == "the output was closed before all of it was written"
        assert len(told) <= 2
