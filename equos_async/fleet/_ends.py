"""Call a fleet's ``on_end`` hook."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, cast

from equos_async._emitter import guarded
from equos_async.events import logger

from .values import K, SessionEnd

OnEnd = Callable[[SessionEnd[K]], Awaitable[object] | None]

PATIENCE: Final = 2.0
"""Seconds for which a closing fleet waits for its hook at the end."""


class Ends:
    """Calls a fleet's ``on_end``, and tracks its running tasks.

    Args:
        hook: A function or a coroutine function; its failures are only logged.
    """

    def __init__(self, hook: OnEnd[Any] | None) -> None:
        self.settled: Callable[[], None] = lambda: None
        self._hook = hook
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()

    @property
    def are_told(self) -> bool:
        """Whether every call of the hook has returned, or waits for a drain itself."""
        return self._running <= self._waiting

    @contextmanager
    def excused(self) -> Generator[None]:
        """In this block the running task waits for a drain, which may not wait for it in turn."""
        task = asyncio.current_task()
        if task not in self._running or task in self._waiting:
            yield
            return
        self._waiting.add(task)
        self.settled()
        try:
            yield
        finally:
            self._waiting.discard(task)

    def tell(self, end: SessionEnd) -> None:
        """Call the hook."""
        if self._hook is not None:
            guarded(self._call, self._hook, end, failed=partial(_complain, end))

    def _call(self, hook: OnEnd[Any], end: SessionEnd) -> None:
        result = hook(end)
        if inspect.isawaitable(result):
            running = asyncio.create_task(self._wait(result))
            self._running.add(running)
            running.add_done_callback(lambda done: self._told(done, end))

    async def _wait(self, result: Awaitable[object]) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._running.add(task)  # an eager task begins before it is returned
        await result

    def _told(self, running: asyncio.Task[None], end: SessionEnd) -> None:
        self._running.discard(running)
        if running.cancelled():
            logger.error("on_end was cancelled for %s", end)
        elif (error := running.exception()) is not None:
            _complain(end, error)
        self.settled()

    async def leave(self) -> None:
        """Wait a limited time for the running calls of the hook.

        One of these does not wait for those that wait as it does.
        """
        is_one = asyncio.current_task() in self._waiting
        if left := self._running - self._waiting if is_one else self._running:
            await asyncio.wait(left, timeout=PATIENCE)


def _complain(end: SessionEnd, error: BaseException) -> None:
    logger.error("on_end raised for %s", end, exc_info=error)
