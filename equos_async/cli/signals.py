"""End a command at SIGTERM and SIGHUP as at Ctrl-C, so that it leaves no session running."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Any, Final

from .output import tell

ENDS: Final = tuple(one for one in signal.Signals if one.name in {"SIGTERM", "SIGHUP"})
"""The signals that end a command; the second one comes when its terminal is closed."""

SOON: Final = 0.5
"""Seconds after Ctrl-C at which a command that is still running says why."""


def run_command(command: Callable[..., Coroutine[Any, Any, int]], *args: Any) -> int:
    """Run a command in an event loop of its own, and return its exit code.

    SIGTERM and SIGHUP are handled until the loop is closed: its shutdown awaits starts, too.
    """
    with ExitStack() as stack:
        return asyncio.run(_until_terminated(stack, command, *args))


async def _until_terminated(
    outer: ExitStack, command: Callable[..., Coroutine[Any, Any, int]], *args: Any
) -> int:
    """Run a command; SIGTERM and SIGHUP cancel it, and the exit code is that of shells.

    Ctrl-C cancels it by asyncio's own handler. A person who sees nothing happen would press it
    again, and the session of a start in progress would run on.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(command(*args))
    signalled: list[int] = []
    stack = ExitStack()

    def end() -> None:
        tell("terminated: waiting for requests in progress")
        task.cancel()

    def terminate(number: int, _: FrameType | None) -> None:
        signalled.append(number)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end)  # not here: a handler may interrupt another print

    def explain() -> None:
        words = "interrupted: waiting for requests in progress; Ctrl-C again gives up"
        stack.callback(loop.call_later(SOON, tell, words).cancel)

    with stack:
        if threading.current_thread() is threading.main_thread():
            # Not `loop.add_signal_handler`, which is missing on Windows.
            for one in ENDS:
                if signal.getsignal(one) is not signal.SIG_IGN:  # as `nohup` sets it
                    handle(outer, one, terminate)
            asyncios = signal.getsignal(signal.SIGINT)
            if callable(asyncios):

                def interrupt(number: int, frame: FrameType | None) -> None:
                    loop.call_soon_threadsafe(explain)
                    asyncios(number, frame)

                handle(stack, signal.SIGINT, interrupt)
        try:
            return await task
        except asyncio.CancelledError:
            if not signalled:
                raise
            return 128 + signalled[0]


def handle(stack: ExitStack, number: signal.Signals, handler: Callable[..., None]) -> None:
    """Handle a signal until the stack is closed."""
    stack.callback(signal.signal, number, signal.signal(number, handler))
