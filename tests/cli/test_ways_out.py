"""The command line leaves no session whose id was not printed."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from equos_async.cli import main
from equos_async.testing import Delay, EquosEmulator
from tests.clocks import eventually

START = ("-m", "equos_async", "start", "--avatar=a", "--agent=b", "--identity=c", "--endpoint")


async def run(emulator: EquosEmulator) -> asyncio.subprocess.Process:
    """Start the command as a program."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *START,
        emulator.endpoint,
        env={"EQUOS_CLIENT_KEY": "any-key"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def starting(emulator: EquosEmulator) -> asyncio.subprocess.Process:
    """The program, while its start is on the wire."""
    process = await run(emulator)
    await eventually(lambda: emulator.request_count)
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
async def test_a_signal_while_it_starts(
    number: signal.Signals, code: int, emulator: EquosEmulator
) -> None:
    """The answer is awaited, and its session ended."""
    emulator.faults.start.add(Delay(0.5))
    process = await starting(emulator)
    process.send_signal(number)
    out, err = await process.communicate()
    assert (process.returncode, out) == (code, b"")
    assert (b"terminated: waiting for requests in progress" in err) == (code != 130)
    assert emulator.live_sessions == {}
    assert len(emulator.ended_sessions) == 1


async def test_ctrl_c_says_why_it_waits(emulator: EquosEmulator) -> None:
    """A person who sees nothing happen would press it again, and leave the session running."""
    emulator.faults.start.add(Delay(600))
    process = await starting(emulator)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert (await process.stderr.readline()).startswith(b"interrupted: waiting for requests")
    emulator.advance(600)
    await process.communicate()
    assert process.returncode == 130
    assert emulator.live_sessions == {}
    assert len(emulator.ended_sessions) == 1


async def test_each_further_sigterm_waits(emulator: EquosEmulator) -> None:
    """None kills it, even after the command: the event loop awaits the answer."""
    emulator.faults.start.add(Delay(600))
    process = await starting(emulator)
    assert process.stderr is not None
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        assert (await process.stderr.readline()).startswith(b"terminated: waiting for requests")
    emulator.advance(600)
    await process.communicate()
    assert process.returncode == 143
    assert emulator.live_sessions == {}
    assert len(emulator.ended_sessions) == 1


async def test_no_session_is_unbounded(emulator: EquosEmulator) -> None:
    """Without --max-duration a default is sent, and a line says so."""
    process = await run(emulator)
    out, err = await process.communicate()
    assert process.returncode == 0
    assert out.startswith(b"session ")
    assert err.splitlines() == [b"no --max-duration: the session ends after 600 s"]
    assert [one.max_duration for one in emulator.live_sessions.values()] == [600]


@pytest.mark.parametrize("option", ["--deadline", "--max-duration"])
def test_a_time_that_is_no_number(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused in one line that says what would be right."""
    with pytest.raises(SystemExit, match="2"):
        main(["start", "--identity=c", option, "soon"])
    assert f"{option}: must be a number of seconds, not 'soon'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A background job ignores Ctrl-C, and `nohup` SIGHUP: the command leaves it so."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with EquosEmulator() as emulator:
            monkeypatch.setenv("EQUOS_ENDPOINT", emulator.endpoint)
            assert main(["stop", "some-id"]) == 0
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
