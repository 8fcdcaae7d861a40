"""A server that loses answers, a client that searches for lost starts, and its events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from attrs import evolve, field, frozen

from equos_async import EquosClient, Event, Settle, Timeouts
from equos_async.testing import EquosEmulator
from tests.conftest import API_KEY, KEY
from tests.kinds import KINDS, Kind
from tests.settling.clock import FastClock, ServerClock

SETTLED: Final = {
    word: evolve(kind, keys={"client_key": KEY, "api_key": API_KEY}) for word, kind in KINDS.items()
}
"""The two billed things, with the key that looking needs."""


@frozen
class World:
    """A server, a client of it, and the client's events."""

    emulator: EquosEmulator
    client: EquosClient
    kind: Kind
    events: list[Event] = field(factory=list[Event])

    async def start(self) -> str:
        """Start one; its id."""
        return await self.kind.started_id(self.client)

    def told(self, *kinds: str) -> list[str]:
        """The events of some kinds."""
        return [one.kind for one in self.events if one.kind in kinds]

    @property
    def starts(self) -> int:
        """Starts that the server read."""
        return sum(one.operation == "start" for one in self.emulator.requests)

    @property
    def looks(self) -> int:
        """Looks that the server read."""
        return sum(one.operation == "read" for one in self.emulator.requests)


@asynccontextmanager
async def world(kind: Kind, **settings: Any) -> AsyncGenerator[World]:
    """A server and a client, which is closed at the end; ``on_event`` gets its events, too."""
    events: list[Event] = []
    hook = settings.pop("on_event", None)

    def hear(event: Event) -> None:
        events.append(event)
        if hook is not None:
            hook(event)

    settings.setdefault("timeouts", Timeouts(start_attempt=4.0))
    settings = {"clock": FastClock(), "settle": Settle(patience=50), **settings}
    async with EquosEmulator(client_key=KEY, api_key=API_KEY, clock=ServerClock()) as emulator:
        client = kind.client(emulator.endpoint, on_event=hear, **settings)
        async with client:
            yield World(emulator, client, kind, events)
