"""Never run, only type-checked: what users see."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from typing import assert_type

import attrs

from equos_async import (
    APIStatusError,
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    DrainReport,
    EquosClient,
    EquosConversation,
    EquosError,
    EquosParticipantIdentity,
    EquosResourceReference,
    EquosSession,
    Event,
    FleetEvent,
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
from equos_async.otel import Telemetry
from equos_async.testing import (
    Delay,
    Drop,
    EmulatedSession,
    EmulatorRequest,
    EquosEmulator,
    Status,
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
    assert_type(started.session.started_at, datetime | None)
    assert_type(started.consumer_access_token, str | None)
    assert_type(await client.stop_session(started.session.id), EquosSession | None)
    async with client.session(request, deadline=5) as started:
        assert_type(started, CreateEquosSessionResponse)
        assert_type(started.session.host.server_url, str)
    assert_type(client.unresolved, tuple[Unresolved, ...])
    assert_type(await client.aclose(deadline=1), tuple[Unresolved, ...])
    async with EquosClient(
        timeouts=Timeouts(deadline=1), retry=RetryPolicy(), limits=Limits()
    ) as other:
        assert_type(other, EquosClient)


async def use_in_a_block(client: EquosClient) -> str:
    """A block lets no exception vanish: what returns in it needs no return after it."""
    async with client.session(request) as started:
        return started.session.id


async def live_in_a_block(live: LiveSession) -> str:
    """Neither does that of a live session."""
    async with live as same:
        return same.session_id


async def run_fleet(client: EquosClient) -> None:
    """The fleet."""
    async with SessionFleet(client, max_live=2) as fleet:
        assert_type(fleet, SessionFleet)
        live = await fleet.start(request, key=("guild", 7))
        assert_type(live, LiveSession)
        assert_type(live.expires_at, datetime)
        assert_type(await live.ended(), SessionEnd)
        assert_type(fleet.live, Mapping[Hashable, LiveSession])
        assert_type(fleet.live["guild"], LiveSession)
        assert_type(await fleet.stop("guild"), EquosSession | EquosConversation | None)
        assert_type(live.session, EquosSession)
        assert_type(live.conversation, EquosConversation)
        assert_type(live.server_url, str | None)
        assert_type(await fleet.drain(), DrainReport)
        assert_type(fleet.stats(), FleetStats)
    assert_type(fleet.report, DrainReport)


async def run_numbered(client: EquosClient, telemetry: Telemetry) -> None:
    """A fleet whose keys are of one type."""
    ends: list[SessionEnd[int]] = []
    fleet: SessionFleet[int] = SessionFleet(client, on_end=ends.append, on_event=telemetry.fleet())
    live = await fleet.start(request, key=4711)
    assert_type(live, LiveSession[int])
    assert_type(live.key, int)
    assert_type(fleet.live, Mapping[int, LiveSession[int]])
    assert_type((await live.ended()).key, int)
    assert_type(await fleet.wind_down(), DrainReport[int])
    assert_type(fleet.report.left, tuple[SessionEnd[int], ...])
    assert_type(SessionFleet[str](client), SessionFleet[str])
    # What takes any keys takes these, too.
    anyone: list[LiveSession | SessionEnd | DrainReport] = [live, *ends, fleet.report]
    assert_type(anyone[0].session_id if isinstance(anyone[0], LiveSession) else None, str | None)


async def renew(fleet: SessionFleet) -> None:
    """``on_renewed`` is a function or a coroutine function."""

    def at_once(old: LiveSession, new: LiveSession) -> None: ...

    async def later(old: LiveSession, new: LiveSession) -> None: ...

    await fleet.start(request, key=1, renew=True, on_renewed=at_once)
    await fleet.start(request, key=2, renew=True, on_renewed=later)


def watch(telemetry: Telemetry, events: list[Event]) -> None:
    """Hooks, for clients and for fleets."""
    assert_type(telemetry.client(events.append), Callable[[Event], None])
    assert_type(telemetry.fleet(), Callable[[FleetEvent], None])
    client = EquosClient(on_event=telemetry.client())
    SessionFleet(client, on_event=telemetry.fleet())
    assert_type(events[0].retries, tuple[Event, ...])
    assert_type(events[0].seconds, float | None)


async def test_a_bot(emulator: EquosEmulator) -> None:
    """The emulator and its faults."""
    emulator.faults.start.add(Status(503, retry_after=2), Delay(1), times=3, share=0.5)
    emulator.faults.stop.add(Drop("after"), when=lambda request: request.name == "vip")
    assert_type(emulator.live_sessions, Mapping[str, EmulatedSession])
    assert_type(emulator.requests, tuple[EmulatorRequest, ...])
    assert_type(emulator.billed_seconds, float)
    async with EquosEmulator(seed=7) as other:
        assert_type(other, EquosEmulator)
    with EquosEmulator() as in_a_thread:
        assert_type(in_a_thread.endpoint, str)


def tell(error: EquosError) -> None:
    """The errors."""
    assert_type(error.session_id, str | None)
    assert_type(error.attempts, int)
    if isinstance(error, APIStatusError):
        assert_type(error.status, int)
        assert_type(error.retry_after, float | None)
    elif isinstance(error, StartOutcomeUnknownError):
        assert_type(error.request_id, str | None)
