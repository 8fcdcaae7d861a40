"""End a command at SIGTERM as at Ctrl-C, so that it leaves no session running."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from types import FrameType
from typing import Any, Final

from .output import tell

TERMINATED: Final = 128 + signal.SIGTERM
"""The exit code after SIGTERM, as shells define it."""


async def until_terminated(command: Callable[..., Coroutine[Any, Any, int]], *args: Any) -> int:
    """Run a command; SIGTERM cancels it, and the exit code says so."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(command(*args))
    signalled: list[int] = []

    def end() -> None:
        tell("terminated: waiting for requests in progress")
        task.cancel()

    def terminate(number: int, _: FrameType | None) -> None:
        signalled.append(number)
        loop.call_soon_threadsafe(end)  # not here: a handler may interrupt another print

    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            # Not `loop.add_signal_handler`, which is missing on Windows.
            before = signal.signal(signal.SIGTERM, terminate)
            stack.callback(signal.signal, signal.SIGTERM, before)
        try:
            return await task
        except asyncio.CancelledError:
            if not signalled:
                raise
            return TERMINATED
