"""One worker's rows and lease in a ledger."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from itertools import islice
from typing import Any, Final

from attrs import evolve

from equos_async.client import EquosClient
from equos_async.clock import Clock
from equos_async.errors import ConfigurationError, EquosError, FleetFullError, LedgerError
from equos_async.ledger.protocol import LedgerRow, SessionLedger
from equos_async.models import CreateSessionPassRequest

from . import _engine
from ._engine import Engine
from ._reaper import Reaper
from ._rows import Confirmed, Desired, Entry, Step, Wish, key_of, text_of

BEAT: Final = 1.0
"""Seconds between two looks for workers that are late; shorter where the lease is short."""


def _claimed_by_nobody(_: str) -> None:
    """For the entry that stands for none."""


NO_ENTRY: Final = Entry(
    LedgerRow(id="", key="", name="", owner="", endpoint=""), claimed=_claimed_by_nobody
)
"""What stands in a session's record where nothing is to be written."""


class NoWorker:
    """What a fleet without a ledger has in the place of a worker; it does nothing."""

    worker: None = None
    waiting: Final = 0

    def enter(self) -> None:
        """Nobody left anything."""

    def entry(
        self, key: Hashable, request: CreateSessionPassRequest, claimed: Callable[[str], None]
    ) -> Entry:
        """As :meth:`LedgerWorker.entry`, as all that follow."""
        return NO_ENTRY

    async def place(
        self, entry: Entry, *, seconds: float, wait: bool, waits: Callable[[], None]
    ) -> None:
        """There is no limit but the fleet's own."""

    def turn_away(self, entry: Entry, error: EquosError) -> None:
        """Nobody waits."""

    async def record(self, entry: Entry, session_id: str, seconds: float) -> None:
        """There is nothing to write to."""

    async def remove(self, entry: Entry) -> None:
        """Nothing was written."""

    def drop(self, entry: Entry) -> None:
        """Nothing was written."""

    async def leave(self) -> None:
        """Nobody else has heard of it."""


