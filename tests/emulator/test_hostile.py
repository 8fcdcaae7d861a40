"""Bad input never stops it: after each attack it answers the next start."""

from __future__ import annotations

import asyncio
import gzip
import io

import pytest

from equos_async.testing import EquosEmulator
from tests.emulator.support import STARTS, Caller

POST = f"POST {STARTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n".encode()
JSON = b"Content-Type: application/json\r\n"

ATTACKS = {
    "not http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no method": b" / HTTP/1.1\r\n\r\n",
    "long line": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "many headers": POST + b"".join(b"X-%d: x\r\n" % n for n in range(5_000)) + b"\r\n",
    "bad length": POST + JSON + b"Content-Length: -1\r\n\r\n",
    "two lengths": POST + JSON + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "bad chunk": POST + JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "bad gzip": POST + JSON + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    "broken off": POST + JSON + b"Content-Length: 100\r\n\r\n{",
    "odd path": b"PATCH /v3/session-passes/%ff%00/stop HTTP/1.1\r\nHost: x\r\n\r\n",
    "odd query": b"GET /?%00=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute": b"GET http://[::1 HTTP/1.1\r\nHost: [\r\n\r\n",
    "bad host": b"GET / HTTP/1.1\r\nHost: [\r\n\r\n",
    "pipelined": (b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n") * 200,
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_it_survives(caller: Caller, emulator: EquosEmulator, name: str) -> None:
    """Whatever the bytes, the connection ends, nothing is started, and the next start works."""
    reader, writer = await asyncio.open_connection(emulator.host, emulator.port)
    writer.write(ATTACKS[name])
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    assert b" 500 " not in answer
    assert emulator.live_sessions == {}
    assert (await caller.start()).status == 201


@pytest.mark.parametrize("compressed", [False, True])
async def test_huge_bodies(caller: Caller, emulator: EquosEmulator, compressed: bool) -> None:
    """A body over 1 MiB is refused, counted after decompression."""
    body = b'{"name": "' + b"x" * (4 << 20) + b'"}'
    headers = {"Content-Type": "application/json"}
    if compressed:
        body = gzip.compress(body)
        headers["Content-Encoding"] = "gzip"
    answer = await caller.send("POST", STARTS, data=io.BytesIO(body), headers=headers)
    assert answer.json == {"message": "Request body is too large", "statusCode": 413}
    assert (await caller.start()).status == 201


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"1" * 5_000, b"NaN", b'{"name": Infinity}', b"\xff\xfe", b'{"a": "\xed"}'],
)
async def test_hostile_json(caller: Caller, body: bytes) -> None:
    """Any body that is not JSON gets 400."""
    headers = {"Content-Type": "application/json"}
    assert (await caller.send("POST", STARTS, data=body, headers=headers)).status == 400


async def test_odd_texts_come_back_as_they_went(caller: Caller, emulator: EquosEmulator) -> None:
    """Lone surrogates, control characters and markup are data like any other."""
    name = "\ud800 \x00 \x1b[31m <script>alert(1)</script>"
    answer = await caller.start(name=name)
    assert answer.json["session"]["name"] == name
    assert next(iter(emulator.live_sessions.values())).name == name


async def test_many_connections(caller: Caller, emulator: EquosEmulator) -> None:
    """Hundreds of idle connections do not keep it from serving one more."""
    idle = [await asyncio.open_connection(emulator.host, emulator.port) for _ in range(400)]
    assert (await caller.start()).status == 201
    for _, writer in idle:
        writer.close()
