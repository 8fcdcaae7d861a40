"""Timers of live sessions: for their end, their renewal, and sessions that nobody uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import itemgetter
from typing import cast

from equos_async._api.operations import CONVERSATION
from equos_async._inside import read
from equos_async.client import EquosClient
from equos_async.clock import Clock, SetTimer, Timers
from equos_async.errors import EquosError
from equos_async.models import EquosConversation

from ._presence import Presence
from ._session import SessionRecord
from ._states import Reason, State


class Watchdog:
    """Stops sessions at their ends, and those that nobody uses; renews them before.

    Each session has one timer, for its next event. :meth:`LiveSession.touch` does not move it: if
    nothing is due when it expires, it is set again.

    Args:
        client: Looks up whether somebody has joined a conversation.
        timers: The fleet's timers.
        clock: The source of time.
        stop: Begins to stop a session, for a reason.
        renew: Begins to replace a session.
    """

    def __init__(
        self,
        client: EquosClient,
        timers: Timers,
        clock: Clock,
        *,
        stop: Callable[[SessionRecord, Reason], object],
        renew: Callable[[SessionRecord], object],
    ) -> None:
        self._client = client
        self._timers = timers
        self._clock = clock
        self._stop = stop
        self._renew = renew
        self._asking: set[asyncio.Task[None]] = set()

    def watch(self, record: SessionRecord) -> None:
        """Set the timer of a live session for its next event."""
        self.unwatch(record)
        when, _ = self._next(record)
        record.timer = self._timers.at(when, self._ring, record)

    def unwatch(self, record: SessionRecord) -> None:
        """Remove the timer of a session."""
        if record.timer is not None:
            self._timers.cancel(record.timer)
            record.timer = None

    def cancel(self) -> None:
        """Cancel all look-ups."""
        for task in self._asking:
            task.cancel()

    def _next(self, record: SessionRecord) -> tuple[float, Callable[[SessionRecord], None]]:
        steps = [(record.ends, self._expire)]
        if record.renew_at is not None:
            steps.append((record.renew_at, self._renew_it))
        presence = record.presence
        if presence is not None and not presence.is_asked:
            if presence.join_within is not None and not presence.has_joined:
                steps.append((record.began + presence.join_within, self._check_joined))
            elif presence.idle_after is not None:
                steps.append((presence.seen + presence.idle_after, self._end_idle))
        return min(steps, key=itemgetter(0))

    def _ring(self, record: SessionRecord) -> None:
        # A loop's timer may fire slightly early; the step that it was set for is due then.
        now = max(self._clock.now(), cast("SetTimer", record.timer).when)
        when, act = self._next(record)
        if when > now:
            record.timer = self._timers.at(when, self._ring, record)
        else:
            act(record)

    def _expire(self, record: SessionRecord) -> None:
        """Stop a session at its end, because the server may not."""
        record.timer = None
        self._stop(record, Reason.EXPIRED)

    def _renew_it(self, record: SessionRecord) -> None:
        record.renew_at = None
        self.watch(record)
        self._renew(record)

    def _end_idle(self, record: SessionRecord) -> None:
        self._end(record, Reason.IDLE)

    def _check_joined(self, record: SessionRecord) -> None:
        if record.resource is not CONVERSATION:  # for others the server key may be missing
            self._end(record, Reason.NEVER_JOINED)
            return
        self._last_look(record)
        task = asyncio.create_task(self._ask(record, cast("Presence", record.presence)))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, record: SessionRecord, presence: Presence) -> None:
        try:
            found: EquosConversation | None = await read(
                self._client, CONVERSATION, cast("str", record.session_id)
            )
            has_joined = found is not None and found.joined_at is not None
        except EquosError:
            has_joined = True  # not known: the conversation goes on
        presence.is_asked = False
        if has_joined and not presence.has_joined:
            presence.touch(self._clock.now())
        if record.state is not State.LIVE:
            return
        if presence.has_joined:
            self.watch(record)
        else:
            self._end(record, Reason.NEVER_JOINED)

    def _end(self, record: SessionRecord, reason: Reason) -> None:
        """Stop a session that nobody uses; if that fails, it is stopped at its end."""
        self._last_look(record)
        self._stop(record, reason)

    def _last_look(self, record: SessionRecord) -> None:
        cast("Presence", record.presence).is_asked = True
        self.watch(record)
