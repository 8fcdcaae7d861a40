"""The end of sessions that stalled workers left in a ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Literal, cast

from attrs import frozen

from equos_async._api.operations import RESOURCES, Resource
from equos_async._inside import end
from equos_async.client import EquosClient
from equos_async.errors import EquosError, LedgerError
from equos_async.ledger.protocol import LedgerRow, SessionLedger

from ._engine import Engine, removal
from .values import AnyEnded


def resource_in(row: LedgerRow) -> Resource[Any, Any, Any] | None:
    """What a row is about; None where only a newer release knows."""
    return next((one for word, one in RESOURCES.items() if word == row.resource), None)


@frozen
class Reaped:
    """What became of one session that a stalled worker left.

    Attributes:
        row: As it was found.
        outcome: ``"stopped"``; ``"failed"``: it may still be running; ``"unresolved"``: the
            outcome of its start is unknown, and there is nothing that could be stopped.
        reason: Why, in words, where there is something to say.
        last: What the server said of it when it was stopped, where it did.
        is_told: Whether another worker tells of its end, which removed the row before.
        is_left: Whether it was stopped, and its row could not be removed.
    """

    row: LedgerRow
    outcome: Literal["stopped", "failed", "unresolved"]
    reason: str = ""
    last: AnyEnded | None = None
    is_told: bool = False
    is_left: bool = False


async def end_of(
    row: LedgerRow, client: EquosClient, *, deadline: float | None = None
) -> AnyEnded | None:
    """End the session of a row by its id.

    Raises:
        EquosError: It may still be running.
    """
    resource = resource_in(row)
    if resource is None:
        told = f"this release knows no {row.resource!a} to end"
        raise EquosError(told, operation="stop", session_id=row.session_id)
    return await end(client, resource, cast("str", row.session_id), deadline=deadline)


class Reaper:
    """Claims what stalled workers hold, and ends it.

    Args:
        ledger: Where they wrote it down.
        client: What stops it.
        engine: What the ledger is asked through.
        worker: Who claims.
        lease: Seconds for which that worker need not be heard of again.
        deadline: Seconds for each stop; by default the client's.
    """

    def __init__(
        self,
        ledger: SessionLedger,
        client: EquosClient,
        engine: Engine,
        *,
        worker: str,
        lease: float,
        deadline: float | None = None,
    ) -> None:
        self._remove = removal(ledger, worker)
        self._client = client
        self._engine = engine
        self._deadline = deadline
        self._claim = partial(ledger.claim, worker, endpoint=client.endpoint, lease=lease)

    async def claims(self, *, at_once: bool = False) -> AsyncIterator[Sequence[LedgerRow]]:
        """All that stalled workers hold now, as it is claimed.

        Args:
            at_once: As ``SessionLedger.claim``.

        Raises:
            LedgerError: The engine failed.
        """
        while rows := await self._engine.ask(self._claim(at_once=at_once)):
            yield rows

    async def end(self, row: LedgerRow) -> Reaped:
        """Stop what was claimed, and forget its row when that is confirmed.

        A row that cannot be forgotten now is found again by its worker's next renewal.
        """
        if row.session_id is None:
            return Reaped(row, "unresolved", f"may run for {row.remaining:.0f} s")
        try:
            last = await end_of(row, self._client, deadline=self._deadline)
        except EquosError as error:
            return Reaped(row, "failed", str(error))
        try:
            removed = await self._removed(row.id)
        except LedgerError as error:
            self._engine.failed(error)
            return Reaped(row, "stopped", last=last, is_left=True)
        return Reaped(row, "stopped", last=last, is_told=removed is False)

    async def forget(self, row_id: str) -> None:
        """Remove a row of which nothing runs any more, if the engine works."""
        try:
            await self._removed(row_id)
        except LedgerError as error:
            self._engine.failed(error)

    async def _removed(self, row_id: str) -> bool | None:
        """Remove a row, as ``KeyedLedger.remove``."""
        return await self._engine.in_turn(self._engine.stops, partial(self._remove, row_id))
