"""Which requests take the direct wire, and that a server sees no difference."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.connector import Connection as Pooled
from aioresponses import aioresponses
from multidict import CIMultiDict

from equos_async import CreateSessionPassRequest, EquosClient, Limits, __version__
from equos_async._http import direct, gate
from equos_async._http.exchange import Exchange
from equos_async._http.request import Request
from tests import wires
from tests.conftest import KEY
from tests.faults.server import Connection, RawServer


def request(size: int = 2) -> Request:
    """A request with so large a body."""
    return Request(method="POST", url="http://x.test/", headers=CIMultiDict(), body=b"x" * size)


class TestWhatTheSessionWouldDo:
    """A request takes the direct wire only if the session would do nothing else for it."""

    async def test_a_plain_session_admits(self) -> None:
        """Nothing is in the way of a session as the client makes it."""
        async with aiohttp.ClientSession() as session:
            assert gate.Gate(session).admits(request())

    async def test_a_large_body_has_to_listen(self) -> None:
        """A large body, which may be answered before it is read, goes through the session."""
        async with aiohttp.ClientSession() as session:
            assert gate.Gate(session).admits(request(gate.MAX_BODY))
            assert not gate.Gate(session).admits(request(gate.MAX_BODY + 1))

    @pytest.mark.parametrize(
        "options", [{"trust_env": True}, {"trace_configs": [aiohttp.TraceConfig()]}]
    )
    async def test_what_the_session_would_do_is_not_missed(self, options: Any) -> None:
        """Proxies from the environment and traces are the session's business."""
        async with aiohttp.ClientSession(**options) as session:
            assert not gate.Gate(session).admits(request())

    async def test_a_double_of_the_session_is_not_passed_by(self) -> None:
        """A test double may come and go at any time."""
        async with aiohttp.ClientSession() as session:
            with aioresponses():
                assert not gate.Gate(session).admits(request())
            assert gate.Gate(session).admits(request())

    async def test_what_wrapped_the_session_first_is_not_passed_by(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A monitor is there before the program is imported."""
        inner = aiohttp.ClientSession._request  # noqa: SLF001 - what monitors wrap

        @functools.wraps(inner)
        async def monitored(*args: Any, **kwargs: Any) -> Any:
            return await inner(*args, **kwargs)

        spec = importlib.util.spec_from_file_location("equos_async._http.again", gate.__file__)
        assert spec is not None
        assert spec.loader is not None
        again = importlib.util.module_from_spec(spec)
        async with aiohttp.ClientSession() as session:
            with monkeypatch.context() as patch:
                patch.setattr(aiohttp.ClientSession, "_request", monitored)
                spec.loader.exec_module(again)
                assert not again.Gate(session).admits(request())
            assert again.Gate(session).admits(request())

    async def test_a_class_of_somebody_else_is_not_passed_by(self) -> None:
        """A double may be a session whose class is another."""
        with pytest.warns(DeprecationWarning, match="discouraged"):

            class Double(aiohttp.ClientSession):
                async def _request(self, *args: Any, **kwargs: Any) -> Any:
                    raise NotImplementedError

        async with Double() as session:
            assert not gate.Gate(session).admits(request())


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of the requests that took the direct wire."""
    methods: list[str] = []
    carry = direct.DirectWire.carry

    async def spy(self: direct.DirectWire, exchange: Exchange) -> None:
        methods.append(exchange.request.method)
        await carry(self, exchange)

    monkeypatch.setattr(direct.DirectWire, "carry", spy)
    return methods


async def start_and_stop(server: RawServer, request: CreateSessionPassRequest) -> None:
    """A pair of calls of a new client."""
    async with EquosClient(KEY, endpoint=server.endpoint) as client:
        started = await client.start_session(request)
        await client.stop_session(started.session.id)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, str]]:
    """The log records for users."""
    return [record for record in caplog.record_tuples if record[1] >= logging.INFO]


async def changed(self: object, *, new: object) -> None:
    """A method that takes what no caller of today knows."""


def not_awaited(*_: object, **__: object) -> None:
    """A method that takes anything, and is not a coroutine function."""


MISFITS: list[tuple[type, str, Callable[..., Any] | None, str]] = [
    (aiohttp.StreamReader, "is_eof", changed, "StreamReader.is_eof takes other arguments"),
    (aiohttp.BaseConnector, "connect", changed, "BaseConnector.connect takes other arguments"),
    (aiohttp.ClientRequest, "__init__", changed, "ClientRequest.__init__ takes other arguments"),
    (aiohttp.BaseConnector, "connect", not_awaited, "BaseConnector.connect is not a coroutine"),
    (Pooled, "release", None, "Connection has no method release"),
    (Pooled, "protocol", None, "Connection has no attribute protocol"),
]


