"""The tables of a ledger in SQLite, and the numbered steps that bring a file up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from attrs import frozen

VERSION: Final = 1
"""The ``user_version`` of a file. It never changes, because older workers open no other version."""


@frozen
class Migration:
    """One step; a file that has what it adds needs it no more.

    Older workers go on using the file beside newer ones, so it may add only what they can ignore:
    tables, indexes and triggers that they do not know, and columns with a default.

    Attributes:
        adds: The names of its tables, indexes and triggers; or the name of a table and of its new
            column.
        sql: Statements; those of a migration with several names may be repeated.
    """

    adds: tuple[str, ...]
    sql: str


# In a module, not in .sql files, because tools that freeze programs collect modules only.
# A released migration is never changed, and its number is never used again.
MIGRATIONS: Final[dict[int, Migration]] = {
    1: Migration(
        ("rows", "line", "workers", "claimed", "engine", "one_more", "one_less"),
        """\
CREATE TABLE IF NOT EXISTS rows (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    client TEXT,
    owner TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    session_id TEXT,
    started REAL NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_by_key ON rows (key);
CREATE INDEX IF NOT EXISTS rows_by_owner ON rows (owner, expires);

-- The rows that wait for a slot, each with its limit, in the order of their turns.
CREATE TABLE IF NOT EXISTS line (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE NOT NULL,
    key TEXT NOT NULL,
    owner TEXT NOT NULL,
    most INTEGER NOT NULL
);

-- The end of each worker's lease.
CREATE TABLE IF NOT EXISTS workers (owner TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;

-- The worker that claimed a row, so that its slow worker learns of it.
CREATE TABLE IF NOT EXISTS claimed (
    id TEXT PRIMARY KEY,
    by TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;

-- The time of the last heartbeat, since when there was no gap, and the number of rows: counting
-- 100,000 rows would take longer than the rest of a start.
CREATE TABLE IF NOT EXISTS engine (heard REAL NOT NULL, since REAL NOT NULL, live INTEGER NOT NULL);
INSERT INTO engine SELECT 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM engine);
CREATE TRIGGER IF NOT EXISTS one_more AFTER INSERT ON rows
    BEGIN UPDATE engine SET live = live + 1; END;
CREATE TRIGGER IF NOT EXISTS one_less AFTER DELETE ON rows
    BEGIN UPDATE engine SET live = live - 1; END;
""",
    ),
    # With these indexes a claim reads only the rows that it may take.
    2: Migration(("rows_by_end",), "CREATE INDEX rows_by_end ON rows (expires);"),
    3: Migration(("rows_by_endpoint",), "CREATE INDEX rows_by_endpoint ON rows (owner, endpoint);"),
    4: Migration(("intents",), "CREATE INDEX intents ON rows (owner) WHERE session_id IS NULL;"),
    5: Migration(("line_by_most",), "CREATE INDEX line_by_most ON line (most);"),
    # The identity of the file, its path, and the time from which slots are counted; below 0 if
    # that is a lease after the next heartbeat of any worker.
    6: Migration(
        ("memory",),
        "CREATE TABLE memory (born TEXT NOT NULL, inode INTEGER NOT NULL, counted REAL NOT NULL);",
    ),
    7: Migration(
        ("rows.resource",), "ALTER TABLE rows ADD COLUMN resource TEXT NOT NULL DEFAULT 'session';"
    ),
    # The rows of a worker that other workers have changed: their owner checks them.
    8: Migration(
        ("calls",),
        "CREATE TABLE calls (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
        "owner TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL);",
    ),
    # The worker of each name, and the identity of its process.
    9: Migration(
        ("names",),
        "CREATE TABLE names "
        "(name TEXT PRIMARY KEY, owner TEXT NOT NULL, process TEXT NOT NULL) WITHOUT ROWID;",
    ),
    10: Migration(("rows.marker",), "ALTER TABLE rows ADD COLUMN marker TEXT;"),
    11: Migration(("rows.group",), 'ALTER TABLE rows ADD COLUMN "group" TEXT;'),
    12: Migration(
        ("rows_by_group",),
        'CREATE INDEX rows_by_group ON rows ("group") WHERE "group" IS NOT NULL;',
    ),
    13: Migration(
        ("rows.version",), "ALTER TABLE rows ADD COLUMN version INTEGER NOT NULL DEFAULT 1;"
    ),
    # Groups take turns: a row has its group, its turn when it joined, and the number of turns
    # before it that were not used since.
    14: Migration(("line.group",), 'ALTER TABLE line ADD COLUMN "group" TEXT;'),
    15: Migration(("line.turn",), "ALTER TABLE line ADD COLUMN turn INTEGER;"),
    16: Migration(
        ("line.skipped",), "ALTER TABLE line ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;"
    ),
    17: Migration(("line_by_group",), 'CREATE INDEX line_by_group ON line ("group", seq);'),
}


def migrate(db: sqlite3.Connection) -> None:
    """Run the migrations that a file lacks, unless another process is doing so.

    If this fails, the connection cannot be used any more.

    Raises:
        sqlite3.DatabaseError: This release does not understand the file.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in {0, VERSION}:
        raise sqlite3.DatabaseError(f"written by another release, with schema {version}")
    if not lacked(db):
        return
    db.execute("BEGIN IMMEDIATE")
    for migration in lacked(db):
        for statement in _statements(migration.sql):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def lacked(db: sqlite3.Connection) -> list[Migration]:
    """The migrations that a file lacks, in order."""
    there = {
        name
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master UNION SELECT tables.name || '.' || columns.name "
            "FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns"
        )
    }
    return [one for _, one in sorted(MIGRATIONS.items()) if not there.issuperset(one.adds)]


def _statements(sql: str) -> Iterator[str]:
    statement = ""
    for line in sql.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
