"""Settings for the client's own session: headers, a proxy, TLS."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import traceback
from typing import Any

import aiohttp
import pytest
import trustme

from equos_async import APIConnectionError, ConfigurationError, EquosClient, EquosError
from tests.clocks import SkippingClock
from tests.conftest import API_KEY, KEY, REQUEST
from tests.faults.server import Behaviour, Connection, RawServer, error_body
from tests.faults.test_tls import serving, trusting

NOWHERE = "http://127.0.0.1:9"


def keeping(heads: list[str]) -> Behaviour:
    """A good server that keeps what it was asked."""

    async def behave(connection: Connection) -> None:
        heads.append(connection.head.decode())
        await connection.reply(connection.good_status, connection.act())

    return behave


class TestHeaders:
    """They go with each request, on both wires and an injected session."""

    @pytest.mark.parametrize("injected", [False, True])
    async def test_they_are_sent(self, injected: bool) -> None:
        """As they were when the client was made."""
        heads: list[str] = []
        given = {"X-Tenant": "acme 1", "CF-Access": "x"}
        async with (
            RawServer(always=keeping(heads)) as server,
            aiohttp.ClientSession(headers={"X-Tenant": "theirs"}) as mine,
            EquosClient(
                KEY,
                api_key=API_KEY,
                headers=given,
                endpoint=server.endpoint,
                http_session=mine if injected else None,
            ) as client,
        ):
            given.clear()
            await client.stop_session("s-1")
            await client.stop_conversation("c-1")
            await client.get_session("s-1")
        assert len(heads) == 3
        for head in heads:
            assert "\r\nX-Tenant: acme 1\r\n" in head
            assert "\r\nCF-Access: x\r\n" in head
            assert head.count("X-Tenant") == 1

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": "x"},
            {"X-API-Key": "x"},
            {"User-Agent": "x"},
            {"content-type": "x"},
            {"Host": "x"},
            {"Content-Length": "1"},
            {"Transfer-Encoding": "chunked"},
            {"Expect": "100-continue"},
            {"X-A": "1", "x-a": "2"},
            {"X A": "1"},
            {"": "1"},
            {7: "1"},
            {"X-A": "a\r\nX-B: secret-value"},
            {"X-A": " secret-value"},
            {"X-A": "secret-värde"},
            {"X-A": 7},
            ["X-A"],
            "X-A: secret-value",
        ],
    )
    def test_bad_ones(self, headers: Any) -> None:
        """They are refused, without their values."""
        with pytest.raises(ConfigurationError, match="^headers") as caught:
            EquosClient(KEY, headers=headers)
        assert "secret" not in str(caught.value)

    def test_values_do_not_show(self) -> None:
        """They may be secrets: no frame of another mistake shows them."""
        with pytest.raises(ConfigurationError) as caught:
            EquosClient(KEY, headers={"X-A": "secret-value"}, endpoint="nowhere")
        assert "secret-value" not in frames_of(caught.value)


def frames_of(error: BaseException) -> str:
    """A traceback with the locals of all frames that are not a test's."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if "/tests/" not in frame.filename]
    )
    return "".join(shown.format())


