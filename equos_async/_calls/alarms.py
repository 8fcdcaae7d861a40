"""Wake waiters at an event or at a time."""

from __future__ import annotations

import asyncio
import math

from equos_async.clock import Clock, set_unless_done


class Alarms:
    """There is one waiter for each event at a time; an event without a waiter is dropped.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._alarms: dict[object, asyncio.Future[None]] = {}

    async def wait(self, about: object, until: float = math.inf) -> None:
        """Wait for an event, or for a time on the clock."""
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

    def ring(self, about: object) -> None:
        """Wake the waiter of an event."""
        alarm = self._alarms.get(about)
        if alarm is not None:
            set_unless_done(alarm, None)
