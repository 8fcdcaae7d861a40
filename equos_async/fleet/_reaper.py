"""Stop the sessions that stalled workers left in a ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, cast

from attrs import evolve, frozen

from equos_async._api.operations import RESOURCES, Resource
from equos_async._calls.call import Target
from equos_async._inside import end, settles, starts_of
from equos_async.client import EquosClient
from equos_async.clock import Clock
from equos_async.errors import EquosError, LedgerError
from equos_async.ledger.protocol import LedgerRow, SessionLedger, SettlingLedger

from ._engine import Engine, removal
from ._rows import key_of
from .values import AnyEnded, EndOutcome, SessionEnd


def resource_in(row: LedgerRow) -> Resource[Any, Any, Any] | None:
    """The resource of a row; None if only a newer release knows it."""
    return next((one for word, one in RESOURCES.items() if word == row.resource), None)


@frozen
class Reaped:
    """The end of one session that a stalled worker left.

    Attributes:
        row: The row as it was found, with the session's id if that became known.
        outcome: ``"stopped"``; ``"failed"``: it may still be running; ``"unresolved"``: the
            outcome of its start is unknown, and no session was found to stop.
        reason: Why, in words, if there is something to say.
        last: The server's answer to its stop, if there is one.
        is_told: Whether another worker has removed the row and reports its end.
        is_left: Whether it was stopped, but its row could not be removed.
    """

    row: LedgerRow
    outcome: Literal["stopped", "failed", "unresolved"]
    reason: str = ""
    last: AnyEnded | None = None
    is_told: bool = False
    is_left: bool = False


def by_clock(row: LedgerRow, now: float) -> LedgerRow:
    """A row that was just read, with its times by a worker's own clock."""
    ahead = now - row.read_at
    return evolve(row, started=row.started + ahead, expires=row.expires + ahead, read_at=now)


def end_in(
    row: LedgerRow, outcome: EndOutcome, reason: str, last: AnyEnded | None, *, clock: Clock
) -> SessionEnd:
    """The end of the session of a row, as it was then, with its times by the clock."""
    resource = resource_in(row)
    ended_at = datetime.fromtimestamp(clock.wall() + row.read_at - clock.now(), UTC)
    return SessionEnd(
        key=key_of(row.key),
        session_id=row.session_id,
        outcome=outcome,
        seconds=row.age,
        reason=reason,
        resource=None if resource is None else resource.word,
        name=row.name,
        client=row.client,
        group=row.group,
        started_at=ended_at - timedelta(seconds=row.age),
        ended_at=ended_at,
        last=last,
    )


async def end_of(
    row: LedgerRow, client: EquosClient, *, deadline: float | None = None
) -> AnyEnded | None:
    """Stop the session of a row by its id.

    Raises:
        EquosError: It may still be running.
    """
    resource = resource_in(row)
    if resource is None:
        told = f"this release knows no {row.resource!a} to end"
        raise EquosError(told, operation="stop", session_id=row.session_id)
    return await end(client, resource, cast("str", row.session_id), deadline=deadline)


class Reaper:
    """Claims the rows of stalled workers, and stops their sessions.

    Args:
        ledger: The ledger.
        client: Stops the sessions.
        engine: Calls the ledger.
        worker: The id of the worker that claims.
        lease: The lease of that worker, in seconds.
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
        self._worker = worker
        self._settling: SettlingLedger | None = None
        settings: dict[str, Any] = {"endpoint": client.endpoint, "lease": lease}
        if isinstance(ledger, SettlingLedger) and settles(client):
            self._settling = ledger
            settings["settles"] = True
        self._claim: Callable[..., Awaitable[Sequence[LedgerRow]]] = partial(
            ledger.claim, worker, **settings
        )

    async def claims(
        self, *, at_once: bool = False, of: str | None = None
    ) -> AsyncIterator[Sequence[LedgerRow]]:
        """Claim all rows of stalled workers, and yield them.

        Args:
            at_once: As ``SessionLedger.claim``.
            of: As ``NamedLedger.claim``, for a ledger that is one.

        Raises:
            LedgerError: The engine failed.
        """
        claim = self._claim if of is None else partial(self._claim, of=of)
        while rows := await self._engine.ask(claim(at_once=at_once)):
            yield rows

    def may_settle(self, row: LedgerRow) -> bool:
        """Whether the session of a claimed start can be searched for."""
        is_known = row.session_id is None and row.marker is not None
        return is_known and self._settling is not None and row.endpoint == self._client.endpoint

    async def end(self, row: LedgerRow) -> Reaped:
        """Stop the session of a claimed row, and remove the row when the end is confirmed.

        A session without an id is searched for first. If the row cannot be removed now, the next
        renewal of this worker finds it again.
        """
        if row.session_id is None:
            return await self._settle(row)
        try:
            last = await end_of(row, self._client, deadline=self._deadline)
        except EquosError as error:
            return Reaped(row, "failed", str(error))
        return await self._stopped(row, last)

    async def _settle(self, row: LedgerRow) -> Reaped:
        """Search for the session of a start, and stop it; if none is found, give the row up."""
        ledger = self._settling
        unresolved = Reaped(row, "unresolved", f"may run for {row.remaining:.0f} s")
        if ledger is None or not self.may_settle(row):
            return unresolved
        try:
            found = await self._found(row)
            if not found:
                given_up = partial(ledger.give_up, self._worker, row.id)
                await self._engine.in_turn(self._engine.stops, given_up)
                return unresolved
        except EquosError as error:
            if isinstance(error, LedgerError):
                self._engine.failed(error)
            return Reaped(row, "failed", str(error))
        known = evolve(row, session_id=next(iter(found)))
        if not all(found.values()):
            return Reaped(known, "failed", "its end was not confirmed")
        return await self._stopped(known, None)

    async def _found(self, row: LedgerRow) -> Mapping[str, bool]:
        """The ids of a start's sessions, each with whether its end is confirmed."""
        resource = resource_in(row)
        if resource is None:
            return {}  # a resource of a newer release
        about = Target(
            "start", resource.word, name=row.name, client=row.client, max_duration=row.remaining
        )
        key, marker = key_of(row.key), str(row.marker)
        starts = starts_of(self._client)
        return await starts.adopt(resource, about, key=key, marker=marker, ago=row.age)

    async def _stopped(self, row: LedgerRow, last: AnyEnded | None) -> Reaped:
        """Remove the row of a session that was stopped."""
        try:
            removed = await self._removed(row.id)
        except LedgerError as error:
            self._engine.failed(error)
            return Reaped(row, "stopped", last=last, is_left=True)
        return Reaped(row, "stopped", last=last, is_told=removed is False)

    async def forget(self, row_id: str) -> None:
        """Remove a row whose session has ended, if the engine works."""
        try:
            await self._removed(row_id)
        except LedgerError as error:
            self._engine.failed(error)

    async def _removed(self, row_id: str) -> bool | None:
        """Remove a row, as ``KeyedLedger.remove``."""
        return await self._engine.in_turn(self._engine.stops, partial(self._remove, row_id))
