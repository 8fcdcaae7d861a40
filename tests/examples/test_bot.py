"""The chat bot as a process: its commands, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from equos_async.testing import Delay, EquosEmulator, Hang, Status
from tests.clocks import until
from tests.fleet.programs import EXAMPLES, KEY, program

BOT = ("-X", "dev", "-W", "error", str(EXAMPLES / "bot.py"))


async def test_commands(emulator: EquosEmulator) -> None:
    """/talk, /bye and /status do what they say, for each guild by itself."""
    async with program(emulator.endpoint, *BOT) as bot:
        await bot.expect("ready")
        await bot.ask("g1 /talk", "g1: come to wss://rtc.example.test, I am there until")
        await bot.ask("g1 /talk", "g1: we are talking already")
        await bot.ask("g2 /talk", "g2: come to")
        assert {one.client for one in emulator.live_sessions.values()} == {"g1", "g2"}
        bot.write("")
        await bot.ask("g1 /status", "g1: talking, 30 min left; 2 guilds are talking")
        await bot.ask("g1 /bye", "g1: bye")
        await bot.ask("g1 /bye", "g1: we were not talking")
        await bot.ask("g1 /status", "g1: silent; 1 guilds are talking")
        await bot.ask("g1 hello", "g1: I know /talk, /bye, /status")
        emulator.faults.start.add(Status(422, message="no voice"))
        await bot.ask("g3 /talk", "g3: sorry: 422: no voice")
        assert await bot.end() == 0
    assert "bye: 1 stopped, 0 had ended, 0 left" in bot.printed
    assert not emulator.live_sessions
    assert KEY not in bot.printed


@pytest.mark.parametrize(("typed", "told"), [("\ng1 /talk\n", "1 stopped"), ("", "0 stopped")])
def test_a_file_as_its_input(tmp_path: Path, typed: str, told: str) -> None:
    """A file is read like a pipe, past its blank lines, and its end ends the bot."""
    (tmp_path / "typed").write_text(typed)
    with (tmp_path / "typed").open() as stdin, EquosEmulator() as emulator:
        env = {**os.environ, "EQUOS_ENDPOINT": emulator.endpoint, "EQUOS_CLIENT_KEY": KEY}
        done = subprocess.run(
            [sys.executable, *BOT],
            stdin=stdin,
            capture_output=True,
            text=True,
            env=env,
            timeout=120,
            check=False,
        )
    # asyncio's debug mode tells of slow steps, which any is on a busy machine.
    errors = [line for line in done.stderr.splitlines() if "Executing <" not in line]
    assert (done.returncode, errors) == (0, [])
    assert f"bye: {told}" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_every_session(
    emulator: EquosEmulator, number: signal.Signals
) -> None:
    """SIGTERM and Ctrl-C stop all sessions, those on their way too, and the bot ends well."""
    async with program(emulator.endpoint, *BOT) as bot:
        await bot.expect("ready")
        for guild in range(20):
            await bot.ask(f"g{guild} /talk", "come to")
        assert len(emulator.live_sessions) == 20
        assert await bot.end(number) == 0
    assert "bye: 20 stopped, 0 had ended, 0 left" in bot.printed
    assert not emulator.live_sessions


async def test_a_second_ctrl_c_gives_up_and_tells(emulator: EquosEmulator) -> None:
    """Where the server hangs, a second Ctrl-C ends the bot at once, and it says what is left."""
    draining = asyncio.Event()

    def noticed(_: object) -> bool:
        draining.set()
        return True

    emulator.faults.stop.add(Hang(), times=None, when=noticed)
    async with program(emulator.endpoint, *BOT) as bot:
        await bot.expect("ready")
        await bot.ask("g1 /talk", "come to")
        (session_id,) = emulator.live_sessions
        begun = asyncio.get_running_loop().time()
        bot.kill(signal.SIGINT)
        await draining.wait()
        assert await bot.end(signal.SIGINT) == 0
    assert f"'g1' (session {session_id}) unresolved" in bot.printed
    assert asyncio.get_running_loop().time() - begun < 10


async def test_two_signals_with_starts_on_the_wire(emulator: EquosEmulator) -> None:
    """The second one ends the drain; what was sent is answered, and its session ended."""
    async with program(emulator.endpoint, *BOT) as bot:
        await bot.expect("ready")
        await bot.ask("g0 /talk", "come to")
        emulator.faults.start.add(Delay(1), times=None)
        for guild in (1, 2, 3):
            bot.write(f"g{guild} /talk")
        await until(lambda: emulator.request_count == 4)
        bot.kill(signal.SIGTERM)
        await until(lambda: emulator.request_count == 5)  # the drain stops the one that is live
        assert await bot.end(signal.SIGINT) == 0
    assert emulator.ended_count == 4
    assert emulator.live == {}


async def test_it_runs_without_a_server() -> None:
    """As it is, the bot brings a local server."""
    async with program("", "-c", _WITHOUT_ENDPOINT) as bot:
        await bot.expect("ready")
        await bot.ask("g1 /talk", "come to")
        assert await bot.end() == 0
    assert "bye: 1 stopped" in bot.printed


_WITHOUT_ENDPOINT = f"""
import os, runpy
del os.environ["EQUOS_ENDPOINT"]
runpy.run_path({str(EXAMPLES / "bot.py")!r}, run_name="__main__")
"""
