"""What all tests share: the emulator, a client for it, a request, and exact replies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.client_reqrep import ClientResponse
from aioresponses import aioresponses
from hypothesis import settings

from equos_async import CreateSessionPassRequest, EquosClient, EquosParticipantIdentity
from equos_async.testing import EquosEmulator
from tests.clocks import PatientLoop, SkippingClock
from tests.needs import summary

KEY = "pk_test_51a7c0ffee"
API_KEY = "sk_test_7e57c0ffee"
REQUEST = CreateSessionPassRequest(
    name="support call",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
    client="tenant-42",
    max_duration=600,
)

# A busy machine is no falsifying example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
EXAMPLES_OF_A_NIGHT = 20_000
settings.register_profile("long", deadline=None, max_examples=EXAMPLES_OF_A_NIGHT)
"""For a night: ``pytest --hypothesis-profile=long``."""

LONGEST = (
    "test_kill.py",
    "test_browser.py",
    "test_web_backend.py",
    "test_fastapi_backend.py",
    "test_exports.py",
)
"""Files whose tests take seconds each, or share what takes long to start."""


@pytest.fixture(scope="session", autouse=True)
def _programs_run_as_elsewhere() -> None:
    """What is set for the tests themselves is none of the business of programs that they start.

    Those write into a pipe, as under Docker and systemd: one that forgets to flush has to be as
    silent here as it is there. Nor are they measured, which would slow them down.
    """
    for name in ("PYTHONUNBUFFERED", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        os.environ.pop(name, None)
    # What a shell starts in the background ignores Ctrl-C, and what `nohup` starts SIGHUP: its
    # children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What asynchronous tests run on."""
    return {"asyncio": PatientLoop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that at the end no process works alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why tests were skipped, and what to install to have none of that."""
    skipped = cast("list[pytest.TestReport]", terminalreporter.stats.get("skipped", []))
    reasons = [cast("tuple[str, int, str]", one.longrepr)[2] for one in skipped]
    for line in summary([reason.removeprefix("Skipped: ") for reason in reasons]):
        terminalreporter.write_line(line, yellow=True)


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
