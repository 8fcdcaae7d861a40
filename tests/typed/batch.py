"""A batch: many calls under one limit, and each has a number in its campaign."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from equos_async import (
    CreateEquosConversationRequest,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
    SessionFleet,
)


class Call(NamedTuple):
    """Whom to call for what."""

    campaign: str
    number: int


async def make(fleet: SessionFleet[Call], call: Call, done: dict[Call, str | None]) -> None:
    """Make one call, and note where."""
    request = CreateEquosConversationRequest(
        name=f"{call.campaign} {call.number}",
        character_id="ch_1",
        consumer=EquosParticipantIdentity(identity=f"lead-{call.number}", name="Lead"),
        client=call.campaign,
        max_seconds=60,
    )
    try:
        async with await fleet.start(request, key=call) as live:
            done[live.key] = live.conversation.server_url
    except EquosError as error:
        done[call] = str(error)


async def main(endpoint: str) -> dict[Call, str | None]:
    """Six calls, two at a time."""
    done: dict[Call, str | None] = {}
    async with EquosClient(api_key="any-key", endpoint=endpoint) as client:
        async with SessionFleet[Call](client, max_live=2) as fleet, asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(make(fleet, Call("spring", number), done))
        assert [end.key.campaign for end in fleet.report.left] == []
    return done
