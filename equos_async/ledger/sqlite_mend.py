"""Repair a ledger's SQLite file: lost rows of its tables, and invalid values."""

from __future__ import annotations

import sqlite3
from typing import Final

from .reading import FAR

_DAY: Final = 86_400.0

# Texts and blobs are greater than any number.
_NONSENSE: Final = (
    "DELETE FROM engine WHERE max(heard, since, live) > :far OR live < 0",
    "DELETE FROM memory WHERE max(inode, counted) > :far",
    "DELETE FROM workers WHERE until > :far OR typeof(owner) <> 'text'",
    "DELETE FROM line WHERE most > :far OR typeof(owner) <> 'text'",
    "DELETE FROM line WHERE abs(skipped) > :far OR max(turn, skipped) > 9e18",
)
_ENGINE: Final = (
    "INSERT INTO engine (heard, since, live) SELECT 0, 0, (SELECT count(*) FROM rows) "
    "WHERE NOT EXISTS (SELECT 1 FROM engine)"
)
_WORKERS: Final = (
    "INSERT OR IGNORE INTO workers (owner, until) SELECT owner, :now "
    "FROM (SELECT owner FROM rows UNION SELECT owner FROM line) "
    "WHERE owner <> '' AND typeof(owner) = 'text'"
)


def mend(db: sqlite3.Connection) -> None:
    """Repair a file, within a transaction.

    Rows of an unknown worker would stay for ever. So it counts as stalled, unless it sends a
    heartbeat within a lease.
    """
    now = time_of(db)
    for statement in _NONSENSE:
        db.execute(statement, {"far": FAR})
    limit_ends(db, now)
    db.execute(_ENGINE)
    if db.execute(_WORKERS, {"now": now}).rowcount:
        db.execute("UPDATE engine SET since = ?", [now])


def limit_ends(db: sqlite3.Connection, now: float) -> None:
    """Let rows with an invalid end expire in a day."""
    db.execute("UPDATE rows SET expires = ? WHERE expires > ?", [now + _DAY, FAR])


def time_of(db: sqlite3.Connection) -> float:
    """Seconds since the epoch by the engine's clock, to the millisecond."""
    (now,) = db.execute("SELECT (julianday('now') - 2440587.5) * 86400.0").fetchone()
    return float(now)


def counter(db: sqlite3.Connection, query: str) -> float:
    """Read a counter, which each file has once.

    Raises:
        sqlite3.DatabaseError: It is lost; the next step opens the file again and repairs it.
    """
    found = db.execute(query).fetchone()
    if found is None or not isinstance(found[0], int | float):
        raise sqlite3.DatabaseError("a counter is missing")
    return found[0]
