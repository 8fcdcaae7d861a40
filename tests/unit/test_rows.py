"""Calls that only read."""

from __future__ import annotations

import asyncio

import pytest

from equos_async import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    EquosClient,
    Event,
    HealthResponse,
    NotFoundError,
    OverloadedError,
    RateLimitError,
    Timeouts,
)
from equos_async._calls.call import Work, moved
from tests.clocks import SkippingClock, until
from tests.conftest import KEY
from tests.faults.server import Behaviour, Connection, RawServer
from tests.unit.test_wire import SESSION, dump

FOUND = dump(SESSION)


def answers(status: int, body: bytes, headers: str = "") -> Behaviour:
    """A well-formed answer."""

    async def behave(connection: Connection) -> None:
        await connection.reply(status, body, headers)

    return behave


def cut(body: bytes) -> Behaviour:
    """An answer of which the end is missing."""

    async def behave(connection: Connection) -> None:
        head = f"HTTP/1.1 200 X\r\nContent-Length: {len(body)}\r\n\r\n"
        await connection.send(head.encode() + body[: len(body) // 2])
        connection.close()

    return behave


async def hang(connection: Connection) -> None:
    """No answer."""
    await connection.gone()


def client_of(server: RawServer, events: list[Event], **timeouts: float) -> EquosClient:
    """A client whose backoff takes no time."""
    return EquosClient(
        api_key=KEY,
        endpoint=server.endpoint,
        clock=SkippingClock(),
        timeouts=Timeouts(**timeouts),
        on_event=events.append,
    )


async def test_what_is_there() -> None:
    """It is sent without a body and without a content type, and decoded."""
    heads: list[bytes] = []

    async def behave(connection: Connection) -> None:
        heads.append(connection.head.lower())
        await connection.reply(200, FOUND)

    events: list[Event] = []
    async with RawServer(always=behave) as server, client_of(server, events) as client:
        found = await client.get_session("s-1")
        assert found is not None
        assert found.id == "s-1"
        assert server.paths == ["/v3/sessions/s-1"]
    (head,) = heads
    assert head.startswith(b"get /v3/sessions/s-1 ")
    assert b"content-type" not in head
    (ended,) = events
    assert (ended.kind, ended.operation, ended.method) == ("ended", "read", "GET")
    assert (ended.session_id, ended.error) == ("s-1", None)
    assert str(ended.url).endswith("/v3/sessions/{id}")


async def test_an_operation_about_nothing() -> None:
    """No id, no check of one."""
    async with (
        RawServer(always=answers(200, b'{"status":"ok","version":"3"}')) as server,
        EquosClient(api_key=KEY, endpoint=server.endpoint) as client,
    ):
        assert await client.ping() == HealthResponse(status="ok", version="3")
        assert server.paths == ["/v3/health"]


async def test_what_is_absent() -> None:
    """Null is None; 404 is an error, for the URL is wrong."""
    events: list[Event] = []
    script = [answers(200, b"null"), answers(404, b"{}")]
    async with RawServer(script) as server, client_of(server, events) as client:
        assert await client.get_session("s-1") is None
        with pytest.raises(NotFoundError) as caught:
            await client.get_session("s-1")
        assert (caught.value.operation, caught.value.attempts) == ("read", 1)
        assert server.requests == 2
    assert client.unresolved == ()
    assert {event.kind for event in events} == {"ended"}


async def test_what_is_cut_is_asked_for_again() -> None:
    """Decoding comes before the verdict; three attempts, then no usable answer."""
    events: list[Event] = []
    script = [cut(FOUND), answers(200, FOUND), *[answers(200, b"[]")] * 3]
    async with RawServer(script) as server, client_of(server, events) as client:
        assert await client.get_session("s-1") is not None
        with pytest.raises(APIConnectionError, match="the answer is unusable") as caught:
            await client.get_session("s-1")
        assert caught.value.attempts == 3
        assert server.requests == 5
    assert [event.kind for event in events].count("retry") == 3
    assert client.unresolved == ()


async def test_an_answer_of_another() -> None:
    """It is asked for again, on another connection."""
    other = dump({**SESSION, "id": "s-2"})
    script = [answers(200, other), answers(200, FOUND)]
    async with RawServer(script) as server, client_of(server, []) as client:
        found = await client.get_session("s-1")
        assert found is not None
        assert (found.id, server.accepted) == ("s-1", 2)


@pytest.mark.parametrize("fault", [hang, cut(FOUND), answers(500, b"{}"), answers(503, b"{}")])
async def test_what_fails_once(fault: Behaviour) -> None:
    """It is sent again, for it changes nothing."""
    script = [fault, answers(200, FOUND)]
    async with RawServer(script) as server, client_of(server, [], read_attempt=0.2) as client:
        assert await client.get_session("s-1") is not None


async def test_time_is_over() -> None:
    """An attempt is cut off at its time, and nothing is listened for."""
    events: list[Event] = []
    async with RawServer(always=hang) as server:
        async with client_of(server, events, read_attempt=0.2) as client:
            with pytest.raises(APITimeoutError, match="no answer in time") as caught:
                await client.get_session("s-1")
            assert caught.value.attempts == 3
    assert client.unresolved == ()
    assert {event.level for event in events} <= {10}, "nothing is at stake"


async def test_a_pause_of_reads_is_theirs() -> None:
    """A refusal of a read delays reads, no start; one that would be too long fails at once."""
    busy = answers(429, b"{}", "Retry-After: 20\r\n")
    async with RawServer([busy]) as server:
        client = EquosClient(api_key=KEY, endpoint=server.endpoint)
        async with client:
            with pytest.raises(RateLimitError):
                await client.get_session("s-1", deadline=1)
            with pytest.raises(OverloadedError, match="nothing was sent"):
                await client.get_session("s-1", deadline=1)
            assert await client.stop_session("s-1") is not None
        assert server.requests == 2


async def test_a_caller_that_is_gone() -> None:
    """A sent call is cut off, a waiting one is withdrawn, and nothing is reported."""
    events: list[Event] = []
    async with RawServer(always=hang) as server:
        async with client_of(server, events) as client:
            asking = asyncio.create_task(client.get_session("s-1"))
            await until(lambda: server.requests)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
    assert [event.error for event in events] == ["CancelledError"]
    assert client.unresolved == ()


async def test_the_loop_shuts_down() -> None:
    """It gets no grace: nothing is lost with it."""
    async with RawServer(always=hang) as server:
        async with client_of(server, []) as client:
            before = asyncio.all_tasks()
            asking = asyncio.create_task(client.get_session("s-1"))
            await until(lambda: server.requests)
            for task in asyncio.all_tasks() - before - server.tasks - {asking}:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking


async def test_the_client_closes() -> None:
    """The call is cut off at once, and later ones are refused."""
    async with RawServer(always=hang) as server:
        client = client_of(server, [])
        asking = asyncio.create_task(client.get_session("s-1"))
        await until(lambda: server.requests)
        await client.aclose(deadline=10)
        with pytest.raises(ClientClosedError):
            await asking
        with pytest.raises(ClientClosedError) as caught:
            await client.get_session("s-1")
        assert caught.value.operation == "read"


async def test_a_bad_id() -> None:
    """It is refused before anything is sent."""
    async with EquosClient(api_key=KEY, endpoint="http://127.0.0.1:9") as client:
        with pytest.raises(ConfigurationError, match="session_id"):
            await client.get_session("..")


def test_an_impossible_step_raises() -> None:
    """A call or a client that is not in the expected state raises an error."""
    assert moved(Work.QUEUED, Work.QUEUED, Work.ON_WIRE) is Work.ON_WIRE
    with pytest.raises(RuntimeError, match="cannot go from"):
        moved(Work.DONE, Work.QUEUED, Work.ON_WIRE)
