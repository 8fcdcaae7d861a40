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
    """What the emitter needs of an event besides its fields."""

    @property
    def level(self) -> int:
        """The event's logging level."""
        ...


E = TypeVar("E", bound=Emitted)


class Emitter(Generic[E]):
    """Logs each event as one record, and passes it to a hook.

    Args:
        hook: Called with each event. If it raises, that is logged once and goes no further.
        name: What users call the hook, for that message.
    """

    def __init__(self, hook: Callable[[E], object] | None, name: str) -> None:
        self._hook = hook
        self._name = name
        self._hook_failed = False

    @property
    def heard(self) -> bool:
        """Whether events below WARNING have a hook or a log handler; if not, none are made."""
        return self._hook is not None or logger.isEnabledFor(logging.DEBUG)

    def emit(self, event: E, *, key: object = None) -> None:
        """Log an event, with a fleet's key for its session if there is one; pass it to the hook."""
        if logger.isEnabledFor(event.level):
            guarded(_log, event, key)
        if self._hook is not None:
            guarded(self._call, self._hook, event, failed=self._complain)

    def _call(self, hook: Callable[[E], object], event: E) -> None:
        result = hook(event)
        if isinstance(result, Coroutine):
            result.close()  # else Python would warn of each
            if not self._hook_failed:
                self._hook_failed = True
                logger.error("%s returned a coroutine, which is not run", self._name)

    def _complain(self, error: BaseException) -> None:
        """Log a failure of the hook once."""
        if not self._hook_failed:
            self._hook_failed = True
            logger.error(
                "%s raised; further exceptions of it are not logged", self._name, exc_info=error
            )


def guarded(
    action: Callable[..., object],
    *args: object,
    failed: Callable[[BaseException], object] | None = None,
) -> None:
    """Call something whose exceptions must not end a call: a hook or a log handler.

    An exception that ends the whole program is raised from the event loop instead: raised here, it
    would end the call and lose what it has sent.

    Args:
        action: What to do.
        args: Its arguments.
        failed: Called with the exception, CancelledError included; None: the event loop's exception
            handler is called.
    """
    try:
        action(*args)
    except (KeyboardInterrupt, SystemExit) as error:
        asyncio.get_running_loop().call_soon(_raise, error)
    except BaseException as error:
        if failed is not None:
            guarded(failed, error)
            return
        with suppress(BaseException):  # nothing is left to report to but the loop's handler
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
    """An event's fields for a log record, with a prefix because records have a ``name`` already."""
    fields = asdict(event, recurse=False, filter=lambda _, value: value not in (None, "", ()))
    fields["event"] = fields.pop("kind")
    fields.pop("retries", None)  # each of them had its own record
    return {f"equos_{name}": value for name, value in fields.items()}
