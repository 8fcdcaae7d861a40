"""Settle starts whose answers were lost: wait until it is known what became of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from attrs import evolve

from equos_async._api.operations import OVER, SESSION, Resource
from equos_async._http.request import Failure, Reply
from equos_async._retry.classify import Outcome, Verdict
from equos_async._retry.search import Fate, LostAttempt
from equos_async.clock import Clock
from equos_async.errors import EquosError, ResourceName
from equos_async.settings import Settle

from .alarms import Alarms
from .call import Call, Tried, Work
from .keys import Keys
from .lifecycle import Lifecycle, State, closed_error
from .looker import Ask, Looker
from .outcome import Accepted, Ended, Refused, Result, Unknown
from .reports import CallReports
from .runner import CallRunner

T = TypeVar("T")


class Settling:
    """Keeps the callers of lost starts waiting, tells them in time, and sends again what is over.

    Each resource has one looker, for all that is lost of it.

    Args:
        settle: How long; None: not at all.
        keys: Looking needs the server key.
        runner: Sends starts again.
        reports: Where it is told.
        lifecycle: How far the client has come.
        clock: The source of time.
        ask: Launches a call that reads.
        end: Launches what ends a session that was found, until that is confirmed.
        refuse: Lets a start's caller have an error.

    Attributes:
        is_on: Whether anything is looked for at all.
    """

    def __init__(
        self,
        settle: Settle | None,
        *,
        keys: Keys,
        runner: CallRunner,
        reports: CallReports,
        lifecycle: Lifecycle,
        clock: Clock,
        ask: Ask,
        end: Callable[[Call[Any], LostAttempt, str], None],
        refuse: Callable[[Call[Any], Unknown], None],
    ) -> None:
        self._settle = settle or Settle()
        self._runner = runner
        self._reports = reports
        self._lifecycle = lifecycle
        self._clock = clock
        self._ask = ask
        self._end = end
        self._refuse = refuse
        self.is_on: bool = settle is not None and keys.has(SESSION.look)
        self._alarms = Alarms(clock)
        self._lookers: dict[ResourceName, Looker] = {}

    # Starts.

    def prepare(self, call: Call[Any], resource: Resource[Any, Any, Any]) -> None:
        """Have the attempts of a start carry markers, where they can be looked for."""
        if self._looker_of(resource).use.is_on:
            call.is_marked, call.mark = True, resource.marked

    def may_settle(self, call: Call[Any], result: Result[Any] | None) -> bool:
        """Whether what became of a start can be found out."""
        if not isinstance(result, Unknown) or call.marker is None or call.resource is None:
            return False
        if result.unreadable is not None and result.unreadable.session_id is not None:
            return False  # that one is ended by its id
        return self._looker_of(call.resource).use.is_on and not self._lifecycle.gave_up

    def accept(self, call: Call[Any]) -> None:
        """A start was accepted: see whether the answer shows its marker."""
        reply = None if call.latest is None else call.latest.reply
        looker = self._lookers[self._word(call)]
        if call.marker is not None and isinstance(reply, Reply):
            looker.use.accept(shown=call.marker.encode() in reply.body)

    async def without(self, call: Call[T], refused: Result[T]) -> Result[T]:
        """Send a start once more without a marker, where it may have been refused for that."""
        if call.marker is None or not isinstance(refused, Refused):
            return refused
        looker = self._lookers[self._word(call)]
        status, text = refused.reply.status, refused.reply.body.decode("utf-8", "replace")
        wanted = call.is_wanted and self._lifecycle.state is State.OPEN
        if not wanted or not looker.use.may_be_why(status, text):
            return refused
        call.mark = None
        result = await self._runner.run(call)
        if isinstance(result, Accepted) and looker.use.accept_without(status, text):
            self._reports.settling_off(call, f"the server refused the marker with status {status}")
        return result

    def inherit(self, call: Call[T], reply: Failure) -> Call[T]:
        """Make the call that goes on for the caller of one that only listens from now on."""
        tried = Tried(reply, Outcome(sent=True), Verdict.UNKNOWN, None, None)
        lost = call.lost = self._lose(call)
        heir = evolve(call, work=Work.SETTLING, exchange=None, permit=None, latest=tried, lost=lost)
        call.heir, call.watch = heir, None
        return heir

    async def settle(self, call: Call[T], result: Unknown) -> Result[T] | None:
        """Wait until it is known what became of a start, and send it again where nothing is left.

        Returns:
            What it came to; None where a late answer served the caller, or somebody else saw to it.
        """
        lost = call.lost = call.lost or self._lose(call)
        call.work = Work.SETTLING
        looker = self._lookers[self._word(call)]
        patience = self._settle.patience if looker.use.is_shown else 0.0
        tell_at, told = min(self._clock.now() + patience, call.deadline), False
        while looker.is_open(lost):
            # Patience is for the finding; what was found is ended until the deadline.
            until = tell_at if lost.fate is Fate.LOST else call.deadline
            if not told and self._clock.now() >= until:
                told = True
                self._refuse(call, result)
                continue  # whoever heard of it may have resolved it
            await self._alarms.wait(lost, math.inf if told else until)
        call.lost = None
        if lost.fate in {Fate.ANSWERED, Fate.RESOLVED}:
            return None
        if lost.fate is not Fate.ENDED:
            return result
        again = await self._runner.run_again(call)
        return Ended() if again is None else again

    async def adopt(
        self, start: Call[Any], resource: Resource[Any, Any, Any]
    ) -> Mapping[str, bool]:
        """See to a start of another process: as :meth:`Starts.adopt`."""
        looker = self._looker_of(resource)
        if not looker.use.is_on:
            return {}
        lost = self._lose(start)
        try:
            while looker.is_open(lost):
                await self._alarms.wait(lost)
        finally:
            is_lost = lost.fate is Fate.LOST
            lost.resolve()  # nobody asks for it any more
        if is_lost and self._lifecycle.state is not State.OPEN:
            raise closed_error()
        return lost.sessions

    def take(self, lost: LostAttempt) -> bool:
        """A late answer came that its caller still waits for; whether it counts."""
        taken = lost.take()
        self._alarms.ring(lost)
        return taken

    def let_go(self, call: Call[Any]) -> bool:
        """Somebody else saw to a start: look no more; false where what it began is being ended."""
        if call.lost is None:
            return True
        is_gone = call.lost.resolve()
        self._alarms.ring(call.lost)
        return is_gone

    def found(self, call: Call[Any], lost: LostAttempt, session_id: str) -> None:
        """Have something ended that nobody holds, unless that is being done."""
        if lost.find(session_id):
            self._end(call, lost, session_id)

    def ended(
        self, call: Call[Any], lost: LostAttempt, session_id: str, *, confirmed: bool
    ) -> None:
        """Something that was found is over, or could not be ended."""
        if not confirmed:
            lost.fail()
        else:
            lost.confirm(session_id)
        if lost.fate is Fate.ENDED:
            # What became of an earlier attempt says nothing about the latest.
            is_latest = call.current.marker == lost.marker
            self._reports.settled(call, is_known=is_latest)
            call.current.tell_watch()  # its caller's call may be over by now
            if call.heir is not None and call.lost is lost:
                call.withdraw()  # its answer would say nothing new
        self._alarms.ring(lost)

    async def shows_over(
        self, resource: Resource[Any, Any, Any], session_id: str, value: Any
    ) -> bool:
        """Whether an answer to a stop, or else a look-up by id, shows that something is over."""
        if value is None or value.status not in OVER:
            try:
                value = await self._ask(resource.get, session_id).answer
            except EquosError:
                return False
        return value is not None and value.status in OVER

    # Ways out.

    def hurry(self) -> None:
        """Look at once: the client closes."""
        for looker in self._lookers.values():
            looker.hurry()

    async def stop(self) -> None:
        """Look no more."""
        for looker in self._lookers.values():
            await looker.stop()

    def _lose(self, call: Call[Any]) -> LostAttempt:
        return self._lookers[self._word(call)].lose(call)

    def _looker_of(self, resource: Resource[Any, Any, Any]) -> Looker:
        if resource.word not in self._lookers:
            self._lookers[resource.word] = Looker(
                resource,
                self._settle.look_for,
                reports=self._reports,
                clock=self._clock,
                alarms=self._alarms,
                ask=self._ask,
                end=self._end,
            )
        return self._lookers[resource.word]

    def _word(self, call: Call[Any]) -> ResourceName:
        return call.target.resource or "session"
