"""Decide which requests may take the direct wire.

The direct wire does not use aiohttp's session. It uses parts of aiohttp that have public names, but
whose signatures are not documented. It is chosen only if the installed aiohttp has these parts, and
if the session would do nothing for a request that the direct wire does not do.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from types import FunctionType
from typing import Any, Final, cast

import aiohttp
from aiohttp.abc import AbstractCookieJar
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpResponseParser, RawResponseMessage

from . import pool
from .protocol import Flow, make_parser
from .request import Request

BELOW_MAJOR: Final = 4
"""The major version of aiohttp that will change these parts."""

MAX_BODY: Final = 32 << 10
"""Bytes of a body. The server may answer a larger one before it has read all of it."""

# How the direct wire calls each part: its class, its name, how many arguments by position with
# `self`, those by name, and whether the call is awaited.
_CALLS: Final[tuple[tuple[type, str, int, tuple[str, ...], bool], ...]] = (
    (aiohttp.BaseConnector, "connect", 4, (), True),
    (aiohttp.ClientRequest, "__init__", 3, ("loop",), False),
    (ResponseHandler, "connection_lost", 2, (), False),
    (aiohttp.StreamReader, "exception", 1, (), False),
    (aiohttp.StreamReader, "is_eof", 1, (), False),
    (aiohttp.StreamReader, "read_nowait", 1, (), False),
    (AbstractCookieJar, "update_cookies_from_headers", 3, (), False),
    (Connection, "close", 1, (), False),
    (Connection, "release", 1, (), False),
)
_ATTRIBUTES: Final[tuple[tuple[type, str], ...]] = (
    (aiohttp.BaseConnector, "force_close"),
    (ResponseHandler, "should_close"),
    (Connection, "protocol"),
    (Connection, "transport"),
    (RawResponseMessage, "chunked"),
    (RawResponseMessage, "code"),
    (RawResponseMessage, "headers"),
    (RawResponseMessage, "should_close"),
    (RawResponseMessage, "version"),
)
_SESSION_MODULE: Final = aiohttp.client.__dict__


def find_misfit() -> str | None:
    """The part of the installed aiohttp that the direct wire cannot use; None if all parts fit.

    It takes a fraction of a millisecond, and is called once for each session.
    """
    version = aiohttp.__version__
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) >= BELOW_MAJOR:
        return f"aiohttp {version} is not below {BELOW_MAJOR}"
    problems = itertools.chain(
        (_changed_call(*call) for call in _CALLS),
        (_lost_attribute(*attribute) for attribute in _ATTRIBUTES),
        (probe() for probe in (_missing_speed, _changed_parser)),
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


def _missing_speed() -> str | None:
    compiled = HttpResponseParser.__module__.endswith("._http_parser")
    return None if compiled else "the parser is not the one in C"


_NO_LOOP: Final = cast("asyncio.AbstractEventLoop", object())  # the sample needs no event loop
_SAMPLE: Final = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX: y\r\n\r\n{}"


def _changed_parser() -> str | None:
    """Let the parser read an answer: the arguments of its C function cannot be inspected."""
    try:
        parser = make_parser(Flow(), _NO_LOOP)
        ((head, body),), _, _ = parser.feed_data(_SAMPLE)
        found = (head.code, head.headers["x"], head.should_close, body.is_eof())
        if (*found, body.read_nowait(), parser.feed_eof()) != _READ:
            return "the parser reads something else"
    except Exception as error:
        return f"the parser does not work as it did ({type(error).__name__})"
    return None


_READ: Final = (201, "y", False, True, b"{}", None)


class Gate:
    """Decides whether a session would do nothing for a request that the direct wire does not do.

    Test doubles (such as aioresponses) and monitors replace methods of a session or add traces
    to it. They may do so at any time, also before this module is imported.

    Args:
        session: The session.

    Attributes:
        is_plain: Whether the session was created with no setting that changes a request.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.is_plain = _is_plain(session)
        self._size = len(vars(session))  # a method that is set on the session makes it grow

    def admits(self, request: Request) -> bool:
        """Whether a request may use the direct wire, given the session's present state."""
        session = self._session
        return (
            self.is_plain
            and len(request.body) <= MAX_BODY
            and request.max_answer is None
            and not session.trust_env
            and not session.trace_configs
            and not session.headers
            and not len(session.cookie_jar)
            and len(vars(session)) == self._size
            and not session.closed
            and _is_own(getattr(type(session), "request", None))
            and _is_own(getattr(type(session), "_request", None))
        )


_IRRELEVANT: Final = frozenset(
    {
        # Used by the direct wire, too.
        *("_loop", "_connector", "_connector_owner", "_cookie_jar", "_source_traceback"),
        # Set by each request of this library.
        *("_timeout", "_raise_for_status", "_middlewares", "_base_url", "_base_url_origin"),
        *("_read_bufsize", "_max_line_size", "_max_field_size", "_max_headers"),
        # For JSON, text, redirects and web sockets, which no request uses.
        *("_json_serialize", "_json_serialize_bytes", "_resolve_charset"),
        *("_requote_redirect_url", "requote_redirect_url", "_ws_response_class"),
    }
)
_JARS: Final = (aiohttp.CookieJar, aiohttp.DummyCookieJar)


def _is_plain(session: aiohttp.ClientSession) -> bool:
    """Whether a session was created with no setting that changes a request.

    It is compared with such a session, because aiohttp shows few of its settings. So settings of
    later releases are covered as well.
    """
    connector = session.connector
    if (
        type(session) is not aiohttp.ClientSession
        or type(session.cookie_jar) not in _JARS
        or not isinstance(connector, aiohttp.TCPConnector)
        or not _is_untouched(connector)
    ):
        return False
    other = aiohttp.ClientSession(connector=connector, cookie_jar=session.cookie_jar)
    plain = _settings(other)
    other.detach()
    return _settings(session) == plain


def _is_untouched(connector: aiohttp.TCPConnector) -> bool:
    """Whether a connector's methods are those of aiohttp, or ours."""
    connect = getattr(type(connector), "connect", None)
    return (
        type(connector) in _CONNECTORS
        and "connect" not in vars(connector)
        and type(connect) is FunctionType
        and any(connect.__globals__ is module for module in _CONNECTOR_MODULES)
    )


_CONNECTOR_MODULES: Final = (aiohttp.connector.__dict__, pool.__dict__)
_CONNECTORS: Final = (aiohttp.TCPConnector, pool.Connector)


def _settings(session: aiohttp.ClientSession) -> dict[str, Any]:
    return {name: value for name, value in vars(session).items() if name not in _IRRELEVANT}


def _is_own(method: object) -> bool:
    """Whether a session's method is aiohttp's own, and not a wrapper with copied attributes."""
    return type(method) is FunctionType and method.__globals__ is _SESSION_MODULE
