"""Whatever a server sends, a request ends on the direct wire as it does through the session."""

from __future__ import annotations

import gzip
import random

import aiohttp
import pytest

from equos_async import CreateSessionPassRequest, EquosClient
from tests import wires
from tests.clocks import SkippingClock, settle
from tests.conftest import KEY
from tests.faults.server import Connection, RawServer
from tests.faults.test_matrix import outcome
from tests.unit.test_wire import SESSION, dump

BODY = dump({"session": {**SESSION, "id": "s-0"}})
LONG = b" " * (1 << 20)
"""As much as is read of an answer."""


def answer(body: bytes, headers: bytes = b"", line: bytes = b"HTTP/1.1 201 X") -> bytes:
    """An answer with a Content-Length."""
    return b"%b\r\nContent-Length: %d\r\n%b\r\n%b" % (line, len(body), headers, body)


def chunked(body: bytes, headers: bytes = b"", trailers: bytes = b"") -> bytes:
    """An answer in two chunks."""
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]))
    head = b"HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n"
    return b"%b%b\r\n%b0\r\n%b\r\n" % (head, headers, parts, trailers)


ANSWERS = {
    "length": answer(BODY),
    "chunks": chunked(BODY),
    "trailers": chunked(BODY, trailers=b"X-After: 1\r\n"),
    "two lengths": chunked(BODY, b"Content-Length: 5\r\n"),
    "close": answer(BODY, b"Connection: close\r\n"),
    "HTTP/1.0": answer(BODY, line=b"HTTP/1.0 201 X"),
    "HTTP/1.0 kept": answer(BODY, b"Connection: keep-alive\r\n", b"HTTP/1.0 201 X"),
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + answer(BODY),
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + chunked(BODY),
    "switch": b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    "204": b"HTTP/1.1 204 X\r\n\r\n",
    "204 with a body": answer(BODY, line=b"HTTP/1.1 204 X"),
    "304": answer(b"", line=b"HTTP/1.1 304 X"),
    "redirect": answer(b"", b"Location: http://[\r\n", b"HTTP/1.1 302 X"),
    "cookie": answer(BODY, b"Set-Cookie: a=b; =;\r\n"),
    "gzip": answer(gzip.compress(BODY), b"Content-Encoding: gzip\r\n"),
    "half a gzip": answer(gzip.compress(BODY)[:-9], b"Content-Encoding: gzip\r\n"),
    "no gzip": answer(BODY, b"Content-Encoding: gzip\r\n"),
    "bomb": answer(gzip.compress(LONG * 3), b"Content-Encoding: gzip\r\n"),
    "at the bound": answer(BODY + LONG[len(BODY) :]),
    "beyond it": answer(BODY + LONG),
    "far beyond it": chunked(BODY + LONG * 2),
    "too long a header": answer(BODY, b"X: %b\r\n" % (b"y" * 8200)),
    "too many headers": answer(BODY, b"X: y\r\n" * 200),
    "folded": answer(BODY, b"X: a\r\n b\r\n"),
    "twice": answer(BODY) * 2,
    "and a half": answer(BODY) + answer(BODY)[:30],
    "and a strange half": answer(BODY) + b"HTTP/1.1 200 X\r\nSec-WebSocket-Key1: x\r\n",
    "line breaks after": answer(BODY) + b"\r\n\r\n",
    "lone line feeds": answer(BODY).replace(b"\r\n", b"\n"),
    "early hints with a length": b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\n" + answer(BODY),
    "304 with a length": b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n",
    "switch to nothing": b"HTTP/1.1 101 X\r\n\r\n" + answer(BODY),
    "upgrade offered": answer(BODY, b"Connection: upgrade\r\nUpgrade: x\r\n"),
    "HTTP/1.0 chunks": chunked(BODY, b"Connection: keep-alive\r\n").replace(b"/1.1", b"/1.0"),
    "chunks in order": chunked(BODY).replace(b": chunked", b": gzip, chunked"),
    "a long chunk extension": chunked(BODY).replace(b"7\r\n", b"7;x=%b\r\n" % (b"y" * 99_000), 1),
    "too many trailers": chunked(BODY, trailers=b"X: y\r\n" * 99_000),
    "two equal lengths": answer(BODY, b"Content-Length: %d\r\n" % len(BODY)),
    "a length with a sign": answer(BODY).replace(b"Length: ", b"Length: +"),
}
CUT = {
    "to the end of the connection": b"HTTP/1.1 201 X\r\n\r\n" + BODY,
    "chunks not last": chunked(BODY).replace(b": chunked", b": chunked, x"),
    "short of its length": answer(BODY)[:-9],
    "without its last chunk": chunked(BODY)[:-5],
    "in its trailers": chunked(BODY, trailers=b"X: y\r\n")[:-9],
    "in its head": answer(BODY)[:20],
    "after early hints": b"HTTP/1.1 103 X\r\n\r\n",
}
"""After these the server closes the connection."""

