"""Find the lines of a test, or of the bot that it tests, that start sessions."""

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
    """A line that starts sessions, with the name, client and duration that it asks for."""

    file: str
    line: int
    name: Any
    client: Any
    max_duration: Any


class CallSites:
    """The lines that start sessions during :meth:`watch`.

    A session is matched to lines by its name, client and duration, because a client that lost the
    answer does not know the session's id. Several lines may ask for the same values.
    """

    def __init__(self) -> None:
        self._seen: set[CallSite] = set()

    @contextmanager
    def watch(self, *methods: tuple[type, str]) -> Generator[None, None, None]:
        """Record the callers of these methods; the first argument of each is the request."""
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in methods:
                patch.setattr(owner, name, self._noting(getattr(owner, name)))
            yield

    def of(self, session: EmulatedSession) -> list[CallSite]:
        """The lines that may have started a session; usually one."""
        # A fleet adds its default duration to a request without one.
        name, client, ends = session.name, session.client, {None, session.max_duration}
        return sorted(
            site
            for site in self._seen
            if site.name == name and site.client == client and site.max_duration in ends
        )

    def _noting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def noting(owner: Any, *args: Any, **options: Any) -> Any:
            # Not a coroutine function, because its body would run without the caller on the stack.
            if (caller := _caller()) is not None:
                request = args[0] if args else options.get("request")
                self._seen.add(CallSite(*caller, *_looks(request)))
            return method(owner, *args, **options)

        return noting


def _looks(request: object) -> tuple[Any, Any, Any]:
    """The name, client and duration in a request for a session or a conversation."""
    seconds = getattr(request, "max_duration", getattr(request, "max_seconds", None))
    return getattr(request, "name", None), getattr(request, "client", None), seconds


def _caller() -> tuple[str, int] | None:
    """The line outside this library that is being executed; None if a task has no such line."""
    frame = inspect.currentframe()
    while frame is not None and _package(frame.f_globals) in _PASSED_THROUGH:
        frame = frame.f_back
    if frame is None or _package(frame.f_globals) in _NOBODY:
        return None
    return frame.f_code.co_filename, frame.f_lineno


def _package(names: dict[str, Any]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
