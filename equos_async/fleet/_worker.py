"""One worker's rows and lease in a ledger."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from equos_async.client import EquosClient
from equos_async.clock import Clock
from equos_async.errors import LedgerError
from equos_async.ledger.protocol import LedgerRow, SessionLedger

from . import _engine
from ._reaper import Reaper
from ._rows import key_of
from ._writer import NoRows, RowWriter

BEAT: Final = 1.0
"""Seconds between two looks for workers that are late; shorter where the lease is short."""


class NoWorker:
    """What a fleet without a ledger has in the place of a worker; it does nothing."""

    worker: None = None

    def __init__(self) -> None:
        self.rows: Final = NoRows()

    def enter(self) -> None:
        """Nobody left anything."""

    async def leave(self) -> None:
        """Nobody else has heard of it."""


class LedgerWorker:
    """One fleet's worker in a ledger: it is heard of, and ends what others left.

    What is to be in the ledger is the truth, and is known here; the ledger is made to agree. Each
    row is looked at when something of it changes, and all of them when the lease is renewed.

    Args:
        ledger: Where sessions are written down.
        client: What stops the sessions of others.
        emit: Called with a kind of event, a key, a session id and a reason.
        limit: How many sessions there may be, over all workers.
        lease: Seconds after which others stop what this worker holds.
        required: Whether a session that cannot be written down is not started.
        clock: The source of time.
    """

    def __init__(
        self,
        ledger: SessionLedger,
        client: EquosClient,
        emit: Callable[..., None],
        *,
        limit: int,
        lease: float,
        required: bool,
        clock: Clock,
    ) -> None:
        self.worker: str = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.rows: Final = RowWriter(
            ledger,
            worker=self.worker,
            endpoint=client.endpoint,
            limit=limit,
            lease=lease,
            required=required,
            clock=clock,
            spawn=self._spawn,
            in_line=self._be_called,
        )
        self._ledger = ledger
        self._lease = lease
        self._clock = clock
        self._emit = emit
        self._engine = self.rows.engine
        self._reaper = Reaper(ledger, client, self._engine, worker=self.worker, lease=lease)
        self._reaping: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upkeep: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None

    def enter(self) -> None:
        """Be heard of from now on, and look for workers that are not."""
        self._upkeep = self._spawn(self._look_after())

    # All sessions, for as long as the fleet lives.

    async def _look_after(self) -> None:
        """Renew the lease, make the ledger agree, and look for workers that are late."""
        renew_at = 0.0
        while True:
            now = self._clock.now()
            failures = self._engine.failures
            try:
                if self._engine.is_failing or now >= renew_at:
                    await self._renew()
                    renew_at = now + self._lease / 3
                # Before what is amiss here, which may take long: the sessions of others run.
                async for rows in self._reaper.claims():
                    for row in rows:
                        self._inherit(row)
                await self.rows.make_good()
                if self._engine.failures == failures:
                    self._engine.works()
                self._attend()
            except LedgerError as error:
                self._engine.failed(error)
            await self._clock.sleep(min(BEAT, self._lease / 4))

    async def _renew(self) -> None:
        """Be alive for another lease, and compare what the ledger holds with what it should."""
        at_rest = self.rows.at_rest()
        # Those that go while the answer is on its way are in it, and are not forgotten ones.
        ours = {*self.rows, *self._reaping}
        held = await self._engine.ask(self._ledger.renew(self.worker, lease=self._lease))
        for row_id in held.keys() - ours:
            if row_id not in self.rows:
                # The answer to a claim was lost: to end it is right for all.
                self._take_over(row_id, held[row_id], "an earlier answer of the ledger was lost")
        self.rows.compare(at_rest, held)

    def _inherit(self, row: LedgerRow) -> None:
        left_by = f"left by worker {row.owner}"
        if row.session_id is None:
            reason = f"{left_by}; a session may run for {row.remaining:.0f} s"
            self._emit("unknown", key_of(row.key), reason=reason)
        else:
            self._take_over(row.id, row.session_id, left_by, key=row.key)

    def _attend(self) -> None:
        """Listen only while somebody waits: an engine that cannot call is polled meanwhile."""
        if self._listener is not None and not self.rows.waiting:
            self._listener.cancel()
            self._listener = None

    def _take_over(
        self, row_id: str, session_id: str | None, reason: str, key: str | None = None
    ) -> None:
        self._reaping.add(row_id)
        self._spawn(self._reap(row_id, session_id, reason, key))

    async def _reap(
        self, row_id: str, session_id: str | None, reason: str, key: str | None
    ) -> None:
        """Stop what nobody holds; where that fails, the next renewal finds it again."""
        row = LedgerRow(
            id=row_id,
            key=key or "",
            name="",
            owner=self.worker,
            endpoint="",
            session_id=session_id,
        )
        whose = None if key is None else key_of(key)
        try:
            if session_id is None:
                await self._reaper.forget(row_id)
                return
            reaped = await self._reaper.end(row)
            if reaped.outcome == "stopped":
                self._emit("reaped", whose, session_id=session_id, reason=reason)
            else:
                self._emit("failed", whose, session_id=session_id, reason=reaped.reason)
        finally:
            self._reaping.discard(row_id)

    def _be_called(self) -> None:
        """Listen from now on, unless that is so already."""
        if self._listener is None:
            self._listener = self._spawn(self._listen())

    async def _listen(self) -> None:
        """Wake those in the line whose turn may have come."""
        while True:
            try:
                async for row_id in self._ledger.turns(self.worker):
                    self.rows.call(row_id)
            except LedgerError as error:
                self._engine.failed(error)
            await self._clock.sleep(BEAT)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def leave(self) -> None:
        """Be late from now on: what could not be stopped is for other workers to stop."""
        if self._upkeep is None:
            return  # never heard of
        for task in (self._upkeep, self._listener):
            if task is not None:
                task.cancel()
        _, late = await asyncio.wait({self._upkeep, *self._tasks}, timeout=_engine.PATIENCE)
        self._upkeep = self._listener = None
        for task in late:
            task.cancel()
        try:
            await self._engine.ask(self._ledger.renew(self.worker, lease=0))
        except LedgerError as error:
            self._engine.failed(error)