ENOUGH = {"to the end of the connection", "without its last chunk", "in its trailers"}
"""The first is whole; the other two are cut, but what they say came: a session is not lost."""

KEPT = {
    *("length", "chunks", "trailers", "HTTP/1.0 kept", "continue", "early hints"),
    *("204", "304", "redirect", "cookie", "gzip", "half a gzip", "at the bound"),
    *("too long a header", "too many headers", "folded", "lone line feeds", "upgrade offered"),
    *("early hints with a length", "304 with a length", "chunks in order"),
    "a long chunk extension",
    "line breaks after",  # no answer begins with them
}
"""After which the connection carries the next request. After the others the stop dials anew."""
if tuple(map(int, aiohttp.__version__.split(".")[:2])) < (3, 13):
    KEPT.add("too many trailers")  # it has no bound for their number

STRICTER = {"and a half", "and a strange half", "beyond it", "bomb", "HTTP/1.0 chunks"}
"""After which aiohttp's session may use the connection again; the direct wire never does."""

CONNECTIONS = 4
"""Where the number of connections is in what a start and a stop end in."""

TOKENS = (
    *(b"\r\n", b"\n", b" ", b"\0", b":", b"\xff", b"0\r\n\r\n", b"HTTP/1.1 ", b"100 "),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
)


def broken(seed: int) -> bytes:
    """One of the answers, with something put in, taken out or cut off near its head."""
    chance = random.Random(seed)
    data = chance.choice(list(ANSWERS.values()))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(min(len(data), 150) + 1)
        put, skip = chance.choice([(b"", 1), (b"", 9), (b"", len(data)), *((t, 0) for t in TOKENS)])
        data = data[:at] + put + data[at + skip :]
    return data


async def ends(
    request: CreateSessionPassRequest, data: bytes, *, close: bool
) -> tuple[object, ...]:
    """How a start ends that gets this for an answer, and a stop after it, and what they cost."""

    async def send(connection: Connection) -> None:
        connection.act()
        await connection.send(data)
        if close:
            connection.close()

    async with (
        RawServer([send]) as server,
        EquosClient(KEY, endpoint=server.endpoint, clock=SkippingClock()) as client,
    ):
        started, error = await outcome(client.start_session(request))
        await settle()  # the pool learns of what comes unasked
        stopped, _ = await outcome(client.stop_session("s-0"))
        status = getattr(error, "status", None)
        return started, status, stopped, server.requests, server.accepted, client.unresolved == ()


async def both(
    request: CreateSessionPassRequest,
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
    *,
    close: bool = False,
) -> list[tuple[object, ...]]:
    """How it ends on the direct wire, and through the session."""
    ended: list[tuple[object, ...]] = []
    for wire in wires.WIRES:
        wires.take(wire, monkeypatch)
        ended.append(await ends(request, data, close=close))
    return ended


@pytest.mark.parametrize("name", ANSWERS)
async def test_whole_answers(
    name: str, request_: CreateSessionPassRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same is read of them, and their connections are used again or not."""
    direct, session = await both(request_, ANSWERS[name], monkeypatch)
    assert direct[CONNECTIONS] == (1 if name in KEPT else 2)
    if name in STRICTER:
        direct, session = direct[:CONNECTIONS], session[:CONNECTIONS]
    assert direct == session


@pytest.mark.parametrize("name", CUT)
async def test_answers_that_end_with_the_connection(
    name: str, request_: CreateSessionPassRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both wires read the same, and the connection is not used again."""
    direct, session = await both(request_, CUT[name], monkeypatch, close=True)
    assert direct == session
    assert (direct[0] == "ok") is (name in ENOUGH)
    assert direct[CONNECTIONS] == 2


@pytest.mark.parametrize("seed", range(0, 200, 20))
async def test_broken_answers(
    seed: int, request_: CreateSessionPassRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they break makes no difference."""
    for number in range(seed, seed + 20):
        direct, session = await both(request_, broken(number), monkeypatch, close=True)
        assert direct == session
