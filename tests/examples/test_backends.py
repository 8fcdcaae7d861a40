"""Both web backends: the status for each error, and visitors who leave."""

from __future__ import annotations

import asyncio
import re
import runpy
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from equos_async import EquosError, FleetFullError, RateLimitError, errors
from equos_async.testing import Delay, Drop, EquosEmulator, Status
from tests.fleet.programs import EXAMPLES, ROOT, call, free_port, program
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
    port, env = str(free_port()), {"EQUOS_LEDGER": f"sqlite:{tmp_path / 'ledger.db'}"}
    if request.param == "web_backend":
        arguments, ready = [str(EXAMPLES / "web_backend.py")], "Running on"
        env["PORT"] = port
    else:
        app = ("--app-dir", str(EXAMPLES), "fastapi_backend:app", "--port", port)
        arguments, ready = ["-m", "uvicorn", *app], "Uvicorn running on"
    async with program(emulator.endpoint, *arguments, **env) as running:
        await running.expect(ready)
        yield f"http://127.0.0.1:{port}/sessions"


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
