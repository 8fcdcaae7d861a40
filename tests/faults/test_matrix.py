"""What a wire, a proxy, a kernel or a server does, and what becomes of a start and of a stop.

Each row is a fault, and for a start and for a stop: the result, the requests that the server
read, and the sessions that are left on it. Every session that is left has been reported.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import select
import socket
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import aiohttp
import pytest
from attrs import evolve, frozen

from equos_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    Clock,
    ConflictError,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    Event,
    InternalServerError,
    Limits,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RetryPolicy,
    StartOutcomeUnknownError,
    StartUnreadableError,
    Timeouts,
    UnprocessableEntityError,
)
from tests.clocks import FakeClock, SkippingClock, eventually, settle, until
from tests.conftest import KEY
from tests.faults import told
from tests.faults.server import Behaviour, Connection, RawServer, error_body, good
from tests.kinds import CONVERSATION, KINDS, SESSION, Kind

TIMEOUTS = Timeouts(connect=0.4, start_attempt=0.3, stop_attempt=0.3, deadline=60)
"""For servers that let a client wait."""

AMPLE = Timeouts(deadline=60)

LATE = "answers too late"
LET_WAIT = {LATE, "never answers", "head dripped byte by byte", "hangs inside, after the id"}
"""Rows of the matrix in which no whole answer comes in time."""


GONE = "g-1"


def answer(status: int, body: bytes | object = b"", headers: str = "") -> Behaviour:
    """Answer without acting."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def behave(connection: Connection) -> None:
        await connection.reply(status, data, headers)

    return behave


def acts(then: Callable[[Connection, bytes], Awaitable[None]]) -> Behaviour:
    """Act, and do something else than answer well; gets the good answer's body."""

    async def behave(connection: Connection) -> None:
        await then(connection, connection.act())

    return behave


def says(body: bytes, headers: str = "") -> Behaviour:
    """Act, and answer 2xx with a body of one's own."""

    async def then(connection: Connection, _: bytes) -> None:
        told = body.replace(b'"session"', f'"{connection.word}"'.encode())
        await connection.reply(connection.good_status, told, headers)

    return acts(then)


def raw(
    make: Callable[[Connection, bytes], bytes], *, end: str = "fin", act: bool = True
) -> Behaviour:
    """Write raw bytes, and then send FIN, RST, or nothing more."""

    async def behave(connection: Connection) -> None:
        await connection.send(make(connection, connection.act() if act else b""))
        await finish(connection, end)

    return behave


def ends(end: str, *, act: bool) -> Behaviour:
    """No answer at all."""
    return raw(lambda _, __: b"", end=end, act=act)


async def finish(connection: Connection, end: str) -> None:
    """FIN, RST, or silence until the client is gone."""
    if end == "fin":
        connection.close()
    elif end == "rst":
        connection.reset()
    elif end == "hang":
        await connection.gone()


async def late(connection: Connection) -> None:
    """Answer when the attempt's time is over."""
    body = connection.act()
    await connection.server.too_late.wait()
    await connection.reply(connection.good_status, body)


async def drip(connection: Connection) -> None:
    """The head, byte by byte, for ever."""
    connection.act()
    await connection.send(b"HTTP/1.1 201 Created\r\nX: ")
    while not connection.writer.is_closing():
        await connection.send(b"x")
        await asyncio.sleep(0.01)


async def endless(connection: Connection) -> None:
    """A body without an end."""
    connection.act()
    await connection.send(b"HTTP/1.1 %d X\r\n\r\n" % connection.good_status)
    while not connection.writer.is_closing():
        await connection.send(b'{"a":"' + b"x" * 65536)


def head(connection: Connection, length: int, headers: str = "") -> bytes:
    """A good status line and a length."""
    return (
        f"HTTP/1.1 {connection.good_status} X\r\nContent-Length: {length}\r\n{headers}\r\n".encode()
    )


def chunked(connection: Connection, body: bytes, tail: bytes) -> bytes:
    """A body in one chunk, and what comes after it."""
    start = b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % connection.good_status
    return start + b"%x\r\n" % len(body) + body + b"\r\n" + tail


@frozen
class Expected:
    """The result (a class of exception, ``"ok"`` or ``"none"``), requests read, sessions left."""

    result: type[EquosError] | str
    requests: int
    left: int


