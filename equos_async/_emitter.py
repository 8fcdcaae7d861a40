"""One event to the log and to a hook that may fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

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

    def emit(self, event: E) -> None:
        """Log an event and hand it to the hook."""
        if logger.isEnabledFor(event.level):
            logger.log(event.level, "%s", event, extra=_flat(event))
        if self._hook is None:
            return
        try:
            self._hook(event)
        except Exception:
            if not self._hook_failed:
                self._hook_failed = True
                logger.exception("%s raised; this is not logged again", self._name)


def _flat(event: Emitted) -> dict[str, object]:
    """An event's fields for a log record, where ``name`` is a name that is taken."""
    fields = asdict(event, recurse=False, filter=lambda _, value: value not in (None, "", ()))
    fields["event"] = fields.pop("kind")
    fields.pop("retries", None)  # each was a record of its own
    return {f"equos_{name}": value for name, value in fields.items()}
