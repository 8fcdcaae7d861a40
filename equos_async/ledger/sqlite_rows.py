"""The rows and leases of a ledger in SQLite: the statements, and the parts of its steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from attrs import fields

from .protocol import NOBODY, ROW_VERSION, LedgerRow
from .reading import row_of
from .sqlite_line import leave
from .sqlite_mend import counter, time_of

# How long the claimer of a row is remembered, so that its slow worker learns of it.
REMEMBERED: Final = 86_400.0
# How long a call is kept for its worker, which looks for them every 50 ms.
CALLED: Final = 60.0
# Before the name of a worker instead of a claimer: that worker has ended the session or called the
# start off, and reports it.
OVER: Final = "."
# Seconds without a heartbeat that are not counted, because each living worker sends one a second.
# After longer ones all leases are over, or the time of the last heartbeat is invalid.
QUIET: Final = 5.0
QUIET_AT_MOST: Final = 86_400.0
MOST_CLAIMED: Final = 500
COLUMNS: Final = tuple(one.name for one in fields(LedgerRow) if one.name != "read_at")
NAMES: Final = ", ".join(f'"{name}"' for name in COLUMNS)
SELECT: Final = f"SELECT {NAMES} FROM rows"  # noqa: S608 - our own names
INSERT: Final = (
    f"INSERT INTO rows ({NAMES}) "  # noqa: S608 - our own names
    f"VALUES ({', '.join(':' + name for name in COLUMNS)})"
)
# Columns that a newer release has added keep their values.
HEARTBEAT: Final = (
    "INSERT INTO workers (owner, until) VALUES (?, ?) "
    "ON CONFLICT (owner) DO UPDATE SET until = excluded.until"
)
NAME: Final = (
    "INSERT INTO names (name, owner, process) VALUES (?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, process = excluded.process"
)
CLAIM: Final = (
    "INSERT INTO claimed (id, by, at) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET by = excluded.by, at = excluded.at"
)
LATE: Final = (
    "owner IN (SELECT owner FROM workers WHERE until <= :now AND owner <> :worker "
    "AND owner = coalesce(:of, owner))"
)
LATE_ROWS: Final = (
    f"{SELECT} WHERE {LATE} AND version <= {ROW_VERSION} AND session_id IS NULL "
    f"UNION ALL {SELECT} WHERE {LATE} AND version <= {ROW_VERSION} "
    "AND endpoint = :endpoint AND session_id IS NOT NULL LIMIT :most"
)
LATE_TURNS: Final = f"SELECT id FROM line WHERE {LATE}"  # noqa: S608 - our own names
DROP_LATE_WORKERS: Final = (
    "DELETE FROM workers WHERE until <= :now AND owner <> :worker "
    "AND NOT EXISTS (SELECT 1 FROM rows WHERE rows.owner = workers.owner)"
)
WORKERS: Final = (
    "SELECT owner, until - ?, count(line.id) + "
    "(SELECT count(*) FROM rows WHERE rows.owner = workers.owner) "
    "FROM workers LEFT JOIN line USING (owner) WHERE typeof(owner) = 'text' "
    "GROUP BY owner ORDER BY owner"
)


def hear(db: sqlite3.Connection, worker: str, lease: float, *, at_once: bool = False) -> float:
    """Note a heartbeat, remove expired rows, and return the time.

    With ``at_once`` leases ran on while nobody sent a heartbeat.
    """
    now = time_of(db)
    db.execute(HEARTBEAT, [worker, now + lease])
    if not lease:
        return now  # leaving is no heartbeat: it would hide a time without any
    heard = counter(db, "SELECT heard FROM engine")
    ahead = now - heard
    if ahead < 0 or (QUIET < ahead < QUIET_AT_MOST and not at_once):
        # The clock was set, or no heartbeat could arrive: leases and waits last as long as before.
        db.execute("UPDATE workers SET until = until + ? WHERE owner <> ?", [ahead, worker])
        db.execute("UPDATE memory SET counted = counted + ? WHERE counted > 0", [ahead])
    # Slots are counted again when all workers had the time to write rows that the file may lack.
    db.execute("UPDATE memory SET counted = ? WHERE counted < 0", [now + lease])
    if abs(ahead) > lease / 2:
        # All workers have the time of a lease for a heartbeat.
        db.execute("UPDATE engine SET since = ?", [now])
    db.execute("UPDATE engine SET heard = ?", [now])
    db.execute("DELETE FROM rows WHERE expires <= ?", [now])
    return now


def record_row(db: sqlite3.Connection, row: LedgerRow, now: float, seconds: float) -> str:
    """As :meth:`SessionLedger.record`."""
    readable = "typeof(owner) || typeof(started) = 'textreal'"
    before = f"SELECT owner, started FROM rows WHERE id = ? AND {readable}"  # noqa: S608 - our words
    found = db.execute(before, [row.id]).fetchone()
    if found is None:
        if (claimer := claimer_of(db, row.id)) is not None:
            return NOBODY if is_over(claimer) else claimer
    elif found[0] not in {row.owner, NOBODY}:
        return str(found[0])
    elif is_over(claimer_of(db, row.id)):
        if row.session_id is None:
            return NOBODY  # its start was called off
        # It came nevertheless, and has to be stopped.
        db.execute("DELETE FROM claimed WHERE id = ?", [row.id])
    db.execute("DELETE FROM rows WHERE id = ?", [row.id])
    db.execute(INSERT, values_of(row, found[1] if found else now, now + seconds))
    leave(db, row.id, placed=True)
    # It may have been stalled and removed: without a further heartbeat it must be stalled again.
    db.execute("INSERT OR IGNORE INTO workers (owner, until) VALUES (?, ?)", [row.owner, now])
    holder = holder_of(db, row)
    return row.owner if holder is None else holder[0]


def claimer_of(db: sqlite3.Connection, row_id: str) -> str | None:
    """The worker that has claimed a row; or, after ``OVER``, the one that has ended its session."""
    found = db.execute("SELECT by FROM claimed WHERE id = ?", [row_id]).fetchone()
    return found and str(found[0])


def is_over(claimer: str | None) -> bool:
    """Whether a worker has ended the row's session, or called its start off."""
    return claimer is not None and claimer.startswith(OVER)


