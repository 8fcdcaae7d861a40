"""The object that users hold: its settings, its life, and exact replies."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import math
import pickle
import warnings
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, cast

import aiohttp
import pytest

from equos_async import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    CreateSessionPassRequest,
    EquosClient,
    Event,
    Limits,
    NotFoundError,
    RetryPolicy,
    StartOutcomeUnknownError,
    StartUnreadableError,
)
from equos_async._calls.running import Running
from equos_async.testing import Delay, Drop, EmulatorClock, EquosEmulator, Hang, Status
from tests.clocks import FakeClock, SkippingClock, settle, until
from tests.conftest import KEY, Replies
from tests.faults.server import Connection, RawServer
from tests.unit.test_wire import SESSION, STARTED, dump

API = "https://api.equos.ai/v3/session-passes"


def test_only_the_newest_running_sessions_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running sessions are remembered within bounds; no end is known of a forgotten one."""
    monkeypatch.setattr("equos_async._calls.running.MAX_RUNNING", 2)
    running = Running()
    for number in range(3):
        running.add(f"s-{number}", 100.0, 60)
    assert [running.end_of(f"s-{number}") for number in range(3)] == [math.inf, 160.0, 160.0]


def open_sessions() -> set[aiohttp.ClientSession]:
    """All aiohttp sessions that were created and not closed."""
    found = [one for one in gc.get_objects() if isinstance(one, aiohttp.ClientSession)]
    return {one for one in found if not one.closed}


class TestSettings:
    def test_the_constructor_needs_no_loop(self) -> None:
        """It does no I/O, and what was never used needs no closing."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            EquosClient(KEY)
            gc.collect()

    def test_key_and_endpoint_come_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Arguments first, then the environment, then production."""
        with pytest.raises(ConfigurationError, match="EQUOS_CLIENT_KEY"):
            EquosClient()
        monkeypatch.setenv("EQUOS_CLIENT_KEY", KEY)
        assert repr(EquosClient()) == "<EquosClient https://api.equos.ai/v3 open>"
        monkeypatch.setenv("EQUOS_ENDPOINT", "https://staging.example.test")
        assert repr(EquosClient()) == "<EquosClient https://staging.example.test/v3 open>"
        client = EquosClient(endpoint="https://other.example.test", api_version="v1")
        assert repr(client) == "<EquosClient https://other.example.test/v1 open>"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"client_key": "two words"},
            {"endpoint": "http://api.equos.ai"},
            {"endpoint": "https://api.equos.ai/v3/"},
            {"api_version": ".."},
            {"timeouts": None},
            {"retry": 3},
            {"limits": "many"},
            {"http_session": 5},
            {"on_event": 5},
            {"clock": 5},
        ],
    )
    def test_a_wrong_argument_is_named(self, wrong: dict[str, Any]) -> None:
        """No setting is None, or something else, by accident."""
        (name,) = wrong
        settings: dict[str, Any] = {"client_key": KEY, **wrong}
        with pytest.raises(ConfigurationError, match=f"^{name} must"):
            EquosClient(**settings)

    @pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_it_stays_where_it_is(self, travel: Any) -> None:
        """A client cannot be copied or pickled; the error says so."""
        with pytest.raises(TypeError, match="create one where it is needed"):
            travel(EquosClient(KEY))


