"""A Discord bot with slash commands: /talk, /bye and /status, with a session per person.

It needs `pip install discord.py` and DISCORD_TOKEN, the token of your bot. Ctrl-C and SIGTERM stop
every session before it ends. Without EQUOS_ENDPOINT it uses a local server; for the real service
set EQUOS_ENDPOINT=https://api.equos.ai and EQUOS_CLIENT_KEY.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack, suppress

import discord
from attrs import evolve
from discord import app_commands

from equos_async import (
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
    FleetFullError,
    SessionFleet,
    StartOutcomeUnknownError,
)
from equos_async.testing import EquosEmulator

TEMPLATE = CreateSessionPassRequest(
    name="discord call",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="nobody", name="Nobody"),
    max_duration=1800,
)
# A page of yours, which joins a LiveKit room. What is behind the # stays in the browser.
JOIN_PAGE = os.environ.get("JOIN_PAGE", "https://example.com/join")


class Bot(discord.Client):
    """Opens the client and the fleet when it starts, and closes them when it ends."""

    fleet: SessionFleet[int]

    def __init__(self) -> None:
        super().__init__(intents=discord.Intents.default())
        self.tree = app_commands.CommandTree(self)
        self._opened = AsyncExitStack()

    async def setup_hook(self) -> None:
        """Called once, in the running loop, before the bot connects."""
        endpoint, key = os.environ.get("EQUOS_ENDPOINT"), None
        if endpoint is None:
            server = await self._opened.enter_async_context(EquosEmulator())
            endpoint, key = server.endpoint, "any-key"
            print(f"EQUOS_ENDPOINT is not set: using a local server, {endpoint}", flush=True)
        client = await self._opened.enter_async_context(EquosClient(key, endpoint=endpoint))
        self.fleet = SessionFleet[int](client, max_live=100, drain_deadline=20)
        await self._opened.enter_async_context(self.fleet)
        self.fleet.stop_on_signals()  # discord.py itself does not handle SIGTERM
        await self.tree.sync()

    async def close(self) -> None:
        """Stop every session, and then leave Discord."""
        try:
            await self._opened.aclose()
        finally:
            await super().close()


bot = Bot()


@bot.tree.command(description="Talk to Ada")
async def talk(interaction: discord.Interaction) -> None:
    await interaction.response.defer(ephemeral=True)  # Discord waits for 3 seconds only
    user = interaction.user
    guest = EquosParticipantIdentity(identity=str(user.id), name=user.display_name)
    request = evolve(TEMPLATE, client=str(interaction.guild_id), consumer_identity=guest)
    # A second command gets the same session.
    live = await bot.fleet.start(request, key=user.id, wait=False, if_taken="return")
    link = f"{JOIN_PAGE}#url={live.server_url}&token={live.consumer_access_token}"
    await interaction.followup.send(f"Come to <{link}>, Ada is there.", ephemeral=True)


@bot.tree.command(description="Hang up")
async def bye(interaction: discord.Interaction) -> None:
    await interaction.response.defer(ephemeral=True)
    stopped = await bot.fleet.stop(interaction.user.id)
    answer = "Bye!" if stopped else "We were not talking."
    await interaction.followup.send(answer, ephemeral=True)


@bot.tree.command(description="How long is left")
async def status(interaction: discord.Interaction) -> None:
    live = bot.fleet.live.get(interaction.user.id)
    here = "We are not talking" if live is None else f"{live.remaining / 60:.0f} min are left"
    talking = bot.fleet.stats().live
    await interaction.response.send_message(f"{here}; {talking} people talk.", ephemeral=True)


@bot.tree.error
async def refuse(interaction: discord.Interaction, error: app_commands.AppCommandError) -> None:
    """Tell the user what went wrong; any other exception is raised, and logged."""
    cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
    match cause:
        case FleetFullError():
            answer = "All lines are busy, please try again later."
        case StartOutcomeUnknownError():
            answer = "That went wrong, please wait a while."  # a session may be running
        case EquosError():
            answer = f"Sorry: {cause}"
        case _:
            raise error
    await interaction.followup.send(answer, ephemeral=True)


if __name__ == "__main__":
    token = os.environ.get("DISCORD_TOKEN")
    if not token:
        sys.exit("Set DISCORD_TOKEN to the token of your bot.")
    with suppress(asyncio.CancelledError):  # which the first signal brings
        bot.run(token)
