"""Rules for requests and their addresses, and for answers."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from equos_async import APIStatusError, CreateSessionPassRequest, EquosClient, EquosError
from tests.conftest import API_KEY, KEY
from tests.faults.server import Connection, RawServer, good
from tests.kinds import KINDS, Kind


def spying(heads: list[bytes], bodies: list[bytes]) -> Any:
    """A behaviour that keeps what was sent."""

    async def spy(connection: Connection) -> None:
        heads.append(connection.head)
        bodies.append(connection.body)
        await connection.reply(
            connection.good_status, connection.act(), "Set-Cookie: id=1; Path=/\r\n"
        )

    return spy


AUTHORIZED = {"session": f"Authorization: Bearer {KEY}", "conversation": f"X-Api-Key: {API_KEY}"}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("injected", [False, True])
async def test_what_is_sent(injected: bool, kind: Kind) -> None:
    """The headers of both operations, a stop's ``{}``, and no cookie that a server set."""
    heads: list[bytes] = []
    bodies: list[bytes] = []
    jar = aiohttp.DummyCookieJar()
    async with (
        RawServer(always=spying(heads, bodies)) as server,
        aiohttp.ClientSession(cookie_jar=jar, raise_for_status=True) as mine,
        kind.client(server.endpoint, http_session=mine if injected else None) as client,
    ):
        await kind.stop(client, await kind.started_id(client))
    for head in heads:
        lines = head.decode().split("\r\n")
        assert AUTHORIZED[kind.word] in lines
        assert "Content-Type: application/json" in lines
        assert "Accept: application/json" in lines
        assert "Accept-Encoding: identity" in lines
        assert any(line.startswith("User-Agent: equos-async/") for line in lines)
        assert not any(line.lower().startswith(("cookie:", "transfer-encoding:")) for line in lines)
        names = [line.split(":")[0].lower() for line in lines if line]
        assert len(names) == len(set(names))
    assert json.loads(bodies[0])["name"] == "support call"
    assert bodies[1] == b"{}"


@pytest.mark.parametrize(
    ("session_id", "path"),
    [
        ("a/../b", "/v3/session-passes/a%2F..%2Fb/stop"),
        ("a?b#c", "/v3/session-passes/a%3Fb%23c/stop"),
        ("a%2Fb", "/v3/session-passes/a%252Fb/stop"),
        ("ä b", "/v3/session-passes/%C3%A4%20b/stop"),
        ("...", "/v3/session-passes/.../stop"),
    ],
)
async def test_an_id_is_one_segment(session_id: str, path: str) -> None:
    """With any content the server reads one segment at the right position."""
    async with RawServer() as server:
        async with EquosClient(KEY, endpoint=server.endpoint) as client:
            await client.stop_session(session_id)
        assert server.paths == [path]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("injected", [False, True])
async def test_redirects_are_never_followed(
    status: int, injected: bool, request_: CreateSessionPassRequest
) -> None:
    """Neither the key nor the request is sent to the address in an answer."""
    async with RawServer() as target, RawServer() as server, aiohttp.ClientSession() as mine:

        async def away(connection: Connection) -> None:
            await connection.reply(
                status, b"", f"Location: {target.endpoint}/v3/session-passes\r\n"
            )

        server.always = away
        async with EquosClient(
            KEY, endpoint=server.endpoint, http_session=mine if injected else None
        ) as client:
            with pytest.raises(EquosError):
                await client.start_session(request_)
            with pytest.raises(APIStatusError):
                await client.stop_session("g-1")
        assert target.accepted == 0
        assert server.requests == 2


async def test_proxies_of_the_environment_are_not_used_unless_asked(
    monkeypatch: pytest.MonkeyPatch, request_: CreateSessionPassRequest
) -> None:
    """A variable in the environment does not send the key through an unknown proxy."""
    async with RawServer() as proxy, RawServer() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with EquosClient(KEY, endpoint=server.endpoint) as client:
            await client.start_session(request_)
        assert (proxy.requests, server.requests) == (0, 1)
        async with EquosClient(KEY, endpoint=server.endpoint, trust_env=True) as client:
            await client.start_session(request_)
        assert (proxy.requests, server.requests) == (1, 1)


async def test_a_long_answer_is_cut_and_its_connection_closed(
    request_: CreateSessionPassRequest,
) -> None:
    """A mebibyte is read at most, of an error as of anything else."""

    async def verbose(connection: Connection) -> None:
        await connection.reply(400, b'{"message":"' + b"x" * (3 << 20) + b'"}')
        await good(connection)

    async with RawServer([verbose]) as server:
        async with EquosClient(KEY, endpoint=server.endpoint) as client:
            with pytest.raises(APIStatusError) as caught:
                await client.start_session(request_)
            assert len(caught.value.body) == len(caught.value.message) == 2048
            await client.stop_session("g-1")
        assert server.accepted == 2