class LedgerWorker:
    """One fleet's worker in a ledger.

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
        self._ledger = ledger
        self._endpoint = client.endpoint
        self._limit = limit
        self._lease = lease
        self._required = required
        self._clock = clock
        self._emit = emit
        self._made = 0
        # Those in the line may have lost their turns where the engine fails: each asks for itself.
        self._engine = Engine(self._call_all)
        self._reaper = Reaper(ledger, client, self._engine, worker=self.worker, lease=lease)
        # By row id, from before the first word to the ledger until after the last.
        self._entries: dict[str, Entry] = {}
        self._line: dict[Entry, None] = {}
        self._reaping: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upkeep: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many stand in the ledger's line."""
        return len(self._line)

    def enter(self) -> None:
        """Be heard of from now on, and look for workers that are not."""
        self._upkeep = self._spawn(self._look_after())

    def entry(
        self, key: Hashable, request: CreateSessionPassRequest, claimed: Callable[[str], None]
    ) -> Entry:
        """A row for a start; nothing is written yet.

        Args:
            key: Whose session it is.
            request: What is to be started.
            claimed: Called once, with the worker that has claimed the session.

        Raises:
            ConfigurationError: Other machines could not read the key as the same.
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
        )
        return Entry(row, claimed)

    # What is to be written of one session, from its intent to its end.

    async def place(
        self, entry: Entry, *, seconds: float, wait: bool, waits: Callable[[], None]
    ) -> None:
        """Write the intent, as soon as there is a place.

        Args:
            entry: What to place.
            seconds: After which the session is over, whenever in its time it is started.
            wait: Whether to wait for a place.
            waits: Called when it has to wait.

        Raises:
            ConfigurationError: Another worker has a session for the key.
            FleetFullError: There is no place, and it was told not to wait.
            LedgerError: The engine failed, and the ledger is required.
        """
        self._entries[entry.row.id] = entry
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry.wish = Wish(seconds, wait, waits, turn)
        self._tend(entry)
        try:
            await turn
        finally:
            entry.wish = None
            self._line.pop(entry, None)

    def turn_away(self, entry: Entry, error: EquosError) -> None:
        """Send somebody home who waits."""
        if entry.wish is not None and not entry.wish.turn.done():
            entry.wish.turn.set_exception(error)

    async def record(self, entry: Entry, session_id: str, seconds: float) -> None:
        """Write that the session is live.

        Where the engine fails now, that is made good when it is back.
        """
        entry.row = evolve(entry.row, session_id=session_id)
        entry.until = self._clock.now() + seconds
        entry.desired, entry.confirmed = Desired.SESSION, Confirmed.UNSURE
        await self._agreed(entry)

    async def remove(self, entry: Entry) -> None:
        """Forget a session that is over, or never was.

        Where the engine fails now, that is made good when it is back.
        """
        entry.desired = Desired.ABSENT
        await self._agreed(entry)

    def drop(self, entry: Entry) -> None:
        """Forget a session, without waiting for it."""
        if entry.desired is not Desired.ABSENT and self._entries.get(entry.row.id) is entry:
            entry.desired = Desired.ABSENT
            self._tend(entry)

    # The ledger is made to agree, row by row.

    def _tend(self, entry: Entry) -> None:
        """See to a row, unless somebody is at it: whoever is looks again before leaving."""
        if entry.writer is None and entry.step is not Step.REST:
            entry.writer = self._spawn(self._write(entry))

    async def _agreed(self, entry: Entry) -> None:
        """See to a row, and return when that is done or failed."""
        self._tend(entry)
        if entry.writer is not None:
            await asyncio.wait([entry.writer])

    async def _write(self, entry: Entry) -> None:
        """Take one step after the other, until there is none, or the engine fails."""
        try:
            while (what := entry.step) not in {Step.REST, Step.FORGET}:
                wanted = entry.desired
                try:
                    await self._act(entry, what)
                except LedgerError as error:
                    self._engine.failed(error)
                    if entry.desired in {wanted, Desired.INTENT}:
                        return  # the upkeep comes back to it
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
            remove = partial(self._ledger.remove, entry.row.id)
            await self._engine.in_turn(self._engine.stops, remove)
            entry.confirmed = Confirmed.NOTHING

    async def _place(self, entry: Entry) -> None:
        wish = entry.wish
        if wish is None or wish.turn.done():
            entry.desired = Desired.ABSENT  # its start has just gone
            return
        wish.is_called, entry.confirmed = False, Confirmed.UNSURE
        place = partial(
            self._ledger.place,
            entry.row,
            seconds=wish.seconds,
            limit=self._limit,
            wait=wish.wait,
            lease=self._lease,
        )
        engine = self._engine
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
        if placing.placed:
            entry.confirmed = Confirmed.INTENT
            self._let_start(entry, wish)
        elif placing.holder is not None:
            _refuse(wish, self._key_in_use(entry, placing.holder))
        elif not wish.wait:
            told = f"all {self._limit} places of the ledger are taken"
            _refuse(wish, FleetFullError(told, operation="start"))
        else:
            # A call that came meanwhile may have been for the turn after this answer.
            entry.confirmed = Confirmed.UNSURE if wish.is_called else Confirmed.QUEUED
            self._stand_in_line(entry, wish)

    def _key_in_use(self, entry: Entry, holder: str) -> ConfigurationError:
        return ConfigurationError(
            f"key {key_of(entry.row.key)!r} has a session already, of worker {holder}: stop it "
            f"there first, or wait for its lease to end, {self._lease:g} s, if it is dead"
        )

    def _let_start(self, entry: Entry, wish: Wish) -> None:
        """A start has its place, unless it has just gone."""
        if entry.desired is Desired.PLACE and not wish.turn.done():
            entry.desired = Desired.INTENT
            entry.until = self._clock.now() + wish.seconds
            wish.turn.set_result(None)
        else:
            entry.desired = Desired.ABSENT

    def _stand_in_line(self, entry: Entry, wish: Wish) -> None:
        if self._listener is None:
            self._listener = self._spawn(self._listen())
        if entry not in self._line and not wish.turn.done():
            self._line[entry] = None
            wish.waits()

    async def _record(self, entry: Entry) -> None:
        entry.confirmed = Confirmed.UNSURE
        row, left = entry.row, max(0.0, entry.until - self._clock.now())
        record = partial(self._ledger.record, row, seconds=left)
        owner = await self._engine.in_turn(self._engine.known, record)
        if row is not entry.row:
            return  # there is more to tell by now
        if owner == self.worker:
            known = row.session_id is not None
            entry.confirmed = Confirmed.SESSION if known else Confirmed.INTENT
            return
        entry.confirmed = Confirmed.CLAIMED
        if entry.desired is Desired.SESSION:
            entry.claimed(owner or "that is unknown")

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
                await self._make_good()
                if self._engine.failures == failures:
                    self._engine.works()
                self._attend()
            except LedgerError as error:
                self._engine.failed(error)
            await self._clock.sleep(min(BEAT, self._lease / 4))

    async def _renew(self) -> None:
        """Be alive for another lease, and compare what the ledger holds with what it should."""
        at_rest = {
            entry: entry.confirmed for entry in self._entries.values() if entry.writer is None
        }
        # Those that go while the answer is on its way are in it, and are not forgotten ones.
        ours = self._entries.keys() | self._reaping
        held = await self._engine.ask(self._ledger.renew(self.worker, lease=self._lease))
        for row_id in held.keys() - ours - self._entries.keys():
            # The answer to a claim was lost: to end it is right for all.
            self._take_over(row_id, held[row_id], "an earlier answer of the ledger was lost")
        for entry, confirmed in at_rest.items():
            if entry.writer is None and entry.confirmed is confirmed:
                _compare(entry, held)
        # A call may have been lost: whoever stands first asks.
        for entry in islice(self._line, 1):
            entry.call()

    async def _make_good(self) -> None:
        """See to all rows that are not as they should be.

        All together: one after the other, ten thousand would take longer than a lease.
        """
        wrong = [entry for entry in self._entries.values() if entry.step is not Step.REST]
        await asyncio.gather(*map(self._agreed, wrong))

    def _inherit(self, row: LedgerRow) -> None:
        left_by = f"left by worker {row.owner}"
        if row.session_id is None:
            reason = f"{left_by}; a session may run for {row.remaining:.0f} s"
            self._emit("unknown", key_of(row.key), reason=reason)
        else:
            self._take_over(row.id, row.session_id, left_by, key=row.key)

    def _attend(self) -> None:
        """Listen only while somebody waits: an engine that cannot call is polled meanwhile."""
        if self._listener is not None and not self._line:
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
            endpoint=self._endpoint,
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

    # The line.

    def _call_all(self) -> None:
        for entry in list(self._line):
            entry.call()
            self._tend(entry)

    async def _listen(self) -> None:
        """Wake those in the line whose turn may have come."""
        while True:
            try:
                async for row_id in self._ledger.turns(self.worker):
                    if row_id in self._entries:
                        self._entries[row_id].call()
                        self._tend(self._entries[row_id])
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


def _refuse(wish: Wish, error: EquosError) -> None:
    """Send somebody home, unless that was done."""
    if not wish.turn.done():
        wish.turn.set_exception(error)


def _compare(entry: Entry, held: Any) -> None:
    """Know of a row what the renewal of the lease has shown."""
    if entry.desired is Desired.PLACE or entry.confirmed is Confirmed.CLAIMED:
        return  # in the line, or another worker's
    if entry.row.id not in held:
        entry.confirmed = Confirmed.NOTHING
    elif held[entry.row.id] is None:
        entry.confirmed = Confirmed.INTENT
    else:
        same = held[entry.row.id] == entry.row.session_id
        entry.confirmed = Confirmed.SESSION if same else Confirmed.UNSURE
