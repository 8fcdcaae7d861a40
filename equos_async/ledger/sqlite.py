"""The ledger for the processes of one machine, in a SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Self, TypeVar

from attrs import fields

from equos_async.errors import ConfigurationError

from .protocol import NOBODY, ROW_VERSION, LedgerRow, LedgerWorker, Namesake, Placing, batched
from .reading import row_of
from .sqlite_file import SQLiteFile
from .sqlite_line import join, leave, park, take, with_places
from .sqlite_mend import counter, limit_ends, time_of

T = TypeVar("T")
# Seconds between two looks at the queue by a worker with rows in it, because SQLite cannot notify.
LOOK: Final = 0.05
LOOKS_A_SECOND: Final = 20
# How long the claimer of a row is remembered, so that its slow worker learns of it.
REMEMBERED: Final = 86_400.0
# How long a call is kept for its worker, which looks for them every 50 ms.
CALLED: Final = 60.0
# Before the name of a worker instead of a claimer: that worker has ended the session or called the
# start off, and reports it.
OVER: Final = "."
MOST_CLAIMED: Final = 500
_COLUMNS: Final = tuple(one.name for one in fields(LedgerRow) if one.name != "read_at")
_NAMES: Final = ", ".join(f'"{name}"' for name in _COLUMNS)
_SELECT: Final = f"SELECT {_NAMES} FROM rows"  # noqa: S608 - our own names
_INSERT: Final = (
    f"INSERT INTO rows ({_NAMES}) "  # noqa: S608 - our own names
    f"VALUES ({', '.join(':' + name for name in _COLUMNS)})"
)
_LATE: Final = (
    "owner IN (SELECT owner FROM workers WHERE until <= :now AND owner <> :worker "
    "AND owner = coalesce(:of, owner))"
)
_LATE_ROWS: Final = (
    f"{_SELECT} WHERE {_LATE} AND version <= {ROW_VERSION} AND session_id IS NULL "
    f"UNION ALL {_SELECT} WHERE {_LATE} AND version <= {ROW_VERSION} "
    "AND endpoint = :endpoint AND session_id IS NOT NULL LIMIT :most"
)
_LATE_TURNS: Final = f"SELECT id FROM line WHERE {_LATE}"  # noqa: S608 - our own names
_DROP_LATE_WORKERS: Final = (
    "DELETE FROM workers WHERE until <= :now AND owner <> :worker "
    "AND NOT EXISTS (SELECT 1 FROM rows WHERE rows.owner = workers.owner)"
)
_WORKERS: Final = (
    "SELECT owner, until - ?, count(line.id) + "
    "(SELECT count(*) FROM rows WHERE rows.owner = workers.owner) "
    "FROM workers LEFT JOIN line USING (owner) WHERE typeof(owner) = 'text' "
    "GROUP BY owner ORDER BY owner"
)


class SQLiteLedger:
    """A ledger in a SQLite file, for the workers of one machine.

    It works in its own thread, so that the event loop never waits for the disk, and uses the
    machine's clock. A killed process does not damage the file; after a power failure the last
    writes may be missing.

    Args:
        path: The file, which is created if it does not exist; its directory must exist.
        timeout: Seconds to wait for other processes that write.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 1.0) -> None:
        try:
            self._path = os.fspath(path)
        except TypeError:
            kind = type(path).__name__
            raise ConfigurationError(f"path must be a string or a path, not {kind}") from None
        self._file = SQLiteFile(self._path, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the file; may be called more than once."""
        await self._file.aclose()

    def __repr__(self) -> str:
        return f"<SQLiteLedger {self._path}>"

    async def place(
        self, row: LedgerRow, *, seconds: float, limit: int, wait: bool, lease: float
    ) -> Placing:
        """As :meth:`SessionLedger.place`."""
        return await self.place_in_group(
            row, seconds=seconds, limit=limit, wait=wait, lease=lease, group_limit=None
        )

    async def place_in_group(
        self,
        row: LedgerRow,
        *,
        seconds: float,
        limit: int,
        wait: bool,
        lease: float,
        group_limit: int | None,
        renews: bool = False,
    ) -> Placing:
        """As :meth:`GroupedLedger.place_in_group`."""

        def work(db: sqlite3.Connection) -> Placing:
            now = _hear(db, row.owner, lease)
            if _is_over(_claimer(db, row.id)):
                return Placing(placed=False, called_off=True)
            if db.execute("SELECT 1 FROM rows WHERE id = ?", [row.id]).fetchone():
                return Placing(placed=True)
            if holder := _holder(db, row):
                leave(db, row.id)
                return Placing(placed=False, holder=holder)
            counted = counter(db, "SELECT counted FROM memory")
            is_full = group_limit is not None and _group_size(db, row) >= group_limit
            if not is_full and counted <= now and take(db, row, limit, renews=renews):
                db.execute(_INSERT, _values(row, now, now + seconds))
                return Placing(placed=True)
            if not wait:
                leave(db, row.id)
            elif is_full:
                park(db, row)
            else:
                join(db, row, limit, renews=renews)
            left = max(0.0, counted - now)
            return Placing(placed=False, recovers_in=left, group_full=is_full)

        return await self._run(work)

    async def record(self, row: LedgerRow, *, seconds: float) -> str:
        """As :meth:`SessionLedger.record`."""

        def work(db: sqlite3.Connection) -> str:
            return _record(db, row, time_of(db), seconds)

        return await self._run(work)

    async def record_all(
        self, worker: str, rows: Sequence[tuple[LedgerRow, float]], *, lease: float
    ) -> Sequence[str]:
        """As :meth:`BulkLedger.record_all`; in batches, so that no other worker waits for long."""

        def work(portion: Sequence[tuple[LedgerRow, float]], db: sqlite3.Connection) -> list[str]:
            now = _hear(db, worker, lease)
            return [_record(db, row, now, seconds) for row, seconds in portion]

        told: list[str] = []
        for portion in batched(rows, MOST_CLAIMED):
            told += await self._run(partial(work, portion))
        return told

    async def remove(self, row_id: str, *, worker: str | None = None) -> bool | None:
        """As :meth:`KeyedLedger.remove`."""

        def work(db: sqlite3.Connection) -> bool | None:
            found = db.execute(
                "SELECT owner FROM rows WHERE id = :id UNION ALL "
                "SELECT owner FROM line WHERE id = :id",
                {"id": row_id},
            ).fetchone()
            if found is None:
                return False if _claimer(db, row_id) not in {None, OVER} else None
            db.execute("DELETE FROM rows WHERE id = ?", [row_id])
            leave(db, row_id)
            if found[0] != (worker or NOBODY):
                _call(db, found[0], row_id, worker)
            return True

        return await self._run(work)

    async def call_off(self, key: str, *, worker: str) -> Sequence[LedgerRow]:
        """As :meth:`KeyedLedger.call_off`."""

        def work(db: sqlite3.Connection) -> list[LedgerRow]:
            now = time_of(db)
            others = "WHERE key = :key AND owner NOT IN (:worker, :nobody)"
            scope = {"key": key, "worker": worker, "nobody": NOBODY}
            found = _rows(db.execute(f"{_SELECT} {others}", scope), now)
            starts = [(row.owner, row.id) for row in found if row.session_id is None]
            turns = f"SELECT owner, id FROM line {others}"  # noqa: S608 - our own words
            for owner, row_id in starts + db.execute(turns, scope).fetchall():
                leave(db, row_id)
                _call(db, owner, row_id, worker)
            return found

        return await self._run(work)

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, str | None]:
        """As :meth:`SessionLedger.renew`."""

        def work(db: sqlite3.Connection) -> dict[str, str | None]:
            _hear(db, worker, lease)
            if not lease:
                db.execute("DELETE FROM names WHERE owner = ?", [worker])
            held = db.execute(
                "SELECT id, session_id FROM rows WHERE owner = :worker "
                "UNION ALL SELECT id, NULL FROM line WHERE owner = :worker",
                {"worker": worker},
            )
            return {row_id: known for row_id, known in held if isinstance(row_id, str)}

        return await self._run(work)

    async def enlist(
        self,
        worker: str,
        *,
        name: str,
        process: str,
        lease: float,
        instead_of: str | None = None,
    ) -> Namesake | None:
        """As :meth:`NamedLedger.enlist`."""

        def work(db: sqlite3.Connection) -> Namesake | None:
            now = _hear(db, worker, lease)
            db.execute(
                "UPDATE workers SET until = min(until, ?) "
                "WHERE owner = ? AND owner IN (SELECT owner FROM names WHERE name = ?)",
                [now, instead_of, name],
            )
            holder = db.execute(
                "SELECT owner, process, until FROM names JOIN workers USING (owner), engine "
                "WHERE name = :name AND owner NOT IN (:worker, :dead) "
                "AND typeof(process) || typeof(until) = 'textreal' "
                "AND (until > :now OR :now - since < :lease)",
                {
                    "name": name,
                    "worker": worker,
                    "dead": instead_of or worker,
                    "now": now,
                    "lease": lease,
                },
            ).fetchone()
            if holder:
                return Namesake(*holder)
            db.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", [name, worker, process])
            return None

        return await self._run(work)

    async def claim(
        self,
        worker: str,
        *,
        endpoint: str,
        lease: float,
        at_once: bool = False,
        of: str | None = None,
        settles: bool = False,
    ) -> Sequence[LedgerRow]:
        """As :meth:`NamedLedger.claim` and :meth:`SettlingLedger.claim`."""

        def work(db: sqlite3.Connection) -> list[LedgerRow]:
            now = _hear(db, worker, lease)
            since = counter(db, "SELECT since FROM engine")
            if now - since < lease and not at_once and of is None:
                return []
            scope = {
                "now": now,
                "worker": worker,
                "of": of,
                "endpoint": endpoint,
                "most": MOST_CLAIMED,
            }
            limit_ends(db, now)
            late = db.execute(_LATE_ROWS, scope).fetchall()
            claimed = _rows(late, now)
            owners = dict.fromkeys((values[0] for values in late), NOBODY)  # invalid rows too
            for row in claimed:
                may_settle = settles and row.marker is not None and row.endpoint == endpoint
                if row.session_id is not None or may_settle:
                    owners[row.id] = worker
            for row_id, by in owners.items():
                db.execute("UPDATE rows SET owner = ? WHERE id = ?", [by, row_id])
                db.execute("INSERT OR REPLACE INTO claimed VALUES (?, ?, ?)", [row_id, by, now])
            for (row_id,) in db.execute(_LATE_TURNS, scope).fetchall():
                leave(db, row_id)
            if db.execute(_DROP_LATE_WORKERS, scope).rowcount:
                db.execute("DELETE FROM names WHERE owner NOT IN (SELECT owner FROM workers)")
            db.execute("DELETE FROM claimed WHERE at < ?", [now - REMEMBERED])
            db.execute("DELETE FROM calls WHERE at < ?", [now - CALLED])
            return claimed

        return await self._run(work)

    async def give_up(self, worker: str, row_id: str) -> None:
        """As :meth:`SettlingLedger.give_up`."""

        def work(db: sqlite3.Connection) -> None:
            given_up = db.execute(
                "UPDATE rows SET owner = ? WHERE id = ? AND owner = ? AND session_id IS NULL",
                [NOBODY, row_id, worker],
            )
            if given_up.rowcount:
                db.execute("UPDATE claimed SET by = ? WHERE id = ?", [NOBODY, row_id])

        await self._run(work)

    async def rows(self) -> Sequence[LedgerRow]:
        """As :meth:`SessionLedger.rows`."""

        def work(db: sqlite3.Connection) -> list[LedgerRow]:
            now = time_of(db)
            return _rows(db.execute(f"{_SELECT} ORDER BY started"), now)

        return await self._run(work, write=False)

    async def workers(self) -> Sequence[LedgerWorker]:
        """The workers that the engine knows, by their ids; for people who watch them."""

        def work(db: sqlite3.Connection) -> list[LedgerWorker]:
            known = db.execute(_WORKERS, [time_of(db)])
            return [LedgerWorker(*values) for values in known]

        return await self._run(work, write=False)

    async def turns(self, worker: str) -> AsyncIterator[str]:
        """As :meth:`SessionLedger.turns`; reads the queue and the calls every 50 ms."""
        heard = 0

        def work(db: sqlite3.Connection) -> tuple[list[str], list[tuple[int, str]]]:
            mine = "SELECT seq, id FROM calls WHERE seq > ? AND owner = ? ORDER BY seq"
            calls = db.execute(mine, [heard, worker]).fetchall()
            return [row_id for row_id, owner in with_places(db) if owner == worker], calls

        told: frozenset[str] = frozenset()
        looks = 0
        while True:
            called, calls = await self._run(work, write=False)
            for seq, row_id in calls:
                yield row_id
                heard = seq
            if looks % LOOKS_A_SECOND == 0:
                told = frozenset()  # once a second, because a call may have had no effect
            for row_id in [one for one in called if one not in told]:
                yield row_id
            told, looks = frozenset(called), looks + 1
            await asyncio.sleep(LOOK)

    async def _run(self, work: Callable[[sqlite3.Connection], T], *, write: bool = True) -> T:
        return await self._file.run(work, write=write)


def _hear(db: sqlite3.Connection, worker: str, lease: float) -> float:
    """Note a heartbeat, remove expired rows, and return the time."""
    now = time_of(db)
    db.execute("INSERT OR REPLACE INTO workers VALUES (?, ?)", [worker, now + lease])
    if not lease:
        return now  # leaving is no heartbeat: it would hide a time without any
    heard = counter(db, "SELECT heard FROM engine")
    if now < heard:
        # The clock was set back: all leases keep their length.
        db.execute("UPDATE workers SET until = until + ? WHERE owner <> ?", [now - heard, worker])
        db.execute("UPDATE memory SET counted = counted + ? WHERE counted > ?", [now - heard, now])
    # Slots are counted again when all workers had the time to write rows that the file may lack.
    db.execute("UPDATE memory SET counted = ? WHERE counted < 0", [now + lease])
    if abs(now - heard) > lease / 2:
        # No heartbeat could arrive, or the clock jumped: no worker is stalled because of that.
        db.execute("UPDATE engine SET since = ?", [now])
    db.execute("UPDATE engine SET heard = ?", [now])
    db.execute("DELETE FROM rows WHERE expires <= ?", [now])
    return now


def _record(db: sqlite3.Connection, row: LedgerRow, now: float, seconds: float) -> str:
    """As :meth:`SessionLedger.record`."""
    readable = "typeof(owner) || typeof(started) = 'textreal'"
    before = f"SELECT owner, started FROM rows WHERE id = ? AND {readable}"  # noqa: S608 - our words
    found = db.execute(before, [row.id]).fetchone()
    if found is None:
        if (claimer := _claimer(db, row.id)) is not None:
            return NOBODY if _is_over(claimer) else claimer
    elif found[0] not in {row.owner, NOBODY}:
        return str(found[0])
    elif _is_over(_claimer(db, row.id)):
        if row.session_id is None:
            return NOBODY  # its start was called off
        # It came nevertheless, and has to be stopped.
        db.execute("DELETE FROM claimed WHERE id = ?", [row.id])
    db.execute("DELETE FROM rows WHERE id = ?", [row.id])
    db.execute(_INSERT, _values(row, found[1] if found else now, now + seconds))
    leave(db, row.id, placed=True)
    # It may have been stalled and removed: without a further heartbeat it must be stalled again.
    db.execute("INSERT OR IGNORE INTO workers VALUES (?, ?)", [row.owner, now])
    return _holder(db, row) or row.owner


def _claimer(db: sqlite3.Connection, row_id: str) -> str | None:
    """The worker that has claimed a row; or, after ``OVER``, the one that has ended its session."""
    found = db.execute("SELECT by FROM claimed WHERE id = ?", [row_id]).fetchone()
    return found and str(found[0])


def _is_over(claimer: str | None) -> bool:
    return claimer is not None and claimer.startswith(OVER)


def _call(db: sqlite3.Connection, owner: str, row_id: str, by: str | None) -> None:
    """Tell a worker that its session is over, or its start called off."""
    now = time_of(db)
    over = OVER + (by or NOBODY)
    db.execute("INSERT OR IGNORE INTO claimed VALUES (?, ?, ?)", [row_id, over, now])
    db.execute("INSERT INTO calls (owner, id, at) VALUES (?, ?, ?)", [owner, row_id, now])


def _holder(db: sqlite3.Connection, row: LedgerRow) -> str | None:
    """The other worker that has the row's key."""
    holder = db.execute(
        "SELECT owner FROM (SELECT key, owner FROM rows UNION ALL SELECT key, owner FROM line) "
        "WHERE key = :key AND owner NOT IN (:owner, :nobody) AND typeof(owner) = 'text'",
        {"key": row.key, "owner": row.owner, "nobody": NOBODY},
    ).fetchone()
    return holder and str(holder[0])


def _group_size(db: sqlite3.Connection, row: LedgerRow) -> int:
    """How many rows its group has."""
    count = 'SELECT count(*) FROM rows WHERE "group" = ?'
    (size,) = db.execute(count, [row.group]).fetchone()
    return int(size)


def _values(row: LedgerRow, started: float, expires: float) -> dict[str, Any]:
    given: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    return {**given, "started": started, "expires": expires}


def _rows(found: Iterable[Sequence[Any]], now: float) -> list[LedgerRow]:
    """The rows that can be read."""
    read = (row_of(dict(zip(_COLUMNS, values, strict=True)), now) for values in found)
    return [row for row in read if row is not None]
