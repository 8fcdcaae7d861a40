"""Shut down at signals: the first one ends a task, the second one ends the wait for it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, cast

from equos_async._shown import brief
from equos_async.clock import set_unless_done
from equos_async.errors import ConfigurationError
from equos_async.events import logger


class SignalGuard:
    """Cancels a task at the first signal, and gives up waiting at the second.

    Each of several guards gets every signal, in whichever order they are installed and removed.

    Attributes:
        previous: By signal, the handler before this one.
        loop: Where it acts.

    Args:
        is_closed: Whether the shutdown has begun already, so that no task has to be cancelled.
        give_up: Called on the second signal.
        close: Closes the fleet where the task has not: it is over, or has caught its cancellation.
        begin: If given, called at an additional signal before these two. The task is cancelled when
            the returned future is done, or at the next signal.
    """

    def __init__(
        self,
        is_closed: Callable[[], bool],
        give_up: Callable[[], None],
        close: Callable[[], Coroutine[Any, Any, object]],
        begin: Callable[[], asyncio.Future[None]] | None = None,
    ) -> None:
        self._is_closed = is_closed
        self._give_up = give_up
        self._close = close
        self._closing: asyncio.Task[object] | None = None
        self._begin = begin
        self._grace: asyncio.Future[None] | None = None
        self.loop: Final = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self.previous: Final[dict[signal.Signals, Any]] = {}
        self._signalled = False
        self._cancelled = False

    def install(self, signals: tuple[signal.Signals, ...]) -> None:
        """Handle these signals from now on.

        ``loop.add_signal_handler`` is not used, because it is missing on Windows, and cannot
        restore a previous handler such as that of ``asyncio.run``.
        """
        for one in [_checked(one) for one in signals]:
            try:
                self.previous[one] = signal.signal(one, self.handle)
            except ValueError:
                raise ConfigurationError("stop_on_signals works in the main thread only") from None
            except OSError:
                self.remove()
                raise ConfigurationError(f"a program cannot handle {one.name}") from None

    def remove(self) -> None:
        """Restore the previous handlers; harmless if that was done."""
        while self.previous:
            one, handler = self.previous.popitem()
            above = self._above(one)
            if above is not None:
                above.previous[one] = handler
            else:
                signal.signal(one, signal.SIG_DFL if handler is None else handler)

    def absorbs(self, error: BaseException | None) -> bool:
        """Whether an exception is the cancellation by the signal, and no other one is pending."""
        if not self._cancelled or self._task is None:
            return False
        alone = self._task.uncancel() <= self._cancelling
        return alone and isinstance(error, asyncio.CancelledError)

    def _above(self, one: signal.Signals) -> SignalGuard | None:
        """The guard of another fleet that has been installed right above this one, if any."""
        found = _guard_of(signal.getsignal(one))
        while found is not None and (below := _guard_of(found.previous.get(one))) is not self:
            found = below
        return found

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal, and pass it to the guards that were installed before."""
        self.loop.call_soon_threadsafe(self._act)
        below = _guard_of(self.previous.get(signal.Signals(number)))
        if below is not None and not below.loop.is_closed():  # its fleet may never have been left
            below.handle(number, frame)

    def _act(self) -> None:
        if self._signalled and not self._is_closed():
            self._close_here("has caught the cancellation, and goes on")
        elif self._signalled:
            self.remove()
            self._give_up()
        elif self._grace is not None:
            set_unless_done(self._grace, None)
        elif self._begin is not None and not self._is_closed():
            self._grace = self._begin()
            self._grace.add_done_callback(self._end)
        else:
            self._end()

    def _end(self, *_: object) -> None:
        self._signalled = True
        if self._is_closed():
            return
        if self._task is None or self._task.done():
            self._close_here("is over")
        else:
            self._cancelled = True
            self._task.cancel()

    def _close_here(self, why: str) -> None:
        logger.warning("a signal closes the fleet: the task that called stop_on_signals %s", why)
        self._closing = self.loop.create_task(self._close())


def _checked(one: object) -> signal.Signals:
    try:
        return signal.Signals(cast("int", one))
    except ValueError:
        told = f"signals must be signals, such as signal.SIGTERM, not {brief(repr(one))}"
        raise ConfigurationError(told) from None


def _guard_of(handler: object) -> SignalGuard | None:
    """The guard whose handler it is."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, SignalGuard) else None
