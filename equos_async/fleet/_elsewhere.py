"""Stop the sessions of a key that other workers have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from equos_async.client import EquosClient
from equos_async.clock import Clock
from equos_async.errors import EquosError, LedgerError
from equos_async.ledger.protocol import KeyedLedger, LedgerRow, SessionLedger

from ._engine import Engine
from ._names import name_of
from ._reaper import end_of
from ._rows import key_of
from .values import AnyEnded

AGAIN: Final = 0.05
"""Seconds between checks whether a start that was called off is over."""


class Elsewhere:
    """Stops the sessions and starts that living workers have for a key.

    Args:
        ledger: The ledger.
        client: Stops the sessions.
        engine: Calls the ledger.
        worker: The id of this worker.
        clock: The source of time.
        ended: Called with each session that was stopped and whose end is reported by this worker.
    """

    def __init__(
        self,
        ledger: SessionLedger,
        client: EquosClient,
        engine: Engine,
        *,
        worker: str,
        clock: Clock,
        ended: Callable[[LedgerRow, AnyEnded | None], None],
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._engine = engine
        self._worker = worker
        self._clock = clock
        self._ended = ended

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
                    last = await self._end(self._ledger, row) or last
            starts = [row for row in rows if row.session_id is None]
            if not starts:
                return last
            if min(row.age for row in starts) >= patience or self._clock.now() >= until:
                whose = f"worker {name_of(starts[0].owner)} for key {key_of(key)!r}"
                told = f"the start of {whose} has no end"
                raise EquosError(f"{told}: a session may be running", operation="stop")
            await self._clock.sleep(AGAIN)

    async def _end(self, ledger: KeyedLedger, row: LedgerRow) -> AnyEnded | None:
        if row.endpoint != self._client.endpoint:
            told = f"session {row.session_id} of worker {name_of(row.owner)} is at {row.endpoint}"
            raise EquosError(
                f"{told}, which this client does not reach",
                operation="stop",
                session_id=row.session_id,
            )
        last = await end_of(row, self._client)
        try:
            removed = await self._engine.ask(ledger.remove(row.id, worker=self._worker))
        except LedgerError as error:
            error.operation, error.session_id = "stop", row.session_id
            raise
        if removed:
            self._ended(row, last)
        return last
