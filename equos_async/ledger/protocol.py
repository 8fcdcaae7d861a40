"""Where open sessions are written down, beyond the life of one process: the protocol.

A row is written before a start is sent and goes when the stop is confirmed. What a process that
was killed leaves behind is therefore known, and another one stops it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from attrs import frozen

T = TypeVar("T")
NOBODY = ""
"""The owner of a start whose worker is gone and whose outcome nobody can know."""


@frozen(kw_only=True)
class LedgerRow:
    """One session, or the intent to start one. It never holds a key, a token or what was said.

    Times are the engine's, in seconds since the epoch: the clocks of machines differ.

    Attributes:
        id: The row's own id, unique in the ledger.
        key: Whose session it is, as text.
        name: The session's name as the caller gave it.
        client: The caller's own identifier, where there is one.
        owner: The worker that holds it; empty where its worker is gone and no session is known.
        endpoint: The API's base URL, which must be the same for whoever stops it.
        session_id: The session; None while its start is under way, or its outcome unknown.
        resource: What it is, ``"session"`` or ``"conversation"``, which says how it is ended; a
            newer release may write another word.
        started: When the intent was written.
        expires: When it is over at the latest, by its ``max_duration``.
        read_at: When the engine was asked.
    """

    id: str
    key: str
    name: str
    client: str | None = None
    owner: str
    endpoint: str
    session_id: str | None = None
    resource: str = "session"
    started: float = 0.0
    expires: float = 0.0
    read_at: float = 0.0

    @property
    def age(self) -> float:
        """Seconds since the intent was written."""
        return self.read_at - self.started

    @property
    def remaining(self) -> float:
        """Seconds until it is over at the latest."""
        return max(0.0, self.expires - self.read_at)


@frozen
class Placing:
    """What a ledger says to somebody who asks for a place.

    Attributes:
        placed: The place is taken, and the row is written.
        holder: The other worker that has a session for this key.
        recovers_in: Seconds for which an engine that may have forgotten rows places nobody,
            whatever is free; 0 where all places are counted.
    """

    placed: bool
    holder: str | None = None
    recovers_in: float = 0.0


@runtime_checkable
class SessionLedger(Protocol):
    """What a fleet needs of an engine; each method is one atomic step.

    Where the engine cannot be reached, is out of room, or answers nonsense, a method raises
    :class:`~equos_async.LedgerError`; it may have been done all the same. ``lease`` and
    ``seconds`` are durations. An engine judges time by a clock of its own.

    A worker is late when it has not been heard of for its lease, but nobody is late unless the
    engine has been reachable for a whole lease: after an outage all workers come back first.
    ``equos_async.testing.ledger_contract`` holds the tests that an engine of your own must pass.
    """

    async def place(
        self, row: LedgerRow, *, seconds: float, limit: int, wait: bool, lease: float
    ) -> Placing:
        """Write an intent, where its key is free and there is a place; renew its worker's lease.

        Refused while the key belongs to another worker. Otherwise it is placed where there are
        fewer than ``limit`` rows, counting those before it in the line that have places, too:
        as many are placed at once as there are places free. Who waits with a smaller limit that
        is reached stands in nobody's way. Else it joins the line, with ``wait``. Asking again
        with the same row keeps its position, and changes nothing where it was placed. An engine
        that may have forgotten rows places nobody until all workers had a lease's time to write
        them anew.

        Args:
            row: The intent; its times are the engine's to fill in.
            seconds: After which the session is over at the latest, however late it is started.
            limit: How many rows there may be.
            wait: Whether to join the line.
            lease: Seconds for which the worker need not be heard of again.
        """
        ...

    async def record(self, row: LedgerRow, *, seconds: float) -> str:
        """Write what is known of a session, over its intent or anew, whatever the limit.

        A worker that the engine does not know any more is late until it renews its lease.

        Returns:
            Who has it now; the row's owner, or the worker that has claimed the row, or started
            another session for its key, while this one was late. Its session is to be stopped.
        """
        ...

    async def remove(self, row_id: str) -> None:
        """Forget a row, or leave the line; harmless where there is none."""
        ...

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, str | None]:
        """Be alive for another ``lease`` seconds; with 0 be late at once.

        Returns:
            The session ids of the rows that are the worker's, by the rows' ids; None for an
            intent, and for one that is still in the line.
        """
        ...

    async def claim(
        self, worker: str, *, endpoint: str, lease: float, at_once: bool = False
    ) -> Sequence[LedgerRow]:
        """Take over what late workers hold of an endpoint.

        Their sessions become the worker's, which must stop them; there may be more when it is
        asked again. Intents become nobody's: they keep their places until they expire, for no
        one can know whether there is a session. Their turns in the line are gone.

        Args:
            worker: Who takes them.
            endpoint: Only sessions of this endpoint can be stopped by it.
            lease: Seconds for which that worker need not be heard of again, and for which the
                engine must have been reachable.
            at_once: Do not ask for how long the engine has been reachable.
        """
        ...

    async def rows(self) -> Sequence[LedgerRow]:
        """All rows, the oldest first."""
        ...

    def turns(self, worker: str) -> AsyncIterator[str]:
        """Tell the worker, without end, which of its rows in the line should ask again.

        That is each one that has a place by now; it may be told more than once.
        """
        ...


@runtime_checkable
class BulkLedger(SessionLedger, Protocol):
    """An engine that writes many rows in one step; a ledger may do without."""

    async def record_all(
        self, worker: str, rows: Sequence[tuple[LedgerRow, float]], *, lease: float
    ) -> Sequence[str]:
        """Write a worker's rows anew after a loss; renew its lease with each step.

        What :meth:`SessionLedger.record` says holds for each row. Where it fails, some rows may
        have been written.

        Args:
            worker: Whose they are.
            rows: Each with the seconds after which it is over at the latest.
            lease: Seconds for which the worker need not be heard of again.

        Returns:
            For each row who has it now.
        """
        ...


def batched(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Portions of some rows."""
    return (rows[first : first + size] for first in range(0, len(rows), size))