OK, NONE = "ok", "none"
UNKNOWN, UNREADABLE = StartOutcomeUnknownError, StartUnreadableError
Row = tuple[str, Behaviour, Expected, Expected]


def row(
    name: str,
    behave: Behaviour,
    start: tuple[type[EquosError] | str, int, int],
    stop: tuple[type[EquosError] | str, int, int],
) -> Row:
    """One line of the table."""
    return name, behave, Expected(*start), Expected(*stop)


HTML = b"<html><body>Bad Gateway</body></html>"
DATE = "Retry-After: Wed, 10 Dec 2025 09:11:57 GMT\r\nDate: Wed, 10 Dec 2025 09:11:55 GMT\r\n"
BOMB = gzip.compress(b" " * (100 << 20))

# fault, what it does              a start: result, requests, left    a stop: result, requests, left
ROWS: list[Row] = [
    # The connection.
    row("FIN after the request", ends("fin", act=False), (UNKNOWN, 1, 0), (OK, 2, 0)),
    row("FIN after acting", ends("fin", act=True), (UNKNOWN, 1, 1), (OK, 2, 0)),
    row("RST after the request", ends("rst", act=False), (UNKNOWN, 1, 0), (OK, 2, 0)),
    row("RST after acting", ends("rst", act=True), (UNKNOWN, 1, 1), (OK, 2, 0)),
    row("never answers", ends("hang", act=True), (UNKNOWN, 1, 1), (OK, 2, 0)),
    row(LATE, late, (UNKNOWN, 2, 0), (OK, 2, 0)),
    row("head dripped byte by byte", drip, (UNKNOWN, 1, 1), (OK, 2, 0)),
    # The head.
    row("garbage", raw(lambda _, __: b"\x00\xff\r\n\r\n"), (UNKNOWN, 1, 1), (OK, 2, 0)),
    row("status line cut", raw(lambda _, __: b"HTTP/1.1 20"), (UNKNOWN, 1, 1), (OK, 2, 0)),
    row("header without end", raw(lambda c, _: head(c, 2)[:-2]), (UNKNOWN, 1, 1), (OK, 2, 0)),
    row(
        "a header of 1 MiB",
        raw(lambda c, b: head(c, len(b), "X: " + "x" * (1 << 20) + "\r\n") + b),
        (UNKNOWN, 1, 1),
        (OK, 2, 0),
    ),
    row(
        "two lengths",
        raw(lambda c, b: head(c, len(b), "Content-Length: 3\r\n") + b),
        (UNKNOWN, 1, 1),
        (OK, 2, 0),
    ),
    row(
        "interim answers",
        raw(
            lambda c, b: (
                b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + head(c, len(b)) + b
            ),
            end="",
        ),
        (OK, 1, 1),
        (OK, 1, 0),
    ),
    row(
        "HTTP/1.0",
        raw(lambda c, b: b"HTTP/1.0 %d X\r\n\r\n" % c.good_status + b),
        (OK, 1, 1),
        (OK, 1, 0),
    ),
    row(
        "Connection: close",
        raw(lambda c, b: head(c, len(b), "Connection: close\r\n") + b),
        (OK, 1, 1),
        (OK, 1, 0),
    ),
    # The body.
    row("FIN inside", raw(lambda c, b: head(c, len(b)) + b[:9]), (UNREADABLE, 1, 1), (NONE, 1, 0)),
    row(
        "FIN inside, after the id",
        raw(lambda c, b: head(c, len(b)) + b[:60]),
        (UNREADABLE, 2, 0),
        (NONE, 1, 0),
    ),
    row(
        "RST inside",
        raw(lambda c, b: head(c, len(b)) + b[:60], end="rst"),
        (UNKNOWN, -1, -1),
        (NONE, -1, 0),
    ),
    row(
        "hangs inside, after the id",
        raw(lambda c, b: head(c, len(b)) + b[:60], end="hang"),
        (UNKNOWN, 1, 1),
        (NONE, 1, 0),
    ),
    row(
        "length too long",
        raw(lambda c, b: head(c, len(b) + 9) + b),
        (OK, 1, 1),
        (OK, 1, 0),
    ),
    row(
        "length too short",
        raw(lambda c, b: head(c, len(b) - 9) + b, end=""),
        (UNKNOWN, 1, 1),
        (OK, 2, 0),
    ),
    row(
        "broken chunk",
        raw(lambda c, b: chunked(c, b, b"zz\r\n")),
        (UNKNOWN, 1, 1),
        (OK, 2, 0),
    ),
    row(
        "trailers",
        raw(lambda c, b: chunked(c, b, b"0\r\nX-Trailer: x\r\n\r\n"), end=""),
        (OK, 1, 1),
        (OK, 1, 0),
    ),
    row(
        "broken gzip",
        says(b"not gzip", "Content-Encoding: gzip\r\n"),
        (UNREADABLE, 1, 1),
        (NONE, 1, 0),
    ),
    row("gzip bomb", says(BOMB, "Content-Encoding: gzip\r\n"), (UNREADABLE, 1, 1), (NONE, 1, 0)),
    row(
        "deflate nobody asked for",
        acts(
            lambda c, b: c.reply(c.good_status, zlib.compress(b), "Content-Encoding: deflate\r\n")
        ),
        (OK, 1, 1),
        (OK, 1, 0),
    ),
    row("endless", endless, (UNREADABLE, 1, 1), (NONE, 1, 0)),
    row("empty", says(b""), (UNREADABLE, 1, 1), (NONE, 1, 0)),
    row("null", says(b"null"), (UNREADABLE, 1, 1), (NONE, 1, 0)),
    row("a list", says(b"[]"), (UNREADABLE, 1, 1), (NONE, 1, 0)),
    row("an empty object", says(b"{}"), (UNREADABLE, 1, 1), (NONE, 1, 0)),
    row("nested 100,000 deep", says(b"[" * 100_000), (UNREADABLE, 1, 1), (NONE, 1, 0)),
    row("bad UTF-8", says(b'{"session":"\xff"}'), (UNREADABLE, 1, 1), (NONE, 1, 0)),
    row(
        "missing fields",
        says(b'{"session":{"id":"s-0"}}'),
        (UNREADABLE, 2, 0),
        (NONE, 1, 0),
    ),
    row(
        "wrong types",
        acts(lambda c, b: c.reply(c.good_status, b.replace(b'"livekit"', b"7"))),
        (OK, 1, 1),
        (OK, 1, 0),
    ),
    row(
        "unknown fields",
        acts(lambda c, b: c.reply(c.good_status, b.replace(b'"livekit"', b'"x","new":{"a":[1]}'))),
        (OK, 1, 1),
        (OK, 1, 0),
    ),
    row(
        "204",
        acts(lambda c, _: c.send(b"HTTP/1.1 204 X\r\n\r\n")),
        (UNREADABLE, 1, 1),
        (NONE, 1, 0),
    ),
    row(
        "another session's answer",
        acts(lambda c, b: c.reply(c.good_status, b.replace(b'"g-1"', b'"g-2"'))),
        (OK, 1, 1),
        (NONE, 2, 0),
    ),
    # The status.
    *[
        row(
            f"{status} {message!r}",
            answer(status, error_body(status, message)),
            (cls, 1, 0),
            (cls, 1, 1),
        )
        for status, cls in (
            (400, BadRequestError),
            (401, AuthenticationError),
            (403, PermissionDeniedError),
            (404, NotFoundError),
            (422, UnprocessableEntityError),
            (413, APIStatusError),
        )
        for message in ("no", ["a", "b"])
    ],
    row(
        "400 cut",
        raw(lambda _, __: b"HTTP/1.1 400 X\r\nContent-Length: 99\r\n\r\n{", act=False),
        (BadRequestError, 1, 0),
        (BadRequestError, 1, 1),
    ),
    row("407", answer(407), (APIStatusError, 1, 0), (APIStatusError, 1, 1)),
    row("408", answer(408), (UNKNOWN, 1, 0), (OK, 2, 0)),
    row("409", answer(409), (ConflictError, 1, 0), (OK, 2, 0)),
    row("421", answer(421), (OK, 2, 1), (OK, 2, 0)),
    row("425", answer(425), (UNKNOWN, 1, 0), (OK, 2, 0)),
    row("429", answer(429), (OK, 2, 1), (OK, 2, 0)),
    row("429, 2 s", answer(429, b"", "Retry-After: 2\r\n"), (OK, 2, 1), (OK, 2, 0)),
    row(
        "429, 3600 s",
        answer(429, b"", "Retry-After: 3600\r\n"),
        (RateLimitError, 1, 0),
        (OK, 2, 0),  # tried once more, late: a clock may be wrong, and a server recover
    ),
    row("429, a date", answer(429, b"", DATE), (OK, 2, 1), (OK, 2, 0)),
    row("429, garbage", answer(429, b"", "Retry-After: soon\r\n"), (OK, 2, 1), (OK, 2, 0)),
    row("503, 2 s", answer(503, HTML, "Retry-After: 2\r\n"), (OK, 2, 1), (OK, 2, 0)),
    row("503, garbage", answer(503, HTML, "Retry-After: -1\r\n"), (UNKNOWN, 1, 0), (OK, 2, 0)),
    *[row(str(s), answer(s, HTML), (UNKNOWN, 1, 0), (OK, 2, 0)) for s in (500, 502, 503, 504, 520)],
    *[row(str(s), answer(s), (UNKNOWN, 1, 0), (OK, 2, 0)) for s in (600, 999)],
    row(
        "101",
        answer(101, b"", "Upgrade: x\r\nConnection: upgrade\r\n"),
        (UNKNOWN, 1, 0),
        (OK, 2, 0),
    ),
    *[
        row(
            f"{status} to {where}",
            answer(status, b"", f"Location: {where}\r\n"),
            (APIStatusError if status > 303 else UNKNOWN, 1, 0),
            (APIStatusError, 1, 1),
        )
        for status in (301, 302, 303, 307, 308)
        for where in ("/elsewhere", "http://127.0.0.1:1/elsewhere")
    ],
]


