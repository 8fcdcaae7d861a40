"""What the engines do when they are locked, damaged, stopped, moved, or forget."""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from attrs import evolve

from equos_async import (
    ConfigurationError,
    LedgerError,
    RedisLedger,
    SessionLedger,
    SQLiteLedger,
)
from equos_async.ledger import sqlite_schema
from equos_async.ledger.redis_script import SCRIPT
from equos_async.ledger.sqlite_file import MOST_LOG, before_fork, in_child, in_parent
from equos_async.ledger.sqlite_schema import MIGRATIONS, Migration
from equos_async.testing.ledger_contract import LEASE, claim, ids, live, place, row
from tests.clocks import eventually
from tests.fleet.programs import free_port
from tests.ledger.conftest import RedisServer
from tests.ledger.servers import until_it_works

PAGE = Path(__file__).parents[2] / ".docs/ledger.md"


def fill_up(db: sqlite3.Connection) -> None:
    """Let a file have no more pages than it has."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")


def read_only(db: sqlite3.Connection) -> None:
    """Let a file not be written over this connection."""
    db.execute("PRAGMA query_only = ON")


def at_first(
    prepare: Callable[[sqlite3.Connection], object], monkeypatch: pytest.MonkeyPatch
) -> list[sqlite3.Connection]:
    """Do something with the next connection when it is opened; all that are opened, in a list."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def prepared(*args: Any, **settings: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **settings)
        opened.append(db)
        if len(opened) == 1:
            prepare(db)
        return db

    monkeypatch.setattr(sqlite3, "connect", prepared)
    return opened


async def leave_abroad(ledger: SessionLedger, rows: int) -> None:
    """What a worker for another endpoint leaves when it is killed."""
    for n in range(rows):
        one = row(f"{n}", "abroad", endpoint="https://other.example.test", session_id=f"s{n}")
        await ledger.record(one, seconds=600)
    await ledger.renew("abroad", lease=0)


def read_in_turns(path: Path, done: threading.Event, seconds: float) -> None:
    """Read, each time for so long, with two connections of which one always reads."""
    both = [sqlite3.connect(path, isolation_level=None) for _ in range(2)]
    while not done.is_set():
        for mine, other in (both, both[::-1]):
            mine.execute("BEGIN")
            mine.execute("SELECT count(*) FROM rows").fetchone()
            if other.in_transaction:
                other.execute("COMMIT")
            time.sleep(seconds)
    for one in both:
        one.close()


