"""A ledger's file is left to a process that holds it up, and all others go on in a copy."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from equos_async import LedgerError, SQLiteLedger
from equos_async.ledger.sqlite_file import MOST_LOG, TOO_LARGE
from equos_async.ledger.sqlite_move import STUCK, move
from equos_async.testing.ledger_contract import claim, ids, live, place, row

WRITES = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("INSERT INTO workers VALUES ('frozen', 1e12)")
print("writes", flush=True)
sys.stdin.read(1)
db.execute("COMMIT")
"""


def long_ago(path: Path) -> None:
    """Let the last write to a file be so long ago that its writer is taken to be stopped."""
    log = Path(f"{path.resolve()}-wal")
    then = time.time() - STUCK - 1
    os.utime(log, (then, then))


def log_size(folder: Path) -> int:
    """Bytes of the logs of all files in a folder."""
    return sum(one.stat().st_size for one in folder.glob("*-wal"))


def freeze_in_a_write(path: Path) -> subprocess.Popen[bytes]:
    """A process that is stopped while it writes; it goes on with what it reads then."""
    frozen = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert frozen.stdout is not None
    frozen.stdout.readline()
    frozen.send_signal(signal.SIGSTOP)
    return frozen


@contextmanager
def lock(path: Path) -> Generator[sqlite3.Connection]:
    """Keep the lock of a file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db


def connect_with(hook: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call something with each statement of the next connection that is opened."""
    connect = sqlite3.connect

    def traced(*args: Any, **settings: Any) -> sqlite3.Connection:
        monkeypatch.setattr(sqlite3, "connect", connect)
        db: sqlite3.Connection = connect(*args, **settings)
        db.set_trace_callback(hook)
        return db

    monkeypatch.setattr(sqlite3, "connect", traced)