async def outcome(work: Awaitable[Any]) -> tuple[type[EquosError] | str, EquosError | None]:
    """What came of a call, as the table says it."""
    try:
        result = await work
    except EquosError as error:
        return type(error), error
    return (NONE if result is None else OK), None


def make_client(server: RawServer, kind: Kind = SESSION, **settings: Any) -> EquosClient:
    """A client for which backoff takes no time."""
    given: dict[str, Any] = {"timeouts": AMPLE, "clock": SkippingClock(), **settings}
    return kind.client(server.endpoint, **given)


def check(error: EquosError | None, operation: str) -> None:
    """An error tells its call, and carries nothing of the HTTP library."""
    if error is None:
        return
    assert error.operation == operation
    assert error.attempts >= 1
    assert error.__cause__ is None
    assert error.__context__ is None
    if operation == "stop":
        assert error.session_id == GONE


@frozen
class Met:
    """What came of a call that met a fault, with what its server and its client know of it."""

    result: type[EquosError] | str
    error: EquosError | None
    server: RawServer
    client: EquosClient


class Passing(FakeClock):
    """Time passes where a client means to sleep, and where a test says; no machine is too slow."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


async def meet(
    name: str, server: RawServer, client: EquosClient, clock: Passing, call: Awaitable[Any]
) -> Met:
    """What comes of a call; where its server lets it wait, its time is over at once."""
    calling = asyncio.ensure_future(outcome(call))
    if name in LET_WAIT:
        await until(lambda: server.requests)
        await settle()
        clock.advance(TIMEOUTS.start_attempt)
    result, error = await calling
    server.too_late.set()
    closing = asyncio.ensure_future(client.aclose(deadline=30))  # in which a late answer comes
    if name in LET_WAIT - {LATE}:
        await settle()
        clock.advance(30)
    await closing
    return Met(result, error, server, client)


def settings_for(name: str, clock: Passing) -> dict[str, Any]:
    """A client's settings for a row."""
    return {"timeouts": TIMEOUTS, "clock": clock} if name in LET_WAIT else {}


