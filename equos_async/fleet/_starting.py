"""The starts of a fleet: each waits for a slot, then for its session, and outlives its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final, Literal, cast

from equos_async._api.operations import OVER
from equos_async.clock import Clock, set_unless_done
from equos_async.errors import EquosError, StartOutcomeUnknownError

from ._admission import Admission, closed_error
from ._drains import Drains
from ._no_ledger import NoRows
from ._opening import Opening
from ._records import Records
from ._session import SessionRecord, error_of
from ._states import Reason, State
from ._tally import Tally
from ._unknown import Unknowns
from ._watchdog import Watchdog
from ._writer import RowWriter
from .values import AnyEnded, AnyRequest, AnyStarted

IfTaken = Literal["raise", "return", "replace"]

LAST_DATE: Final = 253_402_300_799.0
"""The end of the year 9999, the last that a datetime can hold, in seconds since the epoch."""


class Starts:
    """Runs each start, from its wait for a slot to a session, an error or an unknown outcome.

    Args:
        records: The fleet's sessions.
        admission: Keys, budget, rows and slots.
        rows: Writes the rows.
        tally: Reports events.
        opening: Sends starts.
        unknowns: Keeps starts of unknown outcome.
        drains: Wait for the ends of starts.
        watchdog: The timers of live sessions.
        renew_before: Seconds before a session's end at which its replacement is started.
        clock: The source of time.
        claimed: Called with a record, and another worker that has claimed it.
        stop: Begins to stop a live session, for a reason.
    """

    def __init__(
        self,
        *,
        records: Records[SessionRecord],
        admission: Admission,
        rows: NoRows | RowWriter,
        tally: Tally,
        opening: Opening,
        unknowns: Unknowns,
        drains: Drains,
        watchdog: Watchdog,
        renew_before: float,
        clock: Clock,
        claimed: Callable[[SessionRecord, str], None],
        stop: Callable[[SessionRecord, Reason], asyncio.Task[AnyEnded | None]],
    ) -> None:
        self._records = records
        self._admission = admission
        self._rows = rows
        self._tally = tally
        self._opening = opening
        self._unknowns = unknowns
        self._drains = drains
        self._watchdog = watchdog
        self._renew_before = renew_before
        self._clock = clock
        self._claimed = claimed
        self._stop = stop

    async def begin(self, record: SessionRecord, *, wait: bool, if_taken: IfTaken) -> SessionRecord:
        """Start a session for a key that nobody has, and do with another one as ``if_taken`` says.

        Returns:
            The session; another one if the key has it already, and it is to be returned.
        """
        key = record.key
        while if_taken != "raise" and (holder := self._admission.holder(key)) is not None:
            if if_taken == "replace":
                if holder.state is State.LIVE:
                    self._stop(holder, Reason.REPLACED)
                await self.end(key, Reason.REPLACED.value)
            elif holder.state is State.LIVE:
                return holder
            elif holder.state is State.STOPPING:
                await asyncio.wait([self._stop(holder, Reason.ASKED)])
            else:
                await self.join(holder)
        self._admission.reserve(record)
        await self.fulfil(record, cast("AnyRequest", record.request), wait=wait)
        return record

    async def end(self, key: Hashable, why: str) -> AnyEnded | None:
        """Stop the session of a key, or call its start off.

        While a renewal hands over, both sessions are stopped.
        """
        await self.call_off(key, EquosError(why, operation="start"))
        live = self._records.get(key)
        if live is None:
            return None
        both = [one for one in (live.relieves, live) if one is not None]
        stops = [self._stop(one, Reason.ASKED) for one in both]
        await asyncio.wait(stops)
        return [stop.result() for stop in stops][-1]

    async def fulfil(self, record: SessionRecord, request: AnyRequest, *, wait: bool) -> None:
        """Wait for a slot, then for the session."""
        claimed = partial(self._claimed, record)
        await self._admission.admit(record, request, wait=wait, claimed=claimed)
        answer = record.answer = asyncio.get_running_loop().create_future()
        record.task = asyncio.create_task(self._opening.open(record, request, wait=wait))
        record.task.add_done_callback(partial(self._opened, record, answer))
        try:
            await answer
        except (asyncio.CancelledError, GeneratorExit):
            if not answer.cancel() and not answer.cancelled():  # the coroutine was closed
                answer.exception()  # it failed in the tick of the cancellation
            self._leave(record)
            raise

    async def join(self, record: SessionRecord) -> None:
        """Wait for a start in progress, which from now on outlives its first caller.

        If that caller is cancelled while the start waits for a slot, the start ends.

        Raises:
            EquosError: It failed, or was called off.
        """
        if record.decided is None:
            record.decided = asyncio.get_running_loop().create_future()
        record.callers += 1
        try:
            error = await asyncio.shield(record.decided)
        except (asyncio.CancelledError, GeneratorExit):
            self._leave(record)
            raise
        if error is not None:
            raise error

    def _leave(self, record: SessionRecord) -> None:
        """A caller of a start was cancelled; the last one cancels the start."""
        record.callers -= 1
        if record.callers == 0:
            self._stop(record, Reason.ASKED)  # if its session came in the tick of the cancellation
            self._withdraw(record)

    async def call_off(self, key: Hashable, why: EquosError) -> None:
        """End a start in progress with an error; if a session comes, it is stopped."""
        record = self._records.holder(key)
        if record is None or not record.is_under_way:
            return
        entry = record.entry
        self.turn_away(record, why)
        if record.task is not None:
            await asyncio.wait([record.task])
        if record.state is State.ENDED:
            await self._rows.remove(entry)  # else other workers would find its key in use

    def turn_away(self, record: SessionRecord, why: EquosError) -> None:
        """End a start with an error, at once if nothing was sent."""
        self._admission.turn_away(record, why)
        self._withdraw(record)

    def _withdraw(self, record: SessionRecord) -> None:
        """Withdraw a start; if it was sent, its session is stopped when it comes."""
        if not record.is_under_way or record.task is None:
            return
        if record.watch is None or record.watch.is_unsent:
            record.task.cancel()
        else:
            record.watch.is_called_off = True

    def _opened(
        self,
        record: SessionRecord,
        answer: asyncio.Future[None],
        task: asyncio.Task[AnyStarted],
    ) -> None:
        """A start's task is over: a done callback."""
        error = error_of(task, StartOutcomeUnknownError)
        if error is None:
            self._arrived(record, answer, task.result())
            return
        if task.cancelled() and (record.watch is None or record.watch.is_withdrawn):
            told = "it was cancelled before it was sent"
            error = record.unwanted or EquosError(told, operation="start")
        # The session of an unreadable answer may have been stopped already.
        is_settled = record.watch is not None and record.watch.is_settled
        is_known = isinstance(error, EquosError) and not isinstance(error, StartOutcomeUnknownError)
        if is_settled or is_known:
            record.watch = record.task = None
            self._admission.release(record, 0.0)
            self._tally.tell("refused", record, str(error))
            self._drains.settle(record, None)
        else:
            self._unknowns.keep(record, error)
        record.decide(error)
        if not answer.done():
            answer.set_exception(error)

    def _arrived(
        self,
        record: SessionRecord,
        answer: asyncio.Future[None],
        started: AnyStarted,
    ) -> None:
        """A session has come: return it to the callers, or stop it if there are none."""
        if record.watch is not None and record.watch.is_settled:
            # The client was closed while the row was written, and has stopped the session.
            record.is_confirmed, record.unwanted = True, record.unwanted or closed_error()
        is_over = record.resource.status_of(started) in OVER
        if is_over and record.replaces is not None:  # keep the old session
            told = "the server answered that it has ended"
            record.unwanted = record.unwanted or EquosError(told, operation="start")
        unwanted, wanted = record.unwanted, record.callers > 0 and record.unwanted is None
        self._live(record, started, wanted=wanted)
        self._tally.tell("started", record)
        self._drains.arrived(record)
        record.decide(unwanted)
        if wanted:
            set_unless_done(answer, None)
            if not is_over:
                return
        self._stop(record, Reason.OVER if wanted else Reason.ASKED)
        if not answer.done() and unwanted is not None:
            unwanted.session_id = record.session_id
            answer.set_exception(unwanted)

    def _live(self, record: SessionRecord, started: AnyStarted, *, wanted: bool) -> None:
        """Record that a session is live, and drop what only its start needed."""
        record.started = started
        record.began = self._clock.now()
        record.ends = self._opening.ends(record, started)
        left = record.ends - record.began
        record.expires = min(self._clock.wall() + left, LAST_DATE)
        if record.hand_over is not None:
            record.renew_at = record.ends - min(self._renew_before, left / 2)
        if record.presence is not None:
            record.presence.seen = record.began
        self._tally.began(record)
        self._records.move(record, State.LIVE)
        if record.replaces is not None and wanted:
            self._records.hand_key(record.replaces, record)
            record.replaces.renewing = None  # ending one does not cancel the other any more
            record.relieves = record.replaces
        # They would keep earlier records, and the frames of callers, in memory.
        record.answer = record.task = record.replaces = record.unwanted = None
        self._watchdog.watch(record)
