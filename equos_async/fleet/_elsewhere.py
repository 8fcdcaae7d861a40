"""End what other workers have: by its key, or because a webhook said that it has ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from attrs import evolve

from equos_async._shown import keyed
from equos_async.client import EquosClient
from equos_async.clock import Clock
from equos_async.errors import EquosError, LedgerError
from equos_async.ledger.protocol import KeyedLedger, LedgerRow, SessionLedger

from ._engine import Engine, removal
from ._names import name_of
from ._reaper import by_clock, end_of
from ._rows import key_of
from .values import AnyEnded, EndOutcome

AGAIN: Final = 0.05
"""Seconds between checks whether a start that was called off is over."""


class Elsewhere:
    """Ends the sessions and starts of living workers.

    Args:
        ledger: The ledger.
        client: Stops the sessions.
        engine: Calls the ledger.
        worker: The id of this worker.
        clock: The source of time.
        ended: Called with the row, as it was at the end, of each session whose end this worker
            reports, its outcome, and the server's last answer.
    """

    def __init__(
        self,
        ledger: SessionLedger,
        client: EquosClient,
        engine: Engine,
        *,
        worker: str,
        clock: Clock,
        ended: Callable[[LedgerRow, EndOutcome, AnyEnded | None], None],
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._engine = engine
        self._worker = worker
        self._clock = clock
        self._ended = ended
        self._take_out = removal(ledger, worker)
        # By row id, the reports of ends until the engine has said who removed the rows.
        self._unsure: dict[str, Callable[[], None]] = {}

    async def stop(self, key: str) -> AnyEnded | None:
        """Stop the sessions of a key, and wait until its starts are over.

        Args:
            key: The key, as in rows.

        Returns:
            The server's last answer about the session, if there is one.

        Raises:
            LedgerError: The engine failed; a session may have been stopped.
            EquosError: A session may still be running.
        """
        if not isinstance(self._ledger, KeyedLedger):
            return None
        last: AnyEnded | None = None
        patience = self._client.timeouts.deadline
        until = self._clock.now() + patience
        while True:
            rows = await self._engine.ask(self._ledger.call_off(key, worker=self._worker))
            for row in rows:
                if row.session_id is not None:
                    last = await self._end(row) or last
            starts = [row for row in rows if row.session_id is None]
            if not starts:
                return last
            if min(row.age for row in starts) >= patience or self._clock.now() >= until:
                whose = f"worker {name_of(starts[0].owner)} for key {keyed(key_of(key))}"
                told = f"the start of {whose} has no end"
                raise EquosError(f"{told}: a session may be running", operation="stop")
            await self._clock.sleep(AGAIN)

    async def mark_ended(self, session_id: str) -> bool:
        """Remove the row of a session that has ended; its worker is told.

        Returns:
            Whether there was one.

        Raises:
            LedgerError: The engine failed.
        """
        if not isinstance(self._ledger, KeyedLedger):
            return False
        for row in await self._engine.ask(self._ledger.rows()):
            if row.session_id == session_id and row.owner != self._worker:
                found = by_clock(row, self._clock.now())
                await self._remove(row.id, partial(self._ended, found, "marked_ended", None))
                return True
        return False

    async def make_good(self) -> None:
        """Remove the rows of ended sessions that could not be removed.

        Raises:
            LedgerError: The engine fails again.
        """
        for row_id, report in list(self._unsure.items()):
            await self._remove(row_id, report)

    async def _end(self, row: LedgerRow) -> AnyEnded | None:
        if row.endpoint != self._client.endpoint:
            told = f"session {row.session_id} of worker {name_of(row.owner)} is at {row.endpoint}"
            raise EquosError(
                f"{told}, which this client does not reach",
                operation="stop",
                session_id=row.session_id,
            )
        found = by_clock(row, self._clock.now())
        last = await end_of(row, self._client)
        found = evolve(found, read_at=self._clock.now())
        try:
            await self._remove(row.id, partial(self._ended, found, "stopped_elsewhere", last))
        except LedgerError as error:
            error.operation, error.session_id = "stop", row.session_id
            raise
        return last

    async def _remove(self, row_id: str, report: Callable[[], None]) -> None:
        """Remove the row of a session that has ended, and report its end if no one else does.

        If the engine fails, the row may be removed all the same; then it is not there next time.
        """
        was_unsure = row_id in self._unsure
        self._unsure.setdefault(row_id, report)
        removed = await self._engine.ask(self._take_out(row_id))
        first = self._unsure.pop(row_id, None)
        if first is not None and (removed or (was_unsure and removed is False)):
            first()
