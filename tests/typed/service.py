"""A service with a ledger: rooms are numbers, also in rows of other workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from equos_async import (
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
    FleetEvent,
    SessionEnd,
    SessionFleet,
    SQLiteLedger,
)
from equos_async.otel import Telemetry

REQUEST = CreateSessionPassRequest(
    name="room",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="host", name="Host"),
)


class Service:
    """Bills per room, also for sessions that a dead worker left."""

    def __init__(self, client: EquosClient, ledger: SQLiteLedger) -> None:
        self.events: Counter[int] = Counter()
        self.bills: dict[int, str] = {}
        self.reaped = asyncio.Event()
        self.fleet: SessionFleet[int] = SessionFleet(
            client,
            ledger=ledger,
            lease=0.5,
            on_event=Telemetry().fleet(self.on_event),
            on_end=self.bill,
        )

    def on_event(self, event: FleetEvent[int]) -> None:
        self.events[event.key] += 1

    def bill(self, end: SessionEnd[int]) -> None:
        self.bills[end.key + 1000] = f"{end.client}: {end.outcome}"
        self.reaped.set()


async def main(endpoint: str, path: Path, left: int) -> dict[int, str]:
    """Take over what another worker left, and serve a room of its own."""
    async with (
        EquosClient("any-key", endpoint=endpoint) as client,
        SQLiteLedger(path) as ledger,
    ):
        service = Service(client, ledger)
        async with service.fleet as fleet:
            await service.reaped.wait()
            assert left not in fleet.live
            await fleet.start(REQUEST, key=7)
        assert service.events.keys() == {left, 7}
    return service.bills
