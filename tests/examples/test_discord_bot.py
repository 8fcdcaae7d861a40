"""The Discord bot as a process, with the real discord.py and a gateway that stands in."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from equos_async.testing import Drop, EquosEmulator, Status
from tests.examples.discord_gateway import GUILD, USE, Answer, Discord, discord
from tests.fleet.programs import EXAMPLES, KEY, Program, program

TOKEN = "token-of-the-bot"


@pytest.fixture
async def guild() -> AsyncIterator[Discord]:
    """Where the bot is."""
    async with discord() as guild:
        yield guild


@asynccontextmanager
async def running(guild: Discord, endpoint: str, unset: str = "") -> AsyncGenerator[Program, None]:
    """The bot, connected."""
    env = {"DISCORD_AT": guild.url, "DISCORD_TOKEN": TOKEN, "UNSET": unset}
    async with program(endpoint, "-c", USE, BOT=str(EXAMPLES / "discord_bot.py"), **env) as bot:
        await bot.expect("has connected to Gateway")  # discord.py logs it
        yield bot


@pytest.fixture
async def bot(emulator: EquosEmulator, guild: Discord) -> AsyncIterator[Program]:
    """The bot, connected."""
    async with running(guild, emulator.endpoint) as bot:
        yield bot


async def test_no_token() -> None:
    """It says what to set, in one line."""
    bot = str(EXAMPLES / "discord_bot.py")
    async with program("", bot, DISCORD_TOKEN="") as running:
        assert await running.end() == 1
    assert running.printed == "Set DISCORD_TOKEN to the token of your bot.\n"


async def test_commands(emulator: EquosEmulator, bot: Program, guild: Discord) -> None:
    """Each person has one session, however often they ask, and only they see their token."""
    assert sorted(guild.commands) == ["bye", "status", "talk"]
    first = await guild.type(7, "Ada", "talk")
    assert first.text.startswith("Come to <https://example.com/join#url=wss://rtc.example.test&")
    assert first.is_private
    assert await guild.type(7, "Ada", "talk") == first
    await guild.type(8, "Grace", "talk")
    assert {one.client for one in emulator.live_sessions.values()} == {str(GUILD)}
    talking = Answer("30 min are left; 2 people talk.", is_private=True)
    assert await guild.type(7, "Ada", "status") == talking
    assert await guild.type(7, "Ada", "bye") == Answer("Bye!", is_private=True)
    assert await guild.type(7, "Ada", "bye") == Answer("We were not talking.", is_private=True)
    alone = Answer("We are not talking; 1 people talk.", is_private=True)
    assert await guild.type(7, "Ada", "status") == alone
    assert await bot.end(signal.SIGTERM) == 0
    assert not emulator.live_sessions
    assert KEY not in bot.printed
    assert TOKEN not in bot.printed


async def test_errors_in_words(emulator: EquosEmulator, bot: Program, guild: Discord) -> None:
    """Each error is answered, to the one who asked."""
    emulator.faults.start.add(Status(422, message="no voice"))
    refused = Answer("Sorry: 422: no voice", is_private=True)
    assert await guild.type(7, "Ada", "talk") == refused
    emulator.faults.start.add(Drop("after"))
    unknown = Answer("That went wrong, please wait a while.", is_private=True)
    assert await guild.type(7, "Ada", "talk") == unknown
    answers = await asyncio.gather(
        *(guild.type(person, f"P{person}", "talk") for person in range(100, 200))
    )
    busy = Answer("All lines are busy, please try again later.", is_private=True)
    assert answers.count(busy) == 1  # the start whose end is unknown counts
    assert await bot.end(signal.SIGTERM) == 0
    assert len(emulator.live_sessions) == 1  # that one


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_a_signal_stops_every_session(
    emulator: EquosEmulator, bot: Program, guild: Discord, number: signal.Signals
) -> None:
    """All sessions are stopped before the bot leaves Discord, and nothing is amiss."""
    for person in range(5):
        await guild.type(person, f"P{person}", "talk")
    assert len(emulator.live_sessions) == 5
    assert not guild.left.is_set()
    assert await bot.end(number) == 0
    assert "Traceback" not in bot.printed
    assert "was never" not in bot.printed
    assert not emulator.live_sessions
    await guild.left.wait()


async def test_it_runs_without_a_server(guild: Discord) -> None:
    """As it is, the bot says that it brings a local server."""
    async with running(guild, "", unset="EQUOS_ENDPOINT") as bot:
        said = "EQUOS_ENDPOINT is not set: using a local server, http://127.0.0.1:"
        assert bot.printed.startswith(said) or f"\n{said}" in bot.printed
        assert (await guild.type(7, "Ada", "talk")).text.startswith("Come to <")
        assert await bot.end(signal.SIGTERM) == 0
