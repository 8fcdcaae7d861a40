"""A chat bot with a session per guild: /talk, /bye and /status.

Lines such as ``guild-1 /talk`` on standard input stand for the messages that Discord or Telegram
would bring. Ctrl-C and SIGTERM stop every session before the program ends. Without EQUOS_ENDPOINT
it uses a local server; for the real service set EQUOS_ENDPOINT=https://api.equos.ai and
EQUOS_CLIENT_KEY.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

from attrs import evolve

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
    name="guild call",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="nobody", name="Nobody"),
    max_duration=1800,
)


class Bot:
    """Answers messages; the fleet knows which guild has a session."""

    def __init__(self, fleet: SessionFleet) -> None:
        self._fleet = fleet
        self._commands = {"/talk": self._talk, "/bye": self._bye, "/status": self._status}

    async def on_message(self, guild: str, text: str) -> str:
        """The answer to one message."""
        command = self._commands.get(text.strip())
        if command is None:
            return f"I know {', '.join(self._commands)}"
        try:
            return await command(guild)
        except FleetFullError:
            return "all lines are busy, please try again later"
        except StartOutcomeUnknownError:
            return "that went wrong, please wait a while"  # no second try: a session may be live
        except EquosError as error:
            return f"sorry: {error}"

    async def _talk(self, guild: str) -> str:
        if guild in self._fleet.live:
            return "we are talking already"
        guest = EquosParticipantIdentity(identity=guild, name=guild)
        request = evolve(TEMPLATE, client=guild, consumer_identity=guest)
        live = await self._fleet.start(request, key=guild, wait=False)
        # live.consumer_access_token goes to the one who asked, in a private message.
        return f"come to {live.server_url}, I am there until {live.expires_at:%H:%M} UTC"

    async def _bye(self, guild: str) -> str:
        if await self._fleet.stop(guild) is None:
            return "we were not talking"
        return "bye"

    async def _status(self, guild: str) -> str:
        live = self._fleet.live.get(guild)
        here = "silent" if live is None else f"talking, {live.remaining / 60:.0f} min left"
        return f"{here}; {self._fleet.stats().live} guilds are talking"


async def messages() -> AsyncIterator[tuple[str, str]]:
    """What a chat library would bring: the guild and the text of each message."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def put(line: str) -> None:
        with suppress(RuntimeError):  # the loop is closed: the bot has ended
            loop.call_soon_threadsafe(lines.put_nowait, line)

    def read() -> None:
        # Not sys.stdin itself: Python would wait for a read of it to end when the bot ends.
        with os.fdopen(0, errors="replace", closefd=False) as typed:
            for line in typed:
                put(line)
        put("")

    # A thread can read a terminal, a pipe and a file; a daemon does not keep the process running.
    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        guild, _, text = line.strip().partition(" ")
        if guild:
            yield guild, text


async def serve(bot: Bot) -> None:
    """Answer each message in a task of its own, so that a slow start delays no other answer."""

    async def reply(guild: str, text: str) -> None:
        print(f"{guild}: {await bot.on_message(guild, text)}", flush=True)

    async with asyncio.TaskGroup() as group:
        async for guild, text in messages():
            group.create_task(reply(guild, text))


async def run(endpoint: str | None, key: str | None) -> None:
    """Serve until the input or the process ends."""
    async with EquosClient(key, endpoint=endpoint) as client:
        async with SessionFleet(client, max_live=100, drain_deadline=20) as fleet:
            fleet.stop_on_signals()
            print("ready", flush=True)
            await serve(Bot(fleet))
        print(f"bye: {fleet.report}", flush=True)
        if fleet.report.left:
            await client.aclose(deadline=3)  # starts that were sent get a moment to be answered


async def main() -> None:
    """Use the real service, or a local server."""
    if "EQUOS_ENDPOINT" in os.environ:
        await run(None, None)
        return
    async with EquosEmulator() as server:
        print(f"EQUOS_ENDPOINT is not set: using a local server, {server.endpoint}", flush=True)
        await run(server.endpoint, "any-key")


if __name__ == "__main__":
    asyncio.run(main())
