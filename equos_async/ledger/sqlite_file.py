"""The file of a ledger in SQLite: opened, recognised, kept small, and closed during forks."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakSet

from equos_async.errors import LedgerError

from .sqlite_mend import mend
from .sqlite_move import is_stuck, move
from .sqlite_schema import migrate

T = TypeVar("T")
_Step: TypeAlias = tuple[Future[Any], Callable[[sqlite3.Connection], Any]]
# Steps in one transaction: few enough that other processes wait for some ms only.
MOST_TOGETHER: Final = 64
# Seconds between two tries of a statement that SQLite does not wait for.
AGAIN: Final = 0.05
# Bytes; beyond this size the write-ahead log is started again, after a wait for readers. If some
# process always reads, SQLite by itself never starts it again.
MOST_LOG: Final = 8_000_000
# Milliseconds of that wait, and seconds until the next one if it was in vain.
PATIENCE: Final = 50
PATIENT_EVERY: Final = 1.0
# Bytes; beyond this size the file is moved, and a reader that stays keeps the old one.
TOO_LARGE: Final = 8 * MOST_LOG
# The file was not moved: another process moves it, or the system has no links or locks.
NOT_MOVED: Final = (OSError, ImportError)


class SQLiteFile:
    """A connection in its own thread, so that the event loop never waits for the disk."""

    def __init__(self, path: str, *, timeout: float) -> None:
        # Absolute, because a program may change its working directory.
        self.path: str = path if path in {"", ":memory:"} else str(Path(path).absolute())
        self._timeout = timeout
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._text: Callable[[bytes], str] = str
        # The identity of the file at the last write, and whether this connection has checked it.
        self._knew = ""
        self._recognised = False
        self._small_at = 0.0
        self._closed = False
        self._forked = threading.Event()
        self._thread = _thread()
        # The steps that write, in order.
        self._steps: deque[_Step] = deque()
        _FILES.add(self)

    async def aclose(self) -> None:
        """Close the file; safe to call again."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            _FILES.discard(self)
            self._thread.shutdown(wait=False)

    async def run(self, work: Callable[[sqlite3.Connection], T], *, write: bool) -> T:
        """Run a step in the thread, in one transaction.

        Steps that write wait for the lock together, and share a transaction.
        """
        if self._closed:
            raise LedgerError(f"{self.path}: the ledger is closed")
        step = Future[T](), work
        if write:
            self._steps.append(step)
            do = partial(self._work_off, step)
        else:
            do = partial(self._do, [step], write=False)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, do)
            return step[0].result()
        finally:
            step[0].cancel()  # if it has not begun, it need not run any more
            del step, do  # else an error and this frame would refer to each other

    def _work_off(self, step: _Step) -> None:
        """Run a step together with all waiting ones, unless another one has run it."""
        while not step[0].done():
            count = min(len(self._steps), MOST_TOGETHER)
            steps = [self._steps.popleft() for _ in range(count)]
            self._do([one for one in steps if one[0].set_running_or_notify_cancel()], write=True)

    def _do(self, steps: Sequence[_Step], *, write: bool) -> None:
        """Run some steps in one transaction; if one fails, each in its own transaction."""
        try:
            results = self._transact([work for _, work in steps], write=write)
        except Exception as error:
            if self._text is str and "Could not decode" in str(error):
                self._text = _lenient_text  # slower, and rarely needed
                self._do(steps, write=write)
                return
            locked = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if len(steps) > 1 and not locked:
                for one in steps:
                    self._do([one], write=write)
                return
            for future, _ in steps:
                is_engine = isinstance(error, sqlite3.Error)
                future.set_exception(LedgerError(f"{self.path}: {error}") if is_engine else error)
        else:
            for (future, _), result in zip(steps, results, strict=True):
                future.set_result(result)

    def _transact(
        self, works: Sequence[Callable[[sqlite3.Connection], Any]], *, write: bool
    ) -> Sequence[Any]:
        with ExitStack() as unless_done:
            # Rolls back; the next call opens the file again.
            unless_done.callback(self._disconnect)
            db = self._begin(write=write)
            born = self._recognise(db) if write and not self._recognised else None
            results = [work(db) for work in works]
            db.execute("COMMIT")
            if born is not None:
                self._knew, self._recognised = born, True
            if write:
                self._check(db)
            unless_done.pop_all()
        return results

    def stand_still(self) -> None:
        """Close the file until :meth:`go_on`, because SQLite's locks belong to one process."""
        still = threading.Event()

        def wait() -> None:
            if self._inode is not None:  # a database in memory would be lost
                self._disconnect()
            still.set()
            self._forked.wait()

        self._forked.clear()
        self._thread.submit(wait)
        still.wait()

    def go_on(self) -> None:
        """Open the file again, after a fork."""
        self._forked.set()

    def begin_anew(self) -> None:
        """Open the file in a child, which has none of its parent's threads."""
        self._connection, self._recognised, self._knew = None, False, ""
        self._thread, self._steps = _thread(), deque()

    def _begin(self, *, write: bool) -> sqlite3.Connection:
        """Begin a transaction; in a copy of the file if a suspended process keeps its lock."""
        db = self._connect()
        if not write:
            db.execute("BEGIN")
            return db
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                with suppress(*NOT_MOVED):  # then the first error is raised
                    if is_stuck(self.path):
                        move(self.path, db, "BEGIN")
            if self._is_here():
                raise
        if not self._is_here():  # it was moved while the lock was waited for
            db = self._connect()
            db.execute("BEGIN IMMEDIATE")
        return db

    def _check(self, db: sqlite3.Connection) -> None:
        """Check after a write that the file is still in use, and check the size of the log."""
        if not self._is_here():
            raise sqlite3.OperationalError("the file was moved while it was written to")
        self._keep_small(db)

    def _is_here(self) -> bool:
        """Whether the path names the open file."""
        return _inode(self.path) == self._inode

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and not self._is_here():
            self._disconnect()  # it was moved or removed: no other process uses it
        while self._connection is None:
            inode = _inode(self.path)
            db = self._connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None
            )
            db.text_factory = self._text
            self._inode = _inode(self.path)
            if inode not in {None, self._inode}:
                self._disconnect()  # it was moved meanwhile: it is not known which one is open
                continue
            if inode is None and self._inode is not None:
                os.chmod(self.path, 0o600)  # noqa: PTH101 - SQLite's other two files get the same
            self._prepare(db)
        return self._connection

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Create the tables, unless another process has, perhaps at the same moment."""
        until = time.monotonic() + self._timeout
        # SQLite does not wait for this statement, as two processes could wait for each other.
        while not _write_ahead(db, last_try=time.monotonic() > until):
            time.sleep(AGAIN)
        db.execute("PRAGMA synchronous = NORMAL")
        migrate(db)

    def _recognise(self, db: sqlite3.Connection) -> str:
        """Identify the file; note if it may lack rows.

        It may lack rows if it is a copy, which contains the inode of the original, or if it is
        new although this ledger has used another one.
        """
        inode = self._inode or 0
        mend(db)
        db.execute(
            "INSERT INTO memory (born, inode, counted) SELECT hex(randomblob(8)), ?, 0 "
            "WHERE NOT EXISTS (SELECT 1 FROM memory)",
            [inode],
        )
        born, said, counted = db.execute("SELECT born, inode, counted FROM memory").fetchone()
        if said != inode or (not counted and self._knew not in {"", born}):
            db.execute("UPDATE memory SET inode = ?, counted = -1", [inode])
        return str(born)

    def _keep_small(self, db: sqlite3.Connection) -> None:
        """Start the write-ahead log again if it has grown; wait a moment for readers."""
        log = f"{os.path.realpath(self.path)}-wal"
        if _size(log) <= MOST_LOG or time.monotonic() < self._small_at:
            return
        db.execute(f"PRAGMA busy_timeout = {PATIENCE}")
        in_vain, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        db.execute(f"PRAGMA busy_timeout = {round(self._timeout * 1000)}")
        if in_vain:
            self._small_at = time.monotonic() + PATIENT_EVERY
            if _size(log) > TOO_LARGE:
                with suppress(*NOT_MOVED, sqlite3.Error):  # then it is tried again later
                    move(self.path, db, "BEGIN IMMEDIATE")
                self._disconnect()

    def _disconnect(self) -> None:
        self._recognised = False
        if self._connection is not None:
            with suppress(sqlite3.Error):
                # A cursor in the frames of an error would keep the lock after the close.
                self._connection.rollback()
            self._connection.close()
            self._connection = None


_FILES: Final = WeakSet[SQLiteFile]()


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="equos-ledger")


def _lenient_text(read: bytes) -> str:
    """Decode a text with invalid bytes, because one such row must not stop steps for all rows."""
    return read.decode(errors="replace")


def _inode(path: str) -> int | None:
    """The identity of the file at a path."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116 - before each step
    except FileNotFoundError:
        return None


def _size(path: str) -> int:
    """The size of a file; 0 if there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - after each step
    except FileNotFoundError:
        return 0


def _write_ahead(db: sqlite3.Connection, *, last_try: bool) -> bool:
    """Set the mode in which readers and a writer do not block each other; returns success."""
    try:
        db.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError:
        if last_try:
            raise
        return False
    return True


# Two threads that fork at once would open the files for each other.
_FORKING: Final = threading.Lock()


def before_fork() -> None:
    """Close all files for the time of a fork."""
    _FORKING.acquire()
    for file in list(_FILES):
        file.stand_still()


def in_parent() -> None:
    """Open the files again after a fork."""
    for file in list(_FILES):
        file.go_on()
    _FORKING.release()


def in_child() -> None:
    """Open the files in the child after a fork."""
    for file in list(_FILES):
        file.begin_anew()
    _FORKING.release()


# Systems without fork have no such function. Hooks cannot be removed, so there is one set of them.
getattr(os, "register_at_fork", dict)(
    before=before_fork, after_in_parent=in_parent, after_in_child=in_child
)
