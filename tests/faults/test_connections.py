"""What becomes of connections: kept, closed in time, lent, and dropped where they are of no use."""

from __future__ import annotations

import asyncio
import base64
import select
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.http_parser import HttpResponseParserPy

from equos_async import (
    APIConnectionError,
    CreateSessionPassRequest,
    EquosClient,
    Limits,
    RetryPolicy,
    StartOutcomeUnknownError,
    Timeouts,
)
from equos_async._http import gate, pool
from tests import wires
from tests.clocks import SkippingClock, skip, until
from tests.conftest import API_KEY, KEY
from tests.faults.server import Connection, RawServer
from tests.kinds import KINDS, SESSION, Kind


@pytest.fixture(params=["own", "injected"])
async def session(
    request: pytest.FixtureRequest, wire: str
) -> AsyncIterator[aiohttp.ClientSession | None]:
    """The client's own session, and one of the user's."""
    async with aiohttp.ClientSession() as session:
        yield session if request.param == "injected" else None


def large(fields: bytes, reason: bytes = b"X") -> Any:
    """Answer well, under a large head."""

    async def behave(connection: Connection) -> None:
        body = connection.act()
        line = b"HTTP/1.1 %d %b\r\n" % (connection.good_status, reason)
        await connection.send(b"%b%bContent-Length: %d\r\n\r\n%b" % (line, fields, len(body), body))

    return behave


@pytest.mark.parametrize(
    "behave",
    [
        large(b"X: %b\r\n" % (b"y" * 60_000)),
        large(b"".join(b"X-%d: y\r\n" % number for number in range(900))),
        large(b"", b"C" * 60_000),
    ],
    ids=["a field of 60 KB", "900 fields", "a reason of 60 KB"],
)
async def test_large_heads_are_read(
    behave: Any, session: aiohttp.ClientSession | None, request_: CreateSessionPassRequest
) -> None:
    """A session that was begun is not lost to the size of its answer's head."""
    async with RawServer([behave]) as server:
        async with EquosClient(KEY, endpoint=server.endpoint, http_session=session) as client:
            assert (await client.start_session(request_)).session.id == "s-0"


async def test_a_head_without_an_end(wire: str, request_: CreateSessionPassRequest) -> None:
    """It is bounded by its size on the direct wire, where provisional answers count as well.

    aiohttp's session skips those for ever: there the attempt's time is the bound.
    """

    async def hints(connection: Connection) -> None:
        connection.act()
        while not connection.writer.is_closing():
            await connection.send(b"HTTP/1.1 103 Early Hints\r\nX: %b\r\n\r\n" % (b"y" * 30_000))

    # The attempt's time and the call's end together: either may be seen first.
    reason = "rules of HTTP" if wire == "direct" else "no answer (in time|within 0.2 s)"
    timeouts = Timeouts() if wire == "direct" else Timeouts(start_attempt=0.2, deadline=0.2)
    async with RawServer([hints]) as server:
        async with EquosClient(KEY, endpoint=server.endpoint, timeouts=timeouts) as client:
            with pytest.raises(StartOutcomeUnknownError, match=reason):
                await client.start_session(request_)
        await until(lambda: not server.tasks)