def call(db: sqlite3.Connection, owner: str, row_id: str, by: str | None) -> None:
    """Tell a worker that its session is over, or its start called off."""
    now = time_of(db)
    over = OVER + (by or NOBODY)
    db.execute("INSERT OR IGNORE INTO claimed (id, by, at) VALUES (?, ?, ?)", [row_id, over, now])
    db.execute("INSERT INTO calls (owner, id, at) VALUES (?, ?, ?)", [owner, row_id, now])


def holder_of(db: sqlite3.Connection, row: LedgerRow) -> tuple[str, str | None] | None:
    """The other worker that has the row's key, and the id of its session."""
    holder: tuple[str, str | None] | None = db.execute(
        "SELECT owner, CASE typeof(session_id) WHEN 'text' THEN session_id END FROM "
        "(SELECT key, owner, session_id FROM rows UNION ALL SELECT key, owner, NULL FROM line) "
        "WHERE key = :key AND owner NOT IN (:owner, :nobody) AND typeof(owner) = 'text'",
        {"key": row.key, "owner": row.owner, "nobody": NOBODY},
    ).fetchone()
    return holder


def group_size(db: sqlite3.Connection, row: LedgerRow) -> int:
    """How many rows its group has."""
    count = 'SELECT count(*) FROM rows WHERE "group" = ?'
    (size,) = db.execute(count, [row.group]).fetchone()
    return int(size)


def values_of(row: LedgerRow, started: float, expires: float) -> dict[str, Any]:
    """The values of a row's columns."""
    given: dict[str, Any] = {name: getattr(row, name) for name in COLUMNS}
    return {**given, "started": started, "expires": expires}


def rows_of(found: Iterable[Sequence[Any]], now: float) -> list[LedgerRow]:
    """The rows that can be read."""
    read = (row_of(dict(zip(COLUMNS, values, strict=True)), now) for values in found)
    return [row for row in read if row is not None]
