"""A bot: a session per guild, and guilds are numbers."""

from __future__ import annotations

from equos_async import (
    CreateSessionPassRequest,
    DrainReport,
    EquosClient,
    EquosParticipantIdentity,
    KeyInUseError,
    LiveSession,
    SessionEnd,
    SessionFleet,
)

GUILDS = {4711: "Gophers", 42: "Hitchhikers"}


class Bot:
    """Remembers what it said to each guild."""

    def __init__(self, client: EquosClient) -> None:
        self.fleet: SessionFleet[int] = SessionFleet(client, max_live=10, on_end=self.on_end)
        self.said: dict[int, list[str]] = {guild: [] for guild in GUILDS}

    async def setup_hook(self) -> None:
        await self.fleet.open()

    async def close(self) -> DrainReport[int]:
        return await self.fleet.aclose()

    async def talk(self, guild: int) -> None:
        guest = EquosParticipantIdentity(identity=str(guild), name=GUILDS[guild])
        request = CreateSessionPassRequest(
            name=GUILDS[guild], avatar="av_1", agent="ag_1", consumer_identity=guest
        )
        try:
            live = await self.fleet.start(
                request, key=guild, renew=True, on_renewed=self.on_renewed
            )
        except KeyInUseError:
            self.said[guild].append("we are talking already")
        else:
            self.said[live.key].append(f"come to {live.server_url}")

    async def on_renewed(self, old: LiveSession[int], new: LiveSession[int]) -> None:
        self.said[old.key].append(f"go on at {new.server_url}")

    async def on_end(self, end: SessionEnd[int]) -> None:
        self.said[end.key].append(f"bye, {GUILDS[end.key]}: {end.outcome}")


async def main(endpoint: str) -> dict[int, list[str]]:
    """Two guilds, one of which asks twice."""
    async with EquosClient("any-key", endpoint=endpoint) as client:
        bot = Bot(client)
        await bot.setup_hook()
        for guild in (4711, 42, 42):
            await bot.talk(guild)
        report = await bot.close()
        assert sorted(end.key + 1 for end in report.stopped) == [43, 4712]
    return bot.said