async def meet_with_a_start(
    name: str,
    behave: Behaviour,
    on_event: Callable[[Event], object],
    kind: Kind = SESSION,
    lent: aiohttp.ClientSession | None = None,
) -> Met:
    """One fault, then a server that works."""
    clock = Passing()
    settings = settings_for(name, clock)
    async with RawServer([behave]) as server:
        client = make_client(server, kind, on_event=on_event, http_session=lent, **settings)
        return await meet(name, server, client, clock, kind.start(client, kind.request))


async def meet_with_a_stop(
    name: str,
    behave: Behaviour,
    on_event: Callable[[Event], object],
    kind: Kind = SESSION,
    lent: aiohttp.ClientSession | None = None,
) -> Met:
    """One fault, then a server that works."""
    clock = Passing()
    settings = settings_for(name, clock)
    async with RawServer([behave]) as server:
        server.live.add(GONE)
        client = make_client(server, kind, on_event=on_event, http_session=lent, **settings)
        return await meet(name, server, client, clock, kind.stop(client, GONE))


OTHER: dict[str, Expected] = {"missing fields": Expected(OK, 1, 1)}
"""What a start of a conversation ends in where that differs: only its id is essential."""


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    ("name", "behave", "expected"), [(r[0], r[1], r[2]) for r in ROWS], ids=[r[0] for r in ROWS]
)
async def test_a_start(name: str, behave: Behaviour, expected: Expected, kind: Kind) -> None:
    """What it ends in, what is left, and what is told of it: the same of both kinds."""
    differs = kind is CONVERSATION and name in OTHER
    expected = OTHER[name] if differs else expected
    events: list[Event] = []
    met = await meet_with_a_start(name, behave, events.append, kind)
    server = met.server
    if expected.requests >= 0:
        assert (met.result, server.requests) == (expected.result, expected.requests)
        assert len(server.live) == expected.left
        lines = [told.as_of_a_session(line) for line in told.lines(events, server.endpoint)]
        assert differs or lines == told.load()[name]["start"]
    held = int(met.result == OK)
    assert len(server.live) <= held + len(met.client.unresolved)
    assert len(server.made) <= 1
    check(met.error, "start")
    assert {path for path in server.paths if "stop" not in path} == {kind.paths[0]}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    ("name", "behave", "expected"), [(r[0], r[1], r[3]) for r in ROWS], ids=[r[0] for r in ROWS]
)
async def test_a_stop(name: str, behave: Behaviour, expected: Expected, kind: Kind) -> None:
    """What it ends in, what is left, and what is told of it: the same of both kinds."""
    events: list[Event] = []
    met = await meet_with_a_stop(name, behave, events.append, kind)
    server = met.server
    if expected.requests >= 0:
        # A stop whose first attempt was carried out may be answered with null.
        assert (met.result, server.requests) == (expected.result, expected.requests) or (
            expected.result == NONE and met.result == OK and server.requests == expected.requests
        )
        lines = [told.as_of_a_session(line) for line in told.lines(events, server.endpoint)]
        assert lines == told.load()[name]["stop"]
    assert len(server.live) == expected.left
    assert len(met.client.unresolved) == (1 if met.error else 0)
    check(met.error, "stop")


