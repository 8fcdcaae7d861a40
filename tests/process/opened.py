"""A program with a set-up and a tear-down, as bots of discord.py have: it runs until SIGTERM.

``python -m tests.process.opened WAY``: with ``event`` a signal handler of its own lets it end, with
``fleet`` the fleet's does.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress

from equos_async import EquosClient, EquosError, SessionFleet
from tests.process.caller import LIVE, ON_THE_WIRE, REQUEST


class Bot:
    """Holds a fleet from its set-up to its tear-down."""

    def __init__(self) -> None:
        self.client = EquosClient()
        self.fleet: SessionFleet[int] = SessionFleet(self.client)

    async def setup_hook(self) -> None:
        """Be ready to talk."""
        await self.fleet.open()

    async def close(self) -> None:
        """Leave nothing behind."""
        print(await self.fleet.aclose(), flush=True)
        await self.client.aclose()

    async def talk(self, guild: int) -> None:
        """Answer a guild."""
        with suppress(EquosError):
            await self.fleet.start(REQUEST, key=guild)


async def main(way: str) -> None:
    """Run sessions of some guilds until the program is ended."""
    bot, over = Bot(), asyncio.Event()
    await bot.setup_hook()
    if way == "fleet":
        bot.fleet.stop_on_signals()
    else:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    talks = [asyncio.create_task(bot.talk(guild)) for guild in range(LIVE + ON_THE_WIRE)]
    try:
        await over.wait()
    except asyncio.CancelledError:
        assert way == "fleet"
    finally:
        await bot.close()
    await asyncio.gather(*talks)
    print("the end", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
