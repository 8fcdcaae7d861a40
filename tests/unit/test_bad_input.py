"""Bad input of any kind is refused in words, before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import pytest

from equos_async import ConfigurationError, CreateSessionPassRequest, EquosClient
from equos_async._api.codec import converter
from tests.conftest import KEY
from tests.faults.server import RawServer


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
