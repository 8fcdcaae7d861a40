"""One worker's rows in a ledger."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar, cast

from attrs import define, evolve, field

from equos_async import _validate
from equos_async.client import EquosClient
from equos_async.clock import Clock
from equos_async.errors import ConfigurationError, EquosError, FleetFullError, LedgerError
from equos_async.events import logger
from equos_async.ledger.protocol import LedgerRow, SessionLedger
from equos_async.models import CreateSessionPassRequest

T = TypeVar("T")
PATIENCE: Final = 2.0
"""Seconds that any answer of an engine is waited for, whatever its own timeout is."""

AT_ONCE: Final = 4
"""Concurrent steps of an engine for each of: new starts, known starts, and stops."""

BEAT: Final = 1.0
"""Seconds between two looks for workers that are late; shorter where the lease is short."""


@define(eq=False)
class Entry:
    """What the ledger holds, or should hold, of one session.

    Attributes:
        row: As it is to be written.
        until: When the session is over at the latest, on the clock; set when it has its place.
        lost: Called with the worker that claimed the row; set when the session is live.
        refused: Why its start is not to wait in the line any longer.
        turn: Set when it should ask for its place again.
        writing: Held by whoever writes the row, so that no old news comes after new.
    """

    row: LedgerRow
    until: float = 0.0
    lost: Callable[[str], None] | None = None
    refused: EquosError | None = None
    turn: asyncio.Event = field(factory=asyncio.Event)
    writing: asyncio.Lock = field(factory=asyncio.Lock)


NO_ENTRY: Final = Entry(LedgerRow(id="", key="", name="", owner="", endpoint=""))
"""What stands in a session's record where there is no ledger."""


class NoWorker:
    """What a fleet without a ledger has in the place of a worker; it does nothing."""

    worker: None = None
    waiting: Final = 0

    def entry(self, key: Hashable, request: CreateSessionPassRequest) -> Entry:
        """As :meth:`LedgerWorker.entry`, as all that follow."""
        return NO_ENTRY

    async def place(
        self, entry: Entry, *, seconds: float, wait: bool, waits: Callable[[], None]
    ) -> None:
        """There is no limit but the fleet's own."""

    def turn_away(self, entry: Entry, error: EquosError) -> None:
        """Nobody waits."""

    async def record(self, entry: Entry, session_id: str, seconds: float) -> str | None:
        """Nobody else can have claimed it."""

    def watch(self, entry: Entry, claimed: Callable[[str], None]) -> None:
        """Nobody else will claim it."""

    async def remove(self, entry: Entry) -> None:
        """Nothing was written."""

    def drop(self, entry: Entry) -> None:
        """Nothing was written."""

    async def leave(self) -> None:
        """Nobody else has heard of it."""


