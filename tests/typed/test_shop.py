"""Tests that people write: of a shop whose customers are looked after by an avatar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from equos_async import (
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
    FleetEvent,
    LiveSession,
    PermissionDeniedError,
    SessionFleet,
)
from equos_async.testing import EquosEmulator, Status

REQUEST = CreateSessionPassRequest(
    name="shop",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="guest", name="Guest"),
)


class Shop:
    """The program under test."""

    def __init__(self, fleet: SessionFleet[UUID]) -> None:
        self.fleet = fleet

    async def enter(self) -> LiveSession[UUID]:
        return await self.fleet.start(REQUEST, key=uuid4())

    def busiest(self) -> str:
        return max((customer.hex for customer in self.fleet.live), default="nobody")


@pytest.fixture
def seen() -> list[FleetEvent[UUID]]:
    """The events."""
    return []


@pytest.fixture
async def shop(equos_client: EquosClient, seen: list[FleetEvent[UUID]]) -> AsyncIterator[Shop]:
    """An open shop."""
    fleet: SessionFleet[UUID] = SessionFleet(equos_client, on_event=seen.append)
    async with fleet:
        yield Shop(fleet)


async def test_a_customer(shop: Shop, seen: list[FleetEvent[UUID]]) -> None:
    """A customer is in the shop from entering to leaving."""
    assert shop.busiest() == "nobody"
    live = await shop.enter()
    assert shop.busiest() == live.key.hex
    await shop.fleet.stop(live.key)
    assert [event.key.hex for event in seen] == [live.key.hex] * 2


async def test_a_refusal(shop: Shop, equos_emulator: EquosEmulator) -> None:
    """A start that is refused leaves no customer in the shop."""
    equos_emulator.faults.start.add(Status(403))
    with pytest.raises(PermissionDeniedError):
        await shop.enter()
    assert shop.busiest() == "nobody"
