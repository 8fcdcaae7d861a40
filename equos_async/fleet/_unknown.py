"""Keep the slots of starts of unknown outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from equos_async._inside import end, settles
from equos_async.client import EquosClient
from equos_async.clock import Clock, SetTimer, Timers
from equos_async.errors import EquosError

from ._admission import Admission
from ._records import Records
from ._session import SessionRecord, error_of
from ._states import State
from ._tally import Tally
from .values import SessionEnd


class Unknowns:
    """Keeps slots and budget of such starts, until the outcome is known or their time is over.

    Attributes:
        told: Called with a record when its outcome stays unknown, or with None if nothing
            runs.

    Args:
        client: Searches for their sessions.
        records: The fleet's sessions.
        admission: Keys, budget, rows and slots.
        tally: Reports events.
        timers: The fleet's timers.
        clock: The source of time.
    """

    def __init__(
        self,
        client: EquosClient,
        *,
        records: Records[SessionRecord],
        admission: Admission,
        tally: Tally,
        timers: Timers,
        clock: Clock,
    ) -> None:
        self.told: Callable[[SessionRecord, SessionEnd | None], None] = lambda _, __: None
        self._client = client
        self._records = records
        self._admission = admission
        self._tally = tally
        self._timers = timers
        self._clock = clock

    def keep(self, record: SessionRecord, error: BaseException) -> None:
        """Keep a start whose session may be live without a caller."""
        record.answer = record.replaces = record.request = record.task = None
        last = record.end = record.ended_as("unresolved", str(error))
        self._records.move(record, State.UNKNOWN)
        record.ends = self._clock.now() + record.duration
        record.timer = self._timers.at(record.ends, self._outlived, record)
        session_id = error.session_id if isinstance(error, EquosError) else None
        self._tally.tell("unknown", record, str(error), session_id=session_id)
        if session_id is not None:
            # The client stops the session of an unreadable answer: wait until that is confirmed.
            record.task = asyncio.create_task(end(self._client, record.resource, session_id))
            record.task.add_done_callback(partial(self._stray_stopped, record))
            self.told(record, last)
        elif record.watch is not None and self.is_looked_for(record):
            record.watch.over = partial(self.told, record, last)
        else:
            self.told(record, last)

    def is_looked_for(self, record: SessionRecord) -> bool:
        """Whether the client still searches for a start's session."""
        watch = record.watch
        is_open = watch is not None and watch.is_under_way and record.task is None
        return is_open and settles(self._client)

    def settled(self, record: SessionRecord) -> None:
        """The client has learned that a start left nothing running."""
        self._timers.cancel(cast("SetTimer", record.timer))
        record.timer = None
        self._admission.release(record, 0.0)
        self.told(record, None)

    def _stray_stopped(self, record: SessionRecord, task: asyncio.Task[Any]) -> None:
        if error_of(task, EquosError) is None and record.state is State.UNKNOWN:
            self.settled(record)

    def _outlived(self, record: SessionRecord) -> None:
        """The time of a start is over, and so is its session, if there was one."""
        self._admission.release(record, record.seconds)
