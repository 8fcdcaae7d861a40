"""Both web backends: the status for each error, and visitors who leave."""

from __future__ import annotations

import asyncio
import re
import runpy
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from equos_async import EquosError, FleetFullError, RateLimitError, errors
from equos_async.testing import Delay, Drop, EquosEmulator, Status
from tests.fleet.programs import EXAMPLES, ROOT, Program, call, free_port, program
from tests.process.test_callers import seen

BACKENDS = ("web_backend", "fastapi_backend")
PAGE = (ROOT / ".docs" / "fleet.md").read_text(encoding="utf-8")
STATUSES = [
    (name, int(status))
    for names, status in re.findall(r"^\| ([^|]*Error[^|]*) \| (\d{3}) \|", PAGE, re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names)
]
Refusal = Callable[[EquosError], tuple[int, str, float | None]]


@pytest.fixture(scope="module", params=BACKENDS)
def refusal(request: pytest.FixtureRequest) -> Refusal:
    """The answer for an error."""
    answer: Refusal = runpy.run_path(str(EXAMPLES / f"{request.param}.py"))["refusal"]
    return answer


@pytest.fixture(params=BACKENDS)
async def url(
    request: pytest.FixtureRequest, emulator: EquosEmulator, tmp_path: Path
) -> AsyncIterator[str]:
    """Where a backend takes its visitors' requests."""
    ledger = f"sqlite:{tmp_path / 'ledger.db'}"
    async with serving(request.param, emulator.endpoint, EQUOS_LEDGER=ledger) as (port, running):
        await running.expect("unning on")
        yield f"http://127.0.0.1:{port}/sessions"


@asynccontextmanager
async def serving(
    name: str, endpoint: str | None, **env: str
) -> AsyncGenerator[tuple[int, Program], None]:
    """A backend as a process, and its port."""
    port = free_port()
    if name == "web_backend":
        arguments, env["PORT"] = [str(EXAMPLES / "web_backend.py")], str(port)
    else:
        app = ("--app-dir", str(EXAMPLES), "fastapi_backend:app", "--port", str(port))
        arguments = ["-m", "uvicorn", *app]
    async with program(endpoint, *arguments, **env) as running:
        yield port, running


@pytest.mark.parametrize(("name", "status"), STATUSES)
def test_each_error(name: str, status: int, refusal: Refusal) -> None:
    """As the page says, in words of the program's own."""
    told, text, _ = refusal(getattr(errors, name)("what only the log should tell"))
    assert (told, "log" in text) == (status, False)


def test_when_to_come_back(refusal: Refusal) -> None:
    """The answer has a Retry-After if the time is known."""
    assert refusal(FleetFullError(retry_after=7.5))[2] == 7.5
    assert refusal(FleetFullError())[2] is None
    assert refusal(RateLimitError(status=429, retry_after=3.0))[2] == 3.0


@pytest.mark.parametrize("name", BACKENDS)
async def test_without_an_endpoint(name: str) -> None:
    """It says that it uses a local server, and serves a session of it."""
    async with serving(name, None) as (port, running):
        await running.expect("EQUOS_ENDPOINT is not set: using a local server, http://127.0.0.1:")
        await running.expect("unning on")
        status, text = await call("POST", f"http://127.0.0.1:{port}/sessions", json={"name": "Ada"})
        assert (status, '"token"' in text) == (201, True)
        await running.end(signal.SIGTERM)
        assert "bye: 1 stopped, 0 had ended, 0 left" in running.printed


async def test_what_a_visitor_sees(emulator: EquosEmulator, url: str) -> None:
    """The errors on their way through a real server."""
    emulator.faults.start.add(Drop("after"))
    status, _ = await call("POST", url, json={"name": "Ada"})
    assert status == 504
    emulator.faults.start.add(Status(429, retry_after=3600))
    async with aiohttp.ClientSession() as session:
        async with session.post(url, json={"name": "Ada"}) as reply:
            assert reply.status == 503
            assert 3590 < int(reply.headers["Retry-After"]) <= 3600


async def test_visitors_who_leave(emulator: EquosEmulator, url: str) -> None:
    """A session that was started for a visitor who has left is stopped."""
    emulator.faults.start.add(Delay(0.5), times=None)
    visitors = [asyncio.create_task(call("POST", url, json={"name": "Ada"})) for _ in range(3)]
    await seen(lambda: len(emulator.requests) == 3)
    for one in visitors:
        one.cancel()
    await asyncio.wait(visitors)
    await seen(lambda: len(emulator.ended_sessions) == 3)
    assert emulator.live_sessions == {}
