"""Call sites: from which lines of a test, or of the bot it tests, sessions are started."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import pytest

from .records import EmulatedSession

_PASSED_THROUGH: Final = {"equos_async", "contextlib"}
_NOBODY: Final = {"", "asyncio", "_pytest", "pytest_asyncio", "anyio", "uvloop"}


class CallSite(NamedTuple):
    """A line, and the looks of the session that it asks for, whatever it calls a request."""

    file: str
    line: int
    name: Any
    client: Any
    max_duration: Any


class CallSites:
    """The lines from which sessions are started while it watches.

    A line is tied to a session by the session's looks, since a session whose answer got lost has
    nothing else that a client could know. Several lines may ask for the same looks.
    """

    def __init__(self) -> None:
        self._seen: set[CallSite] = set()

    @contextmanager
    def watch(self, *methods: tuple[type, str]) -> Generator[None, None, None]:
        """Note who calls these methods meanwhile; each takes the session's request first."""
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in methods:
                patch.setattr(owner, name, self._noting(getattr(owner, name)))
            yield

    def of(self, session: EmulatedSession) -> list[CallSite]:
        """The lines that may have started a session, most often one."""
        # A fleet gives a request that has no end of its own one of the fleet's.
        name, client, ends = session.name, session.client, {None, session.max_duration}
        return sorted(
            site
            for site in self._seen
            if site.name == name and site.client == client and site.max_duration in ends
        )

    def _noting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def noting(owner: Any, *args: Any, **options: Any) -> Any:
            # No coroutine function: its body would run when the stack is another one.
            if (caller := _caller()) is not None:
                request = args[0] if args else options.get("request")
                self._seen.add(CallSite(*caller, *_looks(request)))
            return method(owner, *args, **options)

        return noting


def _looks(request: object) -> tuple[Any, Any, Any]:
    """Name, client, and the seconds that a session or a conversation may run."""
    seconds = getattr(request, "max_duration", getattr(request, "max_seconds", None))
    return getattr(request, "name", None), getattr(request, "client", None), seconds


def _caller() -> tuple[str, int] | None:
    """The line outside this library that is being executed; None: no line, a task of its own."""
    frame = inspect.currentframe()
    while frame is not None and _package(frame.f_globals) in _PASSED_THROUGH:
        frame = frame.f_back
    if frame is None or _package(frame.f_globals) in _NOBODY:
        return None
    return frame.f_code.co_filename, frame.f_lineno


def _package(names: dict[str, Any]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
