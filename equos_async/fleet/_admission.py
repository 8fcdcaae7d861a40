"""What a session holds, taken before it is started and given back when it is over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from functools import partial

from equos_async.clock import Clock
from equos_async.errors import (
    ClientClosedError,
    ConfigurationError,
    EquosError,
    FleetFullError,
    KeyInUseError,
)

from ._records import Records
from ._session import SessionRecord
from ._slots import Slots
from ._states import State
from ._tally import Tally
from ._writer import NoRows, RowWriter
from .values import AnyRequest


def closed_error() -> ClientClosedError:
    """For a fleet that is at its end."""
    return ClientClosedError("the fleet is closed or closing", operation="start")


class Admission:
    """Keys, seconds of the session budget, rows and slots: the only place that takes or gives one.

    Args:
        records: The fleet's sessions, which hold their keys.
        slots: How many sessions there may be.
        waiting: How many may wait for one; more than any number where that is not limited.
        budget: How many seconds all of them may run.
        deadline: Seconds that a start may take, where it names none.
        rows: What writes the rows.
        tally: Who tells.
    """

    def __init__(
        self,
        records: Records[SessionRecord],
        *,
        slots: int,
        waiting: float,
        budget: float,
        deadline: float,
        rows: NoRows | RowWriter,
        tally: Tally,
    ) -> None:
        self.closed: bool = False
        self._records = records
        self._slots = Slots(slots)
        self._max_waiting = waiting
        self._budget = budget
        self._committed = 0.0
        self._deadline = deadline
        self._rows = rows
        self._tally = tally
        tally.waiting = lambda: self._slots.waiting + rows.waiting

    @property
    def free(self) -> int:
        """How many slots are free."""
        return max(0, self._slots.free)

    def resize(self, slots: int) -> None:
        """Have another number of slots from now on, in the ledger, too."""
        self._slots.resize(slots)
        self._rows.resize(slots)

    @property
    def budget_left(self) -> float | None:
        """Seconds that starts may still ask for; None without a budget."""
        return None if math.isinf(self._budget) else self._budget - self._committed

    def reserve(self, record: SessionRecord) -> None:
        """Take a key, so that two starts at the same time cannot both have it.

        Raises:
            ClientClosedError: The fleet is at its end.
            KeyInUseError: The key is taken.
            ConfigurationError: It cannot be a key.
        """
        if self.closed:
            raise closed_error()
        holder = self.holder(record.key)
        if holder is not None:
            raise KeyInUseError(
                f"key {record.key!r} has a session already: stop it first",
                key=record.key,
                holder=self._rows.worker,
                session_id=holder.session_id,
                operation="start",
            )
        self._records.add(record, holds_key=True)

    def holder(self, key: Hashable) -> SessionRecord | None:
        """Whoever holds a key, live or not.

        Raises:
            ConfigurationError: It cannot be a key.
        """
        try:
            return self._records.holder(key)
        except TypeError:
            told = f"key must be hashable, which {type(key).__name__} is not"
        raise ConfigurationError(told)

    async def admit(
        self,
        record: SessionRecord,
        request: AnyRequest,
        *,
        wait: bool,
        claimed: Callable[[str], None],
    ) -> None:
        """Take all else that a session needs; where this raises, it has nothing, and is over.

        Args:
            record: Whose session it is.
            request: What is to be started.
            wait: Whether to wait for a place.
            claimed: Called once, with another worker that has claimed the session.

        Raises:
            EquosError: As ``SessionFleet.start``, before anything was sent.
        """
        try:
            self._commit(record)
            await self._take_row(record, request, wait=wait, claimed=claimed)
            await self._take_slot(record, wait=wait)
        except BaseException as error:
            record.decide(error if isinstance(error, EquosError) else None)
            if record.state is State.WAITING:
                self.release(record, 0.0)
            if isinstance(error, EquosError):
                self._tally.tell("refused", record, str(error))
            raise
        self._records.move(record, State.STARTING)

    def turn_away(self, record: SessionRecord, why: EquosError) -> None:
        """Let a start end in an error; one that waits has nothing from now on."""
        record.unwanted = record.unwanted or why  # the first reason stays
        record.decide(record.unwanted)
        self._slots.turn_away(record, why)
        self._rows.turn_away(record.entry, why)
        if record.state is State.WAITING:
            self.release(record, 0.0)

    def release(self, record: SessionRecord, spent: float) -> None:
        """A session is over, or never was: give back all that it holds.

        Args:
            record: The session.
            spent: Seconds of the budget that it has used up.
        """
        had_slot = record.state is not State.WAITING
        self._records.move(record, State.ENDED)
        self._committed += spent - record.seconds
        self._rows.drop(record.entry)
        if had_slot:
            self._slots.give()

    def _commit(self, record: SessionRecord) -> None:
        """Reserve all that a session may use of the session budget."""
        left = self._budget - self._committed
        if record.duration > left:
            raise FleetFullError(
                f"the fleet's budget has {left:g} s left; this may take {record.duration:g} s",
                budget_left=left,
                operation="start",
            )
        record.seconds = record.duration
        self._committed += record.seconds

    async def _take_row(
        self,
        record: SessionRecord,
        request: AnyRequest,
        *,
        wait: bool,
        claimed: Callable[[str], None],
    ) -> None:
        record.entry = self._rows.entry(record.key, request, claimed)
        deadline = self._deadline if record.deadline is None else record.deadline
        try:
            await self._rows.place(
                record.entry,
                seconds=deadline + record.duration,
                wait=wait,
                waits=partial(self._waits, record),
            )
        except asyncio.CancelledError:
            self._tally.tell("waiting", record, "gave up")
            raise
        except FleetFullError as full:
            full.retry_after = full.retry_after or self._next_end(record.owner.clock)
            full.budget_left = self.budget_left
            raise
        if record.unwanted is not None:
            raise record.unwanted

    def _waits(self, record: SessionRecord) -> None:
        """A start stands in the ledger's line, unless too many do."""
        if self._tally.waiting() > self._max_waiting and record.replaces is None:
            self.turn_away(record, self._full(record, self._crowd))
        else:
            self._tally.tell("waiting", record)

    @property
    def _crowd(self) -> str:
        return f"{self._max_waiting} starts wait already"

    def _full(self, record: SessionRecord, told: str) -> FleetFullError:
        return FleetFullError(
            told,
            retry_after=self._next_end(record.owner.clock),
            budget_left=self.budget_left,
            operation="start",
        )

    def _next_end(self, clock: Clock) -> float | None:
        """Seconds until the next of this fleet's sessions is over, where there is one."""
        held = self._records.every(State.LIVE, State.STOPPING, State.UNKNOWN)
        ends = min((record.ends for record in held), default=None)
        return None if ends is None else max(0.0, ends - clock.now())

    async def _take_slot(self, record: SessionRecord, *, wait: bool) -> None:
        """Have a slot when this returns, and none where it raises."""
        slots = self._slots
        if slots.take():
            return
        if not wait:
            raise self._full(record, f"all {slots.count} places of the fleet are taken")
        if self._tally.waiting() >= self._max_waiting and record.replaces is None:
            raise self._full(record, self._crowd)
        turn = slots.join(record, renews=record.replaces is not None)
        self._tally.tell("waiting", record)
        try:
            await slots.wait(record, turn)
        except asyncio.CancelledError:
            self._tally.tell("waiting", record, "gave up")
            raise
        if record.unwanted is not None:  # in the very tick in which its turn came
            slots.give()
            raise record.unwanted
