"""The FastAPI backend, run by uvicorn as a process."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from equos_async.testing import Delay, EquosEmulator, Status
from tests.fleet.programs import EXAMPLES, KEY, Program, call, free_port, program

UVICORN = ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_backend:app", "--port")


@pytest.fixture
async def backend(emulator: EquosEmulator, tmp_path: Path) -> AsyncIterator[tuple[str, Program]]:
    """The backend's address and its process."""
    port, ledger = str(free_port()), f"sqlite:{tmp_path / 'ledger.db'}"
    async with program(emulator.endpoint, *UVICORN, port, EQUOS_LEDGER=ledger) as running:
        await running.expect("Uvicorn running on")
        yield f"http://127.0.0.1:{port}", running


async def test_the_calls(emulator: EquosEmulator, backend: tuple[str, Program]) -> None:
    """POST starts, GET lists without secrets, DELETE stops, and SIGTERM stops what is left."""
    url, running = backend
    status, page = await call("GET", url)
    assert (status, "Talk to Ada" in page) == (200, True)
    status, text = await call("POST", f"{url}/sessions", json={"name": "Grace"})
    joined = json.loads(text)
    assert status == 201
    assert joined["server_url"] == "wss://rtc.example.test"
    assert joined["token"].count(".") == 2
    status, listed = await call("GET", f"{url}/sessions")
    (one,) = json.loads(listed)["sessions"]
    # What all workers have is listed by the server's end; the worker that has it is earlier.
    assert one == {"id": joined["id"], "name": "Grace", "remaining": 600}
    assert joined["key"] not in listed
    for _ in range(2):
        assert await call("DELETE", f"{url}/sessions/{joined['key']}") == (204, "")
    assert not emulator.live_sessions
    for name in ("Edsger", "Barbara"):
        await call("POST", f"{url}/sessions", json={"name": name})
    await running.end(signal.SIGTERM)
    assert "bye: 2 stopped, 0 had ended, 0 left" in running.printed
    assert not emulator.live_sessions
    assert KEY not in page + text + listed + running.printed


async def test_ctrl_c_twice(emulator: EquosEmulator, backend: tuple[str, Program]) -> None:
    """Uvicorn then waits no longer; the sessions are still stopped, and there is no traceback."""
    url, running = backend
    emulator.faults.stop.add(Delay(0.3), times=None)
    for name in ("Edsger", "Barbara"):
        await call("POST", f"{url}/sessions", json={"name": name})
    running.kill(signal.SIGINT)
    await running.expect("Shutting down")
    await running.end(signal.SIGINT)
    assert "bye: 2 stopped, 0 had ended, 0 left" in running.printed
    assert ("Traceback" in running.printed, emulator.live_sessions) == (False, {})


async def test_two_workers(emulator: EquosEmulator, tmp_path: Path) -> None:
    """A hang-up ends its session, whichever worker it reaches; SIGTERM ends what all have."""
    port, ledger = str(free_port()), f"sqlite:{tmp_path / 'ledger.db'}"
    arguments = (*UVICORN, port, "--workers", "2")
    async with program(emulator.endpoint, *arguments, EQUOS_LEDGER=ledger) as running:
        for _ in range(2):
            await running.expect("Application startup complete")
        url = f"http://127.0.0.1:{port}/sessions"
        keys: list[str] = []
        for number in range(16):
            status, text = await call("POST", url, json={"name": f"visitor {number}"})
            assert status == 201
            keys.append(json.loads(text)["key"])
        _, listed = await call("GET", url)
        assert len(json.loads(listed)["sessions"]) == 16
        for key in keys[:12]:
            assert await call("DELETE", f"{url}/{key}") == (204, "")
        assert len(emulator.live_sessions) == 4, "a hang-up reached the wrong worker"
        await running.end(signal.SIGTERM)
    assert running.printed.count("bye: ") == 2
    assert not emulator.live_sessions


@pytest.mark.parametrize("body", [{}, [], {"name": "  "}, {"name": "x" * 61}, {"name": 7}])
async def test_bad_input(backend: tuple[str, Program], body: object) -> None:
    """Bad input is refused, and starts nothing."""
    status, _ = await call("POST", f"{backend[0]}/sessions", json=body)
    assert status == 422


async def test_errors_in_words(emulator: EquosEmulator, backend: tuple[str, Program]) -> None:
    """A refusal and a full fleet have different answers, without further details."""
    url, _ = backend
    emulator.faults.start.add(Status(401, message="who are you"))
    status, text = await call("POST", f"{url}/sessions", json={"name": "Ada"})
    assert (status, "cannot be reached" in text, "who" in text) == (502, True, False)
    for _ in range(20):
        await call("POST", f"{url}/sessions", json={"name": "Ada"})
    status, text = await call("POST", f"{url}/sessions", json={"name": "Ada"})
    assert (status, "All lines are busy" in text) == (503, True)
