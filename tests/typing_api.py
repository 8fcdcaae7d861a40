"""Never run, only type-checked: what users see."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import assert_type

import attrs

from equos_async import (
    APIStatusError,
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    DrainReport,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
    EquosResourceReference,
    EquosSession,
    FleetStats,
    Limits,
    LiveSession,
    RetryPolicy,
    SessionEnd,
    SessionFleet,
    StartOutcomeUnknownError,
    Timeouts,
    Unresolved,
)

ADA = EquosParticipantIdentity(identity="user-7", name="Ada")

request = CreateSessionPassRequest(
    name="call", avatar="av_1", agent=EquosResourceReference("ag_1"), consumer_identity=ADA
)
assert_type(request.avatar, EquosResourceReference)
assert_type(request.max_duration, float | None)
assert_type(attrs.evolve(request, name="other"), CreateSessionPassRequest)


async def use(client: EquosClient) -> None:
    """The client."""
    started = await client.start_session(request, deadline=5)
    assert_type(started, CreateEquosSessionResponse)
    assert_type(started.session.started_at, datetime)
    assert_type(started.consumer_access_token, str | None)
    assert_type(await client.stop_session(started.session.id), EquosSession | None)
    block: AbstractAsyncContextManager[CreateEquosSessionResponse] = client.session(request)
    async with block as started:
        assert_type(started.session.host.server_url, str)
    assert_type(client.unresolved, tuple[Unresolved, ...])
    assert_type(await client.aclose(deadline=1), tuple[Unresolved, ...])
    async with EquosClient(
        timeouts=Timeouts(deadline=1), retry=RetryPolicy(), limits=Limits()
    ) as other:
        assert_type(other, EquosClient)


async def run_fleet(client: EquosClient) -> None:
    """The fleet."""
    async with SessionFleet(client, max_live=2) as fleet:
        live = await fleet.start(request, key=("guild", 7))
        assert_type(live, LiveSession)
        assert_type(live.expires_at, datetime)
        assert_type(await live.ended(), SessionEnd)
        assert_type(fleet.live, Mapping[Hashable, LiveSession])
        assert_type(await fleet.stop("guild"), EquosSession | None)
        assert_type(await fleet.drain(), DrainReport)
        assert_type(fleet.stats(), FleetStats)
    assert_type(fleet.report, DrainReport)


def tell(error: EquosError) -> None:
    """The errors."""
    assert_type(error.session_id, str | None)
    assert_type(error.attempts, int)
    if isinstance(error, APIStatusError):
        assert_type(error.status, int)
        assert_type(error.retry_after, float | None)
    elif isinstance(error, StartOutcomeUnknownError):
        assert_type(error.request_id, str | None)