@pytest.mark.parametrize(("name", "behave", "start", "stop"), ROWS, ids=[name for name, *_ in ROWS])
async def test_a_lent_session(
    name: str, behave: Behaviour, start: Expected, stop: Expected
) -> None:
    """With a session of the user's, both end as with one of the client's own."""
    async with aiohttp.ClientSession() as lent:
        met = await meet_with_a_start(name, behave, list[Event]().append, lent=lent)
        if start.requests >= 0:
            assert (met.result, met.server.requests) == (start.result, start.requests)
            assert len(met.server.live) == start.left
        held = int(met.result == OK)
        assert len(met.server.live) <= held + len(met.client.unresolved)
        met = await meet_with_a_stop(name, behave, list[Event]().append, lent=lent)
        if stop.requests >= 0:
            assert met.server.requests == stop.requests
            assert met.result in ({OK, NONE} if stop.result == NONE else {stop.result})
        assert len(met.server.live) == stop.left
        assert not lent.closed


def test_the_golden_events_are_of_these_rows() -> None:
    """No row is forgotten there, and none is left that is gone here."""
    assert list(told.load()) == [name for name, *_ in ROWS]
    assert len(told.load()) == len(ROWS)


async def accept_fin(connection: Connection) -> None:
    """FIN before anything is read."""
    connection.close()


async def accept_rst(connection: Connection) -> None:
    """RST before anything is read."""
    connection.reset()