class TestInput:
    @pytest.mark.parametrize("session_id", ["", "..", None, "a\nb"])
    async def test_a_bad_id_sends_nothing(
        self, client: EquosClient, emulator: EquosEmulator, session_id: Any
    ) -> None:
        """It is refused before any I/O."""
        with pytest.raises(ConfigurationError, match="^session_id "):
            await client.stop_session(session_id)
        assert emulator.request_count == 0

    async def test_a_bad_request_or_deadline_sends_nothing(
        self, client: EquosClient, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """A dict is no request, and None is the default deadline."""
        with pytest.raises(
            ConfigurationError, match="^request must be of type CreateSessionPassReq"
        ):
            await client.start_session(cast("Any", {"name": "x"}))
        bad: tuple[Any, ...] = (0, -1, float("inf"), "5")
        for deadline in bad:
            with pytest.raises(ConfigurationError, match="^deadline must"):
                await client.start_session(request_, deadline=deadline)
        with pytest.raises(ConfigurationError, match="^deadline must"):
            await client.aclose(deadline=-1)
        assert emulator.request_count == 0


class TestLife:
    async def test_start_and_stop(
        self, client: EquosClient, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """A session is started, is live, is stopped, and a second stop says None."""
        started = await client.start_session(request_)
        live = emulator.live_sessions[started.session.id]
        assert (live.name, live.client, live.max_duration) == ("support call", "tenant-42", 600)
        ended = await client.stop_session(started.session.id)
        assert ended is not None
        assert ended.status == "ended"
        assert await client.stop_session(started.session.id) is None
        assert emulator.live_sessions == {}

    async def test_the_block_stops_its_session(
        self, client: EquosClient, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """On the way out by return and by exception, which is not hidden."""
        async with client.session(request_) as started:
            assert list(emulator.live_sessions) == [started.session.id]
        assert emulator.live_sessions == {}
        with pytest.raises(ZeroDivisionError):
            async with client.session(request_):
                raise ZeroDivisionError
        assert emulator.live_sessions == {}

    async def test_a_failed_stop_never_hides_the_bodys_exception(
        self, client: EquosClient, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """It becomes a note, or is raised if the body succeeded; in both cases it is reported."""
        emulator.faults.stop.add(Status(403, message="no"), times=2)
        ids: list[str] = []

        async def fail() -> None:
            async with client.session(request_) as started:
                ids.append(started.session.id)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as caught:
            await fail()
        assert caught.value.__notes__ == [f"stopping session {ids[0]} failed: 403: no"]
        with pytest.raises(Exception, match="403: no"):
            async with client.session(request_) as started:
                ids.append(started.session.id)
        assert [one.session_id for one in client.unresolved] == ids
        assert {one.operation for one in client.unresolved} == {"stop"}
        await client.stop_session(ids[0])
        assert [one.session_id for one in client.unresolved] == ids[1:]

    async def test_closing_twice_and_at_once(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """It is safe, and afterwards nothing is sent any more."""
        client = EquosClient(KEY, endpoint=emulator.endpoint)
        started = await client.start_session(request_)
        await asyncio.gather(client.aclose(), client.aclose())
        assert await client.aclose() == ()
        assert repr(client).endswith("closed>")
        for attempt in (client.start_session(request_), client.stop_session(started.session.id)):
            with pytest.raises(ClientClosedError):
                await attempt
        with pytest.raises(ClientClosedError):
            async with client:
                pass

    async def test_a_forgotten_client_warns(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """A ResourceWarning names it, and nothing is done in its place."""
        before = open_sessions()
        client = EquosClient(KEY, endpoint=emulator.endpoint)
        await client.start_session(request_)
        (session,) = open_sessions() - before
        await settle()
        with pytest.warns(ResourceWarning, match="unclosed <EquosClient"):
            del client
        assert not session.closed
        await session.close()

    def test_one_loop_for_one_client(self, request_: CreateSessionPassRequest) -> None:
        """Use from another event loop is a clear error."""
        client = EquosClient(KEY, endpoint="http://127.0.0.1:1")

        async def use() -> None:
            await client.start_session(request_, deadline=0.1)

        with asyncio.Runner() as first, asyncio.Runner() as second:
            with pytest.raises(APIConnectionError, match="nothing was sent"):
                first.run(use())
            with pytest.raises(ConfigurationError, match="another event loop"):
                second.run(use())
            first.run(client.aclose())

    async def test_an_injected_session_is_used_and_never_closed(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """Its owner closes it; our headers and rules apply to it, too."""
        async with aiohttp.ClientSession(headers={"Authorization": "Basic x"}) as http_session:
            async with EquosClient(
                KEY, endpoint=emulator.endpoint, http_session=http_session
            ) as client:
                await client.start_session(request_)
            assert not http_session.closed
        assert emulator.request_count == 1
        assert len(emulator.live_sessions) == 1

    async def test_an_injected_session_that_is_closed(
        self, request_: CreateSessionPassRequest
    ) -> None:
        """Nothing was sent, and no repetition is tried."""
        http_session = aiohttp.ClientSession()
        await http_session.close()
        async with EquosClient(KEY, http_session=http_session) as client:
            with pytest.raises(Exception, match="http_session is closed") as caught:
                await client.start_session(request_)
        assert getattr(caught.value, "attempts", None) == 1

    def test_a_coroutine_whose_loop_is_gone(self, request_: CreateSessionPassRequest) -> None:
        """It is collected, perhaps: what is told then does not speak of other libraries."""

        async def use() -> EquosClient:
            http_session = aiohttp.ClientSession()
            await http_session.close()
            client = EquosClient(KEY, http_session=http_session)
            with pytest.raises(APIConnectionError):
                await client.start_session(request_)
            return client

        closing = asyncio.run(use()).aclose()
        with pytest.raises(ConfigurationError, match="loop of this client does not run here"):
            closing.send(None)


class TestClosing:
    async def test_unsent_starts_are_withdrawn(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """A start that waits for a permit gets ``ClientClosedError``."""
        client = EquosClient(KEY, endpoint=emulator.endpoint, limits=Limits(start_connections=1))
        emulator.faults.start.add(Delay(0.05))
        sent, unsent = (asyncio.create_task(client.start_session(request_)) for _ in range(2))
        await until(lambda: emulator.request_count)
        await client.aclose()
        with pytest.raises(ClientClosedError) as never:
            await unsent
        assert never.value.session_id is None
        with pytest.raises(ClientClosedError) as ended:
            await sent  # its caller could not stop it any more
        assert list(emulator.ended_sessions) == [ended.value.session_id]
        assert emulator.live_sessions == {}
        assert emulator.request_count == 2

    async def test_a_refused_start_is_not_sent_again(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest, clock: SkippingClock
    ) -> None:
        """A start that is on the wire when the client closes has no further attempt."""
        client = EquosClient(KEY, endpoint=emulator.endpoint, clock=clock)
        emulator.faults.start.add(Delay(0.05), Status(429), times=9)
        start = asyncio.create_task(client.start_session(request_))
        await until(lambda: emulator.request_count)
        await client.aclose()
        with pytest.raises(Exception, match="429"):
            await start
        assert emulator.request_count == 1

    async def test_open_blocks_are_stopped(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """Closing under a block stops its session; the block then leaves in peace."""
        client = EquosClient(KEY, endpoint=emulator.endpoint)
        async with client.session(request_):
            await client.aclose()
            assert emulator.live_sessions == {}
        assert client.unresolved == ()

    async def test_a_block_that_begins_while_closing(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """Its session is stopped at once, and the block is not entered."""
        client = EquosClient(KEY, endpoint=emulator.endpoint)
        emulator.faults.start.add(Delay(0.05))

        async def block() -> None:
            async with client.session(request_):
                raise AssertionError

        entering = asyncio.create_task(block())
        await until(lambda: emulator.request_count)
        await client.aclose()
        with pytest.raises(ClientClosedError) as caught:
            await entering
        assert caught.value.session_id in emulator.ended_sessions
        assert emulator.live_sessions == {}

    async def test_it_gives_up_at_its_deadline_and_reports(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """A server that never answers cannot keep it: what is open is named."""
        client = EquosClient(KEY, endpoint=emulator.endpoint)
        held = await client.start_session(request_)
        emulator.faults.add(Hang(), times=None)
        start = asyncio.create_task(client.start_session(request_))
        stop = asyncio.create_task(client.stop_session(held.session.id))
        await until(lambda: emulator.request_count == 3)
        report = await client.aclose(deadline=0.02)
        assert {one.operation for one in report} == {"start", "stop"}
        with pytest.raises(StartOutcomeUnknownError, match="the client was closed"):
            await start
        with pytest.raises(APITimeoutError, match="the client closed before the stop"):
            await stop

    async def test_it_gives_up_what_has_not_begun(self, emulator: EquosEmulator) -> None:
        """A stop that was cancelled before its first step is reported too."""
        client = EquosClient(KEY, endpoint=emulator.endpoint)
        closing = asyncio.create_task(client.aclose(deadline=0))
        await asyncio.sleep(0)
        stop = asyncio.create_task(client.stop_session("s-1"))
        await closing
        with pytest.raises((APITimeoutError, ClientClosedError)):
            await stop


async def test_a_start_that_is_answered_with_what_is_over(
    request_: CreateSessionPassRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be joined: it is returned, and an event says so."""

    async def blocked(connection: Connection) -> None:
        body = connection.act().replace(b'"status":"starting"', b'"status":"blocked"')
        await connection.reply(201, body)

    events: list[Event] = []
    async with RawServer([blocked]) as server:
        async with EquosClient(KEY, endpoint=server.endpoint, on_event=events.append) as client:
            started = await client.start_session(request_)
    assert started.session.status == "blocked"
    assert [event.kind for event in events] == ["not_live", "ended"]
    assert events[0].session_id == started.session.id
    assert [record.levelname for record in caplog.records] == ["WARNING"]


class TestGivingUp:
    async def test_a_session_that_comes_as_the_client_gives_up(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """Between the answer and its caller's turn: it is refused, and reported as running."""
        clock = FakeClock()

        def hook(event: Event) -> None:
            if event.kind == "ended" and event.operation == "start":
                closing: Any = client.aclose(deadline=0)
                closing.send(None)  # runs to where it waits
                clock.advance(0)
                closing.close()

        client = EquosClient(KEY, endpoint=emulator.endpoint, clock=clock, on_event=hook)
        with pytest.raises(ClientClosedError) as caught:
            await client.start_session(request_)
        (left,) = await client.aclose()
        assert (left.operation, left.session_id) == ("stop", caught.value.session_id)

    async def test_a_block_that_is_closed_after_the_client(
        self, client: EquosClient, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """The closing has ended its session already."""
        block: Any = client.session(request_)
        await block.__aenter__()
        await client.aclose()
        await block.gen.aclose()
        assert (emulator.live_sessions, emulator.ended_count) == ({}, 1)
        assert len(emulator.requests) == 2


class TestLateAnswers:
    @pytest.fixture
    async def emulator(self) -> AsyncIterator[EquosEmulator]:
        """A server that answers when the test lets it."""
        async with EquosEmulator(clock=EmulatorClock(ticking=False)) as emulator:
            yield emulator

    async def overdue(
        self,
        client: EquosClient,
        clock: FakeClock,
        emulator: EquosEmulator,
        request: CreateSessionPassRequest,
    ) -> None:
        """A start is sent, and the time of its attempt is over."""
        starting = asyncio.create_task(client.start_session(request))
        await until(lambda: emulator.request_count)
        clock.advance(30)
        with pytest.raises(StartOutcomeUnknownError, match="no answer within 30 s"):
            await starting
        assert [one.name for one in client.unresolved] == ["support call"]

    async def test_a_start_that_times_out_is_stopped_when_it_arrives(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """The caller learns at once, the late session is stopped, and nothing is unresolved."""
        events: list[Event] = []
        clock = FakeClock()
        async with EquosClient(
            KEY, endpoint=emulator.endpoint, clock=clock, on_event=events.append
        ) as client:
            emulator.faults.start.add(Delay(1))
            await self.overdue(client, clock, emulator, request_)
            emulator.advance(1)
        assert not client.unresolved
        assert emulator.live_sessions == {}
        assert emulator.ended_count == 1
        assert [event.kind for event in events] == ["start_unknown", "ended", "orphan_stopped"]

    async def test_a_late_session_that_cannot_be_stopped(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """It is reported as unresolved, and not as an unretrieved exception."""
        loop_told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: loop_told.append(what))
        clock = FakeClock()
        async with EquosClient(KEY, endpoint=emulator.endpoint, clock=clock) as client:
            emulator.faults.start.add(Delay(1))
            emulator.faults.stop.add(Status(404), times=None)
            await self.overdue(client, clock, emulator, request_)
            emulator.advance(1)
        (left,) = client.unresolved
        assert (left.operation, left.session_id) == ("stop", next(iter(emulator.live_sessions)))
        gc.collect()
        assert loop_told == []

    async def test_a_late_refusal_settles_it(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """Nothing exists after all."""
        clock = FakeClock()
        async with EquosClient(KEY, endpoint=emulator.endpoint, clock=clock) as client:
            emulator.faults.start.add(Delay(1), Status(400))
            await self.overdue(client, clock, emulator, request_)
            emulator.advance(1)
        assert not client.unresolved

    async def test_the_deadline_is_the_end_of_it(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """A start that never becomes known stays unresolved."""
        clock = FakeClock()
        async with EquosClient(KEY, endpoint=emulator.endpoint, clock=clock) as client:
            emulator.faults.start.add(Hang())
            await self.overdue(client, clock, emulator, request_)
            clock.advance(30)
        assert len(client.unresolved) == 1
        assert len(emulator.live_sessions) == 1

    async def test_a_short_deadline_ends_the_wait_only(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """The caller has a second; the answer after it is awaited, and its session ended."""
        clock = FakeClock()
        async with EquosClient(KEY, endpoint=emulator.endpoint, clock=clock) as client:
            emulator.faults.start.add(Delay(1))
            starting = asyncio.create_task(client.start_session(request_, deadline=1))
            await until(lambda: emulator.request_count)
            clock.advance(1)
            with pytest.raises(StartOutcomeUnknownError, match="no answer within 1 s"):
                await starting
            clock.advance(58)
            emulator.advance(1)
        assert not client.unresolved
        assert (emulator.live_sessions, emulator.ended_count) == ({}, 1)


class TestExactReplies:
    @pytest.mark.parametrize(
        ("status", "body"), [(200, b""), (200, b"null"), (204, b""), (200, b"<html>")]
    )
    async def test_a_stop_without_details(self, replies: Replies, status: int, body: bytes) -> None:
        """Null, an empty body, 204 and what cannot be read are all None."""
        replies.patch(f"{API}/s-1/stop", status=status, body=body)
        async with EquosClient(KEY) as client:
            assert await client.stop_session("s-1") is None

    async def test_a_stop_with_details(self, replies: Replies) -> None:
        """The session, ended."""
        replies.patch(f"{API}/s-1/stop", body=dump({**SESSION, "status": "ended"}))
        async with EquosClient(KEY) as client:
            ended = await client.stop_session("s-1")
        assert ended is not None
        assert ended.status == "ended"

    async def test_an_answer_of_another_sessions(self, replies: Replies) -> None:
        """It is no answer: the stop is tried again."""
        replies.patch(f"{API}/s-1/stop", body=dump({**SESSION, "id": "s-2"}))
        replies.patch(f"{API}/s-1/stop", body=b"")
        async with EquosClient(KEY, clock=SkippingClock()) as client:
            assert await client.stop_session("s-1") is None

    async def test_a_field_of_another_type_is_told_once(
        self, replies: Replies, request_: CreateSessionPassRequest, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The session is still returned; the path is logged, and never a value."""
        events: list[Event] = []
        body = dump({**STARTED, "session": {**SESSION, "maxDuration": "secret", "name": 7}})
        async with EquosClient(KEY, on_event=events.append) as client:
            for _ in range(2):
                replies.post(API, status=201, body=body)
                started = await client.start_session(request_)
                assert started.session.id == "s-1"
                assert (started.session.max_duration, started.session.name) == (None, None)
        told = [event for event in events if event.kind == "unreadable_field"]
        assert [event.reason for event in told] == ["$.session.name", "$.session.maxDuration"]
        assert {event.level for event in told} == {logging.WARNING}
        assert "unreadable field" in caplog.text
        assert "secret" not in caplog.text

    async def test_an_unreadable_start_is_stopped(
        self, replies: Replies, request_: CreateSessionPassRequest
    ) -> None:
        """Its session is stopped before the error is raised, and the error says so."""
        body = dump({**STARTED, "session": {**SESSION, "host": None}})
        replies.post(API, status=201, body=body, headers={"X-Request-Id": "r-1"})
        replies.patch(f"{API}/s-1/stop", body=b"")
        async with EquosClient(KEY) as client:
            with pytest.raises(StartUnreadableError, match="has been stopped") as caught:
                await client.start_session(request_)
        error = caught.value
        assert (error.session_id, error.request_id, error.attempts) == ("s-1", "r-1", 1)
        assert client.unresolved == ()

    async def test_an_unreadable_start_that_cannot_be_stopped(
        self, replies: Replies, request_: CreateSessionPassRequest
    ) -> None:
        """Then it is unresolved, under its id."""
        body = dump({**STARTED, "session": {**SESSION, "host": None}})
        replies.post(API, status=201, body=body)
        replies.patch(f"{API}/s-1/stop", status=403, body=b"{}")
        async with EquosClient(KEY) as client:
            with pytest.raises(StartUnreadableError, match="could not be stopped"):
                await client.start_session(request_)
            await client.aclose(deadline=0)
        assert [one.session_id for one in client.unresolved] == ["s-1"]


class BrokenClock(SkippingClock):
    """A bug, of all things in what the test injects."""

    def chance(self) -> float:
        raise ZeroDivisionError


class TestBugs:
    async def test_a_bug_reaches_the_caller(self, emulator: EquosEmulator) -> None:
        """The waiting caller gets the error."""
        async with EquosClient(KEY, endpoint=emulator.endpoint, clock=BrokenClock()) as client:
            with pytest.raises(ZeroDivisionError):
                await client.stop_session("s-1")

    async def test_a_bug_that_nobody_waits_for_reaches_the_loop(
        self, emulator: EquosEmulator
    ) -> None:
        """The loop's exception handler gets it, because the caller is gone."""
        seen: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: seen.append(context.get("exception"))
        )
        async with EquosClient(KEY, endpoint=emulator.endpoint, clock=BrokenClock()) as client:
            stop = asyncio.create_task(client.stop_session("s-1"))
            await asyncio.sleep(0)  # until it has begun
            stop.cancel()
        assert [type(one) for one in seen] == [ZeroDivisionError]


class TestEvents:
    async def test_what_is_told(
        self,
        emulator: EquosEmulator,
        clock: SkippingClock,
        request_: CreateSessionPassRequest,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Retries, pauses and ends at DEBUG, money at stake as warnings; the hook gets the same."""
        events: list[Event] = []
        caplog.set_level(logging.DEBUG, logger="equos_async")
        async with EquosClient(
            KEY, endpoint=emulator.endpoint, clock=clock, on_event=events.append
        ) as client:
            emulator.faults.start.add(Status(429, retry_after=1))
            started = await client.start_session(request_)
            emulator.faults.start.add(Drop("after"))
            with pytest.raises(StartOutcomeUnknownError):
                await client.start_session(request_)
            await client.stop_session(started.session.id)
        kinds = [event.kind for event in events]
        assert kinds == ["paused", "retry", "ended", "start_unknown", "ended", "ended"]
        levels = [record.levelname for record in caplog.records]
        assert levels == ["DEBUG", "DEBUG", "DEBUG", "WARNING", "DEBUG", "DEBUG"]
        assert [record.getMessage() for record in caplog.records] == list(map(str, events))
        retry = events[1]
        assert (retry.operation, retry.attempts, retry.status) == ("start", 1, 429)
        assert retry.delay is not None
        assert 1.0 <= retry.delay <= 1.5
        assert str(retry).startswith(f"retry, {retry.delay:.2f} s: ")
        assert "'support call', attempt 1: status 429" in str(retry)

    async def test_records_are_flat(
        self,
        emulator: EquosEmulator,
        request_: CreateSessionPassRequest,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A formatter finds plain values by names that collide with nothing."""
        emulator.faults.start.add(Drop("after"))
        async with EquosClient(KEY, endpoint=emulator.endpoint) as client:
            with pytest.raises(StartOutcomeUnknownError):
                await client.start_session(request_)
        (record,) = caplog.records
        flat = {name: value for name, value in vars(record).items() if name.startswith("equos_")}
        assert flat.pop("equos_reason")
        assert flat == {
            "equos_event": "start_unknown",
            "equos_operation": "start",
            "equos_resource": "session",
            "equos_attempts": 1,
            "equos_name": "support call",
            "equos_client": "tenant-42",
        }

    async def test_how_a_call_ended(
        self, emulator: EquosEmulator, clock: SkippingClock, request_: CreateSessionPassRequest
    ) -> None:
        """The event has its time, its result, its address and its retries."""
        events: list[Event] = []
        async with EquosClient(
            KEY, endpoint=emulator.endpoint, clock=clock, on_event=events.append
        ) as client:
            emulator.faults.start.add(Status(429, retry_after=1), times=2)
            started = await client.start_session(request_)
            emulator.faults.stop.add(Status(404))
            with pytest.raises(NotFoundError):
                await client.stop_session(started.session.id)
            await client.stop_session(started.session.id)
        start, refused, stop = (event for event in events if event.kind == "ended")
        assert (start.status, start.error, start.attempts) == (201, None, 3)
        assert (start.method, start.url) == ("POST", f"{emulator.endpoint}/v3/session-passes")
        assert start.session_id == stop.session_id == started.session.id
        assert [retry.status for retry in start.retries] == [429, 429]
        first, second = (retry.seconds or 0 for retry in start.retries)
        assert 0 < first < second - 1 < (start.seconds or 0) - 2
        assert (refused.status, refused.error, refused.retries) == (404, "NotFoundError", ())
        assert (stop.method, stop.error, stop.status) == ("PATCH", None, 200)
        assert stop.url == f"{emulator.endpoint}/v3/session-passes/{{id}}/stop"

    async def test_who_cancels_a_call_is_told_so(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """The call ends as cancelled; the client's own stop has a separate event."""
        events: list[Event] = []
        async with EquosClient(KEY, endpoint=emulator.endpoint, on_event=events.append) as client:
            emulator.faults.start.add(Delay(30))
            start = asyncio.create_task(client.start_session(request_))
            await until(lambda: emulator.requests)
            start.cancel()
            await asyncio.wait([start])
            emulator.advance(30)
        assert [(event.kind, event.error) for event in events] == [
            ("ended", "CancelledError"),
            ("orphan_stopped", None),
        ]
        assert (events[1].method, events[1].status, events[1].attempts) == ("PATCH", 200, 1)

    async def test_events_come_in_the_callers_context(
        self, emulator: EquosEmulator, clock: SkippingClock, request_: CreateSessionPassRequest
    ) -> None:
        """A tracer finds the span that was current when the call was made."""
        current = ContextVar("current", default="none")
        seen: list[tuple[str, str]] = []
        async with EquosClient(
            KEY,
            endpoint=emulator.endpoint,
            clock=clock,
            on_event=lambda event: seen.append((event.kind, current.get())),
        ) as client:
            emulator.faults.start.add(Status(503, retry_after=0))
            token = current.set("outer")
            started = await client.start_session(request_)
            current.reset(token)
            await client.stop_session(started.session.id)
        assert [one for one in seen if one[0] != "paused"] == [
            ("retry", "outer"),
            ("ended", "outer"),
            ("ended", "none"),
        ]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    async def test_what_ends_the_program_ends_it_from_the_loop(
        self, emulator: EquosEmulator, error: type[BaseException]
    ) -> None:
        """A hook that ends the program does not take a call with it, and what that has sent."""
        seen: list[BaseException] = []
        loop = asyncio.get_running_loop()

        class Watched(asyncio.Handle):
            """The loop's next turn, with what came out of it."""

        def hook(event: Event) -> None:
            if event.kind == "ended" and not seen:
                seen.append(error())
                raise seen[0]

        real = loop.call_soon

        def call_soon(callback: Any, *args: Any, **options: Any) -> asyncio.Handle:
            if args and args[0] in seen:
                with pytest.raises(error):
                    callback(*args)
                return Watched(callback, args, loop)
            return real(callback, *args, **options)

        async with EquosClient(KEY, endpoint=emulator.endpoint, on_event=hook) as client:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "call_soon", call_soon)
                assert await client.stop_session("s-1") is None
        assert len(seen) == 1

    async def test_a_log_handler_that_raises(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """The loop's handler is told of it, and the call goes on."""
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))

        class Broken(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise asyncio.CancelledError

        handler = Broken()
        logging.getLogger("equos_async").addHandler(handler)
        try:
            async with EquosClient(KEY, endpoint=emulator.endpoint) as client:
                emulator.faults.start.add(Drop("after"))
                with pytest.raises(StartOutcomeUnknownError):
                    await client.start_session(request_)
        finally:
            logging.getLogger("equos_async").removeHandler(handler)
        assert [type(one["exception"]) for one in told] == [asyncio.CancelledError]

    async def test_a_hook_that_returns_a_coroutine(
        self, emulator: EquosEmulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The coroutine is closed, and that is logged once, because it would never run."""

        async def later() -> None:
            raise AssertionError

        async with EquosClient(
            KEY, endpoint=emulator.endpoint, on_event=lambda _: later()
        ) as client:
            for session_id in ("s-1", "s-2"):
                await client.stop_session(session_id)
        assert caplog.text.count("returned a coroutine, which is not run") == 1

    async def test_a_hook_that_raises_is_logged_once(
        self,
        emulator: EquosEmulator,
        clock: SkippingClock,
        request_: CreateSessionPassRequest,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The calls go on."""

        def fail(_: Event) -> None:
            raise RuntimeError("a bug in the hook")

        async with EquosClient(
            KEY, endpoint=emulator.endpoint, clock=clock, on_event=fail
        ) as client:
            emulator.faults.start.add(Status(429), times=2)
            await client.start_session(request_)
        assert [r.message.partition(";")[0] for r in caplog.records] == ["on_event raised"]

    async def test_unresolved_is_bounded(
        self,
        emulator: EquosEmulator,
        request_: CreateSessionPassRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The newest are kept."""
        monkeypatch.setattr("equos_async._calls.unresolved.MAX_UNRESOLVED", 2)
        emulator.faults.stop.add(Status(403), times=None)
        async with EquosClient(KEY, endpoint=emulator.endpoint) as client:
            for session_id in ("a", "b", "c"):
                with pytest.raises(Exception, match="403"):
                    await client.stop_session(session_id)
        assert [one.session_id for one in client.unresolved] == ["b", "c"]


class TestRetryGate:
    async def test_a_success_lets_the_next_retry_go(self, emulator: EquosEmulator) -> None:
        """A retry that waits for the gate goes when another stop succeeds, not at its time."""
        clock = FakeClock(chance=0.5)
        patient = RetryPolicy(gate_delay=40, gate_max_delay=40)
        async with EquosClient(
            KEY, endpoint=emulator.endpoint, clock=clock, retry=patient
        ) as client:
            emulator.faults.stop.add(Status(500), times=2)
            failing = asyncio.create_task(client.stop_session("a"))
            await until(lambda: len(emulator.requests) == 1 and 0.25 in clock.due)
            clock.advance(0.25)  # its first backoff: this retry fails and closes the gate
            await until(lambda: len(emulator.requests) == 2 and 0.5 in clock.due)
            clock.advance(0.5)  # its second backoff: this retry waits for the gate
            await settle()
            assert len(emulator.requests) == 2
            await client.stop_session("b")
            await failing
        assert len(emulator.requests) == 4


class TestPause:
    async def test_a_start_that_cannot_wait_is_refused_locally(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """The server asked for 20 s: a start with 10 s fails at once, and nothing is sent."""
        clock = FakeClock(chance=0.5)
        async with EquosClient(KEY, endpoint=emulator.endpoint, clock=clock) as client:
            emulator.faults.start.add(Status(429, retry_after=20))
            first = asyncio.create_task(client.start_session(request_))
            await until(lambda: clock.due and emulator.request_count)
            await settle()
            with pytest.raises(Exception, match=r"20\.0 s more") as caught:
                await client.start_session(request_, deadline=10)
            assert getattr(caught.value, "retry_after", None) == 20.0
            second = asyncio.create_task(client.start_session(request_, deadline=40))
            await settle()
            assert emulator.request_count == 1
            while not (first.done() and second.done()):
                clock.advance(0.5)
                await settle()
            assert len(emulator.live_sessions) == 2

    async def test_who_waits_in_line_learns_of_a_longer_pause(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """It is refused as soon as it is clear that the pause outlasts its deadline."""
        clock = FakeClock(chance=0.5)
        limits = Limits(start_connections=1)
        async with EquosClient(
            KEY,
            endpoint=emulator.endpoint,
            clock=clock,
            limits=limits,
            retry=RetryPolicy(start_attempts=1),
        ) as client:
            emulator.faults.start.add(Delay(0.05), Status(429, retry_after=20))
            first = asyncio.create_task(client.start_session(request_))
            second = asyncio.create_task(client.start_session(request_, deadline=10))
            with pytest.raises(Exception, match="429"):
                await first
            with pytest.raises(Exception, match="the server asked for a pause"):
                await second
            assert emulator.request_count == 1

    async def test_no_place_before_the_deadline(
        self, emulator: EquosEmulator, request_: CreateSessionPassRequest
    ) -> None:
        """A start that gets no permit times out, and nothing was sent."""
        clock = FakeClock()
        limits = Limits(start_connections=1)
        async with EquosClient(
            KEY, endpoint=emulator.endpoint, clock=clock, limits=limits
        ) as client:
            emulator.faults.start.add(Delay(0.05))
            first = asyncio.create_task(client.start_session(request_))
            second = asyncio.create_task(client.start_session(request_, deadline=1))
            await until(lambda: emulator.request_count)
            clock.advance(2)
            with pytest.raises(APITimeoutError, match="nothing was sent") as caught:
                await second
            assert caught.value.attempts == 0
            await first