class TestStopped:
    """A process that stands still while it writes."""

    async def test_a_stopped_process(self, tmp_path: Path) -> None:
        """It blocks the others for seconds; what it wrote counts for nothing when it goes on."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path, timeout=0.1) as ledger:
            await live(ledger, row("a"), "s1")
            began = time.monotonic()
            with freeze_in_a_write(path) as frozen:
                placed = None
                while placed is None:
                    with suppress(LedgerError):
                        placed = await place(ledger, row("b", "worker-2"), limit=2, wait=False)
                assert placed
                assert STUCK - 1 < time.monotonic() - began < STUCK + 30
                frozen.send_signal(signal.SIGCONT)
                frozen.communicate(b"\n")
                assert frozen.returncode == 0
            assert not await place(ledger, row("c", "worker-2"), limit=2, wait=False)
            assert await ids(ledger) == ["worker-1/a", "worker-2/b"]
            with closing(sqlite3.connect(path)) as db:
                assert ("frozen",) not in db.execute("SELECT owner FROM workers").fetchall()

    async def test_all_follow_and_nothing_is_left(self, tmp_path: Path) -> None:
        """Again and again; the path keeps its rights, and leads to the newest copy."""
        path = tmp_path / "data" / "ledger.db"
        path.parent.mkdir()
        alias = tmp_path / "alias.db"
        alias.symlink_to(path)
        async with SQLiteLedger(alias, timeout=0.1) as mine, SQLiteLedger(path) as other:
            await live(mine, row("a"), "s1")
            path.chmod(0o640)
            for n in range(1, 4):
                with lock(path):
                    long_ago(path)
                    assert await place(mine, row(f"{n}"), wait=False, limit=5)
                assert await place(other, row(f"{n}", "worker-1"), wait=False, limit=5)
                names = {one.name for one in path.parent.iterdir()}
                newest = f"ledger.db.{n}"
                assert names == {"ledger.db", newest, f"{newest}-wal", f"{newest}-shm"}
                assert stat.S_IMODE(path.stat().st_mode) == 0o640
            assert len(await other.rows()) == 4
            assert alias.readlink() == path

    async def test_who_writes_in_vain_learns_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that is stopped before its commit has not placed what it tried to place."""
        path, stands, goes_on = tmp_path / "ledger.db", threading.Event(), threading.Event()

        def stop(statement: str) -> None:
            if statement == "COMMIT" and armed.is_set():
                stands.set()
                goes_on.wait(60)

        armed = threading.Event()
        connect_with(stop, monkeypatch)
        async with SQLiteLedger(path) as frozen, SQLiteLedger(path, timeout=0.1) as ledger:
            await live(frozen, row("a"), "s1")
            armed.set()
            step = asyncio.ensure_future(place(frozen, row("b"), limit=2, wait=False))
            await asyncio.to_thread(stands.wait, 60)
            await ledger.rows()
            long_ago(path)
            assert await place(ledger, row("c", "worker-2"), limit=2, wait=False)
            goes_on.set()
            with pytest.raises(LedgerError, match="moved"):
                await step
            assert not await place(frozen, row("b"), limit=2, wait=False)
            assert await ids(frozen) == ["worker-1/a", "worker-2/c"]

    async def test_who_goes_on_in_that_moment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker whose write reached only the old file writes again before others get slots."""
        path, armed = tmp_path / "ledger.db", threading.Event()
        async with SQLiteLedger(path) as ledger:
            await live(ledger, row("a"), "s1")
        frozen = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

        def go_on(statement: str) -> None:
            if statement == "COMMIT" and armed.is_set():
                armed.clear()
                frozen.execute("COMMIT")

        connect_with(go_on, monkeypatch)
        async with SQLiteLedger(path, timeout=0.1) as ledger:
            await ledger.rows()
            frozen.execute("BEGIN IMMEDIATE")
            frozen.execute("DELETE FROM rows")
            long_ago(path)
            armed.set()
            asked = await ledger.place(row("b"), seconds=9, limit=5, wait=False, lease=0.2)
            assert asked.recovers_in > 0
            assert await ids(ledger) == ["worker-1/a"]
            await asyncio.sleep(0.25)
            assert await place(ledger, row("b"), limit=5, wait=False)
        frozen.close()

    async def test_those_that_wait_for_the_lock(self, tmp_path: Path) -> None:
        """They go on in the copy, too, when they get the lock of the old file."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path, timeout=10) as mine, SQLiteLedger(path, timeout=0.1) as other:
            await live(mine, row("a"), "s1")
            await other.rows()
            with lock(path):
                waits = asyncio.ensure_future(place(mine, row("b"), limit=3, wait=False))
                await asyncio.sleep(0.05)
                long_ago(path)
                assert await place(other, row("c", "worker-2"), limit=3, wait=False)
            assert await waits
            assert await ids(other) == ["worker-1/a", "worker-2/c", "worker-1/b"]

    async def test_two_would_move_it(self, tmp_path: Path) -> None:
        """The second process finds that the file was moved."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path, timeout=0.1) as ledger:
            await live(ledger, row("a"), "s1")
            with lock(path), closing(sqlite3.connect(path, isolation_level=None)) as second:
                long_ago(path)
                assert await place(ledger, row("b"), limit=2)
                move(str(path), second, "BEGIN")
            assert str(path.readlink()) == "ledger.db.1"

    async def test_it_is_moved_while_it_is_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Which of both was opened is not known: it is opened again."""
        path, connect = tmp_path / "ledger.db", sqlite3.connect
        async with SQLiteLedger(path) as ledger:
            await live(ledger, row("a"), "s1")

        def replaced(*args: Any, **settings: Any) -> sqlite3.Connection:
            monkeypatch.setattr(sqlite3, "connect", connect)
            shutil.copy(path, tmp_path / "copy.db")
            opened: sqlite3.Connection = connect(*args, **settings)
            (tmp_path / "copy.db").replace(path)
            return opened

        monkeypatch.setattr(sqlite3, "connect", replaced)
        async with SQLiteLedger(path) as ledger, SQLiteLedger(path) as other:
            await ledger.record(row("b", session_id="s2"), seconds=600)
            assert await ids(other) == ["worker-1/a", "worker-1/b"]

    @pytest.mark.parametrize("how", ["another moves it", "no links", "no locks"])
    async def test_where_it_cannot_be_moved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """The step fails as it would have."""
        path = tmp_path / "ledger.db"
        folder = os.open(tmp_path, os.O_RDONLY)
        async with SQLiteLedger(path, timeout=0.1) as ledger:
            await live(ledger, row("a"), "s1")
            with monkeypatch.context() as patched, lock(path):
                if how == "another moves it":
                    fcntl.flock(folder, fcntl.LOCK_EX)
                elif how == "no links":
                    patched.setattr(os, "symlink", no_links)
                else:
                    patched.setitem(sys.modules, "fcntl", None)
                long_ago(path)
                with pytest.raises(LedgerError, match="locked"):
                    await place(ledger, row("b"), limit=2)
            os.close(folder)
            assert not path.is_symlink()
            assert await place(ledger, row("b"), limit=2)
            with lock(path):
                long_ago(path)
                assert await place(ledger, row("c"), limit=3)
            assert await claim(ledger, "worker-2") == []


def no_links(*_: object, **__: object) -> None:
    """A system that has none."""
    raise OSError("no links here")


class TestReader:
    """A reader that stays."""

    async def test_it_is_left_behind(self, tmp_path: Path) -> None:
        """Disk and log are bounded, and nothing is lost for it."""
        path = tmp_path / "ledger.db"
        session = row("a", session_id="s1", name="x" * 1_000_000)
        largest = 0
        async with SQLiteLedger(path) as ledger, SQLiteLedger(path) as other:
            await ledger.record(session, seconds=600)
            await place(other, row("b", "worker-2"), limit=2)
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM rows").fetchone()
                async with asyncio.timeout(60):
                    while not path.is_symlink():
                        largest = max(largest, log_size(tmp_path))
                        await ledger.record(session, seconds=600)
                await ledger.record(session, seconds=600)
                assert log_size(tmp_path) < MOST_LOG
            assert not await place(other, row("c", "worker-2"), limit=2)
            assert await ids(other) == ["worker-1/a", "worker-2/b"]
        assert largest > TOO_LARGE - MOST_LOG