@pytest.mark.parametrize("on_accept", [accept_fin, accept_rst])
async def test_closed_at_once(on_accept: Behaviour, request_: CreateSessionPassRequest) -> None:
    """A connection that is closed when it is made: a stop goes on, a start is never sent twice."""
    async with RawServer(on_accept=[on_accept] * 2) as server:
        server.live.add(GONE)
        async with make_client(server) as client:
            assert await client.stop_session(GONE) is not None
            server.on_accept = [on_accept]
            await until(lambda: server.accepted >= 2)
            result, error = await outcome(client.start_session(request_))
        assert result in {OK, UNKNOWN}
        assert len(server.made) <= 1
        assert len(server.live) == (result == OK)
        check(error, "start")


async def test_refused_always(request_: CreateSessionPassRequest) -> None:
    """Nothing was sent in three attempts of a start and eight of a stop."""
    async with RawServer() as server:
        endpoint = server.endpoint
    async with EquosClient(KEY, endpoint=endpoint, clock=SkippingClock()) as client:
        result, error = await outcome(client.start_session(request_))
        assert result is APIConnectionError
        assert error is not None
        assert error.attempts == 3
        assert "nothing was sent" in str(error)
        result, error = await outcome(client.stop_session(GONE))
        assert result is APIConnectionError
        assert [one.operation for one in client.unresolved] == ["stop"]
        await client.aclose(deadline=0.1)


async def test_refused_once(request_: CreateSessionPassRequest) -> None:
    """A server that comes up meanwhile gets the start, once."""
    server = RawServer()
    async with server:
        pass
    clock = SkippingClock()
    async with EquosClient(
        KEY,
        endpoint=server.endpoint,
        clock=clock,
        on_event=lambda _: listening.append(asyncio.ensure_future(server.__aenter__())),
    ) as client:
        listening: list[asyncio.Future[Any]] = []
        started = await client.start_session(request_)
        assert server.live == {started.session.id}
        assert server.requests == 1
    await server.stop()


async def test_no_such_host(request_: CreateSessionPassRequest) -> None:
    """DNS fails: nothing was sent."""
    async with EquosClient(
        KEY, endpoint="https://equos.invalid", clock=SkippingClock(), timeouts=TIMEOUTS
    ) as client:
        result, error = await outcome(client.start_session(request_))
    assert result in {APIConnectionError, APITimeoutError}
    assert "nothing was sent" in str(error)


async def test_permits_exhausted(request_: CreateSessionPassRequest) -> None:
    """Starts that hang keep other starts out, and no stop waits behind them."""
    async with RawServer(always=ends("hang", act=False)) as server:
        limits = Limits(start_connections=2)
        timeouts = Timeouts(start_attempt=30, deadline=60)
        client = make_client(server, limits=limits, timeouts=timeouts)
        hanging = [asyncio.create_task(client.start_session(request_)) for _ in range(2)]
        await until(lambda: server.requests == 2)
        result, error = await outcome(client.start_session(request_, deadline=0.05))
        assert (result, server.requests) == (APITimeoutError, 2)
        assert "nothing was sent" in str(error)
        server.always = good
        assert await client.stop_session(GONE) is not None
        for task in hanging:
            task.cancel()
        await client.aclose(deadline=0.01)


async def test_deadline_shorter_than_retry_after(request_: CreateSessionPassRequest) -> None:
    """A start fails at once with the server's value; a stop is tried once more before."""
    async with RawServer(always=answer(429, b"", "Retry-After: 5\r\n")) as server:
        async with make_client(server) as client:
            with pytest.raises(RateLimitError) as caught:
                await client.start_session(request_, deadline=3)
            assert caught.value.retry_after == 5.0
            assert server.requests == 1
            with pytest.raises(RateLimitError):
                await client.stop_session(GONE, deadline=3)
            assert server.requests == 3
            await client.aclose(deadline=0.1)


async def test_a_stop_that_keeps_failing() -> None:
    """It ends with the server's own class of error, within its attempts and its deadline."""
    async with RawServer(always=answer(502, HTML)) as server:
        async with make_client(server) as client:
            result, error = await outcome(client.stop_session(GONE))
            assert result is InternalServerError
            assert 2 <= server.requests <= 8
            await client.aclose(deadline=0.1)
        check(error, "stop")


