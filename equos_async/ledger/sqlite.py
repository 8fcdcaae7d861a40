"""The ledger for the processes of one machine, in a SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Self, TypeVar

from equos_async.errors import ConfigurationError

from .protocol import NOBODY, LedgerRow, LedgerWorker, Namesake, Placing, batched
from .sqlite_file import SQLiteFile
from .sqlite_line import join, leave, park, take, with_places
from .sqlite_mend import counter, limit_ends, time_of
from .sqlite_rows import (
    CALLED,
    CLAIM,
    DROP_LATE_WORKERS,
    INSERT,
    LATE_ROWS,
    LATE_TURNS,
    MOST_CLAIMED,
    NAME,
    OVER,
    REMEMBERED,
    SELECT,
    WORKERS,
    call,
    claimer_of,
    group_size,
    hear,
    holder_of,
    is_over,
    record_row,
    rows_of,
    values_of,
)

T = TypeVar("T")
# Seconds between two looks at the queue by a worker with rows in it, because SQLite cannot notify.
LOOK: Final = 0.05
LOOKS_A_SECOND: Final = 20


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
            self._file = SQLiteFile(self._path, timeout=timeout)
        except TypeError:
            kind = type(path).__name__
            raise ConfigurationError(f"path must be a string or a path, not {kind}") from None

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
            now = hear(db, row.owner, lease)
            if is_over(claimer_of(db, row.id)):
                return Placing(placed=False, called_off=True)
            if db.execute("SELECT 1 FROM rows WHERE id = ?", [row.id]).fetchone():
                return Placing(placed=True)
            if holder := holder_of(db, row):
                leave(db, row.id)
                return Placing(False, holder[0], session_id=holder[1])
            counted = counter(db, "SELECT counted FROM memory")
            is_full = group_limit is not None and group_size(db, row) >= group_limit
            if not is_full and counted <= now and take(db, row, limit, renews=renews):
                db.execute(INSERT, values_of(row, now, now + seconds))
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
            return record_row(db, row, time_of(db), seconds)

        return await self._run(work)

    async def record_all(
        self, worker: str, rows: Sequence[tuple[LedgerRow, float]], *, lease: float
    ) -> Sequence[str]:
        """As :meth:`BulkLedger.record_all`; in batches, so that no other worker waits for long."""

        def work(portion: Sequence[tuple[LedgerRow, float]], db: sqlite3.Connection) -> list[str]:
            now = hear(db, worker, lease)
            return [record_row(db, row, now, seconds) for row, seconds in portion]

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
                return False if claimer_of(db, row_id) not in {None, OVER} else None
            db.execute("DELETE FROM rows WHERE id = ?", [row_id])
            leave(db, row_id)
            if found[0] != (worker or NOBODY):
                call(db, found[0], row_id, worker)
            return True

        return await self._run(work)

    async def call_off(self, key: str, *, worker: str) -> Sequence[LedgerRow]:
        """As :meth:`KeyedLedger.call_off`."""

        def work(db: sqlite3.Connection) -> list[LedgerRow]:
            now = time_of(db)
            others = "WHERE key = :key AND owner NOT IN (:worker, :nobody)"
            scope = {"key": key, "worker": worker, "nobody": NOBODY}
            found = rows_of(db.execute(f"{SELECT} {others}", scope), now)
            starts = [(row.owner, row.id) for row in found if row.session_id is None]
            turns = f"SELECT owner, id FROM line {others}"  # noqa: S608 - our own words
            for owner, row_id in starts + db.execute(turns, scope).fetchall():
                leave(db, row_id)
                call(db, owner, row_id, worker)
            return found

        return await self._run(work)

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, str | None]:
        """As :meth:`SessionLedger.renew`."""

        def work(db: sqlite3.Connection) -> dict[str, str | None]:
            hear(db, worker, lease)
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
            now = hear(db, worker, lease)
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
            db.execute(NAME, [name, worker, process])
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
            now = hear(db, worker, lease, at_once=at_once)
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
            late = db.execute(LATE_ROWS, scope).fetchall()
            claimed = rows_of(late, now)
            owners = dict.fromkeys((values[0] for values in late), NOBODY)  # invalid rows too
            for row in claimed:
                may_settle = settles and row.marker is not None and row.endpoint == endpoint
                if row.session_id is not None or may_settle:
                    owners[row.id] = worker
            for row_id, by in owners.items():
                db.execute("UPDATE rows SET owner = ? WHERE id = ?", [by, row_id])
                db.execute(CLAIM, [row_id, by, now])
            for (row_id,) in db.execute(LATE_TURNS, scope).fetchall():
                leave(db, row_id)
            if db.execute(DROP_LATE_WORKERS, scope).rowcount:
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
            return rows_of(db.execute(f"{SELECT} ORDER BY started"), now)

        return await self._run(work, write=False)

    async def workers(self) -> Sequence[LedgerWorker]:
        """The workers that the engine knows, by their ids; for people who watch them."""

        def work(db: sqlite3.Connection) -> list[LedgerWorker]:
            known = db.execute(WORKERS, [time_of(db)])
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