@pytest.mark.parametrize("polls", [True, False])
async def test_what_the_server_closed_meanwhile_is_not_used(
    polls: bool,
    session: aiohttp.ClientSession | None,
    request_: CreateSessionPassRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its end lies in the socket, and the event loop was too busy to see it."""
    if not polls:
        monkeypatch.delattr(select, "poll")
    connections: list[Connection] = []

    async def remember(connection: Connection) -> None:
        connections.append(connection)

    async with RawServer(on_accept=[remember] * 3) as server:
        async with EquosClient(KEY, endpoint=server.endpoint, http_session=session) as client:
            started = await client.start_session(request_)
            connections[0].writer.write_eof()
            await client.start_session(request_)  # not a pass of the event loop between
            connections[1].writer.write_eof()
            await client.stop_session(started.session.id)
        assert (server.accepted, server.paths.count(server.paths[0])) == (3, 2)
        assert (server.requests, server.live) == (3, {"s-1"})


async def test_idle_connections_are_closed_in_time(
    request_: CreateSessionPassRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is kept for a while, and not longer."""
    monkeypatch.setattr(aiohttp.connector, "monotonic", asyncio.get_running_loop().time)
    limits = Limits(keepalive=4)
    async with RawServer() as server:
        async with EquosClient(KEY, endpoint=server.endpoint, limits=limits) as client:
            await asyncio.gather(*(client.start_session(request_) for _ in range(3)))
            skip(3)
            await client.start_session(request_)
            assert server.accepted == 3
            skip(1.5)
            await until(lambda: len(server.tasks) == 1)  # the one that was used meanwhile
            skip(5)
            await until(lambda: not server.tasks)
            await client.start_session(request_)
            skip(5)  # in a step of the loop, so that nothing is swept
            await client.start_session(request_)
        assert server.accepted == 5


async def test_cookies_stay_the_sessions_business(request_: CreateSessionPassRequest) -> None:
    """A jar gets what answers set, and its cookies are sent."""
    heads: list[bytes] = []

    async def behave(connection: Connection) -> None:
        heads.append(connection.head)
        headers = "Set-Cookie: a=b\r\n"
        await connection.reply(connection.good_status, connection.act(), headers)

    async with RawServer(always=behave) as server:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as mine:
            async with EquosClient(KEY, endpoint=server.endpoint, http_session=mine) as client:
                await client.start_session(request_)
                await client.start_session(request_)
        assert [b"Cookie: a=b" in head for head in heads] == [False, True]


async def test_a_lent_connection_that_speaks_unasked(request_: CreateSessionPassRequest) -> None:
    """Not for ever: a server that always does so is given up on."""

    async def banner(connection: Connection) -> None:
        await connection.send(b"hello\r\n")
        await connection.gone()

    async with RawServer(on_accept=[banner] * 400) as server, aiohttp.ClientSession() as mine:
        async with EquosClient(KEY, endpoint=server.endpoint, http_session=mine) as client:
            with pytest.raises((APIConnectionError, StartOutcomeUnknownError)):
                await client.start_session(request_, deadline=1)
        assert server.live == set()


async def test_a_lent_session_that_is_closed_first(request_: CreateSessionPassRequest) -> None:
    """Nothing goes through it any more: what runs is told at once, and closing waits for nobody."""
    async with RawServer() as server:
        async with aiohttp.ClientSession() as mine:
            client = EquosClient(KEY, endpoint=server.endpoint, http_session=mine)
            block = client.session(request_)
            await block.__aenter__()
        with pytest.raises(APIConnectionError, match="http_session is closed: close the client"):
            await client.start_session(request_)
        with pytest.raises(APIConnectionError, match="http_session is closed: close the client"):
            await block.__aexit__(None, None, None)
        assert [one.session_id for one in await client.aclose()] == ["s-0"]


def test_a_connection_without_a_socket() -> None:
    """A connector of somebody's own may have such: there is nothing to look at."""
    assert not pool.watch(asyncio.Transport())()


async def test_too_many_that_speak_unasked() -> None:
    """The search ends."""

    class Loud:
        protocol = None
        transport = None

        def close(self) -> None:
            closed.append(self)

    async def dial() -> Any:
        return Loud()

    closed: list[Loud] = []
    with pytest.raises(aiohttp.ClientConnectionError, match="before any request"):
        await pool.connect(dial, pool.Inspector())
    assert len(closed) == pool.MAX_UNASKED


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("way", ["own", "trust_env", "auth"])
async def test_other_credentials_never_meet_ours(
    way: str, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a netrc's nor a session's take the place of our key, or keep a stop from leaving."""
    (tmp_path / "netrc").write_text("default login bob password pw\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("no_proxy", "*")
    heads: list[bytes] = []

    async def behave(connection: Connection) -> None:
        heads.append(connection.head)
        await connection.reply(connection.good_status, connection.act())

    mine: aiohttp.ClientSession | None = None
    if way == "trust_env":
        mine = aiohttp.ClientSession(trust_env=True)
    elif way == "auth":
        with pytest.warns(DeprecationWarning, match="auth"):
            mine = aiohttp.ClientSession(auth=aiohttp.BasicAuth("u", "p"))
    async with RawServer(always=behave) as server:
        async with kind.client(
            server.endpoint, trust_env=mine is None, http_session=mine
        ) as client:
            await kind.stop(client, "g-1")
    if mine is not None:
        await mine.close()
    (head,) = heads
    if kind is SESSION:
        assert head.count(b"Authorization:") == 1
        assert f"Authorization: Bearer {KEY}\r\n".encode() in head
    else:  # what its owner gave a session goes out beside the server key, and a netrc's does not
        assert head.count(b"Authorization: Basic") == (way == "auth")
        assert f"X-Api-Key: {API_KEY}\r\n".encode() in head


@pytest.mark.parametrize("user", ["", "u:p@"])
async def test_a_proxy_from_the_environment(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked, with its own credentials, and gets ours to hand on."""
    heads: list[bytes] = []

    async def behave(connection: Connection) -> None:
        heads.append(connection.head)
        await connection.reply(200, b"")

    async with RawServer(always=behave) as server:
        monkeypatch.setenv("http_proxy", f"http://{user}127.0.0.1:{server.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with EquosClient(
            KEY, endpoint="http://api.test", trust_env=True, allow_insecure_http=True
        ) as client:
            await client.stop_session("g-1")
            await client.stop_session("g-2")
    assert [head.split()[1] for head in heads] == [
        f"http://api.test/v3/session-passes/g-{number}/stop".encode() for number in (1, 2)
    ]
    login = base64.b64encode(b"u:p")
    for head in heads:
        assert f"Authorization: Bearer {KEY}\r\n".encode() in head
        assert (b"Proxy-Authorization: Basic " + login in head) is bool(user)


@pytest.mark.parametrize(("status", "attempts"), [(407, 1), (403, 1), (429, 3), (502, 3)])
async def test_a_proxy_that_refuses(
    status: int, attempts: int, monkeypatch: pytest.MonkeyPatch, request_: CreateSessionPassRequest
) -> None:
    """Nothing was sent; where its answer to CONNECT will not change it is asked once."""

    async def refuse(connection: Connection) -> None:
        await connection.reply(status, b"", "Proxy-Authenticate: Basic\r\n")

    async with RawServer(always=refuse) as server:
        monkeypatch.setenv("https_proxy", f"http://u:hunter2@127.0.0.1:{server.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        client = EquosClient(
            KEY,
            endpoint="https://api.test",
            trust_env=True,
            clock=SkippingClock(),
            retry=RetryPolicy(stop_attempts=3),
        )
        with pytest.raises(APIConnectionError, match="nothing was sent") as start:
            await client.start_session(request_)
        with pytest.raises(APIConnectionError, match="nothing was sent") as stop:
            await client.stop_session("g-1")
        asked = server.requests
        await client.aclose(deadline=0)
    assert (start.value.attempts, stop.value.attempts) == (attempts, attempts)
    assert asked >= 2 * attempts
    for one in (start, stop):
        assert f"the proxy answered with status {status}" in str(one.value)
        assert "hunter2" not in str(one.value)


@pytest.mark.parametrize("host", ["localhost", "name.invalid"])
async def test_names_are_looked_up_in_threads_of_our_own(host: str) -> None:
    """The program's may all be busy."""
    loop, over = asyncio.get_running_loop(), threading.Event()
    busy = [loop.run_in_executor(None, over.wait, 60) for _ in range(64)]
    try:
        async with RawServer() as server:
            endpoint = f"http://{host}:{server.port}"
            async with EquosClient(KEY, endpoint=endpoint, allow_insecure_http=True) as client:
                if host == "localhost":
                    await asyncio.wait_for(client.stop_session("g-1"), 30)
                    assert server.requests == 1
                else:
                    with pytest.raises(APIConnectionError, match="nothing was sent"):
                        await client.stop_session("g-1", deadline=0.2)
                    await client.aclose(deadline=0)
    finally:
        over.set()
        await asyncio.gather(*busy)


class TestTheParser:
    """What cannot be called in time is tried once."""

    def test_the_slow_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without aiohttp's extensions there is nothing to gain."""
        monkeypatch.setattr(gate, "HttpResponseParser", HttpResponseParserPy)
        assert "not the one in C" in str(wires.find_misfit())

    @pytest.mark.parametrize(
        ("answer", "reason"), [(b"", "something else"), (None, r"does not work .*ValueError")]
    )
    def test_another_one(
        self, answer: bytes | None, reason: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is given an answer to read."""

        def read(_: aiohttp.StreamReader, __: int = -1) -> bytes:
            if answer is None:
                raise ValueError
            return answer

        monkeypatch.setattr(aiohttp.StreamReader, "read_nowait", read)
        misfit = wires.find_misfit()
        monkeypatch.undo()
        assert misfit is not None
        assert reason.split(" .*", maxsplit=1)[0] in misfit