class TestProxy:
    """It is for the client's own session, and only the proxy gets its credentials."""

    @pytest.mark.parametrize("user", ["", "u:secret%2Fword@"])
    async def test_it_is_asked(self, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """It gets its own credentials, and forwards ours; the environment is not used."""
        heads: list[str] = []
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        async with RawServer(always=keeping(heads)) as server:
            client = EquosClient(
                KEY,
                endpoint="http://api.test",
                proxy=f"http://{user}127.0.0.1:{server.port}",
                trust_env=True,
                allow_insecure_http=True,
            )
            async with client:
                started = await client.start_session(REQUEST)
                await client.stop_session(started.session.id)
        login = base64.b64encode(b"u:secret/word").decode()
        assert len(heads) == 2
        for head in heads:
            assert "http://api.test/v3/session-passes" in head
            assert f"\r\nAuthorization: Bearer {KEY}\r\n" in head
            assert (f"\r\nProxy-Authorization: Basic {login}\r\n" in head) is bool(user)

    async def test_it_opens_a_tunnel(self) -> None:
        """To a server with TLS, whose key it never sees."""
        ca, heads, asked = trustme.CA(), list[str](), list[str]()

        async with RawServer(always=keeping(heads), context=serving(ca)) as server:

            async def tunnel(connection: Connection) -> None:
                asked.append(connection.head.decode())
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
                await asyncio.gather(
                    copy(connection.reader, writer), copy(reader, connection.writer)
                )

            async with RawServer(always=tunnel) as proxy:
                client = EquosClient(
                    KEY,
                    endpoint=server.endpoint,
                    ssl=trusting(ca),
                    proxy=f"http://u:p@127.0.0.1:{proxy.port}",
                )
                async with client:
                    await client.stop_session("s-1")
        (head,), (connect,) = heads, asked
        assert f"Bearer {KEY}" in head
        assert "Proxy-Authorization" not in head
        assert connect.startswith(f"CONNECT 127.0.0.1:{server.port} ")
        assert KEY not in connect
        assert f"Proxy-Authorization: Basic {base64.b64encode(b'u:p').decode()}\r\n" in connect

    async def test_one_that_refuses(self, caplog: pytest.LogCaptureFixture) -> None:
        """Its text is masked, and so are its credentials in all messages."""
        caplog.set_level(logging.DEBUG)

        async def refuse(connection: Connection) -> None:
            words = f"not secret-word as in {connection.head.decode()}"
            await connection.reply(407, error_body(407, words))

        async with RawServer(always=refuse) as server:
            client = EquosClient(
                KEY,
                endpoint="http://api.test",
                proxy=f"http://user:secret-word@127.0.0.1:{server.port}",
                allow_insecure_http=True,
            )
            async with client:
                with pytest.raises(EquosError) as caught:
                    await client.start_session(REQUEST)
            assert server.requests == 1
        login = base64.b64encode(b"user:secret-word").decode()
        for text in (str(vars(caught.value)), frames_of(caught.value), repr(client), caplog.text):
            assert "secret-word" not in text
            assert login not in text

    async def test_nobody_there(self) -> None:
        """Nothing was sent, and it is tried again."""
        client = EquosClient(KEY, proxy="http://u:secret-word@127.0.0.1:9", clock=SkippingClock())
        async with client:
            with pytest.raises(APIConnectionError, match="nothing was sent") as caught:
                await client.start_session(REQUEST)
        assert caught.value.attempts == 3
        assert "secret-word" not in str(caught.value)

    @pytest.mark.parametrize(
        "proxy",
        [
            "",
            "proxy.test:3128",
            "socks5://proxy.test",
            "http://",
            "http://u:secret-word@proxy.test:port",
            "http://u:secret word@proxy.test",
            "http://proxy.test/path",
            "http://proxy.test?x",
            "http://proxy.test#x",
            "http://[::1",
            7,
        ],
    )
    def test_bad_ones(self, proxy: Any) -> None:
        """They are refused, and not quoted."""
        with pytest.raises(ConfigurationError, match="^proxy must") as caught:
            EquosClient(KEY, proxy=proxy)
        assert "secret" not in frames_of(caught.value)

    @pytest.mark.parametrize(
        ("proxy", "url"),
        [
            ("https://proxy.test", "https://proxy.test"),
            ("http://user@[::1]:3128/", "http://[::1]:3128"),
        ],
    )
    async def test_good_ones(self, proxy: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The session gets the address without the credentials."""
        told: list[str] = []

        async def request(*_: object, **options: Any) -> None:
            told.append(str(options["proxy"]))
            raise aiohttp.ClientConnectionError

        monkeypatch.setattr(aiohttp.ClientSession, "request", request)
        async with EquosClient(KEY, proxy=proxy, clock=SkippingClock()) as client:
            with pytest.raises(APIConnectionError):
                await client.start_session(REQUEST)
        assert set(told) == {url}


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward all bytes, to the end."""
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


class TestTls:
    """A context says what TLS is to be like."""

    async def test_a_private_authority(self) -> None:
        """It is trusted by that client; another one trusts as by default."""
        ca = trustme.CA()
        async with RawServer(context=serving(ca)) as server:
            async with EquosClient(KEY, endpoint=server.endpoint, ssl=trusting(ca)) as client:
                started = await client.start_session(REQUEST)
                await client.stop_session(started.session.id)
            async with EquosClient(KEY, endpoint=server.endpoint) as client:
                with pytest.raises(APIConnectionError):
                    await client.start_session(REQUEST)
            assert (server.requests, server.live) == (2, set())

    @pytest.mark.parametrize("value", [False, True, "ca.pem"])
    def test_nothing_else(self, value: Any) -> None:
        """There is no switch that turns it off."""
        with pytest.raises(ConfigurationError, match="ssl must be of type SSLContext"):
            EquosClient(KEY, ssl=value)


@pytest.mark.parametrize("settings", [{"proxy": NOWHERE}, {"ssl": ssl.create_default_context()}])
async def test_an_injected_session_is_set_up_by_its_owner(settings: dict[str, Any]) -> None:
    """To take both would leave open which of them counts."""
    async with aiohttp.ClientSession() as mine:
        with pytest.raises(ConfigurationError, match="proxy and ssl.*http_session"):
            EquosClient(KEY, http_session=mine, **settings)
