"""Find what starts began whose answers were lost, and have it ended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from attrs import evolve

from equos_async._api.answers import Looked
from equos_async._api.operations import OVER, PAGE, SESSION, Operation, Resource
from equos_async._http.request import Failure, Reply
from equos_async._marker import MarkerUse
from equos_async._retry.backoff import http_date
from equos_async._retry.classify import Outcome, Verdict
from equos_async._retry.pages import ListMemory, Part, read, since
from equos_async._retry.search import Fate, Look, LostAttempt, Search
from equos_async.clock import Clock, set_unless_done
from equos_async.errors import APIStatusError, EquosError, OverloadedError, ResourceName
from equos_async.settings import Settle

from .call import Call, Tried, Work
from .keys import Keys
from .lifecycle import Lifecycle, State, closed_error
from .outcome import Accepted, Ended, Refused, Result, Unknown
from .reports import CallReports
from .runner import CallRunner

T = TypeVar("T")


class Ask(Protocol):
    """Launches a call that reads, for the client itself and also while that closes."""

    def __call__(
        self,
        operation: Operation[T],
        session_id: str | None = None,
        *,
        query: Mapping[str, object] | None = None,
    ) -> Call[T]:
        """Launch it."""
        ...


class Kind:
    """What is lost of one resource.

    Attributes:
        resource: Which one.
        search: What is looked for, and when.
        use: What the server makes of markers.
        memories: What looks leave to the next ones, for each filter.
        calls: The starts whose attempts are looked for, by marker.
        looker: The task that looks, while there is something to look for.
    """

    def __init__(self, resource: Resource[Any, Any, Any], look_for: float) -> None:
        self.resource = resource
        self.search = Search(look_for)
        self.use = MarkerUse()
        self.memories: dict[str | None, ListMemory] = {}
        self.calls: dict[str, Call[Any]] = {}
        self.looker: asyncio.Task[None] | None = None


class Settling:
    """Looks for what was lost, one looker for all of a resource, and tells those who wait.

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
        self._kinds: dict[ResourceName, Kind] = {}
        self._alarms: dict[object, asyncio.Future[None]] = {}

    # Starts.

    def prepare(self, call: Call[Any], resource: Resource[Any, Any, Any]) -> None:
        """Have the attempts of a start carry markers, where they can be looked for."""
        kind = self._kind_of(resource)
        if kind.use.is_on:
            call.is_marked, call.mark = True, resource.marked

    def may_settle(self, call: Call[Any], result: Result[Any] | None) -> bool:
        """Whether what became of a start can be found out."""
        if not isinstance(result, Unknown) or call.marker is None or call.resource is None:
            return False
        if result.unreadable is not None and result.unreadable.session_id is not None:
            return False  # that one is ended by its id
        kind = self._kind_of(call.resource)
        return kind.use.is_on and not self._lifecycle.gave_up

    def accept(self, call: Call[Any]) -> None:
        """A start was accepted: see whether the answer shows its marker."""
        reply = None if call.latest is None else call.latest.reply
        kind = self._kinds[self._word(call)]
        if call.marker is not None and isinstance(reply, Reply):
            kind.use.accept(shown=call.marker.encode() in reply.body)

    async def without(self, call: Call[T], refused: Result[T]) -> Result[T]:
        """Send a start once more without a marker, where it may have been refused for that."""
        if call.marker is None or not isinstance(refused, Refused):
            return refused
        kind = self._kinds[self._word(call)]
        status, text = refused.reply.status, refused.reply.body.decode("utf-8", "replace")
        wanted = call.is_wanted and self._lifecycle.state is State.OPEN
        if not wanted or not kind.use.may_be_why(status, text):
            return refused
        call.mark = None
        result = await self._runner.run(call)
        if isinstance(result, Accepted) and kind.use.accept_without(status, text):
            self._reports.settling_off(call, f"the server refused the marker with status {status}")
        return result

    def inherit(self, call: Call[T], reply: Failure) -> Call[T]:
        """Make the call that goes on for the caller of one that only listens from now on."""
        tried = Tried(reply, Outcome(sent=True), Verdict.UNKNOWN, None, None)
        lost = call.lost = self._lose(call)
        heir = evolve(call, work=Work.SETTLING, guard=None, permit=None, latest=tried, lost=lost)
        call.heir, call.watch = heir, None
        return heir

    async def settle(self, call: Call[T], result: Unknown) -> Result[T] | None:
        """Wait until it is known what became of a start, and send it again where nothing is left.

        Returns:
            What it came to; None where a late answer served the caller, or somebody else saw to it.
        """
        lost = call.lost = call.lost or self._lose(call)
        call.work = Work.SETTLING
        kind = self._kinds[self._word(call)]
        patience = self._settle.patience if kind.use.is_shown else 0.0
        tell_at, told = min(self._clock.now() + patience, call.deadline), False
        while self._is_open(kind, lost):
            # Patience is for the finding; what was found is ended until the deadline.
            until = tell_at if lost.fate is Fate.LOST else call.deadline
            if not told and self._clock.now() >= until:
                told = True
                self._refuse(call, result)
                continue  # whoever heard of it may have resolved it
            await self._wait(lost, math.inf if told else until)
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
        kind = self._kind_of(resource)
        if not kind.use.is_on:
            return {}
        lost = self._lose(start)
        try:
            while self._is_open(kind, lost):
                await self._wait(lost)
        finally:
            is_lost = lost.fate is Fate.LOST
            lost.resolve()  # nobody asks for it any more
        if is_lost and self._lifecycle.state is not State.OPEN:
            raise closed_error()
        return lost.sessions

    def _is_open(self, kind: Kind, lost: LostAttempt) -> bool:
        """Whether it may still be found, or is being ended."""
        is_looked_for = lost.fate is Fate.LOST and lost.marker in kind.search.lost
        return is_looked_for or lost.fate is Fate.ENDING

    def take(self, lost: LostAttempt) -> bool:
        """A late answer came that its caller still waits for; whether it counts."""
        taken = lost.take()
        self._ring(lost)
        return taken

    def let_go(self, call: Call[Any]) -> bool:
        """Somebody else saw to a start: look no more; false where what it began is being ended."""
        if call.lost is None:
            return True
        is_gone = call.lost.resolve()
        self._ring(call.lost)
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
        self._ring(lost)

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
        for kind in self._kinds.values():
            kind.search.hurry()
            self._ring(kind)

    async def stop(self) -> None:
        """Look no more."""
        lookers = [kind.looker for kind in self._kinds.values() if kind.looker is not None]
        for looker in lookers:
            looker.cancel()
        if lookers:
            await asyncio.wait(lookers)

    # Looking.

    def _kind_of(self, resource: Resource[Any, Any, Any]) -> Kind:
        if resource.word not in self._kinds:
            self._kinds[resource.word] = Kind(resource, self._settle.look_for)
        return self._kinds[resource.word]

    def _word(self, call: Call[Any]) -> ResourceName:
        return call.target.resource or "session"

    def _lose(self, call: Call[Any]) -> LostAttempt:
        kind = self._kinds[self._word(call)]
        lost = LostAttempt(
            marker=str(call.marker),
            client=call.target.client,
            sent_at=call.sent_at,
            lost_at=self._clock.now(),
        )
        kind.calls[lost.marker] = call
        kind.search.add(lost)
        if kind.looker is None:
            self._begin_to_look(kind)
        self._ring(kind)
        return lost

    def _begin_to_look(self, kind: Kind) -> None:
        kind.looker = asyncio.get_running_loop().create_task(self._look(kind))
        kind.looker.add_done_callback(partial(self._looked, kind))

    async def _look(self, kind: Kind) -> None:
        while (at := kind.search.next_at()) < math.inf:
            if at > self._clock.now():
                await self._wait(kind, at)
                continue
            look = kind.search.begin(self._clock.now())
            await self._look_once(kind, look)
            self._let_go(kind, look)
        kind.looker = None  # what is lost from now on has another one
        kind.memories.clear()
        kind.calls.clear()

    async def _look_once(self, kind: Kind, look: Look) -> None:
        counted: list[Call[Looked]] = []
        try:
            for client in look.clients:
                await self._read(kind, look, client, counted)
        except EquosError as error:
            now, asked = self._clock.now(), None
            if isinstance(error, (APIStatusError, OverloadedError)):
                asked = error.retry_after
            if isinstance(error, APIStatusError) and error.status in {401, 403, 404}:
                self._give_up(kind, f"the server refused to list, with status {error.status}")
            else:
                kind.search.fail(now, pages=_requests(counted), retry_after=asked)
        else:
            kind.search.finish(look, self._clock.now(), pages=_requests(counted))

    async def _read(
        self, kind: Kind, look: Look, client: str | None, counted: list[Call[Looked]]
    ) -> None:
        """Read one list, and take what it shows."""
        filtered = {} if client is None else {"client": client}
        reading = read(kind.memories.setdefault(client, ListMemory()))
        span = next(reading)
        while True:
            query = {"take": min(span.take, PAGE), "skip": span.skip, **filtered}
            call = self._ask(kind.resource.look, query=query)
            counted.append(call)
            looked = await call.answer
            for session_id, marker in looked.items:
                lost = kind.search.find(marker, session_id)
                if lost is not None:
                    self._end(kind.calls[lost.marker], lost, session_id)
            try:
                span = reading.send(self._part(call, looked, look))
            except StopIteration:
                return

    def _part(self, call: Call[Looked], looked: Looked, look: Look) -> Part | None:
        if looked.is_cut:
            return None
        reply = None if call.latest is None else call.latest.reply
        date = http_date(reply.headers.get("Date", "")) if isinstance(reply, Reply) else None
        ago = self._clock.now() - look.since
        return Part(looked.count, looked.total, looked.created, since(date, ago))

    def _let_go(self, kind: Kind, look: Look) -> None:
        """Wake those for whom it was looked long enough."""
        kind.search.next_at()
        for marker in kind.calls.keys() - kind.search.lost.keys():
            del kind.calls[marker]
        for lost in look.attempts:
            if lost.marker not in kind.search.lost:
                self._ring(lost)

    def _give_up(self, kind: Kind, reason: str) -> None:
        kind.use.is_on = False
        kind.search.give_up()
        self._reports.settling_off(next(reversed(kind.calls.values())), reason)

    def _looked(self, kind: Kind, looker: asyncio.Task[None]) -> None:
        """The looker ended before its time: the loop ends, or it was a mistake of this library."""
        if kind.looker is not looker:
            return
        kind.looker = None
        for lost in kind.search.give_up():
            self._ring(lost)
        if not looker.cancelled():
            looker.result()  # raises, for the loop's handler

    # Waiting.

    async def _wait(self, about: object, until: float = math.inf) -> None:
        """Wait until something is told, or a time."""
        alarm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._alarms[about] = alarm
        timer = None
        if until < math.inf:
            timer = self._clock.call_at(until, set_unless_done, alarm, None)
        try:
            await alarm
        finally:
            del self._alarms[about]
            if timer is not None:
                timer.cancel()

    def _ring(self, about: object) -> None:
        alarm = self._alarms.get(about)
        if alarm is not None:
            set_unless_done(alarm, None)


def _requests(calls: list[Call[Looked]]) -> int:
    """How often the server was asked: an attempt that failed is work for it, too."""
    return sum(call.attempts for call in calls)
