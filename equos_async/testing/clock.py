"""The emulator's clock, which a test can move."""

from __future__ import annotations

import asyncio
import threading
import time

WALL = 1_767_225_600.0
"""The first time of a clock that stands still: 2026-01-01T00:00:00Z."""

LAST = 253_402_300_799.0
"""The end of the year 9999, the last that a datetime can hold."""


class EmulatorClock:
    """A clock that can be moved forwards without waiting.

    Args:
        ticking: Whether it also runs with real time. With False, every number that the emulator
            reports is exact.
    """

    def __init__(self, *, ticking: bool = True) -> None:
        self._ticking = ticking
        self._ahead = 0.0
        self._lock = threading.Lock()
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def now(self) -> float:
        """Seconds since the epoch."""
        return (time.time() if self._ticking else WALL) + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock forwards and wake all that sleep until a time on it.

        Raises:
            ValueError: ``seconds`` is negative, or the time would be after the year 9999.
        """
        if not (seconds >= 0 and self.now() + seconds < LAST):
            raise ValueError(f"the clock cannot be moved by {seconds} seconds")
        with self._lock:
            self._ahead += seconds
            for loop, woken in self._sleepers:
                # The emulator may live in a thread of its own.
                loop.call_soon_threadsafe(woken.set)

    async def sleep_until(self, due: float) -> None:
        """Return when the clock shows ``due``, by itself or by :meth:`advance`."""
        woken = asyncio.Event()
        sleeper = asyncio.get_running_loop(), woken
        with self._lock:
            self._sleepers.add(sleeper)
        try:
            while (left := due - self.now()) > 0:
                await self._doze(woken, left)
        finally:
            with self._lock:
                self._sleepers.discard(sleeper)

    async def _doze(self, woken: asyncio.Event, seconds: float) -> None:
        """Wait for a push, and on a ticking clock no longer than there is left."""
        timer = asyncio.get_running_loop().call_later(seconds, woken.set) if self._ticking else None
        try:
            await woken.wait()
            woken.clear()
        finally:
            if timer is not None:
                timer.cancel()
