"""Search the lists of one resource for the sessions of lost starts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from equos_async._api.answers import Looked
from equos_async._api.operations import Operation, Resource
from equos_async._http.request import Reply
from equos_async._marker import MarkerUse
from equos_async._retry.backoff import http_date
from equos_async._retry.pages import TAKE, ListMemory, Part, read, since
from equos_async._retry.search import Fate, Look, LostAttempt, Search
from equos_async.clock import Clock
from equos_async.errors import APIStatusError, EquosError, OverloadedError

from .alarms import Alarms
from .call import Call
from .reports import CallReports

T = TypeVar("T")


class Ask(Protocol):
    """Launches a look-up for the client itself, also while it closes."""

    def __call__(
        self,
        operation: Operation[T],
        session_id: str | None = None,
        *,
        query: Mapping[str, object] | None = None,
    ) -> Call[T]:
        """Launch it."""
        ...


class Looker:
    """One task that searches for all lost starts of a resource, while there are any.

    Args:
        resource: The resource.
        look_for: Seconds for which a start is searched for.
        reports: Reports that the server refuses to list.
        clock: The source of time.
        alarms: Wake the starts that wait for their settlement.
        ask: Launches a look-up.
        end: Stops a session that was found, until its end is confirmed.

    Attributes:
        use: The server's support for markers.
    """

    def __init__(
        self,
        resource: Resource[Any, Any, Any],
        look_for: float,
        *,
        reports: CallReports,
        clock: Clock,
        alarms: Alarms,
        ask: Ask,
        end: Callable[[Call[Any], LostAttempt, str], None],
    ) -> None:
        self.use: MarkerUse = MarkerUse()
        self._resource = resource
        self._search = Search(look_for)
        self._reports = reports
        self._clock = clock
        self._alarms = alarms
        self._ask = ask
        self._end = end
        self._memories: dict[str | None, ListMemory] = {}
        self._calls: dict[str, Call[Any]] = {}
        self._task: asyncio.Task[None] | None = None

    def lose(self, call: Call[Any]) -> LostAttempt:
        """Search from now on for the session of a start's latest attempt."""
        lost = LostAttempt(
            marker=str(call.marker),
            client=call.target.client,
            sent_at=call.sent_at,
            lost_at=self._clock.now(),
        )
        self._calls[lost.marker] = call
        dropped = self._search.add(lost)
        if dropped is not None:
            self._alarms.ring(dropped)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look())
            self._task.add_done_callback(self._looked)
        self._alarms.ring(self)
        return lost

    def is_open(self, lost: LostAttempt) -> bool:
        """Whether a start's session may still be found, or is being stopped."""
        is_looked_for = lost.fate is Fate.LOST and lost.marker in self._search.lost
        return is_looked_for or lost.fate is Fate.ENDING

    def hurry(self) -> None:
        """Make a look at once."""
        self._search.hurry()
        self._alarms.ring(self)

    async def stop(self) -> None:
        """Stop the search."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _look(self) -> None:
        while (at := self._search.next_at()) < math.inf:
            if at > self._clock.now():
                await self._alarms.wait(self, at)
                continue
            look = self._search.begin(self._clock.now())
            await self._look_once(look)
            self._let_go(look)
        self._task = None  # later lost starts have another task
        self._memories.clear()
        self._calls.clear()

    async def _look_once(self, look: Look) -> None:
        counted: list[Call[Looked]] = []
        try:
            for client in look.clients:
                await self._read(look, client, counted)
        except EquosError as error:
            now, asked = self._clock.now(), None
            if isinstance(error, (APIStatusError, OverloadedError)):
                asked = error.retry_after
            if isinstance(error, APIStatusError) and error.status in {401, 403, 404}:
                self._give_up(f"the server refused to list, with status {error.status}")
            else:
                self._search.fail(now, pages=_requests(counted), retry_after=asked)
        else:
            self._search.finish(look, self._clock.now(), pages=_requests(counted))

    async def _read(self, look: Look, client: str | None, counted: list[Call[Looked]]) -> None:
        """Read one list, and process its items."""
        filtered = {} if client is None else {"client": client}
        reading = read(self._memories.setdefault(client, ListMemory()))
        span = next(reading)
        while True:
            query = {"take": min(span.take, TAKE), "skip": span.skip, **filtered}
            call = self._ask(self._resource.look, query=query)
            counted.append(call)
            looked = await call.answer
            for session_id, marker in looked.items:
                lost = self._search.find(marker, session_id)
                if lost is not None:
                    self._end(self._calls[lost.marker], lost, session_id)
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

    def _let_go(self, look: Look) -> None:
        """Wake the starts whose search is over."""
        self._search.next_at()
        for marker in self._calls.keys() - self._search.lost.keys():
            del self._calls[marker]
        for lost in look.attempts:
            if lost.marker not in self._search.lost:
                self._alarms.ring(lost)

    def _give_up(self, reason: str) -> None:
        self.use.is_on = False
        self._search.give_up()
        self._reports.settling_off(next(reversed(self._calls.values())), reason)

    def _looked(self, task: asyncio.Task[None]) -> None:
        """The task ended early: the event loop is ending, or there is a bug in this library."""
        if self._task is not task:
            return
        self._task = None
        for lost in self._search.give_up():
            self._alarms.ring(lost)
        if not task.cancelled():
            task.result()  # raises the error for the loop's exception handler


def _requests(calls: list[Call[Looked]]) -> int:
    """The number of requests; a failed attempt is work for the server, too."""
    return sum(call.attempts for call in calls)
