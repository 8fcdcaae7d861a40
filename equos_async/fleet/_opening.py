"""Run one start of a fleet: its attempts, its waits after refusals, and its row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from equos_async._calls.watch import WATCH, Watch
from equos_async._inside import begin, clock_of, policy_of
from equos_async._retry.backoff import backoff
from equos_async.client import EquosClient
from equos_async.clock import Clock
from equos_async.errors import RateLimitError

from ._admission import Admission
from ._no_ledger import NoRows
from ._session import SessionRecord, granted
from ._writer import RowWriter
from .values import AnyRequest, AnyStarted


class Opening:
    """Starts the sessions that have a slot.

    Args:
        client: Starts the sessions.
        admission: Where a refused start waits for its next turn.
        rows: Writes the rows.
        requeue_refused: Whether a start that the server refuses with 429 waits for a slot again.
        settled: Called with a record when the client learns that its start left nothing running.
        stop_before_end: Seconds before the server's end of a session at which the fleet stops it.
        clock: The source of time and chance.
    """

    def __init__(
        self,
        client: EquosClient,
        *,
        admission: Admission,
        rows: NoRows | RowWriter,
        requeue_refused: bool,
        settled: Callable[[SessionRecord], None],
        stop_before_end: float,
        clock: Clock,
    ) -> None:
        self._client = client
        self._admission = admission
        self._rows = rows
        self._requeue_refused = requeue_refused
        self._settled = settled
        self._stop_before_end = stop_before_end
        self._clock = clock

    async def open(self, record: SessionRecord, request: AnyRequest, *, wait: bool) -> AnyStarted:
        """Start a session, and write its row."""
        again = wait and self._requeue_refused
        started = await self._start(record, request, again=again)
        seconds = granted(record.duration, record.resource.granted_of(started))
        await self._rows.record(record.entry, record.resource.id_of(started), seconds)
        return started

    def ends(self, record: SessionRecord, started: AnyStarted) -> float:
        """The time at which the fleet stops a session that was just started, on the clock.

        It is before the server's own end, which the server counts from an unknown time after the
        start was sent. The server's date does not help, because clocks differ.
        """
        seconds = granted(record.duration, record.resource.granted_of(started))
        sent_at = None if record.watch is None else record.watch.sent_at
        # By the client's clock; the fleet may have another one.
        age = 0.0 if sent_at is None else clock_of(self._client).now() - sent_at
        return self._clock.now() - age + seconds - min(self._stop_before_end, seconds / 10)

    async def _start(
        self, record: SessionRecord, request: AnyRequest, *, again: bool
    ) -> AnyStarted:
        """Repeat a start while the server refuses it for now, until its deadline is near."""
        deadline, attempts = record.deadline, 0
        until = self._clock.now() + (
            self._client.timeouts.deadline if deadline is None else deadline
        )
        while True:
            try:
                return await self._attempt(record, request, deadline)
            except RateLimitError as refusal:
                refused = refusal
                record.watch = None
                attempts += max(1, refusal.attempts)
                after = backoff(
                    policy_of(self._client),
                    attempts - 1,
                    throttled=True,
                    chance=self._clock.chance(),
                    retry_after=refusal.retry_after,
                )
                is_wanted = record.unwanted is None and record.callers > 0
                is_in_time = self._clock.now() + after < until
                if not (again and is_wanted and is_in_time) or self._admission.closed:
                    raise
            await self._admission.readmit(record, refused, after=after, until=until)
            deadline = until - self._clock.now()
            if deadline <= 0:  # the loop was busy when it got its slot
                raise refused

    async def _attempt(
        self, record: SessionRecord, request: AnyRequest, deadline: float | None
    ) -> AnyStarted:
        settled = partial(self._settled, record)
        record.watch = Watch(record.key, settled, record.entry.markers)
        WATCH.set(record.watch)
        started: AnyStarted = await begin(self._client, record.resource, request, deadline=deadline)
        return started
