"""The express way: who may take it, and what it puts on the wire."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses

from equos_async import CreateSessionPassRequest, EquosClient, Limits, express
from tests.conftest import KEY
from tests.faults.server import Connection, RawServer


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed release of aiohttp, whichever it is, is one that is trusted."""
    monkeypatch.setattr(express, "TESTED", {aiohttp.__version__})


async def test_a_plain_session_is_open() -> None:
    """Nothing is in the way of a session as the client makes it."""
    async with aiohttp.ClientSession() as session:
        assert express.is_plain(session, 2)


async def test_a_large_body_has_to_listen() -> None:
    """What may be answered before it was read whole goes through the session."""
    async with aiohttp.ClientSession() as session:
        assert express.is_plain(session, express.MAX_BODY)
        assert not express.is_plain(session, express.MAX_BODY + 1)


@pytest.mark.parametrize(
    "options", [{"trust_env": True}, {"trace_configs": [aiohttp.TraceConfig()]}]
)
async def test_what_the_session_would_do_is_not_missed(options: dict[str, object]) -> None:
    """Proxies from the environment and traces are the session's business."""
    async with aiohttp.ClientSession(**options) as session:  # type: ignore[arg-type]
        assert not express.is_plain(session, 2)


async def test_a_double_of_the_session_is_not_passed_by() -> None:
    """A test double may come and go at any time."""
    async with aiohttp.ClientSession() as session:
        with aioresponses():
            assert not express.is_plain(session, 2)
        assert express.is_plain(session, 2)


async def test_what_wrapped_the_session_first_is_not_passed_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A monitor is there before the program is imported."""
    inner = aiohttp.ClientSession._request  # noqa: SLF001 - aiohttp's, as monitors wrap it

    @functools.wraps(inner)
    async def monitored(*args: Any, **kwargs: Any) -> Any:
        return await inner(*args, **kwargs)

    spec = importlib.util.spec_from_file_location("equos_async.again", express.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    async with aiohttp.ClientSession() as session:
        with monkeypatch.context() as patch:
            patch.setattr(aiohttp.ClientSession, "_request", monitored)
            spec.loader.exec_module(again)
            monkeypatch.setattr(again, "TESTED", express.TESTED)
            assert not again.is_plain(session, 2)
        assert again.is_plain(session, 2)


async def test_a_class_of_somebody_else_is_not_passed_by() -> None:
    """A double may be a session whose class is another."""
    with pytest.warns(DeprecationWarning, match="discouraged"):

        class Double(aiohttp.ClientSession):
            async def _request(self, *args: Any, **kwargs: Any) -> Any:
                raise NotImplementedError

    async with Double() as session:
        assert not express.is_plain(session, 2)


async def test_another_release_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that the parts were not tested with takes the documented way."""
    monkeypatch.setattr(aiohttp, "__version__", "3.15.0")
    async with aiohttp.ClientSession() as session:
        assert not express.is_plain(session, 2)


@pytest.mark.parametrize("keepalive", [4.0, 0.0])
async def test_both_ways_send_the_same(
    keepalive: float, request_: CreateSessionPassRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the server it makes no difference which way was taken, byte for byte."""
    sent: list[bytes] = []

    async def spy(connection: Connection) -> None:
        sent.append(connection.head + connection.body)
        await connection.reply(connection.good_status, connection.act())

    async with RawServer(always=spy) as server:
        for tested in ({aiohttp.__version__}, set[str]()):
            monkeypatch.setattr(express, "TESTED", tested)
            async with EquosClient(
                KEY, endpoint=server.endpoint + "/a%20path", limits=Limits(keepalive=keepalive)
            ) as client:
                await client.start_session(request_)
                await client.stop_session("g-1/ü")
    assert sent[0].startswith(b"POST /a%20path/v3/session-passes HTTP/1.1\r\nHost: ")
    assert sent[1].startswith(b"PATCH /a%20path/v3/session-passes/g-1%2F%C3%BC/stop HTTP/1.1\r\n")
    assert sent[:2] == sent[2:]