class TestSQLite:
    """A file that others use, or that is none."""

    @pytest.mark.parametrize("path", [None, b"ledger.db"])
    def test_a_path_is_a_path(self, path: Any) -> None:
        """What is none is named at once."""
        with pytest.raises(ConfigurationError, match="path must be a string or a path"):
            SQLiteLedger(path)

    async def test_another_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A daemon changes it; the file stays the one of the time when the ledger was made."""
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path)
        async with SQLiteLedger("ledger.db") as ledger:
            await live(ledger, row("a"), "s1")
            monkeypatch.chdir(tmp_path / "other")
            assert await ids(ledger) == ["worker-1/a"]
        assert not (tmp_path / "other" / "ledger.db").exists()

    async def test_another_process_writes(self, tmp_path: Path) -> None:
        """It is waited for, but not for long; then all works again."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path, timeout=0.1) as ledger:
            await place(ledger, row("a"))
            writer = sqlite3.connect(path, isolation_level=None)
            writer.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="locked"):
                await place(ledger, row("b"))
            writer.execute("ROLLBACK")
            writer.close()
            assert await place(ledger, row("b"))

    async def test_two_make_it_at_once(self, tmp_path: Path) -> None:
        """The second process waits for the first, or gives up in time."""
        path = tmp_path / "ledger.db"
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN EXCLUSIVE")
        async with SQLiteLedger(path, timeout=0.1) as ledger:
            with pytest.raises(LedgerError, match="locked"):
                await ledger.rows()
            writer.execute("ROLLBACK")
            writer.close()
            assert await ledger.rows() == []

    async def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A failed write raises an error, and nothing is half written."""
        async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
            await ledger.rows()
        at_first(fill_up, monkeypatch)
        async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
            placed = 0
            with pytest.raises(LedgerError, match="full"):  # noqa: PT012 - how many fit is open
                while True:
                    placed += await place(ledger, row(f"guild-{placed}"), limit=1000)
            assert len(await ledger.rows()) == placed

    async def test_read_only(self, tmp_path: Path) -> None:
        """A place where nothing can be written."""
        async with SQLiteLedger(f"{tmp_path}/missing/ledger.db") as ledger:
            with pytest.raises(LedgerError, match="unable to open"):
                await place(ledger, row("a"))

    async def test_a_damaged_file(self, tmp_path: Path) -> None:
        """What is no database is not touched."""
        path = tmp_path / "ledger.db"
        path.write_bytes(b"these are my notes" * 100)
        async with SQLiteLedger(path) as ledger:
            with pytest.raises(LedgerError, match="not a database"):
                await place(ledger, row("a"))
        assert path.read_bytes() == b"these are my notes" * 100

    async def test_another_release(self, tmp_path: Path) -> None:
        """A schema that it does not know is not touched either."""
        path = tmp_path / "ledger.db"
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        async with SQLiteLedger(path) as ledger:
            with pytest.raises(LedgerError, match="schema 99"):
                await ledger.rows()

    async def test_closed(self, tmp_path: Path) -> None:
        """Closing twice is harmless; afterwards nothing works."""
        ledger = SQLiteLedger(tmp_path / "ledger.db")
        await place(ledger, row("a"))
        await ledger.aclose()
        await ledger.aclose()
        with pytest.raises(LedgerError, match="closed"):
            await ledger.rows()
        assert "ledger.db" in repr(ledger)

    async def test_many_make_it_at_once(self, tmp_path: Path) -> None:
        """Ten workers that begin together on a new file all get their place."""
        ledgers = [SQLiteLedger(tmp_path / "ledger.db", timeout=10) for _ in range(10)]
        placed = [place(one, row("a", f"worker-{n}", key=f"{n}")) for n, one in enumerate(ledgers)]
        assert all(await asyncio.gather(*placed))
        for one in ledgers:
            await one.aclose()

    async def test_a_clock_that_is_set_back(self, tmp_path: Path) -> None:
        """Everybody has as long as before, and whoever is dead not longer."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path) as ledger:
            await live(ledger, row("a"), "s1")
            with sqlite3.connect(path) as db:
                db.execute("UPDATE engine SET heard = heard + 3600, since = since + 3600")
                db.execute("UPDATE workers SET until = until + 3600")
            db.close()
            await ledger.renew("worker-2", lease=LEASE)
            with sqlite3.connect(path) as db:
                (until,) = db.execute("SELECT until FROM workers WHERE owner LIKE '%1'").fetchone()
            db.close()
            assert LEASE - 5 < until - time.time() <= LEASE

    async def test_a_claim_reads_only_what_it_may_take(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many rows of another endpoint there are."""
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        at_first(lambda db: db.set_progress_handler(count, 100), monkeypatch)
        async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
            await leave_abroad(ledger, 300)
            steps = 0
            assert await claim(ledger, "worker-2") == []
            assert steps < 10

    async def test_a_file_of_an_older_release(self, tmp_path: Path) -> None:
        """What was added since is made, and older workers go on with it."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path) as ledger:
            await live(ledger, row("a"), "s1")
        with sqlite3.connect(path) as db:
            for index in ("intents", "rows_by_end", "rows_by_endpoint", "line_by_most"):
                db.execute(f"DROP INDEX {index}")
        db.close()
        async with SQLiteLedger(path) as ledger:
            await ledger.renew("worker-1", lease=0)
            assert [one.session_id for one in await claim(ledger, "worker-2")] == ["s1"]
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (1,)
        db.close()

    async def test_the_column_is_added_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process may do so in the moment before."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path) as ledger:
            await live(ledger, row("a"), "s1")
        with sqlite3.connect(path) as db:
            db.execute("ALTER TABLE rows DROP COLUMN resource")
        db.close()
        lacked = sqlite_schema.lacked

        def after_another(db: sqlite3.Connection) -> list[Migration]:
            found = lacked(db)
            monkeypatch.setattr(sqlite_schema, "lacked", lacked)
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                sqlite_schema.migrate(other)
            return found

        monkeypatch.setattr(sqlite_schema, "lacked", after_another)
        async with SQLiteLedger(path) as ledger:
            assert [one.resource for one in await ledger.rows()] == ["session"]

    async def test_a_file_without_resources(self, tmp_path: Path) -> None:
        """The column is added, once; what is there is of sessions, as what older workers write."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path) as ledger:
            await live(ledger, row("a"), "s1")
        with sqlite3.connect(path) as db:
            db.execute("ALTER TABLE rows DROP COLUMN resource")
        db.close()
        async with SQLiteLedger(path) as ledger, SQLiteLedger(path) as other:
            assert len(await asyncio.gather(ledger.rows(), other.rows())) == 2
            await live(ledger, row("b", resource="conversation"), "c1")
            with sqlite3.connect(path) as db:
                db.execute(
                    "INSERT INTO rows"
                    " (id, key, name, owner, endpoint, session_id, started, expires)"
                    " SELECT 'worker-1/c', 'c', 'c', owner, endpoint, 's2', started, expires"
                    " FROM rows WHERE key = 'a'"
                )
            db.close()
            await ledger.renew("worker-1", lease=0)
            taken = {one.session_id: one.resource for one in await claim(ledger, "worker-2")}
            assert taken == {"s1": "session", "c1": "conversation", "s2": "session"}

    async def test_a_file_that_is_gone(self, tmp_path: Path) -> None:
        """A worker that has it open does not continue in a file that no other process can open."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path) as mine, SQLiteLedger(path) as other:
            session = await live(mine, row("a"), "s1")
            for first in (mine, other):
                for part in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
                    (tmp_path / part).unlink()
                assert await first.renew("worker-2", lease=LEASE) == {}
            assert await mine.renew("worker-1", lease=LEASE) == {}
            assert await mine.record(session, seconds=600) == "worker-1"
            assert len(await other.rows()) == 1

    async def test_a_file_that_is_gone_forgets_no_limit(self, tmp_path: Path) -> None:
        """No slot is given for one lease, in which the workers write their rows again."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path) as mine, SQLiteLedger(path) as other:
            session = await live(mine, row("a"), "s1")
            theirs = await live(other, row("b", "worker-2"), "s2")
            for part in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
                (tmp_path / part).unlink()
            asked = await mine.place(row("c"), seconds=9, limit=2, wait=False, lease=0.2)
            assert not asked.placed
            assert 0 < asked.recovers_in < 0.21  # in doubles of that size
            assert await mine.record(session, seconds=600) == "worker-1"
            assert await other.record(theirs, seconds=600) == "worker-2"
            await asyncio.sleep(0.25)
            asked = await other.place(row("c"), seconds=9, limit=2, wait=False, lease=LEASE)
            assert (asked.placed, asked.recovers_in) == (False, 0)
            assert await place(mine, row("c"), limit=3, wait=False)

    async def test_a_copy_forgets_no_limit(self, tmp_path: Path) -> None:
        """Nor does a file that is put back from a copy, for one that never saw the other."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path) as ledger:
            await live(ledger, row("a"), "s1")
        shutil.copy(path, tmp_path / "copy.db")
        path.unlink()
        (tmp_path / "copy.db").rename(path)
        async with SQLiteLedger(path) as ledger:
            assert len(await ledger.rows()) == 1
            assert not await place(ledger, row("b", "worker-2"), lease=0.2)
            await asyncio.sleep(0.25)
            assert await place(ledger, row("b", "worker-2"))

    async def test_a_file_of_the_first_release(self, tmp_path: Path) -> None:
        """It goes on with all that is in it, and an old worker's words are valid in it."""
        path = tmp_path / "ledger.db"
        db = sqlite3.connect(path)
        db.executescript(f"{MIGRATIONS[1].sql} PRAGMA user_version = 1")
        async with SQLiteLedger(path) as ledger:
            session = await live(ledger, row("a"), "s1")
            assert await place(ledger, row("b"), limit=2)
            # As a worker of the first release does.
            db.execute("UPDATE engine SET heard = 1, since = 1")
            db.execute("DELETE FROM rows WHERE id = ?", [session.id])
            db.execute("ALTER TABLE rows ADD COLUMN newer TEXT")
            db.commit()
            assert await place(ledger, row("c", "worker-2"), limit=2)
            assert db.execute("PRAGMA user_version").fetchone() == (1,)
        db.close()

    async def test_its_files_are_for_their_owner(self, tmp_path: Path) -> None:
        """Others on the machine read none of them; who is there already keeps its rights."""
        async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
            await live(ledger, row("a"), "s1")
            parts = [tmp_path / f"ledger.db{part}" for part in ("", "-wal", "-shm")]
            assert [stat.S_IMODE(part.stat().st_mode) for part in parts] == [0o600] * 3
            parts[0].chmod(0o640)
        async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
            await ledger.renew("worker-1", lease=LEASE)
        assert stat.S_IMODE(parts[0].stat().st_mode) == 0o640

    async def test_a_file_that_is_damaged_inside(self, tmp_path: Path) -> None:
        """It is an error, and with another file everything works again."""
        path = tmp_path / "ledger.db"
        async with SQLiteLedger(path) as ledger:
            for n in range(50):
                await place(ledger, row(f"{n}"))
        head = path.read_bytes()[:100]
        path.write_bytes(head + b"?" * (path.stat().st_size - 100))
        async with SQLiteLedger(path) as ledger:
            with pytest.raises(LedgerError, match="malformed"):
                await place(ledger, row("a"))
            path.unlink()
            assert await place(ledger, row("a"))

    async def test_a_file_that_may_only_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is placed, and what is there can be listed until it can be written again."""
        async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
            await live(ledger, row("a"), "s1")
        at_first(read_only, monkeypatch)
        async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
            assert len(await ledger.rows()) == 1
            with pytest.raises(LedgerError, match="readonly"):
                await place(ledger, row("b"))
            assert await place(ledger, row("b"))

    async def test_the_loop_is_never_blocked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SQLite itself refuses the file to any thread but the ledger's, the loop's included."""
        opened = at_first(lambda _: None, monkeypatch)
        async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
            await ledger.rows()
            (db,) = opened
            with pytest.raises(sqlite3.ProgrammingError, match="same thread"):
                db.execute("SELECT 1")

    async def test_readers_do_not_make_the_log_grow(self, tmp_path: Path) -> None:
        """Even if there is always a reader, the log is started again between them."""
        path, log = tmp_path / "ledger.db", tmp_path / "ledger.db-wal"
        done, largest = threading.Event(), 0
        session = row("a", session_id="s1", name="x" * 100_000)
        async with SQLiteLedger(path) as ledger:
            await ledger.record(session, seconds=600)
            reading = [asyncio.to_thread(read_in_turns, path, done, n) for n in (0.01, 0.015)]
            readers = [asyncio.ensure_future(one) for one in reading]
            for _ in range(250):
                await ledger.record(session, seconds=600)
                largest = max(largest, log.stat().st_size)
            done.set()
            await asyncio.gather(*readers)
        assert largest < 2 * MOST_LOG, "25 MB were written, and all of it is in the log"

    async def test_a_reader_that_stays_holds_up_nobody(self, tmp_path: Path) -> None:
        """After a wait in vain, the next wait comes only after a while."""
        path = tmp_path / "ledger.db"
        session = row("a", session_id="s1", name="x" * 100_000)
        async with SQLiteLedger(path) as ledger:
            await ledger.record(session, seconds=600)
            reader = sqlite3.connect(path, isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM rows").fetchone()
            async with asyncio.timeout(60):
                for _ in range(150):
                    await ledger.record(session, seconds=600)
            reader.close()

    async def test_a_fork_step_by_step(self, tmp_path: Path) -> None:
        """What a fork calls: the file is closed meanwhile, and opened again on both sides."""
        path, log = tmp_path / "ledger.db", tmp_path / "ledger.db-wal"
        async with SQLiteLedger(path) as ledger:
            for goes_on in (in_parent, in_child):
                assert await place(ledger, row("a"))
                assert log.exists()
                before_fork()
                assert not log.exists(), "the last connection takes the log with it"
                goes_on()
            assert await place(ledger, row("b"))
            before_fork()
            in_parent()  # for the thread that would not be there in a child

    async def test_two_threads_fork_at_once(self, tmp_path: Path) -> None:
        """The file stays closed until each of them is done."""
        stands, may_go = threading.Event(), threading.Event()

        def fork() -> None:
            before_fork()
            stands.set()
            may_go.wait()
            in_parent()

        async with SQLiteLedger(tmp_path / "ledger.db") as ledger:
            await ledger.rows()
            before_fork()
            other = threading.Thread(target=fork)
            other.start()
            in_parent()
            await asyncio.to_thread(stands.wait)
            step = asyncio.create_task(place(ledger, row("a")))
            await asyncio.wait([step], timeout=0.1)
            is_open = step.done()
            may_go.set()
            assert await step
            assert not is_open
            await asyncio.to_thread(other.join)

    async def test_a_fork_of_what_is_in_memory(self) -> None:
        """It is not closed, for it would be gone."""
        async with SQLiteLedger(":memory:") as ledger:
            assert await place(ledger, row("a"))
            before_fork()
            in_parent()
            assert await ids(ledger) == ["worker-1/a"]

    async def test_a_fork(self, tmp_path: Path) -> None:
        """Parent and child go on with the same file; what is in memory stays the parent's."""
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.ledger.forker", str(tmp_path / "ledger.db")),
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            told, _ = await program.communicate()
        assert told.decode().split("\n") == [
            "child: worker-1/file worker-2/file | worker-2/memory",
            "parent: worker-1/after worker-1/file worker-2/file | worker-1/memory",
            "",
        ]


class Doorkeeper:
    """Stands before a Redis, and sends those who ask for the ledger to another port.

    Attributes:
        move_to: Where to; None lets them in.
        asked: How often it was asked for the ledger.
    """

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.move_to: int | None = None
        self.asked = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, behind = await asyncio.open_connection("127.0.0.1", self.behind)

        async def hand_back() -> None:
            while answer := await answers.read(65536):
                writer.write(answer)

        handing = asyncio.create_task(hand_back())
        while command := await client.read(65536):
            asks = b"EVAL" in command
            self.asked += asks
            if asks and self.move_to is not None:
                writer.write(b"-MOVED 1 127.0.0.1:%d\r\n" % self.move_to)
            else:
                behind.write(command)
        handing.cancel()
        behind.close()
        writer.close()


class TestRedis:
    """A server that goes away, and one that comes back without its memory."""

    async def test_a_restart_that_keeps_all(self, own_redis: RedisServer) -> None:
        """Rows, leases and turns are there again; places once all had the time to come back."""
        async with RedisLedger(own_redis.url) as ledger:
            await live(ledger, row("a"), "s1")
            own_redis.stop()
            with pytest.raises(LedgerError, match="Redis: "):
                await ledger.rows()
            own_redis.start()
            assert [one.session_id for one in await ledger.rows()] == ["s1"]
            assert not await place(ledger, row("b"), lease=0.2)
            async with asyncio.timeout(60):
                while not await place(ledger, row("b"), lease=0.2):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    async def test_rows_of_other_releases(self, redis: RedisServer) -> None:
        """What newer ones add is left as it is; what goes without saying is not written."""
        async with RedisLedger(redis.url) as ledger:
            await live(ledger, row("a"), "s1")
            (text,) = redis.ask("HVALS", "{equos}:rows").splitlines()
            assert "resource" not in text
            newer = text.replace('"key":', '"mood":"calm","key":')
            redis.ask("HSET", "{equos}:rows", "worker-1/a", newer)
            await ledger.renew("worker-1", lease=0)
            (taken,) = await claim(ledger, "worker-2")
            assert (taken.session_id, taken.resource) == ("s1", "session")
            assert '"mood":"calm"' in redis.ask("HVALS", "{equos}:rows")

    async def test_one_that_forgets(self, own_redis: RedisServer) -> None:
        """An earlier worker gets slots only after all had the time to write their rows again."""
        async with (
            RedisLedger(own_redis.url) as mine,
            RedisLedger(own_redis.url) as other,
        ):
            await live(mine, row("a"), "s1")
            theirs = await live(other, row("b", "worker-2"), "s2")
            own_redis.stop()
            own_redis.forget()
            own_redis.start()
            waits = await mine.place(row("c"), seconds=600, limit=2, wait=False, lease=0.2)
            assert not waits.placed
            assert 0 < waits.recovers_in < 0.25
            assert await other.renew("worker-2", lease=LEASE) == {}
            assert await other.record(theirs, seconds=600) == "worker-2"
            session = row("a", session_id="s1")
            assert await mine.record(session, seconds=600) == "worker-1"
            await asyncio.sleep(0.25)
            assert not await place(mine, row("c"), limit=2, wait=False)
            assert await place(mine, row("c"), limit=3, wait=False)

    async def test_one_that_is_new_to_the_first(self, redis: RedisServer) -> None:
        """An earlier worker notices a server that lost its rows; a new worker does not."""
        async with (
            RedisLedger(redis.url) as mine,
            RedisLedger(redis.url) as new,
        ):
            session = await live(mine, row("a"), "s1")
            redis.ask("FLUSHALL")
            assert await place(new, row("b", "worker-2"), limit=2)
            assert await mine.renew("worker-1", lease=LEASE) == {}
            assert not await place(new, row("c", "worker-2"), limit=2, wait=False)
            assert await mine.record(session, seconds=600) == "worker-1"
            redis.ask("HSET", "{equos}:engine", "counted", "1")  # long ago
            assert not await place(new, row("c", "worker-2"), limit=2, wait=False)
            assert await place(new, row("c", "worker-2"), limit=3, wait=False)

    async def test_one_that_leaves_after_a_restart(self, own_redis: RedisServer) -> None:
        """Later workers still know of the restart."""
        async with RedisLedger(own_redis.url) as ledger:
            await live(ledger, row("a"), "s1")
            own_redis.stop()
            own_redis.start()
            await ledger.renew("worker-2", lease=0)
            assert not await place(ledger, row("b"), wait=False)

    async def test_a_clock_that_is_set_back(self, redis: RedisServer) -> None:
        """Everybody has as long as before, and whoever is dead not longer."""
        async with RedisLedger(redis.url) as ledger:
            await live(ledger, row("a"), "s1")
            for key in ("heard", "since"):
                redis.ask("HINCRBYFLOAT", "{equos}:engine", key, "3600")
            redis.ask("ZINCRBY", "{equos}:workers", "3600", "worker-1")
            redis.ask("HSET", "{equos}:engine", "counted", f"{time.time() + 3590}")
            await ledger.renew("worker-2", lease=LEASE)
            assert await place(ledger, row("b")), "places are not counted for an hour"
            left = float(redis.ask("ZSCORE", "{equos}:workers", "worker-1")) - time.time()
            assert LEASE - 5 < left <= LEASE

    async def test_a_pause(self, own_redis: RedisServer) -> None:
        """A server that does not answer is not waited for."""
        async with RedisLedger(own_redis.url, timeout=0.2) as ledger:
            async with RedisLedger(own_redis.url) as patient:
                await live(patient, row("a"), "s1")
            await until_it_works(ledger.rows)
            own_redis.send(signal.SIGSTOP)
            with pytest.raises(LedgerError, match="Redis: "):
                await ledger.renew("worker-1", lease=LEASE)
            own_redis.send(signal.SIGCONT)
            held = await until_it_works(lambda: ledger.renew("worker-1", lease=LEASE))
            assert held == {"worker-1/a": "s1"}

    async def test_no_cancellation_is_lost(self, redis: RedisServer) -> None:
        """A caller that is cancelled at any moment of a step ends as cancelled."""
        async with RedisLedger(redis.url, connections=2) as ledger:
            await ledger.rows()
            early, numbers = 0, itertools.count()
            while early < 100:  # how many are answered sooner depends on the machine
                n = next(numbers)
                step = asyncio.create_task(place(ledger, row(f"{n}"), limit=10**6))
                for _ in range(n % 30):
                    await asyncio.sleep(0)
                if step.cancel():
                    early += 1
                    with pytest.raises(asyncio.CancelledError):
                        await step
            # All connections are in their places again.
            await asyncio.gather(*(ledger.renew(f"w{n}", lease=LEASE) for n in range(10)))

    async def test_out_of_memory(self, own_redis: RedisServer) -> None:
        """A server that is full takes nothing more, and lets go of what is there."""
        async with RedisLedger(own_redis.url) as ledger:
            await live(ledger, row("a"), "s1")
            own_redis.ask("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(LedgerError, match="memory"):
                await place(ledger, row("b"))
            own_redis.ask("CONFIG", "SET", "maxmemory", "0")
            assert await place(ledger, row("b"))

    async def test_a_replica(self, own_redis: RedisServer) -> None:
        """One that may only be read takes nothing."""
        async with RedisLedger(own_redis.url) as ledger:
            own_redis.ask("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(LedgerError, match="Redis: "):
                await place(ledger, row("a"))

    async def test_turns_end_with_the_server(self, own_redis: RedisServer) -> None:
        """A worker that waits for a turn gets an error."""
        async with RedisLedger(own_redis.url) as ledger:
            await place(ledger, row("a"), limit=1)
            await place(ledger, row("b"), limit=1)
            turns = ledger.turns("worker-1")
            told = asyncio.ensure_future(anext(turns))
            await eventually(lambda: own_redis.ask("PUBSUB", "CHANNELS").strip())
            own_redis.stop()
            with pytest.raises(LedgerError, match="Redis: "):
                await asyncio.wait_for(told, 60)

    async def test_no_info(self, own_redis: RedisServer) -> None:
        """A user who may not ask for the server's name still has a ledger."""
        own_redis.ask("ACL", "SETUSER", "worker", "on", ">pw", "~*", "&*", "+@all", "-info")
        url = own_redis.url.replace("//", "//worker:pw@")
        async with RedisLedger(url) as ledger:
            await live(ledger, row("a"), "s1")
            assert "pw" not in repr(ledger)

    def test_each_command_is_among_the_rights_of_the_page(self) -> None:
        """Also those that a script rarely comes to."""
        (rights,) = re.findall(r"^ACL (SETUSER .*)$", PAGE.read_text("utf-8"), re.MULTILINE)
        used = re.findall(r"(?:redis\.p?call|standing)\('([A-Z]+)'", SCRIPT)
        assert len(set(used)) > 20
        assert {f"+{one.lower()}" for one in used} <= set(rights.split())

    async def test_the_rights_of_the_page_suffice(self, own_redis: RedisServer) -> None:
        """A user with no more than these does all that a worker does."""
        (rights,) = re.findall(r"^ACL (SETUSER .*)$", PAGE.read_text("utf-8"), re.MULTILINE)
        own_redis.ask("ACL", *rights.split())
        url = own_redis.url.replace("//", "//ledger:password@")
        async with RedisLedger(url, namespace="my-organisation") as ledger:
            session = await live(ledger, row("a"), "s1")
            assert not await place(ledger, row("b"), limit=1)
            told = asyncio.ensure_future(anext(ledger.turns("worker-1")))
            own_redis.ask("DEL", "{my-organisation}:owned")
            own_redis.ask("HINCRBYFLOAT", "{my-organisation}:engine", "heard", "3600")
            await ledger.renew("worker-2", lease=LEASE)
            assert await ledger.call_off("elsewhere", worker="worker-2") is not None
            await ledger.remove("worker-1/a", worker="worker-1")
            assert await asyncio.wait_for(told, 60) == "worker-1/b"
            await ledger.record_all("worker-1", [(session, 600.0)], lease=LEASE)
            await ledger.renew("worker-1", lease=0)
            assert len(await claim(ledger, "worker-2")) == 1
            own_redis.ask("DEL", "{my-organisation}:rows")
            await ledger.renew("worker-2", lease=LEASE)
            assert await ledger.rows() == []
        assert own_redis.ask("ACL", "LOG").strip() == ""

    async def test_what_is_left_goes(self, redis: RedisServer) -> None:
        """Each key expires, some time after the last row's end; those in use are kept."""
        day = 86_400

        def left() -> list[int]:
            keys = redis.ask("KEYS", "*").split()
            return [int(redis.ask("TTL", key)) for key in keys]

        async with RedisLedger(redis.url) as ledger:
            await ledger.enlist("worker-1", name="bot", process="", lease=LEASE)
            first = await live(ledger, row("a", group="g"), "s1")
            assert not await place(ledger, row("b"), limit=1)
            first_left = left()
            assert day <= min(first_left) <= max(first_left) <= 2 * day + 600
            for key in redis.ask("KEYS", "*").split():
                redis.ask("PERSIST", key)  # as an older worker writes it
            assert await place(ledger, row("c"), seconds=10 * day)
            await ledger.renew("worker-1", lease=LEASE)
            later_left = left()
            assert 11 * day - 600 <= min(later_left) <= max(later_left) <= 12 * day
            await ledger.remove(first.id)
            await ledger.renew("worker-1", lease=0)
            assert len(left()) > 3
            assert min(left()) >= day

    async def test_the_script_is_sent_again(self, redis: RedisServer) -> None:
        """A server that lost it is given it."""
        async with RedisLedger(redis.url) as ledger:
            await place(ledger, row("a"))
            redis.ask("SCRIPT", "FLUSH")
            assert await place(ledger, row("b"))

    async def test_a_claim_reads_only_what_it_may_take(self, redis: RedisServer) -> None:
        """Rows of another endpoint are read once, by one worker for all."""
        async with RedisLedger(redis.url) as ledger:
            await leave_abroad(ledger, 2200)
            for _ in range(2):
                assert await claim(ledger, "worker-2") == []
            redis.ask("CONFIG", "RESETSTAT")
            for n in range(10):
                assert await claim(ledger, f"worker-{n}") == []
            stats = redis.ask("INFO", "commandstats")
            calls = sum(map(int, re.findall(r"calls=(\d+)", stats)))
            assert calls < 10 * 60, stats

    async def test_any_number_of_rows(self, redis: RedisServer) -> None:
        """They are read in portions, each once."""
        async with RedisLedger(redis.url) as ledger:
            for n in range(1200):
                one = row(f"{n}", session_id=f"s{n}")
                await ledger.record(one, seconds=600)
            rows = await ledger.rows()
            assert sorted(int(one.key) for one in rows) == list(range(1200))

    async def test_closed(self, redis: RedisServer) -> None:
        """Closing twice is harmless; afterwards nothing works."""
        ledger = RedisLedger(redis.url)
        await place(ledger, row("a"))
        await ledger.aclose()
        await ledger.aclose()
        with pytest.raises(LedgerError, match="closed"):
            await ledger.rows()
        assert repr(ledger) == "<RedisLedger equos>"

    def test_no_url(self) -> None:
        """What is no Redis is refused before any I/O, without its password."""
        with pytest.raises(ConfigurationError, match="must begin with redis://") as caught:
            RedisLedger("https://:hunter2@example.test")
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "settings", [{"namespace": ""}, {"namespace": "{a}"}, {"timeout": 0}, {"connections": 1}]
    )
    def test_wrong_settings(self, settings: dict[str, Any]) -> None:
        """They are refused at once; a namespace is what is between the braces of a hash tag."""
        with pytest.raises(ConfigurationError, match=next(iter(settings))):
            RedisLedger("redis://127.0.0.1", **settings)

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It says what to install."""
        monkeypatch.delitem(sys.modules, "equos_async.ledger.redis_link", raising=False)
        monkeypatch.setitem(sys.modules, "redis", None)
        with pytest.raises(ConfigurationError, match=r"pip install .*\[redis\]"):
            RedisLedger("redis://127.0.0.1")


def ask(port: int, *words: str) -> str:
    """What a Redis answers to an operator; nothing where there is none."""
    command = ["redis-cli", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, check=False, text=True).stdout


def wait_for(port: int, told: str, *words: str) -> None:
    """Send a command until its answer contains a text."""
    for _ in range(6000):
        if told in ask(port, *words):
            return
        time.sleep(0.01)
    raise RuntimeError(f"no {told} of {words}")


@contextmanager
def cluster_node(folder: Path) -> Generator[tuple[int, int], None, None]:
    """One node of a cluster: its port, and that of its bus; on others where one was taken."""
    folder.mkdir()
    while True:
        port, bus = free_port(), free_port()
        options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--bind", "127.0.0.1")
        process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--dir", str(folder), *options],
            stdout=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None and "PONG" not in ask(port, "PING"):
                time.sleep(0.01)
            if process.poll() is None:
                yield port, bus
                return
        finally:
            process.kill()
            process.wait()


class TestCluster:
    """Two nodes; whichever is asked, the ledger lies on one."""

    @pytest.fixture
    def nodes(self, redis_program: None, tmp_path: Path) -> Iterator[list[int]]:
        with ExitStack() as stack:
            nodes = [stack.enter_context(cluster_node(tmp_path / str(n))) for n in range(2)]
            (one, _), (two, bus) = nodes
            ask(one, "CLUSTER", "ADDSLOTSRANGE", "0", "8191")
            ask(two, "CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
            ask(one, "CLUSTER", "MEET", "127.0.0.1", str(two), str(bus))
            for port in (one, two):
                wait_for(port, "cluster_state:ok", "CLUSTER", "INFO")
                wait_for(port, "16383", "CLUSTER", "SLOTS")
            yield [one, two]

    async def test_it_finds_its_node(self, nodes: list[int]) -> None:
        """Every worker ends at the same node, and is called there."""
        one, two = (RedisLedger(f"redis://127.0.0.1:{port}") for port in nodes)
        async with one, two:
            await live(one, row("a"), "s1")
            assert [found.session_id for found in await two.rows()] == ["s1"]
            assert not await place(two, row("b", "worker-2"), limit=1)
            told = asyncio.ensure_future(anext(two.turns("worker-2")))
            await one.remove("worker-1/a", worker="worker-1")
            assert await asyncio.wait_for(told, 60) == "worker-2/b"
            assert await place(two, evolve(row("b", "worker-2")), limit=1)

    async def test_many_find_it_at_once(self, nodes: list[int]) -> None:
        """No worker loses the file because another one moves it."""
        for port in nodes:
            async with RedisLedger(f"redis://127.0.0.1:{port}") as ledger:
                await asyncio.gather(*(place(ledger, row(f"{port}/{n}")) for n in range(50)))
                assert len([one for one in await ledger.rows() if f"{port}/" in one.key]) == 50

    async def test_its_node_is_gone(self, nodes: list[int]) -> None:
        """It goes back to the URL, which may know of another one."""
        async with (
            Doorkeeper(nodes[0]) as door,
            RedisLedger(f"redis://127.0.0.1:{nodes[0]}") as other,
            RedisLedger(f"redis://127.0.0.1:{door.port}") as ledger,
        ):
            await live(other, row("a"), "s1")
            door.move_to = 1
            with pytest.raises(LedgerError, match="Redis: "):
                await ledger.rows()
            door.move_to = None
            assert len(await ledger.rows()) == 1

    async def test_it_does_not_go_round(self, redis: RedisServer) -> None:
        """Nodes that send it from one to the other are a failure of theirs."""
        async with (
            Doorkeeper(redis.port) as door,
            RedisLedger(f"redis://127.0.0.1:{door.port}") as ledger,
        ):
            door.move_to = door.port
            with pytest.raises(LedgerError, match="Redis: "):
                await ledger.rows()
            assert door.asked == 2
