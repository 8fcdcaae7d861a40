"""Take what a session needs before its start, and return it after its end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from heapq import nsmallest

from equos_async._shown import brief, keyed
from equos_async.errors import (
    ClientClosedError,
    ConfigurationError,
    EquosError,
    FleetFullError,
    KeyInUseError,
    RateLimitError,
)
from equos_async.ledger.protocol import Placing

from ._names import name_of
from ._no_ledger import NoRows
from ._records import Records
from ._rows import NO_ENTRY
from ._session import SessionRecord
from ._slots import Slots
from ._states import State
from ._tally import Tally
from ._writer import RowWriter
from .values import AnyRequest, GroupStats


def closed_error() -> ClientClosedError:
    """The error for a start after the end of the fleet."""
    return ClientClosedError("the fleet is closed or closing", operation="start")


class Admission:
    """Keys, session budget, rows and slots; all are taken and returned here.

    Args:
        records: The fleet's sessions, with their keys.
        slots: The number of sessions that may be live.
        per_group: The number of them that a group may have; infinite: no limit.
        waiting: The number of a group's starts that may wait; infinite: no limit.
        budget: The seconds that all sessions may run.
        deadline: Seconds for a start that sets no deadline.
        rows: Writes the rows.
        tally: Reports events.
    """

    def __init__(
        self,
        records: Records[SessionRecord],
        *,
        slots: int,
        per_group: float,
        waiting: float,
        budget: float,
        deadline: float,
        rows: NoRows | RowWriter,
        tally: Tally,
    ) -> None:
        self.closed: bool = False
        self._records = records
        self._slots = Slots(slots, per_group)
        self._max_waiting = waiting
        self._budget = budget
        self._committed = 0.0
        self._per_group = per_group
        self._deadline = deadline
        self._rows = rows
        self._tally = tally
        tally.waiting = lambda: self._slots.waiting + rows.waiting

    @property
    def free(self) -> int:
        """The number of free slots."""
        return max(0, self._slots.free)

    @property
    def groups(self) -> Mapping[str, GroupStats]:
        """The numbers of each group that has any."""
        taken = self._slots.taken
        groups = taken.keys() | self._slots.waiting_groups | self._rows.waiting_groups
        return {
            group: GroupStats(taken=taken.get(group, 0), waiting=self._waiting_of(group))
            for group in groups
            if group is not None
        }

    def resize(self, slots: int) -> None:
        """Change the number of slots, in the ledger, too."""
        self._slots.resize(slots)
        self._rows.resize(slots)

    @property
    def budget_left(self) -> float | None:
        """Seconds that starts may still request; None without a budget."""
        return None if math.isinf(self._budget) else self._budget - self._committed

    def reserve(self, record: SessionRecord) -> None:
        """Take a key, so that two concurrent starts cannot both have it.

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
                f"key {keyed(record.key)} already has a session: stop it first",
                key=record.key,
                holder=self._rows.worker and name_of(self._rows.worker),
                session_id=holder.session_id,
                operation="start",
            )
        self._records.add(record, holds_key=True)

    def holder(self, key: Hashable) -> SessionRecord | None:
        """The session that has a key, live or not.

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
        """Take all else that a session needs; if this raises, it has nothing, and is over.

        Args:
            record: The session.
            request: The request of its start.
            wait: Whether to wait for a slot.
            claimed: Called once, with the worker that has claimed the session, if one does.

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
            if isinstance(error, FleetFullError):
                error.budget_left = self.budget_left  # with the seconds that were reserved for it
            if isinstance(error, EquosError):
                self._tally.tell("refused", record, str(error))
            raise
        self._records.move(record, State.STARTING)

    async def readmit(
        self, record: SessionRecord, refusal: RateLimitError, *, after: float, until: float
    ) -> None:
        """Let a refused start wait for a slot again, before others of its group.

        Its own slot stays empty for a while, because another start would be refused, too.

        Args:
            record: The session.
            refusal: The server's answer.
            after: Seconds until its slot is free.
            until: The end of its wait, on the clock.

        Raises:
            EquosError: It was called off, or its time is over; it has no slot then.
        """
        clock = record.owner.clock
        self._records.move(record, State.WAITING)
        turn = self._slots.join(record, renews=record.replaces is not None, first=True)
        clock.call_at(clock.now() + after, self._slots.give, record.group)
        end = clock.call_at(until, self._slots.turn_away, record, refusal)
        self._tally.tell("waiting", record, f"the server refused it for now: {refusal}")
        try:
            await self._slots.wait(record, turn)
        finally:
            end.cancel()
        self._records.move(record, State.STARTING)

    def turn_away(self, record: SessionRecord, why: EquosError) -> None:
        """End a start with an error; one that waits returns what it had."""
        record.unwanted = record.unwanted or why  # the first reason stays
        record.decide(record.unwanted)
        self._slots.turn_away(record, why)
        self._rows.turn_away(record.entry, why)
        if record.state is State.WAITING and record.task is None:
            self.release(record, 0.0)

    def release(self, record: SessionRecord, spent: float) -> None:
        """Return all that a session has; it is over, or was never started.

        Args:
            record: The session.
            spent: Seconds of the budget that it has used.
        """
        had_slot = record.state is not State.WAITING
        self._records.move(record, State.ENDED)
        self._committed += spent - record.seconds
        self._rows.drop(record.entry)
        record.entry = NO_ENTRY  # the entry refers to the record
        if had_slot:
            self._slots.give(record.group)

    def _commit(self, record: SessionRecord) -> None:
        """Reserve the whole time of a session in the session budget."""
        left = self._budget - self._committed
        if record.duration > left:
            raise FleetFullError(
                f"the session budget has {left:g} s left; this start asks for "
                f"{record.duration:g} s",
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
        record.entry = self._rows.entry(record.key, request, claimed, group=record.group)
        deadline = self._deadline if record.deadline is None else record.deadline
        try:
            await self._rows.place(
                record.entry,
                seconds=deadline + record.duration,
                wait=wait,
                renews=record.replaces is not None,
                waits=partial(self._waits, record),
                full=partial(self._ledger_full, record),
            )
        except asyncio.CancelledError:
            self._tally.tell("waiting", record, "gave up")
            raise
        if record.unwanted is not None:
            raise record.unwanted

    def _waits(self, record: SessionRecord) -> None:
        """Note that a start waits in the ledger's queue; refuse it if too many do."""
        if self._waiting_of(record.group) > self._max_waiting and record.replaces is None:
            self.turn_away(record, self._full(record, self._crowd(record)))
        else:
            self._tally.tell("waiting", record)

    def _waiting_of(self, group: str | None) -> int:
        return self._slots.waiting_of(group) + self._rows.waiting_of(group)

    def _crowd(self, record: SessionRecord) -> str:
        return f"{self._max_waiting} starts{_of(record.group)} wait already"

    def _ledger_full(self, record: SessionRecord, placing: Placing) -> FleetFullError:
        if placing.recovers_in:
            told = "the ledger may have lost rows; it accepts starts again in"
            return FleetFullError(
                f"{told} {placing.recovers_in:.1f} s",
                retry_after=placing.recovers_in,
                operation="start",
            )
        if placing.group_full:
            told = f"all {self._per_group} slots{_of(record.group)} are taken"
        else:
            told = f"all {self._slots.count} slots of the ledger are taken"
        return self._full(record, told, of_group=placing.group_full)

    def _full(self, record: SessionRecord, told: str, *, of_group: bool = False) -> FleetFullError:
        retry_after = self._next_end(record, of_group=of_group)
        return FleetFullError(told, retry_after=retry_after, operation="start")

    def _next_end(self, record: SessionRecord, *, of_group: bool) -> float | None:
        """Seconds until a session ends whose slot it could have, if that is known."""
        is_full = of_group or self._slots.is_full(record.group)
        held = self._records.every(State.LIVE, State.STOPPING, State.UNKNOWN)
        ends = [one.ends for one in held if not is_full or one.group == record.group]
        # After a resize there may be too many sessions, whose slots nobody gets.
        excess = 0 if is_full else max(0, -self._slots.free)
        following = nsmallest(excess + 1, ends)[excess:]
        return max(0.0, following[0] - record.owner.clock.now()) if following else None

    async def _take_slot(self, record: SessionRecord, *, wait: bool) -> None:
        """Take a slot; if this raises, none is taken."""
        slots = self._slots
        if slots.take(record.group):
            return
        if not wait:
            is_full = slots.is_full(record.group)
            count = self._per_group if is_full else slots.count
            whose = _of(record.group) if is_full else " of the fleet"
            raise self._full(record, f"all {count} slots{whose} are taken")
        if self._waiting_of(record.group) >= self._max_waiting and record.replaces is None:
            raise self._full(record, self._crowd(record))
        turn = slots.join(record, renews=record.replaces is not None)
        self._tally.tell("waiting", record)
        try:
            await slots.wait(record, turn)
        except asyncio.CancelledError:
            self._tally.tell("waiting", record, "gave up")
            raise
        if record.unwanted is not None:  # in the tick in which it got its slot
            slots.give(record.group)
            raise record.unwanted


def _of(group: str | None) -> str:
    return "" if group is None else f" of group {brief(repr(group))}"
