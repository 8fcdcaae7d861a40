"""The queue of a ledger in SQLite: the rows that wait for a slot, in the order of their turns.

A row's ``seq`` is its turn, so the queue is read in the order of its key. Groups take turns: in
each round every waiting group has one turn, so a group's next row is one round later. A group that
was not waiting begins at the end of the current round. Renewals have turns before those of all
other starts, and parked rows have none.

When a row leaves without having used its turn, its group keeps the turn: each row behind it moves
one round forward. It would take long to write all of them, so only the next row moves; it counts
in ``skipped`` how many turns were skipped before it, and passes that on. So the first row of a
group has its exact turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from .protocol import LedgerRow
from .reading import FAR
from .sqlite_mend import counter

# The number of groups in one round; SQLite's whole numbers have 63 bits.
ROUND: Final = 2**20
RENEWALS: Final = range(-(2**62), 0)
NEWCOMERS: Final = range(2**61)
PARKED: Final = range(2**61, 2**62)
# How far the queue is searched for rows with slots, behind rows that are at their own limits.
MOST_PASSED: Final = 2000
# A value that is not a number counts as none.
_TURN: Final = "CASE typeof(turn) WHEN 'integer' THEN turn ELSE seq END"
_SKIPPED: Final = f"CASE WHEN abs(skipped) < {FAR} THEN CAST(skipped AS INTEGER) ELSE 0 END"


def take(db: sqlite3.Connection, row: LedgerRow, limit: int, *, renews: bool) -> bool:
    """Take a slot for a row, if one is left after all rows before it; then it leaves the queue."""
    live = counter(db, "SELECT live FROM engine")
    if live >= limit:
        return False
    if db.execute("SELECT 1 FROM line WHERE most > 0 LIMIT 1").fetchone():
        join(db, row, limit, renews=renews)
        if not _has_place(db, row.id, limit - live):
            return False
    leave(db, row.id, placed=True)
    return True


def join(db: sqlite3.Connection, row: LedgerRow, limit: int, *, renews: bool) -> None:
    """Join the queue, behind the others of the group; a row in the queue keeps its position."""
    stands = db.execute(
        "UPDATE line SET most = ? WHERE id = ? AND seq < ?", [limit, row.id, PARKED.start]
    )
    if not stands.rowcount:
        leave(db, row.id)
        turn = _free(db, _turn(db, row.group, RENEWALS if renews else NEWCOMERS))
        _insert(db, row, turn, limit)


def park(db: sqlite3.Connection, row: LedgerRow) -> None:
    """Keep the key of a row, but take its turn, which goes to its group."""
    stands = db.execute("SELECT seq FROM line WHERE id = ?", [row.id]).fetchone()
    if stands is None or stands[0] not in PARKED:
        leave(db, row.id)
        (last,) = db.execute("SELECT max(seq) FROM line").fetchone()
        _insert(db, row, max(PARKED.start, (last or 0) + 1), 0)


def leave(db: sqlite3.Connection, row_id: str, *, placed: bool = False) -> None:
    """Leave the queue; unless the row is placed, the next of its group gets its turn."""
    columns = f'SELECT seq, "group", {_TURN}, {_SKIPPED} FROM line WHERE'  # noqa: S608
    found = db.execute(f"{columns} id = ?", [row_id]).fetchone()
    if found is None:
        return
    db.execute("DELETE FROM line WHERE id = ?", [row_id])
    seq, group, _, skipped = found
    skipped += not placed
    if not skipped or seq in PARKED:
        return
    end = NEWCOMERS.stop if seq in NEWCOMERS else RENEWALS.stop
    in_group = '"group" IS ? AND seq >= ? AND seq < ? ORDER BY seq LIMIT 1'
    following = db.execute(f"{columns} {in_group}", [group, seq, end]).fetchone()
    if following is None:
        return
    old, _, turn, skipped_before = following
    skipped += skipped_before
    new = min(old, _free(db, turn - skipped * ROUND))
    db.execute("UPDATE line SET seq = ?, skipped = ? WHERE seq = ?", [new, skipped, old])


def with_places(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """The rows in the queue that may be placed now, with their owners."""
    taken = counter(db, "SELECT live FROM engine")
    (most,) = db.execute("SELECT max(most) FROM line WHERE most < ?", [FAR]).fetchone()
    line = db.execute(
        "SELECT id, owner, most FROM line WHERE most > 0 AND most < ? ORDER BY seq LIMIT ?",
        [FAR, MOST_PASSED],
    )
    while most is not None and taken < most and (first := line.fetchone()):
        row_id, owner, limit = first
        if taken < limit:
            yield row_id, owner
            taken += 1


def _has_place(db: sqlite3.Connection, row_id: str, free: float) -> bool:
    (ahead,) = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM line WHERE most > 0 "
        "AND seq < (SELECT seq FROM line WHERE id = ?) LIMIT ?)",
        [row_id, free],
    ).fetchone()
    if ahead < free:
        return True
    return any(one == row_id for one, _ in with_places(db))


def _turn(db: sqlite3.Connection, group: str | None, lane: range) -> int:
    """The turn of a new row: one round behind its group, or at the end of this round."""
    last = db.execute(
        f'SELECT {_TURN} FROM line WHERE "group" IS ? AND seq >= ? AND seq < ? '  # noqa: S608
        "ORDER BY seq DESC LIMIT 1",
        [group, lane.start, lane.stop],
    ).fetchone()
    if last is not None:
        return int(last[0]) + ROUND
    within = "SELECT seq FROM line WHERE seq >= ? AND seq < ? ORDER BY seq"
    first = db.execute(f"{within} LIMIT 1", [lane.start, lane.stop]).fetchone()
    if first is None:
        return lane.start
    latest = db.execute(f"{within} DESC LIMIT 1", [first[0], first[0] + ROUND]).fetchone()
    return int(latest[0]) + 1


def _free(db: sqlite3.Connection, turn: int) -> int:
    """The next turn that no row has."""
    while db.execute("SELECT 1 FROM line WHERE seq = ?", [turn]).fetchone():
        turn += 1
    return turn


def _insert(db: sqlite3.Connection, row: LedgerRow, seq: int, most: int) -> None:
    db.execute(
        'INSERT INTO line (seq, id, key, owner, most, "group", turn) VALUES (?, ?, ?, ?, ?, ?, ?)',
        [seq, row.id, row.key, row.owner, most, row.group, seq],
    )
