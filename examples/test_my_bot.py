"""Tests of a bot of yours, which also show that it leaves no session behind.

Run `pytest examples/test_my_bot.py`. The fixtures come with equos-async. A test fails if its bot
leaves a session live, and names the line that started it.
"""

from __future__ import annotations

import pytest

from equos_async import (
    APIStatusError,
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
)
from equos_async.testing import EquosEmulator, Status

pytestmark = pytest.mark.asyncio


class Bot:
    """The bot under test: it takes a caller to an avatar, and hangs up."""

    def __init__(self, client: EquosClient) -> None:
        self.client = client
        self.session_id: str | None = None

    async def answer(self, caller: str) -> str:
        """Take a call; returns what the caller is told."""
        person = EquosParticipantIdentity(identity=caller.lower(), name=caller)
        request = CreateSessionPassRequest(
            name=f"call of {caller}", avatar="av_1", agent="ag_1", consumer_identity=person
        )
        try:
            started = await self.client.start_session(request)
        except APIStatusError:
            return "all lines are busy"
        self.session_id = started.session.id
        return f"join at {started.session.host.server_url}"

    async def hang_up(self) -> None:
        """End the call."""
        if self.session_id is not None:
            await self.client.stop_session(self.session_id)


async def test_a_call(equos_client: EquosClient, equos_emulator: EquosEmulator) -> None:
    """A call is live until the bot hangs up."""
    bot = Bot(equos_client)
    assert await bot.answer("Ada") == "join at wss://rtc.example.test"
    assert [one.name for one in equos_emulator.live_sessions.values()] == ["call of Ada"]
    await bot.hang_up()
    assert equos_emulator.live_sessions == {}


async def test_a_refusal(equos_client: EquosClient, equos_emulator: EquosEmulator) -> None:
    """A suspended organisation is told to the caller in words."""
    equos_emulator.suspended = True
    bot = Bot(equos_client)
    assert await bot.answer("Ada") == "all lines are busy"
    await bot.hang_up()


async def test_a_throttled_start(equos_client: EquosClient, equos_emulator: EquosEmulator) -> None:
    """The client waits after a 429, and the caller notices nothing."""
    equos_emulator.faults.start.add(Status(429, retry_after=0))
    bot = Bot(equos_client)
    assert (await bot.answer("Ada")).startswith("join at")
    assert [one.status for one in equos_emulator.requests] == [429, 201]
    await bot.hang_up()


async def test_a_call_that_takes_an_hour(
    equos_client: EquosClient, equos_emulator: EquosEmulator
) -> None:
    """An hour passes at once, and is billed."""
    bot = Bot(equos_client)
    await bot.answer("Ada")
    equos_emulator.advance(3600)
    await bot.hang_up()
    assert 3600 <= equos_emulator.billed_seconds < 3660
