"""The examples run as they are."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from equos_async.testing import Delay, EquosEmulator, Hang, Status
from tests.fleet.programs import EXAMPLES, program


def run(name: str) -> str:
    """Run an example in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_service_serves_all_and_reports_the_unknown() -> None:
    """Of six visitors four are served, one is refused, and one start is reported as unknown."""
    lines = run("service.py").splitlines()
    assert lines[0].startswith("EQUOS_ENDPOINT is not set: using a local server, http://127.0.0.1:")
    assert sum("served at wss://" in line for line in lines) == 4
    assert sum("the server says no (422: the agent has no voice)" in line for line in lines) == 1
    assert sum("not tried again" in line for line in lines) == 1
    assert lines[-2].startswith("look at this: start of 'reception', ")
    assert lines[-1] == "left on the server: 1"


async def test_the_service_tells_at_once_in_a_pipe(emulator: EquosEmulator) -> None:
    """Its log shows each visitor when they are served, not only when the service ends."""
    emulator.faults.start.add(Status(422, message="no voice"))
    emulator.faults.start.add(Hang(), times=None)
    async with program(emulator.endpoint, str(EXAMPLES / "service.py")) as service:
        await service.expect("the server says no (422: no voice)")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
async def test_a_signal_ends_the_service_without_a_traceback(
    number: signal.Signals, emulator: EquosEmulator
) -> None:
    """What is being started then is stopped, and nothing else is printed."""
    begun = asyncio.Event()

    def noticed(_: object) -> bool:
        begun.set()
        return True

    emulator.faults.start.add(Delay(0.5), times=None, when=noticed)
    async with program(emulator.endpoint, str(EXAMPLES / "service.py")) as service:
        await begun.wait()
        assert await service.end(number) == 0
    assert "Traceback" not in service.printed
    assert not emulator.live_sessions


def test_traced_shows_a_retry_and_a_session() -> None:
    """The console shows a start with its retry, and the session's own span."""
    shown = run("traced.py")
    for name in ("POST /v3/session-passes", "retry", "equos.session", "equos.client.starts"):
        assert f'"name": "{name}"' in shown
