"""Sessions and conversations in one fleet behave in the same way."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from equos_async import (
    EquosClient,
    EquosError,
    LiveSession,
    SessionFleet,
    StartUnreadableError,
)
from equos_async.testing import EquosEmulator, Status, Truncate
from tests.clocks import until
from tests.conftest import API_KEY, KEY, REQUEST
from tests.fleet.support import Events
from tests.kinds import KINDS, TALK, Kind


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Either of them."""
    found: Kind = request.param
    return found


async def test_one_runs_and_is_stopped(kind: Kind, emulator: EquosEmulator, events: Events) -> None:
    """The handle, the events and the report have its resource."""
    async with (
        kind.client(emulator.endpoint) as client,
        SessionFleet(client, on_event=events) as fleet,
    ):
        live = await fleet.start(kind.request, key="guild-1")
        assert (live.resource, list(emulator.live)) == (kind.word, [live.session_id])
        assert getattr(live, kind.word).id == live.session_id
        assert live.server_url
        assert live.consumer_access_token
        assert 590 < live.remaining <= 600
        assert live.session_id in repr(live)
        ended = await fleet.stop("guild-1")
        assert ended is not None
        assert ended.id == live.session_id
        other = await fleet.start(kind.request, key="guild-1")
    assert emulator.live == {}
    assert [end.session_id for end in fleet.report.stopped] == [other.session_id]
    assert {event.resource for event in events.all} == {kind.word}


async def test_its_time(kind: Kind, emulator: EquosEmulator) -> None:
    """A request without a time limit is sent with the fleet's, at whose end it is stopped."""
    name = {"session": "max_duration", "conversation": "max_seconds"}[kind.word]
    request = evolve(kind.request, **{name: None})
    async with (
        kind.client(emulator.endpoint) as client,
        SessionFleet(client, default_max_duration=0.2) as fleet,
    ):
        live = await fleet.start(request, key=1)
        assert emulator.live[live.session_id].max_duration == 0.2
        await live.ended()
        assert (fleet.stats().expired, emulator.live) == (1, {})


async def test_a_renewal(kind: Kind, emulator: EquosEmulator) -> None:
    """Its replacement is one of the same."""
    name = {"session": "max_duration", "conversation": "max_seconds"}[kind.word]
    moved: asyncio.Future[LiveSession] = asyncio.get_running_loop().create_future()

    def hand_over(_: LiveSession, new: LiveSession) -> None:
        moved.set_result(new)

    request = evolve(kind.request, **{name: 60})
    async with (
        kind.client(emulator.endpoint) as client,
        SessionFleet(client, renew_before=59.8) as fleet,
    ):
        old = await fleet.start(
            evolve(request, **{name: 0.2}), key=1, renew=True, on_renewed=hand_over
        )
        new = await moved
        assert (new.resource, fleet.live[1]) == (kind.word, new)
        await old.ended()
        await new.stop()


async def test_a_stop_that_is_refused(kind: Kind, emulator: EquosEmulator) -> None:
    """It stays live until the next stop."""
    async with kind.client(emulator.endpoint) as client, SessionFleet(client) as fleet:
        live = await fleet.start(kind.request, key=1)
        emulator.faults.stop.add(Status(400), times=1)
        with pytest.raises(EquosError):
            await live.stop()
        assert live.state == "live"
        await live.stop()
        assert emulator.live == {}


async def test_an_answer_that_cannot_be_read(kind: Kind, emulator: EquosEmulator) -> None:
    """The session that it names is stopped, and then its slot is free."""
    async with kind.client(emulator.endpoint) as client, SessionFleet(client, max_live=1) as fleet:
        emulator.faults.start.add(Truncate(keep=100), times=1)
        with pytest.raises(StartUnreadableError) as caught:
            await fleet.start(kind.request, key=1)
        assert caught.value.session_id is not None
        await until(lambda: fleet.stats().free)
        assert emulator.live == {}


async def test_both_under_one_limit(emulator: EquosEmulator) -> None:
    """They share slots, the queue and the drain; each key has one session or conversation."""
    async with (
        EquosClient(KEY, api_key=API_KEY, endpoint=emulator.endpoint) as client,
        SessionFleet(client, max_live=2) as fleet,
    ):
        pass_ = await fleet.start(REQUEST, key="pass")
        talk = await fleet.start(TALK, key="talk")
        waiting = asyncio.create_task(fleet.start(TALK, key="next"))
        await until(lambda: fleet.stats().waiting)
        assert (len(emulator.live_sessions), len(emulator.live_conversations)) == (1, 1)
        await pass_.stop()
        assert (await waiting).conversation.id in emulator.live_conversations
        with pytest.raises(AttributeError, match="'talk' has a conversation, no session"):
            assert talk.session
        with pytest.raises(AttributeError, match="'pass' has a session, no conversation"):
            assert pass_.conversation
    assert len(fleet.report.stopped) == 2
    assert emulator.live == {}
