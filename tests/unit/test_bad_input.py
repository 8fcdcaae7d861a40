"""Bad input of any kind is refused in words, before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Any, cast

import pytest
from attrs import evolve

from equos_async import ConfigurationError, CreateSessionPassRequest, EquosClient, Settle
from equos_async._api.codec import converter
from equos_async.testing import Drop, EquosEmulator
from tests.conftest import KEY, REQUEST
from tests.faults.server import RawServer
from tests.settling.clock import FastClock


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, b"bytes"])
async def test_values_that_json_cannot_hold(
    value: object, request_: CreateSessionPassRequest
) -> None:
    """They were put in after the request had been checked."""
    request_ = CreateSessionPassRequest(
        name="x",
        avatar="a",
        agent="b",
        consumer_identity=request_.consumer_identity,
        template_vars={"a": "b"},
    )
    cast("dict[str, Any]", request_.template_vars)["a"] = value
    async with RawServer() as server:
        async with EquosClient(KEY, endpoint=server.endpoint) as client:
            for _ in range(3):
                with pytest.raises(ConfigurationError, match="templateVars contains a value"):
                    await client.start_session(request_)
        assert server.requests == 0


class Word(str, Enum):  # noqa: UP042 - of a StrEnum, `str()` is the value
    """Strings in an enum; ``str(Word.KEY)`` is ``"Word.KEY"``."""

    KEY = KEY
    NAME = "name"
    TENANT = "tenant"


async def test_an_enum_of_strings_stands_for_its_values(emulator: EquosEmulator) -> None:
    """In keys, headers, requests and filters; so a lost start of such a client is found, too."""
    emulator.client_key = emulator.api_key = KEY
    emulator.faults.start.add(Drop("after"))
    request = evolve(REQUEST, name=Word.NAME, client=Word.TENANT)
    async with EquosClient(
        lambda: Word.KEY,
        api_key=Word.KEY,
        endpoint=emulator.endpoint,
        headers={Word.NAME: Word.TENANT},
        clock=FastClock(),
        settle=Settle(patience=1e6, look_for=1e6),
    ) as client:
        started = await client.start_session(request, deadline=1e6)
        assert list(emulator.live) == [started.session.id]
        assert (request.name, repr(request.client)) == ("name", "'tenant'")
        listed = [one.id async for one in client.sessions(client=Word.TENANT)]
        assert started.session.id in listed


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".test", "x." * 127 + "test", "256.1.1.1"])
def test_impossible_hosts(host: str) -> None:
    """No name look-up could find them."""
    with pytest.raises(ConfigurationError, match="endpoint"):
        EquosClient(KEY, endpoint=f"https://{host}")


@pytest.mark.parametrize("host", ["a.b.", "127.0.0.1", "[::1]", "my_host", "x1.test"])
def test_possible_hosts(host: str) -> None:
    """These can be."""
    assert EquosClient(KEY, endpoint=f"https://{host}").endpoint == f"https://{host}"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-12-10t09:11:47z", datetime(2025, 12, 10, 9, 11, 47, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60.5+00:00", datetime(2017, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_dates(text: str, moment: datetime) -> None:
    """RFC 3339 in full."""
    assert converter().structure(text, cast("Any", datetime | None)) == moment


async def test_a_coroutine_function_as_hook() -> None:
    """It would be called, and never run."""

    async def hook(_: object) -> None:
        raise AssertionError

    class Hook:
        async def __call__(self, _: object) -> None:
            raise AssertionError

    class Inherited(Hook):
        pass

    for one in (hook, Hook(), Inherited(), partial(hook), partial(Hook())):
        with pytest.raises(ConfigurationError, match="on_event must be a plain function"):
            EquosClient(KEY, on_event=one)


def test_without_asyncio(request_: CreateSessionPassRequest) -> None:
    """As under trio: an error in words."""
    client = EquosClient(KEY)
    coroutine: Any = client.start_session(request_)
    with pytest.raises(ConfigurationError, match="asyncio only"):
        coroutine.send(None)
