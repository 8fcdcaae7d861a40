"""What all tests share: the emulator, a client for it, a request, and exact replies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.client_reqrep import ClientResponse
from aioresponses import aioresponses

from equos_async import CreateSessionPassRequest, EquosClient, EquosParticipantIdentity
from equos_async.testing import EquosEmulator
from tests.clocks import SkippingClock

KEY = "pk_test_51a7c0ffee"
REQUEST = CreateSessionPassRequest(
    name="support call",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
    client="tenant-42",
    max_duration=600,
)


@pytest.fixture
def request_() -> CreateSessionPassRequest:
    """A request as users write it."""
    return REQUEST


@pytest.fixture
async def emulator() -> AsyncIterator[EquosEmulator]:
    """The local server on a free port."""
    async with EquosEmulator() as emulator:
        yield emulator


@pytest.fixture
def clock() -> SkippingClock:
    """A clock on which backoff takes no time."""
    return SkippingClock()


@pytest.fixture
async def client(emulator: EquosEmulator, clock: SkippingClock) -> AsyncIterator[EquosClient]:
    """A client of the emulator."""
    async with EquosClient(KEY, endpoint=emulator.endpoint, clock=clock) as client:
        yield client


class _Response(ClientResponse):
    """aioresponses 0.7.9 does not know a parameter that aiohttp 3.14 requires."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **kwargs)


class Replies(aioresponses):
    """aioresponses with that response class filled in, and with types."""

    def post(self, url: Any, **reply: Any) -> None:
        self.reply("POST", url, **reply)

    def patch(self, url: Any, **reply: Any) -> None:
        self.reply("PATCH", url, **reply)

    def reply(self, method: str, url: Any, **reply: Any) -> None:
        cast("Any", self).add(url, method=method, response_class=_Response, **reply)


@pytest.fixture
def replies() -> Iterator[Replies]:
    """Exact replies, for where a real server cannot be told to send them."""
    replies = Replies()
    with replies:
        yield replies