class LedgerWorker:
    """One fleet's worker in a ledger.

    What it holds here is the truth; the ledger is made to agree. What cannot be written now is
    noticed when the lease is renewed, and made good then.

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
        self._client = client
        self._limit = limit
        self._lease = lease
        self._required = required
        self._clock = clock
        self._emit = emit
        self._made = 0
        self._failing = False
        self._failures = 0
        # New starts, those that the ledger knows already, and stops: none waits for the others.
        self._new = asyncio.Semaphore(AT_ONCE)
        self._known = asyncio.Semaphore(AT_ONCE)
        self._stops = asyncio.Semaphore(AT_ONCE)
        # By row id, from before the first word to the ledger until after the last.
        self._entries: dict[str, Entry] = {}
        self._line: dict[Entry, None] = {}
        self._orphans: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._upkeep: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many stand in the ledger's line."""
        return len(self._line)

    def entry(self, key: Hashable, request: CreateSessionPassRequest) -> Entry:
        """A row for a start; nothing is written yet.

        Raises:
            ConfigurationError: Other machines could not read the key as the same.
        """
        if not isinstance(key, str | int):
            raise ConfigurationError(
                f"key must be a string or an integer with a ledger, not {type(key).__name__}"
            )
        _validate.text("key", str(key), empty=True)
        self._made += 1
        return Entry(
            LedgerRow(
                id=f"{self.worker}-{self._made}",
                key=str(key),
                name=request.name,
                client=request.client,
                owner=self.worker,
                endpoint=self._client.endpoint,
            )
        )

    # One session, from its intent to its end.

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
        self._keep_up()
        try:
            while not await self._placed(entry, seconds, wait=wait):
                if not wait:
                    raise FleetFullError(
                        f"all {self._limit} places of the ledger are taken", operation="start"
                    )
                if entry not in self._line:
                    self._line[entry] = None
                    waits()
                await entry.turn.wait()
                if entry.refused is not None:
                    raise entry.refused
        finally:
            self._line.pop(entry, None)
        entry.until = self._clock.now() + seconds

    async def _placed(self, entry: Entry, seconds: float, *, wait: bool) -> bool:
        entry.turn.clear()
        try:
            placing = await self._in_turn(
                self._known if entry in self._line else self._new,
                partial(
                    self._ledger.place,
                    entry.row,
                    seconds=seconds,
                    limit=self._limit,
                    wait=wait,
                    lease=self._lease,
                ),
            )
        except LedgerError as error:
            self._failed(error)
            if self._required:
                error.operation = "start"
                raise
            return True  # it is written when the engine is back
        if placing.holder is not None:
            raise ConfigurationError(
                f"key {entry.row.key!r} has a session already, of worker {placing.holder}: stop it "
                f"there first, or wait for its lease to end, {self._lease:g} s, if it is dead"
            )
        if not placing.placed and wait and self._listener is None:
            self._listener = self._spawn(self._listen())
        return placing.placed

    def turn_away(self, entry: Entry, error: EquosError) -> None:
        """Send somebody home who waits."""
        entry.refused = error
        entry.turn.set()

    async def record(self, entry: Entry, session_id: str, seconds: float) -> str | None:
        """Write that the session is live.

        Where the engine fails now, that is made good when it is back.

        Returns:
            The worker that has claimed the row meanwhile, None being the rule.
        """
        entry.row = evolve(entry.row, session_id=session_id)
        entry.until = self._clock.now() + seconds
        try:
            return await self._write(entry)
        except LedgerError as error:
            self._failed(error)
            return None

    def watch(self, entry: Entry, claimed: Callable[[str], None]) -> None:
        """Have it told once when another worker has claimed a live session."""
        entry.lost = claimed

    async def _write(self, entry: Entry) -> str | None:
        async with entry.writing:
            if self._entries.get(entry.row.id) is not entry:
                return None  # removed while this waited
            left = max(0.0, entry.until - self._clock.now())
            record = partial(self._ledger.record, entry.row, seconds=left)
            owner = await self._in_turn(self._known, record)
            return None if owner == self.worker else owner or "that is unknown"

    async def remove(self, entry: Entry) -> None:
        """Forget a session that is over, or never was.

        Where the engine fails now, that is made good when it is back.
        """
        async with entry.writing:
            entry.lost = None
            try:
                await self._in_turn(self._stops, partial(self._ledger.remove, entry.row.id))
            except LedgerError as error:
                self._failed(error)
            finally:
                self._entries.pop(entry.row.id, None)

    def drop(self, entry: Entry) -> None:
        """Forget a session, without waiting for it."""
        self._spawn(self.remove(entry))

    # All sessions, for as long as the fleet lives.

    def _keep_up(self) -> None:
        if self._upkeep is None:
            self._upkeep = self._spawn(self._look_after())

    async def _look_after(self) -> None:
        """Renew the lease, make the ledger agree, and look for workers that are late."""
        renew_at = 0.0
        while True:
            now = self._clock.now()
            wrong: list[Entry] = []
            try:
                if self._failing or now >= renew_at:
                    wrong = await self._renew()
                    renew_at = now + self._lease / 3
                # Before what is amiss here, which may take long: the sessions of others run.
                await self._claim()
                # All together: one after the other, ten thousand would take longer than a lease.
                await asyncio.gather(*map(self._write_anew, wrong))
                self._works()
                self._attend()
            except LedgerError as error:
                self._failed(error)
            await self._clock.sleep(min(BEAT, self._lease / 4))

    async def _renew(self) -> list[Entry]:
        """Be alive for another lease, and let go of what is not held; what is to be written anew.

        That is missing, or still an intent where the engine failed when the session came.
        """
        placed = [entry for entry in self._entries.values() if entry.until]
        held = await self._ask(self._ledger.renew(self.worker, lease=self._lease))
        for row_id in held.keys() - self._entries.keys() - self._orphans:
            # A removal that failed, or an answer that was lost: to end it is right for both.
            self._take_over(row_id, held[row_id], "an earlier answer of the ledger was lost")
        # A call may have been lost: whoever stands first asks.
        for entry in islice(self._line, 1):
            entry.turn.set()
        return [one for one in placed if held.get(one.row.id, "") != one.row.session_id]

    async def _write_anew(self, entry: Entry) -> None:
        claimer = await self._write(entry)
        if claimer is not None and entry.lost is not None:
            entry.lost(claimer)
            entry.lost = None

    async def _claim(self) -> None:
        claim = partial(
            self._ledger.claim, self.worker, endpoint=self._client.endpoint, lease=self._lease
        )
        while rows := await self._ask(claim()):
            for row in rows:
                self._inherit(row)

    def _inherit(self, row: LedgerRow) -> None:
        left_by = f"left by worker {row.owner}"
        if row.session_id is None:
            reason = f"{left_by}; a session may run for {row.remaining:.0f} s"
            self._emit("unknown", row.key, reason=reason)
        else:
            self._take_over(row.id, row.session_id, left_by, key=row.key)

    def _attend(self) -> None:
        """Listen only while somebody waits: an engine that cannot call is polled meanwhile."""
        if self._listener is not None and not self._line:
            self._listener.cancel()
            self._listener = None

    def _take_over(
        self, row_id: str, session_id: str | None, reason: str, key: Hashable = None
    ) -> None:
        self._orphans.add(row_id)
        self._spawn(self._reap(row_id, session_id, reason, key))

    async def _reap(self, row_id: str, session_id: str | None, reason: str, key: Hashable) -> None:
        """Stop what nobody holds; where that fails, the next renewal finds it again."""
        try:
            if session_id is not None:
                await self._client.stop_session(session_id)
                self._emit("reaped", key, session_id=session_id, reason=reason)
            await self._in_turn(self._stops, partial(self._ledger.remove, row_id))
        except LedgerError as error:
            self._failed(error)
        except EquosError as error:
            self._emit("failed", key, session_id=session_id, reason=str(error))
        finally:
            self._orphans.discard(row_id)

    async def _listen(self) -> None:
        """Wake those in the line whose turn may have come."""
        while True:
            try:
                async for row_id in self._ledger.turns(self.worker):
                    if row_id in self._entries:
                        self._entries[row_id].turn.set()
            except LedgerError as error:
                self._failed(error)
            await self._clock.sleep(BEAT)

    # The engine.

    async def _ask(self, answer: Awaitable[T]) -> T:
        """An answer of the engine, in time; any failure is a LedgerError."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelled = task.cancelling()
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except LedgerError:
            self._failures += 1
            raise
        except Exception as error:  # an engine's mistake must not end the upkeep
            self._failures += 1
            late = isinstance(error, TimeoutError)
            told = f"did not answer within {PATIENCE:g} s" if late else f"failed: {error!r}"
            raise LedgerError(f"the ledger {told}") from error
        finally:
            # An engine's client may lose a cancellation, as asyncio.wait_for does until 3.12. A
            # task is cancelled once: it would go on for good, and so would a shutdown.
            if task.cancelling() > cancelled:
                raise asyncio.CancelledError

    async def _in_turn(self, lane: asyncio.Semaphore, step: Callable[[], Awaitable[T]]) -> T:
        """A step for one session. However many there are, each has all of the engine's time.

        Those that waited while the engine failed fail with it, or each would wait in vain.
        """
        failures = self._failures
        async with lane:
            if self._failures != failures:
                raise LedgerError("the ledger failed while others were asking it")
            return await self._ask(step())

    def _failed(self, error: LedgerError) -> None:
        if not self._failing:
            self._failing = True
            logger.warning("the ledger failed: %s", error)
        # They may have lost their turns; each sees for itself.
        for entry in self._line:
            entry.turn.set()

    def _works(self) -> None:
        if self._failing:
            self._failing = False
            logger.info("the ledger is back, with all that this worker holds")

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
        _, late = await asyncio.wait({self._upkeep, *self._tasks}, timeout=PATIENCE)
        self._upkeep = self._listener = None
        for task in late:
            task.cancel()
        try:
            await self._ask(self._ledger.renew(self.worker, lease=0))
        except LedgerError as error:
            self._failed(error)
