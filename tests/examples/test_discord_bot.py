"""The Discord bot as a process, with a stand-in for discord.py."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from equos_async.testing import Drop, EquosEmulator, Status
from tests.fleet.programs import EXAMPLES, KEY, Program, program

BOT = EXAMPLES / "discord_bot.py"
STAND_IN = Path(__file__).parent / "discord_stand_in.py"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """What makes `import discord` find the stand-in."""
    (tmp_path / "discord.py").write_bytes(STAND_IN.read_bytes())
    found = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(found), "DISCORD_TOKEN": "token-of-the-bot"}


@pytest.fixture
async def bot(emulator: EquosEmulator, env: dict[str, str]) -> AsyncIterator[Program]:
    """The bot, connected."""
    async with program(emulator.endpoint, "-W", "error", str(BOT), **env) as bot:
        await bot.expect("commands: /talk /bye /status")
        await bot.expect("connected")
        yield bot


async def test_commands(emulator: EquosEmulator, bot: Program) -> None:
    """Each person has one session, however often they ask, and only they see their token."""
    link = "to Ada only: Come to <https://example.com/join#url=wss://rtc.example.test&token="
    first = await bot.ask("7 Ada /talk", link)
    assert await bot.ask("7 Ada /talk", link) == first
    await bot.ask("8 Grace /talk", "to Grace only: Come to <")
    assert {one.client for one in emulator.live_sessions.values()} == {"42"}
    await bot.ask("7 Ada /status", "to Ada only: 30 min are left; 2 people talk.")
    await bot.ask("7 Ada /bye", "to Ada only: Bye!")
    await bot.ask("7 Ada /bye", "to Ada only: We were not talking.")
    await bot.ask("7 Ada /status", "to Ada only: We are not talking; 1 people talk.")
    assert await bot.end() == 0
    assert bot.printed.endswith("disconnected\n")
    assert not emulator.live_sessions
    assert KEY not in bot.printed


async def test_errors_in_words(emulator: EquosEmulator, bot: Program) -> None:
    """Each error is answered, to the one who asked; one that nobody foresaw is logged."""
    emulator.faults.start.add(Status(422, message="no voice"))
    await bot.ask("7 Ada /talk", "to Ada only: Sorry: 422: no voice")
    emulator.faults.start.add(Drop("after"))
    await bot.ask("7 Ada /talk", "to Ada only: That went wrong, please wait a while.")
    await bot.ask("7 Ada /dance", "logged: KeyError('/dance')")
    for person in range(100):
        bot.write(f"{person} P{person} /talk")
    await bot.expect("All lines are busy")  # the start whose end is unknown counts
    assert await bot.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_a_signal_stops_every_session(
    emulator: EquosEmulator, bot: Program, number: signal.Signals
) -> None:
    """All sessions are stopped before the bot leaves Discord, and nothing else is printed."""
    for person in range(5):
        await bot.ask(f"{person} P{person} /talk", f"to P{person} only: Come to <")
    assert len(emulator.live_sessions) == 5
    told = bot.printed
    assert await bot.end(number) == 0
    assert bot.printed == f"{told}disconnected\n"
    assert not emulator.live_sessions


async def test_it_runs_without_a_server(env: dict[str, str]) -> None:
    """As it is, the bot says that it brings a local server."""
    async with program("", "-c", _WITHOUT_ENDPOINT, **env) as bot:
        await bot.expect("EQUOS_ENDPOINT is not set: using a local server, http://127.0.0.1:")
        await bot.ask("7 Ada /talk", "to Ada only: Come to <")
        assert await bot.end() == 0


_WITHOUT_ENDPOINT = f"""
import os, runpy
del os.environ["EQUOS_ENDPOINT"]
runpy.run_path({str(BOT)!r}, run_name="__main__")
"""
