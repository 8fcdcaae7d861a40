"""The tables of a ledger in SQLite, as SQL."""

from typing import Final

# In a module, not in a file of its own: what freezes programs collects modules only.
SCHEMA: Final = """\
-- The tables of a ledger, made where they are missing, were another process doing so just now.
BEGIN IMMEDIATE;

CREATE TABLE IF NOT EXISTS rows (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    client TEXT,
    owner TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    session_id TEXT,
    resource TEXT NOT NULL DEFAULT 'session',
    marker TEXT,
    started REAL NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_by_key ON rows (key);
CREATE INDEX IF NOT EXISTS rows_by_owner ON rows (owner, expires);
CREATE INDEX IF NOT EXISTS rows_by_end ON rows (expires);
-- A claim reads what it may take, and nothing else.
CREATE INDEX IF NOT EXISTS rows_by_endpoint ON rows (owner, endpoint);
CREATE INDEX IF NOT EXISTS intents ON rows (owner) WHERE session_id IS NULL;

-- Who waits for a place, with the limit that it goes by, in the order of their turns.
CREATE TABLE IF NOT EXISTS line (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE NOT NULL,
    key TEXT NOT NULL,
    owner TEXT NOT NULL,
    most INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS line_by_most ON line (most);

-- Until when a worker need not be heard of.
CREATE TABLE IF NOT EXISTS workers (owner TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;

-- Who took a row over, for its slow worker to learn of it.
CREATE TABLE IF NOT EXISTS claimed (
    id TEXT PRIMARY KEY,
    by TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;

-- When anybody was last heard of, since when without a gap, and how many rows there are: to count
-- 100,000 rows anew would take longer than all the rest of a start.
CREATE TABLE IF NOT EXISTS engine (heard REAL NOT NULL, since REAL NOT NULL, live INTEGER NOT NULL);
INSERT INTO engine SELECT 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM engine);
CREATE TRIGGER IF NOT EXISTS one_more AFTER INSERT ON rows
    BEGIN UPDATE engine SET live = live + 1; END;
CREATE TRIGGER IF NOT EXISTS one_less AFTER DELETE ON rows
    BEGIN UPDATE engine SET live = live - 1; END;

-- Which file this is and where it lies, and from when on places are counted; below 0 where that is
-- a lease after the next word of any worker.
CREATE TABLE IF NOT EXISTS memory (
    born TEXT NOT NULL, inode INTEGER NOT NULL, counted REAL NOT NULL
);

-- What others have done with a worker's rows, for it to look at them.
CREATE TABLE IF NOT EXISTS calls (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    id TEXT NOT NULL,
    at REAL NOT NULL
);

-- Which worker has a name, and what it told of its process.
CREATE TABLE IF NOT EXISTS names (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    process TEXT NOT NULL
) WITHOUT ROWID;

-- Older workers open no other version: what is added since must mean nothing to them.
PRAGMA user_version = 1;
COMMIT;
"""

# What was added last: a file that has it needs nothing.
NEWEST: Final = "names"

# What the tables of files that are older lack; those who do not know it leave it as it is.
ADDED: Final = {
    ("rows", "resource"): "TEXT NOT NULL DEFAULT 'session'",
    ("rows", "marker"): "TEXT",
    ("rows", "group"): "TEXT",
    # The queue takes turns: which group a row is of, what its turn was when it joined, and how many
    # turns before it were not used since.
    ("line", "group"): "TEXT",
    ("line", "turn"): "INTEGER",
    ("line", "skipped"): "INTEGER NOT NULL DEFAULT 0",
}
# Of columns that even a new file gets only here.
INDEXES: Final = (
    'CREATE INDEX IF NOT EXISTS rows_by_group ON rows ("group") WHERE "group" IS NOT NULL',
    'CREATE INDEX IF NOT EXISTS line_by_group ON line ("group", seq)',
)
