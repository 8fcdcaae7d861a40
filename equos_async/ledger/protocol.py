"""The protocol of ledgers: records of open sessions that outlive a process.

A row is written before a start is sent, and removed when the stop is confirmed. So the sessions of
a killed process are known, and another process stops them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from attrs import frozen

T = TypeVar("T")
ROW_VERSION = 1
"""The version of the rows that this release writes, and the newest that it claims."""

NOBODY = ""
"""The owner of a start of unknown outcome whose worker has stalled."""


@frozen(kw_only=True)
class LedgerRow:
    """One session, or the intent to start one. It never holds an API key, a token or a transcript.

    Times are those of the engine's clock, in seconds since the epoch.

    Attributes:
        id: The row's own id, unique in the ledger.
        key: The fleet's key for the session, as text.
        name: The request's name.
        client: The request's ``client``, if it had one.
        owner: The worker that holds it; empty if that worker has stalled and its session is
            unknown.
        endpoint: The API's base URL; only workers with the same one can stop the session.
        session_id: The session's id; None while its start is in progress, or if its outcome is
            unknown.
        marker: The common beginning of the markers of its start's attempts, while its session is
            not known; only if its worker has the server key. With it another worker can search for
            the session.
        resource: ``"session"`` or ``"conversation"``; a newer release may write another word.
        group: The group of the request, if the fleet has groups.
        version: The version of its meaning, which a release raises only if older workers must not
            end such a session. They then leave the row to newer ones until it expires.
        started: The time when the intent was written.
        expires: The time when the session ends at the latest, by its ``max_duration``.
        read_at: The time when the row was read.
    """

    id: str
    key: str
    name: str
    client: str | None = None
    owner: str
    endpoint: str
    session_id: str | None = None
    marker: str | None = None
    resource: str = "session"
    group: str | None = None
    version: int = ROW_VERSION
    started: float = 0.0
    expires: float = 0.0
    read_at: float = 0.0

    @property
    def age(self) -> float:
        """Seconds since the intent was written."""
        return self.read_at - self.started

    @property
    def remaining(self) -> float:
        """Seconds until the session ends at the latest."""
        return max(0.0, self.expires - self.read_at)


@frozen
class Placing:
    """A ledger's answer to :meth:`SessionLedger.place`.

    Attributes:
        placed: Whether the row is written, so that the start may be sent.
        holder: The worker that has a session for this key, if it is another one.
        recovers_in: Seconds for which the engine, which may have lost rows, places no start; 0 if
            it has lost none.
        called_off: Whether another worker has called the start off.
        group_full: Whether its group has as many rows as it may have.
        session_id: The id of the ``holder``'s session, if there is one and the engine says so.
    """

    placed: bool
    holder: str | None = None
    recovers_in: float = 0.0
    called_off: bool = False
    group_full: bool = False
    session_id: str | None = None


@frozen
class Namesake:
    """The worker that has a name in a ledger.

    Attributes:
        worker: Its id, as rows have it.
        process: The identity of its process, as given when it took the name.
        until: The end of its lease by the engine's clock; each heartbeat moves it.
    """

    worker: str
    process: str
    until: float


@frozen
class LedgerWorker:
    """A worker that an engine knows.

    Attributes:
        id: The worker's id, as rows have it.
        lease_left: Seconds until it counts as stalled; negative since then.
        held: The number of its rows, with its starts in the queue.
    """

    id: str
    lease_left: float
    held: int


@runtime_checkable
class SessionLedger(Protocol):
    """What a fleet needs from a ledger's engine; each method is one atomic step.

    If the engine cannot be reached, is out of space or gives an invalid answer, a method raises
    :class:`~equos_async.LedgerError`; its step may have been done all the same. ``lease`` and
    ``seconds`` are durations. The engine uses its own clock.

    A worker has *stalled* if it sent no heartbeat for its lease. After an outage of the engine no
    worker counts as stalled until the engine has been reachable for a whole lease, so that all
    workers can send one. ``equos_async.testing.ledger_contract`` has the tests that an engine of
    your own must pass.
    """

    async def place(
        self, row: LedgerRow, *, seconds: float, limit: int, wait: bool, lease: float
    ) -> Placing:
        """Write an intent if its key and a slot are free; renew its worker's lease.

        It is refused while the key belongs to another worker. It is placed if there are fewer than
        ``limit`` rows, where the rows before it in the queue that may be placed now count, too; so
        as many are placed at once as slots are free. A waiting row with a smaller limit does not
        delay rows with larger ones. A row that is not placed joins the queue if ``wait`` is true. A
        repeated call with the same row keeps its position in the queue, and changes nothing if the
        row was placed. An engine that may have lost rows places none for a whole lease, in which
        the workers write their rows again.

        Args:
            row: The intent; the engine sets its times.
            seconds: Seconds after which the session ends at the latest, even if it is started late.
            limit: The largest number of rows in the ledger.
            wait: Whether to join the queue.
            lease: Seconds without a heartbeat after which the worker counts as stalled.
        """
        ...

    async def record(self, row: LedgerRow, *, seconds: float) -> str:
        """Write a row with its session, over its intent or as a new row, whatever the limit.

        A worker that the engine does not know counts as stalled until it renews its lease.

        Returns:
            The row's owner. If that worker had stalled, this is the worker that claimed the row,
            or that started another session for its key; this session then has to be stopped. A
            ``KeyedLedger`` returns ``NOBODY`` if another worker has ended the session or called the
            start off.
        """
        ...

    async def remove(self, row_id: str) -> bool | None:
        """Remove a row, or leave the queue; does nothing if there is no such row.

        Returns:
            None, or as ``KeyedLedger.remove``.
        """
        ...

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, str | None]:
        """Send a heartbeat: renew the lease; with a ``lease`` of 0, count as stalled at once.

        Returns:
            The session ids of the worker's rows, by the rows' ids; None for an intent, also for one
            in the queue.
        """
        ...

    async def claim(
        self, worker: str, *, endpoint: str, lease: float, at_once: bool = False
    ) -> Sequence[LedgerRow]:
        """Take over the rows that stalled workers hold for an endpoint.

        Their sessions then belong to ``worker``, which must stop them; call it again until it
        returns none. Intents get ``NOBODY`` as owner: they keep their slots until they expire,
        because their sessions may exist. Rows in the queue are removed. Rows of a version above
        ``ROW_VERSION`` are left to newer workers.

        Args:
            worker: The worker that takes them over.
            endpoint: The only endpoint whose sessions this worker can stop.
            lease: The lease of that worker, in seconds. The engine must have been reachable for
                that time.
            at_once: Claim even if the engine has not been reachable for that time.
        """
        ...

    async def rows(self) -> Sequence[LedgerRow]:
        """All rows, oldest first."""
        ...

    def turns(self, worker: str) -> AsyncIterator[str]:
        """Yield, without end, ids of the worker's rows in the queue that should be placed again.

        These are the rows for which a slot is free; an id may be repeated.
        """
        ...


@runtime_checkable
class BulkLedger(SessionLedger, Protocol):
    """An engine that can write many rows in one step; optional for a ledger."""

    async def record_all(
        self, worker: str, rows: Sequence[tuple[LedgerRow, float]], *, lease: float
    ) -> Sequence[str]:
        """Write a worker's rows again after the engine lost them; renew its lease with each step.

        Each row is written as by :meth:`SessionLedger.record`. If it raises, some of them may have
        been written.

        Args:
            worker: The owner of the rows.
            rows: The rows, each with the seconds after which its session ends at the latest.
            lease: Seconds without a heartbeat after which the worker counts as stalled.

        Returns:
            The present owner of each row.
        """
        ...


@runtime_checkable
class KeyedLedger(SessionLedger, Protocol):
    """An engine in which any worker can end a key's session; optional for a ledger.

    Without it ``SessionFleet.stop`` stops only sessions of its own fleet. With it
    :meth:`SessionLedger.turns` also yields the ids of a worker's rows that another worker has
    removed or called off; :meth:`SessionLedger.record` then tells what happened to them.
    """

    async def call_off(self, key: str, *, worker: str) -> Sequence[LedgerRow]:
        """Call off the starts that other workers have for a key.

        Their rows leave the queue, and :meth:`SessionLedger.place` answers ``called_off`` for them.
        An intent stays until its owner removes it, and :meth:`SessionLedger.record` answers
        ``NOBODY`` for it.

        Args:
            key: The key as it is written in rows.
            worker: The worker that calls this; its own rows stay as they are.

        Returns:
            The rows that other workers have for the key, outside the queue: sessions and intents.
        """
        ...

    async def remove(self, row_id: str, *, worker: str | None = None) -> bool | None:
        """Remove a row whose session has ended, or leave the queue.

        If the row belongs to another worker, that worker is told, and lets go of the session.

        Args:
            row_id: The row's id.
            worker: The worker that removes it and reports its end; None if no worker does.

        Returns:
            True if this call removed it. False if another worker took it over or removed it, and so
            reports its end. None if the row is unknown.
        """
        ...


@runtime_checkable
class GroupedLedger(SessionLedger, Protocol):
    """An engine that counts the rows of groups, and lets groups take turns in the queue; optional.

    Without it the queue is first come, first served, and each fleet has a ``max_per_group`` of its
    own.
    """

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
        """As :meth:`SessionLedger.place`, but groups take turns, and each has a limit.

        In the queue the groups take turns, one row each, so that a group with few rows does not
        wait behind one with many; within a group it is first come, first served. The rows without a
        group are a group, too. If a row leaves the queue without being placed, the next of its
        group gets its turn.

        If the row's group has ``group_limit`` rows already, the answer is ``group_full``, and with
        ``wait`` the row is parked: it has its key and can be called off, but it has no turns and
        delays no other row. When its group may have a slot, it is to be placed again; it joins the
        queue then.

        Args:
            row: As there.
            seconds: As there.
            limit: As there.
            wait: As there.
            lease: As there.
            group_limit: The largest number of rows of its group; None: no limit.
            renews: Whether its session is to replace a live one; such rows come before all others.
        """
        ...


@runtime_checkable
class NamedLedger(SessionLedger, Protocol):
    """An engine that knows the names of workers; optional for a ledger.

    It is needed for ``SessionFleet(worker=...)``. With a ``lease`` of 0
    :meth:`SessionLedger.renew` also gives up the worker's name.
    """

    async def enlist(
        self,
        worker: str,
        *,
        name: str,
        process: str,
        lease: float,
        instead_of: str | None = None,
    ) -> Namesake | None:
        """Take a name, unless another worker that has not stalled has it; renew the lease.

        Args:
            worker: The id of the worker that takes the name.
            name: The name.
            process: The identity of its process, for other workers.
            lease: Seconds without a heartbeat after which the worker counts as stalled.
            instead_of: The id of a worker that is dead. If it has the name, it loses the name, and
                counts as stalled from now on.

        Returns:
            None if the worker has the name now; otherwise the worker that has it.
        """
        ...

    async def claim(
        self,
        worker: str,
        *,
        endpoint: str,
        lease: float,
        at_once: bool = False,
        of: str | None = None,
    ) -> Sequence[LedgerRow]:
        """As :meth:`SessionLedger.claim`.

        ``of`` is the id of a stalled worker that is known to be dead: only its rows are claimed,
        even if the engine has not been reachable for a lease.
        """
        ...


@runtime_checkable
class SettlingLedger(SessionLedger, Protocol):
    """An engine in which another worker can settle the start of a dead one; optional for a ledger.

    Without it, or without a server key, an intent whose worker has stalled keeps its slot until it
    expires.
    """

    async def claim(
        self,
        worker: str,
        *,
        endpoint: str,
        lease: float,
        at_once: bool = False,
        settles: bool = False,
    ) -> Sequence[LedgerRow]:
        """Take over rows as :meth:`SessionLedger.claim` does.

        Args:
            worker: As there.
            endpoint: As there.
            lease: As there.
            at_once: As there.
            settles: Also take over the intents of this endpoint that have a marker;
                :meth:`SessionLedger.record` then names this worker to their former owners.
        """
        ...

    async def give_up(self, worker: str, row_id: str) -> None:
        """Give an intent ``NOBODY`` as owner, if it is this worker's: no session was found."""
        ...


def batched(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Batches of rows."""
    return (rows[first : first + size] for first in range(0, len(rows), size))
