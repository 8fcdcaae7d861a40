"""Move a ledger's SQLite file away from a process that blocks it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Final, Literal

STUCK: Final = 3.0
"""Seconds without a write after which the process with the lock counts as suspended."""


def is_stuck(path: str) -> bool:
    """Whether nothing was written to a file for a time, although its lock is taken."""
    log = _beside(Path(path).resolve(), "-wal")
    return time.time() - log.stat().st_mtime > STUCK


def move(path: str, db: sqlite3.Connection, how: Literal["BEGIN", "BEGIN IMMEDIATE"]) -> None:
    """Make a path a link to a copy of its file, which all processes use from now on.

    SQLite's locks belong to a file, so the lock of a suspended process stays with the old one.
    The unfinished write of that process is not in the copy: after a write a process checks the
    path, and its step fails. If it continues at the very moment of the move, a row that it believes
    to be written may be missing. Then the copy counts as one that may lack rows.

    Args:
        path: The path of the ledger; afterwards a link to the newest copy beside it.
        db: A connection to its file; it cannot be used afterwards.
        how: The statement to begin with: ``"BEGIN IMMEDIATE"`` if the lock is free.

    Raises:
        OSError: Another process is moving a file here, or the system does not support this.
        ImportError: The system has no such locks.
        sqlite3.Error: The file could not be copied.
    """
    base = _base(Path(path))
    with _alone(base.parent):
        here = base.resolve()
        if db.execute("PRAGMA database_list").fetchone()[2] != str(here):
            return  # another process was first
        db.execute(how)
        version = db.execute("PRAGMA data_version").fetchone()
        there = _next(base, here)
        with closing(_copied(here, there)) as copy:
            (counted,) = copy.execute("SELECT max(counted) FROM memory").fetchone()
            inode = there.stat().st_ino
            copy.execute("UPDATE memory SET inode = ?, counted = -1", [inode])
            _lead(base, there)
            db.execute("COMMIT")
            if db.execute("PRAGMA data_version").fetchone() == version:
                copy.execute("UPDATE memory SET counted = ?", [counted])
        if here != base:
            here.unlink()
        _remove(_beside(here, "-wal"), _beside(here, "-shm"))


def _copied(here: Path, there: Path) -> sqlite3.Connection:
    """A connection to a copy of a file, which may be locked for writers."""
    # A process that died during a move may have left files.
    _remove(there, _beside(there, "-wal"), _beside(there, "-shm"))
    there.touch(0o600)
    there.chmod(here.stat().st_mode)
    copy = sqlite3.connect(there, isolation_level=None)
    with closing(sqlite3.connect(here, isolation_level=None)) as source:
        source.execute("BEGIN")
        # If not even this can be read, it fails here; the copy would wait for ever.
        source.execute("SELECT count(*) FROM memory").fetchone()
        source.backup(copy)
    return copy


def _base(path: Path) -> Path:
    """The path without the links that this module made."""
    while path.is_symlink() and not _is_ours(path):
        path = path.parent / path.readlink()
    return path.parent.resolve() / path.name


def _is_ours(link: Path) -> bool:
    return str(link.readlink()).startswith(f"{link.name}.")


def _next(base: Path, here: Path) -> Path:
    """The next copy; no name is used twice, because a process may still use an old one."""
    number = 0 if here == base else int(here.suffix[1:])
    return _beside(base, f".{number + 1}")


def _lead(base: Path, there: Path) -> None:
    """Make a path a link to a copy, in one atomic step."""
    link = _beside(there, "-link")
    _remove(link)
    link.symlink_to(there.name)
    link.replace(base)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Generator[None, None, None]:
    """Lock a folder, so that only one process moves a file in it."""
    locks = import_module("fcntl")  # missing on Windows, which cannot rename open files either
    lock = os.open(folder, os.O_RDONLY)
    try:
        locks.flock(lock, locks.LOCK_EX | locks.LOCK_NB)
        yield
    finally:
        os.close(lock)
