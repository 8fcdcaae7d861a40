"""TLS: the wrong peer is refused at once, a slow one in time, and nothing is sent to either."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import aiohttp
import pytest
import trustme

from equos_async import (
    APIConnectionError,
    APITimeoutError,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
)
from tests.clocks import SkippingClock
from tests.conftest import KEY
from tests.faults.server import Connection, RawServer
from tests.faults.test_matrix import TIMEOUTS


def serving(ca: trustme.CA, host: str = "127.0.0.1", *, expired: bool = False) -> ssl.SSLContext:
    """A server's context with a certificate of a CA's."""
    past = datetime(2020, 1, 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert = ca.issue_cert(host, not_after=past if expired else None)
    cert.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] - takes PyOpenSSL's too
    return context


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts a CA."""
    context = ssl.create_default_context()
    ca.configure_trust(context)  # pyright: ignore[reportUnknownMemberType] - takes PyOpenSSL's too
    return context


@pytest.mark.parametrize(
    ("host", "expired", "trusted"),
    [("127.0.0.1", False, False), ("127.0.0.1", True, True), ("other.test", False, True)],
    ids=["untrusted", "expired", "wrong host"],
)
async def test_the_wrong_certificate(
    host: str, expired: bool, trusted: bool, request_: CreateSessionPassRequest
) -> None:
    """It is refused at once, for a start and for a stop: one attempt, and nothing is sent."""
    ca = trustme.CA()
    context = trusting(ca if trusted else trustme.CA())
    async with RawServer(context=serving(ca, host, expired=expired)) as server:
        connector = aiohttp.TCPConnector(ssl=context)
        async with (
            aiohttp.ClientSession(connector=connector) as http_session,
            EquosClient(KEY, endpoint=server.endpoint, http_session=http_session) as client,
        ):
            for work in (client.start_session(request_), client.stop_session("g-1")):
                with pytest.raises(APIConnectionError, match="Certificate.*nothing was sent") as e:
                    await work
                assert e.value.attempts == 1
        assert server.requests == 0


async def test_tls_is_on_and_cannot_be_turned_off(request_: CreateSessionPassRequest) -> None:
    """The client's own session checks certificates: one from an unknown authority is refused."""
    async with RawServer(context=serving(trustme.CA())) as server:
        async with EquosClient(KEY, endpoint=server.endpoint) as client:
            with pytest.raises(APIConnectionError, match="Certificate"):
                await client.start_session(request_)
        assert server.requests == 0


PROGRAM = """
import asyncio
import sys

from equos_async import EquosClient
from tests.conftest import KEY, REQUEST

async def main(endpoint, through):
    client = EquosClient(KEY, endpoint=endpoint, trust_env=through == "session")
    async with client, client.session(REQUEST) as started:
        print(started.session.id)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_session_of_its_own(wire: str, tmp_path: Path) -> None:
    """Where the system vouches for the server, a connection is made once and kept."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    # What the system vouches for is read once, when aiohttp is imported.
    environment = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    environment["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    async with RawServer(context=serving(ca)) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", PROGRAM, server.endpoint, wire),
            env=environment,
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert (process.returncode, out) == (0, b"s-0\n")
        assert (server.made, server.live, server.accepted) == (["s-0"], set(), 1)


async def test_the_right_certificate(request_: CreateSessionPassRequest) -> None:
    """Over TLS all is as it is without."""
    ca = trustme.CA()
    async with RawServer(context=serving(ca)) as server:
        connector = aiohttp.TCPConnector(ssl=trusting(ca))
        async with (
            aiohttp.ClientSession(connector=connector) as http_session,
            EquosClient(KEY, endpoint=server.endpoint, http_session=http_session) as client,
            client.session(request_) as started,
        ):
            assert server.live == {started.session.id}
        assert server.live == set()


async def test_a_handshake_that_hangs(request_: CreateSessionPassRequest) -> None:
    """The connect timeout ends it, every attempt, and nothing was sent."""

    async def hang(connection: Connection) -> None:
        await connection.gone()

    async with RawServer(on_accept=[hang] * 20) as server:
        endpoint = server.endpoint.replace("http://", "https://")
        async with EquosClient(
            KEY, endpoint=endpoint, clock=SkippingClock(), timeouts=TIMEOUTS
        ) as client:
            with pytest.raises(APITimeoutError, match="nothing was sent") as caught:
                await client.start_session(request_)
        assert caught.value.attempts == 3
        assert server.requests == 0


async def test_no_tls_where_tls_is_expected(request_: CreateSessionPassRequest) -> None:
    """A plain server on an https:// endpoint is an error of ours."""

    async def plain(connection: Connection) -> None:
        await connection.reply(400, b"plain HTTP")

    async with RawServer(on_accept=[plain] * 20) as server:
        endpoint = server.endpoint.replace("http://", "https://")
        async with EquosClient(
            KEY, endpoint=endpoint, clock=SkippingClock(), timeouts=TIMEOUTS
        ) as client:
            with pytest.raises(EquosError, match="nothing was sent"):
                await client.start_session(request_)
        assert server.requests == 0
