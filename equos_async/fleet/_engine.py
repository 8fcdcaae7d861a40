"""Calls of a ledger's engine: a few at a time, each with a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar, cast

from equos_async.errors import LedgerError
from equos_async.events import logger
from equos_async.ledger.protocol import KeyedLedger, SessionLedger

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds for any step of an engine, whatever its own timeout is."""

AT_ONCE: Final = 64
"""Concurrent steps of each kind, which an engine can answer in time."""


def removal(ledger: SessionLedger, worker: str) -> Callable[[str], Awaitable[bool | None]]:
    """How a worker removes rows, given a row's id."""
    if isinstance(ledger, KeyedLedger):
        return partial(ledger.remove, worker=worker)
    return ledger.remove


def failure_of(error: Exception) -> LedgerError:
    """The failure of an engine: a bug of it must not end the heartbeats, or the listening."""
    if isinstance(error, LedgerError):
        return error
    late = isinstance(error, TimeoutError)
    told = f"did not answer within {PATIENCE:g} s" if late else f"failed: {error!r}"
    return LedgerError(f"the ledger {told}")


class Engine:
    """A ledger's engine for all its callers: it works, or it fails for all of them.

    Args:
        on_failure: Called with each failure.
    """

    def __init__(self, on_failure: Callable[[], None] | None = None) -> None:
        self.is_failing: bool = False
        self.failures: int = 0
        self._on_failure = on_failure
        # One lane each for new starts, starts that the ledger knows, and stops, so that none waits
        # for another.
        self.new: Final = asyncio.Semaphore(AT_ONCE)
        self.known: Final = asyncio.Semaphore(AT_ONCE)
        self.stops: Final = asyncio.Semaphore(AT_ONCE)

    async def ask(self, answer: Awaitable[T]) -> T:
        """Run a step of the engine, with a time limit.

        Raises:
            LedgerError: The step failed or took too long.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelled = task.cancelling()
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except LedgerError:
            self.failures += 1
            raise
        except Exception as error:
            self.failures += 1
            raise failure_of(error) from error
        finally:
            # An engine's client may lose a cancellation, as asyncio.wait_for does before 3.12. The
            # task is cancelled only once: it would never end, and nor would a shutdown.
            if task.cancelling() > cancelled:
                raise asyncio.CancelledError

    async def in_turn(self, lane: asyncio.Semaphore, step: Callable[[], Awaitable[T]]) -> T:
        """Run a step for one session in the queue of such steps; its time limit begins at its turn.

        Steps that waited while the engine failed also fail, instead of waiting for another failure.

        Raises:
            LedgerError: As :meth:`ask`.
        """
        failures = self.failures
        async with lane:
            if self.failures != failures:
                raise LedgerError("the ledger had failed before this step could be sent to it")
            return await self.ask(step())

    def failed(self, error: LedgerError) -> None:
        """Note a failure; the first one in a row is logged."""
        if not self.is_failing:
            self.is_failing = True
            logger.warning("the ledger failed: %s", error)
        if self._on_failure is not None:
            self._on_failure()

    def works(self) -> None:
        """Note that the engine works again, and has all rows."""
        if self.is_failing:
            self.is_failing = False
            logger.info("the ledger works again, and has all sessions of this worker")
