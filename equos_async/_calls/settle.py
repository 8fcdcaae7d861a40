"""Settle starts whose answers were lost: find their sessions, end them, and start again."""

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
    """Settles the lost starts of one client.

    The caller of a lost start waits while its session is searched for, and gets an error when its
    patience is over. If the session was found and ended, the start is sent again. Each resource has
    one :class:`Looker`, which searches for all of its lost starts.

    Args:
        settle: How long to search; None: not at all.
        keys: The keys; a search needs the server key.
        runner: Sends starts again.
        reports: Reports the results.
        lifecycle: The state of the client.
        clock: The source of time.
        ask: Launches a look-up.
        end: Stops a session that was found, until its end is confirmed.
        refuse: Gives an error to the caller of a start.

    Attributes:
        is_on: Whether the client searches for lost starts.
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
        """Let the attempts of a start carry markers, if the server supports them."""
        if self._looker_of(resource).use.is_on:
            call.is_marked, call.mark = True, resource.marked

    def may_settle(self, call: Call[Any], result: Result[Any] | None) -> bool:
        """Whether the session of a start with this result can be searched for."""
        if not isinstance(result, Unknown) or call.marker is None or call.resource is None:
            return False
        if result.unreadable is not None and result.unreadable.session_id is not None:
            return False  # the id is known: the session is stopped without a search
        return self._looker_of(call.resource).use.is_on and not self._lifecycle.gave_up

    def accept(self, call: Call[Any]) -> None:
        """Note whether the answer to an accepted start shows its marker."""
        reply = None if call.latest is None else call.latest.reply
        looker = self._lookers[self._word(call)]
        if call.marker is not None and isinstance(reply, Reply):
            looker.use.accept(shown=call.marker.encode() in reply.body)

    async def without(self, call: Call[T], refused: Result[T]) -> Result[T]:
        """Send a start again without a marker, if the marker may be why it was refused."""
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
        """Make the call that continues for the caller of a call that is overdue.

        The overdue call then waits only for its late answer; its heir settles the start.
        """
        tried = Tried(reply, Outcome(sent=True), Verdict.UNKNOWN, None, None)
        lost = call.lost = self._lose(call)
        heir = evolve(call, work=Work.SETTLING, exchange=None, permit=None, latest=tried, lost=lost)
        call.heir, call.watch = heir, None
        return heir

    async def settle(self, call: Call[T], result: Unknown) -> Result[T] | None:
        """Wait for the search, and send the start again if its session was found and ended.

        Returns:
            The result of the start; None if its caller needs none: a late answer was handed over,
            or the start was resolved by hand.
        """
        lost = call.lost = call.lost or self._lose(call)
        call.work = Work.SETTLING
        looker = self._lookers[self._word(call)]
        patience = self._settle.patience if looker.use.is_shown else 0.0
        tell_at, told = min(self._clock.now() + patience, call.deadline), False
        while looker.is_open(lost):
            # The patience limits the search; to end what was found takes until the deadline.
            until = tell_at if lost.fate is Fate.LOST else call.deadline
            if not told and self._clock.now() >= until:
                told = True
                self._refuse(call, result)
                continue  # a handler of the event may have resolved it
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
        """Search for the session of another process's start; see :meth:`Starts.adopt`."""
        looker = self._looker_of(resource)
        if not looker.use.is_on:
            return {}
        lost = self._lose(start)
        try:
            while looker.is_open(lost):
                await self._alarms.wait(lost)
        finally:
            is_lost = lost.fate is Fate.LOST
            lost.resolve()  # no caller waits for the search any more
        if is_lost and self._lifecycle.state is not State.OPEN:
            raise closed_error()
        return lost.sessions

    def take(self, lost: LostAttempt) -> bool:
        """Take a late answer; returns whether it counts, as in :meth:`LostAttempt.take`."""
        taken = lost.take()
        self._alarms.ring(lost)
        return taken

    def let_go(self, call: Call[Any]) -> bool:
        """End the search for a start that was resolved by hand.

        Returns:
            Whether that is possible: False if its session was found and is being ended.
        """
        if call.lost is None:
            return True
        is_gone = call.lost.resolve()
        self._alarms.ring(call.lost)
        return is_gone

    def found(self, call: Call[Any], lost: LostAttempt, session_id: str) -> None:
        """End a session that was found, unless it has a caller or is being ended already."""
        if lost.find(session_id):
            self._end(call, lost, session_id)

    def ended(
        self, call: Call[Any], lost: LostAttempt, session_id: str, *, confirmed: bool
    ) -> None:
        """Note that a session that was found has ended, or could not be ended."""
        if not confirmed:
            lost.fail(session_id)
        else:
            lost.confirm(session_id)
        if lost.fate is Fate.ENDED:
            # The end of an earlier attempt's session says nothing about the latest attempt.
            is_latest = call.current.marker == lost.marker
            self._reports.settled(call, is_known=is_latest)
            call.current.tell_watch()  # its caller's call may be over by now
            if call.heir is not None and call.lost is lost:
                call.withdraw()  # its late answer is not needed any more
        self._alarms.ring(lost)

    async def shows_over(
        self, resource: Resource[Any, Any, Any], session_id: str, value: Any
    ) -> bool:
        """Whether the answer to a stop, or else a look-up by id, shows the session as ended."""
        if value is None or value.status not in OVER:
            try:
                value = await self._ask(resource.get, session_id).answer
            except EquosError:
                return False
        return value is not None and value.status in OVER

    # Closing.

    def hurry(self) -> None:
        """Search at once, because the client is closing."""
        for looker in self._lookers.values():
            looker.hurry()

    async def stop(self) -> None:
        """Stop all searches."""
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
