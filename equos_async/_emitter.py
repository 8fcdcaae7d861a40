"""One event to the log and to a hook that may fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Generic, NoReturn, Protocol, TypeVar

from attrs import AttrsInstance, asdict

from .events import logger


class Emitted(AttrsInstance, Protocol):
    """What an event has beside its fields."""

    @property
    def level(self) -> int:
        """The logging level that fits."""
        ...


E = TypeVar("E", bound=Emitted)


class Emitter(Generic[E]):
    """Logs each event as one record, and hands it to a hook.

    Args:
        hook: Called with each event; its failure is logged once, and is nobody else's.
        name: What users call the hook, for that message.
    """

    def __init__(self, hook: Callable[[E], object] | None, name: str) -> None:
        self._hook = hook
        self._name = name
        self._hook_failed = False

    @property
    def heard(self) -> bool:
        """Whether anybody wants to know of what is in order; if not, it costs nothing."""
        return self._hook is not None or logger.isEnabledFor(logging.DEBUG)

    def emit(self, event: E, *, key: object = None) -> None:
        """Log an event, with a key that it has no field for, and hand it to the hook."""
        if logger.isEnabledFor(event.level):
            guarded(_log, event, key)
        if self._hook is not None:
            guarded(self._call, self._hook, event, failed=self._complain)

    def _call(self, hook: Callable[[E], object], event: E) -> None:
        result = hook(event)
        if isinstance(result, Coroutine):
            result.close()  # or Python would warn of each
            if not self._hook_failed:
                self._hook_failed = True
                logger.error("%s returned a coroutine, which is not run", self._name)

    def _complain(self, error: BaseException) -> None:
        """Say once what went wrong in the hook."""
        if not self._hook_failed:
            self._hook_failed = True
            logger.error("%s raised; this is not logged again", self._name, exc_info=error)


def guarded(
    action: Callable[..., object],
    *args: object,
    failed: Callable[[BaseException], object] | None = None,
) -> None:
    """Do something of which nothing may come back: neither hooks nor log handlers end a call.

    What is to end the whole program does so from the event loop, and not from within a call,
    which would be lost with what it has sent.

    Args:
        action: What to do.
        args: With what.
        failed: Called with what it raised, CancelledError and the errors of libraries included;
            None: the loop's handler is told.
    """
    try:
        action(*args)
    except (KeyboardInterrupt, SystemExit) as error:
        asyncio.get_running_loop().call_soon(_raise, error)
    except BaseException as error:
        if failed is not None:
            guarded(failed, error)
            return
        with suppress(BaseException):  # the loop's handler is the last that can be told
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a log handler raised", "exception": error}
            )


def _raise(error: BaseException) -> NoReturn:
    raise error


def _log(event: Emitted, key: object) -> None:
    fields = _flat(event)
    if key is not None:
        fields["equos_key"] = key
    logger.log(event.level, "%s", event, extra=fields)


def _flat(event: Emitted) -> dict[str, object]:
    """An event's fields for a log record, where ``name`` is a name that is taken."""
    fields = asdict(event, recurse=False, filter=lambda _, value: value not in (None, "", ()))
    fields["event"] = fields.pop("kind")
    fields.pop("retries", None)  # each was a record of its own
    return {f"equos_{name}": value for name, value in fields.items()}