async def test_stops_whose_retries_get_no_turn() -> None:
    """They end with what the server last said, not as if nothing had been sent."""
    # One retry at a time, and none for long after the first that failed.
    policy = RetryPolicy(throttled_base=0.001, gate_width=1, gate_delay=60, gate_max_delay=60)
    clock = FakeClock()
    async with RawServer(always=answer(503)) as server:
        async with make_client(server, retry=policy, clock=clock) as client:
            stops = [
                asyncio.ensure_future(outcome(client.stop_session(f"g-{n}", deadline=1)))
                for n in range(5)
            ]
            await until(lambda: server.requests == 5)
            while not all(stop.done() for stop in stops):
                await settle()
                clock.advance(0.1)
            ends = await asyncio.gather(*stops)
            closing = asyncio.ensure_future(client.aclose(deadline=0))
            await settle()
            clock.advance(0)
            await closing
        assert {result for result, _ in ends} == {InternalServerError}
        assert {error.attempts for _, error in ends if error} == {1, 2}


async def test_a_pause_between_two_attempts(request_: CreateSessionPassRequest) -> None:
    """The error of a start whose first attempt was refused says that it was not sent again."""
    paused = asyncio.Event()

    async def refuse(connection: Connection) -> None:
        await paused.wait()
        await connection.reply(429, b"")

    clock = SkippingClock()
    async with RawServer([refuse, answer(429, b"", "Retry-After: 20\r\n")]) as server:
        async with make_client(server, clock=clock) as client:
            one = asyncio.create_task(outcome(client.start_session(request_, deadline=10)))
            await until(lambda: server.requests == 1)
            two = asyncio.create_task(outcome(client.start_session(request_, deadline=10)))
            await until(lambda: server.requests == 2)
            await two
            paused.set()
            result, error = await one
        assert result is OverloadedError
        assert isinstance(error, OverloadedError)
        assert error.attempts == 1
        assert "it was not sent again" in str(error)


@pytest.mark.parametrize("idle", [1, 40])
async def test_answers_that_nobody_asked_for(idle: int, request_: CreateSessionPassRequest) -> None:
    """What waits on idle connections is never taken for the next call's answer."""
    spoken = asyncio.Event()

    async def twice(connection: Connection) -> None:
        body = connection.act()
        await connection.reply(connection.good_status, body)
        await spoken.wait()
        await connection.reply(201, body.replace(b'"s-', b'"unasked-'))

    async with RawServer([twice] * idle) as server:
        async with make_client(server) as client:
            await asyncio.gather(*(client.start_session(request_) for _ in range(idle)))
            assert server.accepted == idle
            spoken.set()
            await asyncio.sleep(0.05)  # the unasked answers are on their way
            started = await client.start_session(request_)
        assert started.session.id == f"s-{idle}"
        assert len(server.live) == server.requests == idle + 1
        assert server.accepted == idle + 1


async def test_a_server_that_speaks_first(request_: CreateSessionPassRequest) -> None:
    """A connection on which the server spoke before the request was sent is not used."""

    async def banner(connection: Connection) -> None:
        await connection.reply(201, b"{}")
        await connection.gone()

    async with RawServer(on_accept=[banner] * 200) as server:
        async with make_client(server) as client:
            result, _ = await outcome(client.start_session(request_))
        assert result in {APIConnectionError, UNKNOWN, UNREADABLE}
        assert server.live == set()


async def test_a_stale_connection(request_: CreateSessionPassRequest) -> None:
    """The server closes an idle connection: the next start goes over another one."""
    async with RawServer() as server:
        async with make_client(server) as client:
            await client.start_session(request_)
            for task in list(server.tasks):
                task.cancel()
            await asyncio.sleep(0.02)  # the FIN is on its way
            await client.start_session(request_)
        assert len(server.live) == server.requests == 2


async def test_no_connection_is_kept_on_request(request_: CreateSessionPassRequest) -> None:
    """With ``keepalive=0`` every request has a connection of its own."""
    async with RawServer() as server:
        async with make_client(server, limits=Limits(keepalive=0)) as client:
            started = await client.start_session(request_)
            await client.stop_session(started.session.id)
        assert server.accepted == server.requests == 2


