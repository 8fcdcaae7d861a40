"""One worker's rows and lease in a ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeVar

from attrs import evolve

from equos_async._inside import settles
from equos_async.client import EquosClient
from equos_async.clock import Clock
from equos_async.errors import ClientClosedError, ConfigurationError, LedgerError
from equos_async.ledger.protocol import (
    KeyedLedger,
    LedgerRow,
    NamedLedger,
    SessionLedger,
    SettlingLedger,
)

from . import _engine, _names
from ._elsewhere import Elsewhere
from ._ends import Ends
from ._reaper import Reaper, by_clock, end_in, resource_in
from ._rows import key_of, text_of
from ._writer import RowWriter
from .values import AnyEnded, EndOutcome, FleetEventKind

T = TypeVar("T")

BEAT: Final = 1.0
"""Seconds between two searches for stalled workers; shorter if the lease is short."""


class LedgerWorker:
    """One fleet's worker in a ledger: it sends heartbeats, and stops what stalled workers left.

    The fleet's state is the truth, and the ledger is made to agree with it. Each row is checked
    when it changes, and all rows are checked when the lease is renewed.

    Args:
        ledger: The ledger.
        client: Stops the sessions of other workers.
        emit: Called with a kind of event, a key, a session id and a reason.
        ends: Calls the ``on_end`` hook.
        limit: The number of live sessions over all workers.
        per_group: The number of them that a group may have; None: no limit.
        lease: Seconds without a heartbeat after which other workers stop this one's sessions.
        required: Whether a start fails if its row cannot be written.
        name: The worker's permanent name; None: a name is made up.
        clock: The source of time.

    Raises:
        ConfigurationError: It cannot have the name.
    """

    def __init__(
        self,
        ledger: SessionLedger,
        client: EquosClient,
        emit: Callable[..., None],
        ends: Ends,
        *,
        name: str | None,
        limit: int,
        per_group: int | None,
        lease: float,
        required: bool,
        clock: Clock,
    ) -> None:
        if name is not None and not isinstance(ledger, NamedLedger):
            raise ConfigurationError("worker needs a ledger that is a NamedLedger")
        self._name = name
        self.rows: Final = RowWriter(
            ledger,
            endpoint=client.endpoint,
            settles=isinstance(ledger, SettlingLedger) and settles(client),
            limit=limit,
            per_group=per_group,
            lease=lease,
            required=required,
            clock=clock,
            spawn=self._spawn,
            in_line=self._be_called,
        )
        self._ledger = ledger
        self._client = client
        self._required = required
        self._lease = lease
        self._clock = clock
        self._emit = emit
        self._ends = ends
        self._engine = self.rows.engine
        self._be_new()
        # Other workers can stop its sessions, so it listens even if none of its starts waits.
        self._is_keyed = isinstance(ledger, KeyedLedger)
        self._reaping: dict[str, asyncio.Task[object]] = {}
        # The claimed rows of other workers, until the ledger has them no more.
        self._claimed: dict[str, LedgerRow] = {}
        # The ids of those whose sessions are over but that could not be removed.
        self._left: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upkeep: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None

    def _be_new(self) -> None:
        """Become a worker with a new id."""
        self.worker = _names.new_id(self._name)
        self.rows.worker = self.worker
        self._reaper = Reaper(
            self._ledger, self._client, self._engine, worker=self.worker, lease=self._lease
        )
        self._elsewhere = Elsewhere(
            self._ledger,
            self._client,
            self._engine,
            worker=self.worker,
            clock=self._clock,
            ended=self._ended,
        )

    @property
    def is_reached(self) -> bool:
        """Whether the last step of the engine succeeded."""
        return not self._engine.is_failing

    @property
    def name(self) -> str:
        """Its name for users."""
        return self._name or self.worker

    async def take_name(self) -> None:
        """Become this process's worker, and stop what a dead predecessor of the same name left.

        Raises:
            ConfigurationError: A living worker has the name.
            LedgerError: The engine failed, and the ledger is required.
        """
        self._be_new()  # a fork may have copied the old worker into another process
        ledger = self._ledger
        if self._name is None or not isinstance(ledger, NamedLedger):
            return
        try:
            dead = await _names.take(
                ledger,
                self._engine,
                name=self._name,
                worker=self.worker,
                lease=self._lease,
                clock=self._clock,
            )
            if dead is not None:
                await self._claim(of=dead)
        except LedgerError as error:
            if self._required:
                raise
            self._engine.failed(error)  # its rows are claimed when its lease is over

    def enter(self) -> None:
        """Send heartbeats from now on, and search for stalled workers."""
        self._upkeep = self._spawn(self._look_after())
        if self._is_keyed:
            self._be_called()

    async def stop(self, key: Hashable) -> AnyEnded | None:
        """Stop what other workers have for a key.

        Raises:
            EquosError: A session may still be running.
        """
        return await self._see_through(self._elsewhere.stop(text_of(key)))

    async def mark_ended(self, session_id: str) -> bool:
        """Let another worker go of a session that has ended; whether there is such a session.

        Raises:
            EquosError: The engine failed, or the fleet closed meanwhile.
        """
        return await self._see_through(self._elsewhere.mark_ended(session_id))

    async def _see_through(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something for a caller, which goes on if the caller is cancelled."""
        task = self._spawn(work)
        await asyncio.wait([task])
        if task.cancelled():
            told = "the fleet closed before the session was stopped"
            raise ClientClosedError(told, operation="stop")
        return task.result()

    def _ended(self, row: LedgerRow, outcome: EndOutcome, last: AnyEnded | None) -> None:
        how = "it was stopped" if outcome == "stopped_elsewhere" else "mark_ended() was called"
        told = f"{how} on worker {self.name}"
        self._ends.tell(end_in(row, outcome, told, last, clock=self._clock))

    # Upkeep, as long as the fleet is open.

    async def _look_after(self) -> None:
        """Renew the lease, make the ledger agree, and search for stalled workers."""
        renew_at = 0.0
        while True:
            now = self._clock.now()
            failures = self._engine.failures
            try:
                if self._engine.is_failing or now >= renew_at:
                    await self._renew()
                    renew_at = now + self._lease / 3
                # Before this worker's own rows, which may take long, because these sessions run on.
                await self._claim()
                await self.rows.make_good()
                await self._elsewhere.make_good()
                if self._engine.failures == failures:
                    self._engine.works()
                self._attend()
            except LedgerError as error:
                self._engine.failed(error)
            await self._clock.sleep(min(BEAT, self._lease / 4))

    async def _claim(self, *, of: str | None = None) -> None:
        """Claim the rows of stalled workers."""
        async for rows in self._reaper.claims(of=of):
            for row in rows:
                self._inherit(row)

    async def _renew(self) -> None:
        """Renew the lease, and compare the ledger with the fleet's state."""
        at_rest = self.rows.at_rest()
        # Read before the answer, which may contain rows that are removed meanwhile.
        ours = {*self.rows, *self._reaping}
        held = await self._engine.ask(self._ledger.renew(self.worker, lease=self._lease))
        self.rows.compare(at_rest, held)
        for row_id in self._claimed.keys() - held.keys():
            del self._claimed[row_id]
        self._left &= held.keys()
        strays = {row_id for row_id in held.keys() - ours if row_id not in self.rows}
        # Its own intents among them are of starts that failed; others would still have an entry.
        unsent = {one for one in strays if held[one] is None and self.rows.is_own(one)}
        for row_id in unsent:
            self._see_to(row_id, self._reaper.forget(row_id))
        await self._end_all(strays - unsent)

    async def _end_all(self, strays: AbstractSet[str]) -> None:
        """Stop all sessions of this worker that no handle has."""
        if not strays <= self._claimed.keys():  # the answer to a claim was lost
            found = await self._engine.ask(self._ledger.rows())
            now = self._clock.now()
            self._claimed |= {row.id: by_clock(row, now) for row in found if row.id in strays}
        for row_id in strays & self._claimed.keys():
            self._see_to(row_id, self._end(self._claimed[row_id]))

    def _inherit(self, row: LedgerRow) -> None:
        if row.id in self.rows:
            return  # another worker had claimed it; its own start goes on
        if row.session_id is None and not self._reaper.may_settle(row):
            told = f"{self._told(row)}; a session may run for {row.remaining:.0f} s"
            self._tell("unknown", row, told)
        else:
            self._claimed[row.id] = claimed = by_clock(row, self._clock.now())
            self._see_to(row.id, self._end(claimed))

    def _told(self, row: LedgerRow) -> str:
        if row.owner == self.worker:
            return "the answer to a claim was lost"
        return f"left by worker {_names.name_of(row.owner)}"

    def _tell(self, kind: FleetEventKind, row: LedgerRow, reason: str) -> None:
        resource = resource_in(row)
        word = None if resource is None else resource.word
        self._emit(
            kind,
            key_of(row.key),
            session_id=row.session_id,
            resource=word,
            group=row.group,
            reason=reason,
        )

    async def _end(self, row: LedgerRow) -> None:
        """Stop a session that no handle has; if that fails, the next renewal finds it again."""
        if row.id in self._left:  # its end was reported
            await self._reaper.forget(row.id)
            return
        reaped = await self._reaper.end(evolve(row, read_at=self._clock.now()))
        row = evolve(reaped.row, read_at=self._clock.now())
        if reaped.is_left:
            self._left.add(row.id)
        if reaped.outcome == "stopped":
            self._tell("reaped", row, self._told(row))
            if not reaped.is_told:
                told = self._told(row)
                self._ends.tell(end_in(row, "reaped", told, reaped.last, clock=self._clock))
        elif reaped.outcome == "unresolved":
            self._tell("unknown", row, f"{self._told(row)}; a session {reaped.reason}")
        else:
            self._tell("failed", row, reaped.reason)

    def _see_to(self, row_id: str, work: Coroutine[Any, Any, object]) -> None:
        self._reaping[row_id] = task = self._spawn(work)
        task.add_done_callback(lambda _: self._reaping.pop(row_id))

    def _attend(self) -> None:
        """Listen only while there is something to hear, because some engines have to be polled."""
        if self._listener is not None and not self.rows.waiting and not self._is_keyed:
            self._listener.cancel()
            self._listener = None

    def _be_called(self) -> None:
        """Begin to listen, unless it listens already."""
        if self._listener is None:
            self._listener = self._spawn(self._listen())

    async def _listen(self) -> None:
        """Check the rows that got a slot, or that other workers stopped or called off."""
        while True:
            try:
                async for row_id in self._ledger.turns(self.worker):
                    self.rows.call(row_id)
            except Exception as error:  # also a bug of the engine
                self._engine.failed(_engine.failure_of(error))
            await self._clock.sleep(BEAT)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def leave(self) -> None:
        """Give up the lease, so that other workers stop what this one could not."""
        if self._upkeep is None:
            return  # it has sent no heartbeat
        # Searches for lost starts take long: other workers continue them.
        starts = [row.id for row in self._claimed.values() if row.session_id is None]
        for task in (self._upkeep, self._listener, *map(self._reaping.get, starts)):
            if task is not None:
                task.cancel()
        for row_id in self._left:  # this worker will not renew its lease any more
            self._spawn(self._reaper.forget(row_id))
        _, late = await asyncio.wait({self._upkeep, *self._tasks}, timeout=_engine.PATIENCE)
        self._upkeep = self._listener = None
        for task in late:
            task.cancel()
        try:
            await self._elsewhere.make_good()
            await self._engine.ask(self._ledger.renew(self.worker, lease=0))
        except LedgerError as error:
            self._engine.failed(error)