class TestTheInstalledAiohttp:
    """The direct wire is taken if the parts fit, whatever the version is."""

    async def test_it_fits(
        self,
        carried: list[str],
        caplog: pytest.LogCaptureFixture,
        request_: CreateSessionPassRequest,
    ) -> None:
        """Nothing is pretended here: what is installed is what counts."""
        caplog.set_level(logging.INFO, "equos_async")
        async with RawServer() as server:
            await start_and_stop(server, request_)
        assert carried == ["POST", "PATCH"]
        assert told(caplog) == []

    async def test_a_later_release_fits(
        self,
        carried: list[str],
        request_: CreateSessionPassRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A patch release costs no speed."""
        monkeypatch.setattr(aiohttp, "__version__", "3.14.99")
        async with RawServer() as server:
            await start_and_stop(server, request_)
        assert carried == ["POST", "PATCH"]

    @pytest.mark.parametrize("version", ["4.0.0a2", "10.1.0", "dev"])
    async def test_a_major_release_does_not(
        self,
        version: str,
        carried: list[str],
        caplog: pytest.LogCaptureFixture,
        request_: CreateSessionPassRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its requests go through the session, and one log record of each client says why."""
        caplog.set_level(logging.INFO, "equos_async")
        monkeypatch.setattr(aiohttp, "__version__", version)
        async with RawServer() as server:
            await start_and_stop(server, request_)
            assert server.requests == 2
        assert carried == []
        text = "requests take the slower way through aiohttp's session: "
        reason = f"aiohttp {version} is not below 4"
        assert told(caplog) == [("equos_async", logging.INFO, text + reason)]

    @pytest.mark.parametrize(("owner", "name", "part", "reason"), MISFITS)
    async def test_a_part_that_changed(
        self,
        owner: type,
        name: str,
        part: Callable[..., Awaitable[Any]] | None,
        reason: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The part is named."""
        if part is None:
            monkeypatch.delattr(owner, name)
        else:
            monkeypatch.setattr(owner, name, part)
        misfit = gate.find_misfit()
        monkeypatch.undo()
        assert misfit is not None
        assert misfit.startswith(f"in aiohttp {aiohttp.__version__}, {reason}")

    async def test_a_changed_signature_takes_the_session(
        self,
        carried: list[str],
        caplog: pytest.LogCaptureFixture,
        request_: CreateSessionPassRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Aiohttp itself knows how its parts fit together."""
        inner = aiohttp.StreamReader.read_nowait

        def renamed(self: aiohttp.StreamReader, n: int = -1) -> bytes:
            return inner(self, n)

        def strict(self: aiohttp.StreamReader, *, limit: int) -> bytes:
            raise AssertionError

        caplog.set_level(logging.INFO, "equos_async")
        monkeypatch.setattr(aiohttp.StreamReader, "read_nowait", renamed)
        # What is called takes anything, what is looked at does not: aiohttp goes on working.
        monkeypatch.setattr(renamed, "__wrapped__", strict, raising=False)
        async with RawServer() as server:
            await start_and_stop(server, request_)
            assert server.requests == 2
        assert carried == []
        ((_, _, line),) = told(caplog)
        assert "StreamReader.read_nowait takes other arguments" in line


def head(line: str, port: int, length: int, close: bool) -> bytes:
    """The head of a request, as it has been since the first release."""
    lines = [
        f"{line} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Accept: application/json",
        "Content-Type: application/json",
        "Accept-Encoding: identity",
        f"Authorization: Bearer {KEY}",
        f"User-Agent: equos-async/{__version__}",
        f"Content-Length: {length}",
        *(["Connection: close"] if close else []),
        "\r\n",
    ]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("wire", [*wires.WIRES, "injected"])
@pytest.mark.parametrize("keepalive", [4.0, 0.0])
async def test_every_way_sends_the_same(
    keepalive: float,
    wire: str,
    request_: CreateSessionPassRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the server it makes no difference which wire was taken, byte for byte."""
    sent: list[tuple[bytes, bytes]] = []

    async def spy(connection: Connection) -> None:
        sent.append((connection.head, connection.body))
        await connection.reply(connection.good_status, connection.act())

    wires.take(wire, monkeypatch)
    connector = aiohttp.TCPConnector(force_close=not keepalive)
    async with RawServer(always=spy) as server, aiohttp.ClientSession(connector=connector) as mine:
        async with EquosClient(
            KEY,
            endpoint=server.endpoint + "/a%20path",
            limits=Limits(keepalive=keepalive),
            http_session=mine if wire == "injected" else None,
        ) as client:
            await client.start_session(request_)
            await client.stop_session("g-1/ü")
    body = (
        b'{"name":"support call","avatar":{"id":"av_1"},"agent":{"id":"ag_1"},'
        b'"consumerIdentity":{"identity":"user-7","name":"Ada"},"client":"tenant-42",'
        b'"maxDuration":600}'
    )
    path = "/a%20path/v3/session-passes"
    stop = f"PATCH {path}/g-1%2F%C3%BC/stop"
    assert sent == [
        (head(f"POST {path}", server.port, len(body), not keepalive), body),
        (head(stop, server.port, 2, not keepalive), b"{}"),
    ]


def heads(count: int, value: str = "y") -> list[bytes]:
    """Heads of requests with fields of their own each."""
    target = direct.Target("http://x.test", close=False, loop=asyncio.get_running_loop())
    fields = [CIMultiDict({"X": value}) for _ in range(count)]
    return [target.head("GET", "/", each, 0) for each in fields]


async def test_heads_are_not_kept_for_ever() -> None:
    """Many requests with headers of their own do not fill the memory, and none gets another's."""
    assert set(heads(2 * direct.MAX_HEADS)) == {
        b"GET / HTTP/1.1\r\nHost: x.test\r\nX: y\r\nContent-Length: 0\r\n\r\n"
    }


@pytest.mark.parametrize("value", ["a\nb: c", "a\rb", "a\r\nb: c", "a\0"])
async def test_a_field_is_one_line(value: str) -> None:
    """Nothing in a header can begin another."""
    with pytest.raises(ValueError, match="line break"):
        heads(1, value)