async def test_a_restart_in_mid_flight(request_: CreateSessionPassRequest) -> None:
    """Starts on the wire are unknown, stops on the wire are done by the new server."""
    async with RawServer(always=ends("hang", act=False)) as server:
        client = make_client(server, timeouts=Timeouts())
        server.live.add(GONE)
        start = asyncio.create_task(outcome(client.start_session(request_)))
        stop = asyncio.create_task(outcome(client.stop_session(GONE)))
        await until(lambda: server.requests == 2)
        await server.stop()
        server.always = good
        await server.__aenter__()
        assert (await start)[0] is UNKNOWN
        assert (await stop)[0] == OK
        assert server.live == set()
        await client.aclose()


async def test_a_thousand_stops_over_an_outage() -> None:
    """All are done when the server is back, and it was not stormed meanwhile."""
    clock = SkippingClock()
    async with RawServer() as server:
        begun: list[float] = []

        async def outage(connection: Connection) -> None:
            begun.append(clock.now()) if not begun else None
            if clock.now() - begun[0] < 30:
                await connection.reply(502, HTML)
            else:
                await good(connection)

        server.always = outage
        server.live = {f"o-{number}" for number in range(1000)}
        async with make_client(server, clock=clock, timeouts=Timeouts(deadline=1e6)) as client:
            await asyncio.gather(*(client.stop_session(one) for one in list(server.live)))
        assert server.live == set()
        assert server.requests <= 3000


async def test_a_bomb_stays_small() -> None:
    """A hundred megabytes of compressed blanks do not become a hundred megabytes of memory."""
    server = RawServer([says(BOMB, "Content-Encoding: gzip\r\n")])
    async with server, make_client(server) as client:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert await client.stop_session(GONE) is None
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000  # KiB


async def test_what_follows_a_101_is_no_other_requests_answer(
    request_: CreateSessionPassRequest,
) -> None:
    """It is no final answer: its connection is not used again."""
    switch = raw(lambda _, __: b"HTTP/1.1 101 Switching Protocols\r\n\r\n", end="")
    async with RawServer([switch]) as server, make_client(server) as client:
        with pytest.raises(StartOutcomeUnknownError, match="101"):
            await client.start_session(request_)
        await client.start_session(request_)
        assert server.accepted == 2


@pytest.mark.parametrize("size", [30_000, 200_000])
@pytest.mark.parametrize("answered", [True, False])
async def test_a_server_that_does_not_read(
    answered: bool, size: int, request_: CreateSessionPassRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stuck in a connection keeps neither it nor its client open."""
    connections: list[Connection] = []

    class Small(socket.socket):
        """A socket that takes little before it has to wait for its peer."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    async def deaf(connection: Connection) -> None:
        cast("asyncio.ReadTransport", connection.writer.transport).pause_reading()
        connections.append(connection)
        if answered:
            asked = connection.writer.get_extra_info("socket")
            await eventually(lambda: select.select([asked], [], [], 0)[0])
            await connection.reply(403, b"{}")
        await asyncio.Event().wait()

    async with RawServer(on_accept=[deaf], receive_buffer=2048) as server:
        monkeypatch.setattr(socket, "socket", Small)
        timeouts = AMPLE if answered else TIMEOUTS
        client = make_client(server, clock=Clock(), timeouts=timeouts)
        with pytest.raises(PermissionDeniedError if answered else StartOutcomeUnknownError):
            await client.start_session(evolve(request_, additional_ctx="x" * size))
        async with asyncio.timeout(30):
            await client.aclose(deadline=0.2)
        (connection,) = connections
        cast("asyncio.ReadTransport", connection.writer.transport).resume_reading()
        with suppress(ConnectionError):
            assert len(await connection.reader.read()) < size


async def test_closed_before_and_during(request_: CreateSessionPassRequest) -> None:
    """A start that is on the wire when its client closes is waited for, and ended."""
    async with RawServer([late]) as server:
        client = make_client(server, timeouts=Timeouts())
        start = asyncio.create_task(client.start_session(request_))
        await until(lambda: server.requests)
        closing = asyncio.create_task(client.aclose())
        await settle()
        server.too_late.set()
        await closing
        with pytest.raises(ClientClosedError) as caught:
            await start
        assert (server.made, server.live) == ([caught.value.session_id], set())
