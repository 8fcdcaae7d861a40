"""What is left when an event loop or the program ends first: stopped if it can be, or told."""

from __future__ import annotations

import asyncio
import atexit
import os
import time
from collections.abc import Callable, Collection, Coroutine
from concurrent import futures
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

from equos_async._shown import brief, named
from equos_async.events import Unresolved, logger

from .call import Call
from .factory import CallFactory
from .grace import SHUTDOWN_GRACE
from .held import Held
from .reports import CallReports

_LOOK_EVERY: Final = 0.1
"""Seconds after which an event loop that was stopped meanwhile is seen."""

CLOSED_LOOP: Final = "the event loop was closed"
"""Why something is left."""

_OPEN: Final[WeakSet[Remains]] = WeakSet()


class Remains:
    """What one client has under way, and what its blocks and fleets hold.

    Args:
        factory: Knows the client's event loop.
        reports: Know what was reported.
        held: The sessions of blocks and fleets.
        calls: The calls in progress.
        close: Closes the client within some seconds.
    """

    def __init__(
        self,
        *,
        factory: CallFactory,
        reports: CallReports,
        held: Held,
        calls: Collection[Call[Any]],
        close: Callable[[float], Coroutine[Any, Any, object]],
    ) -> None:
        self._factory = factory
        self._reports = reports
        self._held = held
        self._calls = calls
        self._close = close
        self._is_told = False
        _OPEN.add(self)

    @property
    def is_running(self) -> bool:
        """Whether that loop runs, and so in another thread than this one."""
        return self._factory.loop is not None and self._factory.loop.is_running()

    @property
    def is_bound(self) -> bool:
        """Whether the client has an event loop."""
        return self._factory.loop is not None

    @property
    def is_over(self) -> bool:
        """Whether that loop is closed."""
        return self._factory.loop is not None and self._factory.loop.is_closed()

    def listed(self, why: str) -> tuple[Unresolved, ...]:
        """What would be left, and was not reported, if nothing more were done."""
        held = self._held.targets()
        found = tuple(self._reports.unresolved.describe(one, why) for one in held)
        return found + self._reports.pending(tuple(self._calls), why)

    def stop(self) -> futures.Future[object] | None:
        """Begin to stop it all, if there is anything and the loop runs in another thread."""
        loop = self._factory.loop
        if loop is None or not loop.is_running() or not self.listed(""):
            return None
        return asyncio.run_coroutine_threadsafe(self._close(SHUTDOWN_GRACE), loop)

    def tell(self, why: str) -> None:
        """Log what is left, once."""
        left = () if self._is_told else self.listed(why)
        if not left:
            return
        self.forget()
        what = ", ".join(named(left, _name))
        ids = [one.session_id for one in left if one.session_id]
        fields = {"equos_event": "left", "equos_session_ids": ids}
        logger.warning("%s, and may leave running: %s", why, what, extra=fields)

    def forget(self) -> None:
        """Tell nothing more: it was told, or is another process's."""
        self._is_told = True

    def disown(self) -> None:
        """It is all another process's: stop nothing, and tell nothing."""
        self.forget()
        self._held.clear()
        self._factory.is_inherited = True

    def __del__(self) -> None:
        if self.is_over:
            self.tell(CLOSED_LOOP)


def _name(left: Unresolved) -> str:
    if left.session_id is None:
        return f"the {left.resource} of the start {brief(repr(left.name))}"
    return f"{left.resource} {brief(left.session_id)}"


def at_exit() -> None:
    """The program ends, and event loops in daemon threads would just stop: they get a grace."""
    everything = list(_OPEN)
    stops = {one: future for one in everything if (future := one.stop()) is not None}
    until = time.monotonic() + SHUTDOWN_GRACE + 1
    with suppress(KeyboardInterrupt):
        while time.monotonic() < until:
            left = [future for one, future in stops.items() if one.is_running]
            if not futures.wait(left, _LOOK_EVERY).not_done:
                break
    for one in everything:
        one.tell("the program ended")


def after_fork() -> None:
    """What the parent's loops do is the parent's business."""
    for one in list(_OPEN):
        if one.is_bound:
            one.disown()
            _OPEN.discard(one)


atexit.register(at_exit)
getattr(os, "register_at_fork", dict)(after_in_child=after_fork)
