"""Decide which requests may take the direct wire.

The direct wire passes aiohttp's session by, and uses parts of aiohttp that are public by name,
but whose fit is not documented. It is taken where the installed aiohttp has these parts, and where
the session would do nothing more for a request than the direct wire does.
"""

from __future__ import annotations

import inspect
import itertools
from types import FunctionType
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage, StreamWriter

from .request import Request

BELOW_MAJOR: Final = 4
"""The major version of aiohttp that announces to change the parts."""

MAX_BODY: Final = 32 << 10
"""Bytes; the server may answer a larger body before it has read it, so that one has to listen."""

# How the direct wire calls each part: its class, its name, how many arguments by position with
# `self`, those by name, and whether the call is awaited.
_CALLS: Final[tuple[tuple[type, str, int, tuple[str, ...], bool], ...]] = (
    (aiohttp.BaseConnector, "connect", 4, (), True),
    (aiohttp.ClientRequest, "__init__", 3, ("loop",), False),
    (ResponseHandler, "set_response_params", 1, ("timer", "read_until_eof"), False),
    (ResponseHandler, "read", 1, (), True),
    (StreamWriter, "__init__", 3, (), False),
    (StreamWriter, "write_headers", 3, (), True),
    (StreamWriter, "write", 2, (), True),
    (aiohttp.StreamReader, "at_eof", 1, (), False),
    (aiohttp.StreamReader, "readany", 1, (), True),
    (Connection, "close", 1, (), False),
    (Connection, "release", 1, (), False),
)
_ATTRIBUTES: Final[tuple[tuple[type, str], ...]] = (
    (aiohttp.BaseConnector, "force_close"),
    (ResponseHandler, "should_close"),
    (StreamWriter, "transport"),
    (Connection, "protocol"),
    (RawResponseMessage, "code"),
    (RawResponseMessage, "headers"),
)
_SESSION_MODULE: Final = aiohttp.client.__dict__


def find_misfit() -> str | None:
    """What of the installed aiohttp the direct wire cannot work with; None where all fits.

    It takes a fraction of a millisecond, and is asked once for each session.
    """
    version = aiohttp.__version__
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) >= BELOW_MAJOR:
        return f"aiohttp {version} is not below {BELOW_MAJOR}"
    problems = itertools.chain(
        (_changed_call(*call) for call in _CALLS),
        (_lost_attribute(*attribute) for attribute in _ATTRIBUTES),
    )
    problem = next(filter(None, problems), None)
    return None if problem is None else f"in aiohttp {version}, {problem}"


def _changed_call(
    owner: type, name: str, count: int, names: tuple[str, ...], awaited: bool
) -> str | None:
    part: Any = getattr(owner, name, None)
    if not callable(part):
        return f"{owner.__name__} has no method {name}"
    try:
        inspect.signature(part).bind(*[None] * count, **dict.fromkeys(names))
    except TypeError as error:
        return f"{owner.__name__}.{name} takes other arguments ({error})"
    # A monitor's wrapper is not marked itself, but names the function that it wraps.
    if inspect.iscoroutinefunction(inspect.unwrap(part)) is not awaited:
        return f"{owner.__name__}.{name} is {'not ' if awaited else ''}a coroutine function"
    return None


def _lost_attribute(owner: type, name: str) -> str | None:
    return None if hasattr(owner, name) else f"{owner.__name__} has no attribute {name}"


def admits(session: aiohttp.ClientSession, request: Request) -> bool:
    """Whether the session would do nothing more for a request than the direct wire does.

    Test doubles (aioresponses, say) and monitors put methods of theirs in the place of a
    session's, which may happen at any time, also before this module is imported, or add traces
    to it.
    """
    return (
        len(request.body) <= MAX_BODY
        and not session.trust_env
        and not session.trace_configs
        and _is_own(getattr(type(session), "request", None))
        and _is_own(getattr(type(session), "_request", None))
    )


def _is_own(method: object) -> bool:
    """Whether a session's method is aiohttp's, and no wrapper, whatever it passes itself off as."""
    return type(method) is FunctionType and method.__globals__ is _SESSION_MODULE
