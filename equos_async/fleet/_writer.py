"""Write the rows of one worker: make the ledger agree with the fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final

from attrs import evolve

from equos_async._api.operations import resource_of
from equos_async._marker import markers_of, new_marker
from equos_async._shown import keyed
from equos_async.clock import Clock
from equos_async.errors import EquosError, FleetFullError, KeyInUseError, LedgerError
from equos_async.ledger.protocol import (
    NOBODY,
    BulkLedger,
    GroupedLedger,
    KeyedLedger,
    LedgerRow,
    Placing,
    SessionLedger,
    batched,
)

from ._engine import Engine, removal
from ._line import Line
from ._names import name_of
from ._rows import Confirmed, Desired, Entry, Step, Wish, called_off, key_of, text_of
from .values import AnyRequest

IN_BULK: Final = 200
"""Rows in one bulk step: few enough to be written within ``PATIENCE``."""


class RowWriter:
    """The rows that one worker wants in a ledger; each is checked when it changes.

    Args:
        ledger: The ledger.
        endpoint: The endpoint of the sessions.
        settles: Whether other workers can search for lost starts there.
        limit: The number of live sessions over all workers.
        per_group: The number of them that a group may have; None: no limit.
        lease: Seconds without a heartbeat after which other workers stop this one's sessions.
        required: Whether a start fails if its row cannot be written.
        clock: The source of time.
        spawn: Makes a task, which its maker ends.
        in_line: Called when a start has to wait for its turn.
    """

    def __init__(
        self,
        ledger: SessionLedger,
        *,
        endpoint: str,
        settles: bool,
        limit: int,
        per_group: int | None,
        lease: float,
        required: bool,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        in_line: Callable[[], None],
    ) -> None:
        # Rows in the queue may have lost their turns if the engine fails: each asks again.
        self.engine: Final = Engine(self._call_all)
        self._ledger = ledger
        self._is_keyed = isinstance(ledger, KeyedLedger)
        # The worker's id; empty until it begins.
        self.worker = ""
        self._endpoint = endpoint
        self._settles = settles
        self._limit = limit
        self._per_group = per_group
        self._lease = lease
        self._required = required
        self._clock = clock
        self._spawn = spawn
        self._in_line = in_line
        self._made = 0
        # By row id, from before the first step for a row until after the last one.
        self._entries: dict[str, Entry] = {}
        self._line = Line()

    @property
    def waiting(self) -> int:
        """The number of starts in the ledger's queue."""
        return len(self._line)

    @property
    def waiting_groups(self) -> AbstractSet[str | None]:
        """The groups of the starts in the queue."""
        return self._line.groups

    def waiting_of(self, group: str | None) -> int:
        """The number of a group's starts in the queue."""
        return self._line.count(group)

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def entry(
        self,
        key: Hashable,
        request: AnyRequest,
        claimed: Callable[[str], None],
        *,
        group: str | None,
    ) -> Entry:
        """Make a row for a start; nothing is written yet.

        Args:
            key: The key of the session.
            request: The request of its start.
            claimed: As in :class:`Entry`.
            group: The group whose limit applies, if there is one.

        Raises:
            ConfigurationError: Other machines could not read the same key.
        """
        text = text_of(key)
        self._made += 1
        row = LedgerRow(
            id=f"{self.worker}-{self._made}",
            key=text,
            name=request.name,
            client=request.client,
            owner=self.worker,
            endpoint=self._endpoint,
            resource=resource_of(request).word,
            marker=new_marker() if self._settles else None,
            group=group,
        )
        markers = None if row.marker is None else markers_of(row.marker)
        return Entry(row, claimed, group, markers=markers)

    def is_own(self, row_id: str) -> bool:
        """Whether this worker made a row; if not, it has claimed it from another one."""
        return row_id.startswith(f"{self.worker}-")

    # The row of one session, from its intent to its end.

    async def place(
        self,
        entry: Entry,
        *,
        seconds: float,
        wait: bool,
        renews: bool,
        waits: Callable[[], None],
        full: Callable[[Placing], FleetFullError],
    ) -> None:
        """Write the intent, as soon as there is a slot.

        Args:
            entry: The entry.
            seconds: Seconds after which the session ends at the latest.
            wait: Whether to wait for a slot.
            renews: Whether it replaces a live session, so that it comes before new starts.
            waits: Called when it has to wait.
            full: Called with the ledger's answer if it may not wait; makes the error.

        Raises:
            KeyInUseError: Another worker has a session for the key.
            FleetFullError: There is no slot, and ``wait`` is false.
            LedgerError: The engine failed, and the ledger is required.
        """
        self._entries[entry.row.id] = entry
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry.wish = Wish(seconds, wait, renews, waits, full, turn)
        self._tend(entry)
        try:
            await turn
        finally:
            entry.wish = None
            self._line.leave(entry)

    def resize(self, limit: int) -> None:
        """Change the limit; waiting starts ask for slots again."""
        self._limit = limit
        self._call_all()

    def turn_away(self, entry: Entry, error: EquosError) -> None:
        """End the wait of a start."""
        if entry.wish is not None and not entry.wish.turn.done():
            entry.wish.turn.set_exception(error)

    async def record(self, entry: Entry, session_id: str, seconds: float) -> None:
        """Write that the session is live.

        If the engine fails now, the row is written when it is back.
        """
        entry.row = evolve(entry.row, session_id=session_id, marker=None)
        entry.until = self._clock.now() + seconds
        entry.desired, entry.confirmed = Desired.SESSION, Confirmed.UNSURE
        await self._agreed(entry)

    async def remove(self, entry: Entry) -> None:
        """Remove the row of a session that is over, or was never started.

        If the engine fails now, the row is removed when it is back.
        """
        entry.desired = Desired.ABSENT
        await self._agreed(entry)

    def drop(self, entry: Entry) -> None:
        """Remove the row of a session, without waiting for it."""
        if entry.desired is not Desired.ABSENT and self._entries.get(entry.row.id) is entry:
            entry.desired = Desired.ABSENT
            self._tend(entry)

    # Making the ledger agree, row by row.

    def _tend(self, entry: Entry) -> None:
        """Write a row, unless a task writes it already; that one checks it again at its end."""
        if entry.writer is None and entry.step is not Step.REST:
            writer = self._spawn(self._write(entry))
            # An eager task may be over already, and nothing would take it away.
            entry.writer = None if writer.done() else writer

    async def _agreed(self, entry: Entry) -> None:
        """Write a row, and return when that is done or has failed."""
        self._tend(entry)
        while entry.writer is not None:
            await asyncio.wait([entry.writer])

    async def _write(self, entry: Entry) -> None:
        """Take one step after the other, until none is left or the engine fails."""
        try:
            while (what := entry.step) not in {Step.REST, Step.FORGET}:
                wanted = entry.desired
                try:
                    await self._act(entry, what)
                except LedgerError as error:
                    self.engine.failed(error)
                    if entry.desired in {wanted, Desired.INTENT}:
                        return  # the next upkeep tries it again
            if what is Step.FORGET:
                self._entries.pop(entry.row.id, None)
        finally:
            entry.writer = None

    async def _act(self, entry: Entry, what: Step) -> None:
        if what is Step.PLACE:
            await self._place(entry)
        elif what is Step.RECORD:
            await self._record(entry)
        else:
            entry.confirmed = Confirmed.UNSURE
            remove = partial(removal(self._ledger, self.worker), entry.row.id)
            entry.removed = await self.engine.in_turn(self.engine.stops, remove)
            entry.confirmed = Confirmed.NOTHING
            self._call_parked(entry.group)

    async def _place(self, entry: Entry) -> None:
        wish = entry.wish
        if wish is None or wish.turn.done():
            entry.desired = Desired.ABSENT  # its start has just been cancelled
            return
        entry.is_called, entry.confirmed = False, Confirmed.UNSURE
        place: Callable[..., Awaitable[Placing]] = self._ledger.place
        if isinstance(self._ledger, GroupedLedger):
            in_group = self._ledger.place_in_group
            place = partial(in_group, group_limit=self._per_group, renews=wish.renews)
        place = partial(
            place,
            entry.row,
            seconds=wish.seconds,
            limit=self._limit,
            wait=wish.wait,
            lease=self._lease,
        )
        engine = self.engine
        lane = engine.known if entry in self._line else engine.new
        try:
            placing = await engine.in_turn(lane, place)
        except LedgerError as error:
            if self._required:
                error.operation = "start"
                _refuse(wish, error)
                entry.desired = Desired.ABSENT
            else:
                self._let_start(entry, wish)  # it is written when the engine is back
            raise
        if not placing.group_full:
            self._line.unpark(entry)
        if placing.placed:
            entry.confirmed = Confirmed.INTENT
            self._let_start(entry, wish)
            self._call_parked(entry.group)  # there may be one more slot
        elif placing.called_off:
            _refuse(wish, called_off())
        elif placing.holder is not None:
            _refuse(wish, self._key_in_use(entry, placing.holder, placing.session_id))
        elif not wish.wait:
            _refuse(wish, wish.full(placing))
        else:
            # A call that came meanwhile may be for a slot that became free after this answer.
            entry.confirmed = Confirmed.UNSURE if entry.is_called else Confirmed.QUEUED
            self._stand_in_line(entry, wish)
            if placing.group_full and entry in self._line:
                self._line.park(entry)

    def _key_in_use(self, entry: Entry, holder: str, session_id: str | None) -> KeyInUseError:
        key = key_of(entry.row.key)
        return KeyInUseError(
            f"key {keyed(key)} already has a session, in worker {name_of(holder)}: stop it"
            f"{'' if self._is_keyed else ' there'}, "
            f"or if that worker is dead, wait {self._lease:g} s for its lease to end",
            key=key,
            holder=name_of(holder),
            session_id=session_id,
            operation="start",
        )

    def _let_start(self, entry: Entry, wish: Wish) -> None:
        """A start has its slot, unless it has just been cancelled."""
        if entry.desired is Desired.PLACE and not wish.turn.done():
            entry.desired = Desired.INTENT
            entry.until = self._clock.now() + wish.seconds
            wish.turn.set_result(None)
        else:
            entry.desired = Desired.ABSENT

    def _stand_in_line(self, entry: Entry, wish: Wish) -> None:
        self._in_line()
        if entry not in self._line and not wish.turn.done():
            self._line.join(entry)
            wish.waits()

    def _call_parked(self, group: str | None) -> None:
        """A slot may be free for a group: its first start asks for it."""
        for entry in self._line.parked(group):
            self.call(entry.row.id)

    async def _record(self, entry: Entry) -> None:
        entry.is_called, entry.confirmed = False, Confirmed.UNSURE
        row, left = entry.row, max(0.0, entry.until - self._clock.now())
        record = partial(self._ledger.record, row, seconds=left)
        owner = await self.engine.in_turn(self.engine.known, record)
        self._recorded(entry, row, owner)

    def _recorded(self, entry: Entry, row: LedgerRow, owner: str) -> None:
        """Take the owner of a row that was recorded."""
        if row is not entry.row or entry.is_called:
            return  # the row has changed meanwhile, or was called
        if owner == self.worker:
            known = row.session_id is not None
            entry.confirmed = Confirmed.SESSION if known else Confirmed.INTENT
            return
        entry.confirmed = Confirmed.CLAIMED
        if self._is_keyed and owner == NOBODY and entry.desired is not Desired.ABSENT:
            entry.claimed(NOBODY)
        elif entry.desired is Desired.SESSION:
            entry.claimed(name_of(owner) or "(unknown)")

    # All rows.

    def at_rest(self) -> Mapping[Entry, Confirmed]:
        """The confirmed state of the rows that no task writes now."""
        entries = self._entries.values()
        return {entry: entry.confirmed for entry in entries if entry.writer is None}

    def compare(self, at_rest: Mapping[Entry, Confirmed], held: Mapping[str, str | None]) -> None:
        """Take the ledger's state of the rows that no task has written meanwhile."""
        for entry, confirmed in at_rest.items():
            if entry.writer is None and entry.confirmed is confirmed:
                entry.compare(held)

    async def make_good(self) -> None:
        """Write all rows that differ from their desired state.

        They are written together, because ten thousand one after the other would take longer than a
        lease. Lost rows are written in bulk if the ledger can, and each step renews the lease.
        """
        for entry in self._line.firsts():  # a call may have been lost, or a slot freed elsewhere
            entry.call()
        wrong = [entry for entry in self._entries.values() if entry.step is not Step.REST]
        if isinstance(self._ledger, BulkLedger):
            lost = [one for one in wrong if one.step is Step.RECORD and one.writer is None]
            for portion in batched(lost, IN_BULK):
                writer = self._spawn(self._record_all(self._ledger, portion))
                for entry in portion:
                    entry.writer = None if writer.done() else writer
                await asyncio.wait([writer])
        await asyncio.gather(*map(self._agreed, wrong))

    async def _record_all(self, ledger: BulkLedger, entries: Sequence[Entry]) -> None:
        now = self._clock.now()
        rows = [(entry.row, max(0.0, entry.until - now)) for entry in entries]
        for entry in entries:
            entry.is_called, entry.confirmed = False, Confirmed.UNSURE
        try:
            written = ledger.record_all(self.worker, rows, lease=self._lease)
            owners = await self.engine.ask(written)
            for entry, (row, _), owner in zip(entries, rows, owners, strict=True):
                self._recorded(entry, row, owner)
        except LedgerError as error:
            self.engine.failed(error)
        finally:
            for entry in entries:
                entry.writer = None

    def call(self, row_id: str) -> None:
        """The turn of a row may have come, or another worker has ended its session."""
        entry = self._entries.get(row_id)
        if entry is not None:
            entry.call()
            self._tend(entry)

    def _call_all(self) -> None:
        for entry in list(self._line):
            self.call(entry.row.id)


def _refuse(wish: Wish, error: EquosError) -> None:
    """End the wait of a start with an error, unless it has ended."""
    if not wish.turn.done():
        wish.turn.set_exception(error)
