"""Look-ups: one item, or all items part by part."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from equos_async import (
    APIConnectionError,
    ConfigurationError,
    EquosClient,
    EquosConversation,
    Event,
    HealthResponse,
    Limits,
)
from equos_async._api.answers import Page
from equos_async._api.listing import GROWTH, MAX_ITEMS, MAX_STALE, Listing
from equos_async._api.operations import CONVERSATION, RESOURCES, SESSION, resource_of
from equos_async._inside import begin, clock_of, end, read
from equos_async.testing import EquosEmulator
from tests.clocks import SkippingClock, until
from tests.conftest import API_KEY, KEY, REQUEST
from tests.faults.server import Connection, RawServer
from tests.kinds import KINDS, TALK, Kind
from tests.unit.test_wire import dump

LISTS: dict[str, Callable[..., AsyncIterator[Any]]] = {
    "session": EquosClient.sessions,
    "conversation": EquosClient.conversations,
}


class Lister:
    """A server that answers with what a function makes of ``skip``."""

    def __init__(self, answer: Callable[[int], object]) -> None:
        self.answer = answer
        self.queries: list[dict[str, str]] = []
        self.server = RawServer(always=self)

    async def __call__(self, connection: Connection) -> None:
        query = dict(parse_qsl(urlsplit(connection.path).query))
        self.queries.append(query)
        await connection.reply(200, dump(self.answer(int(query["skip"]))))


async def ids(found: AsyncIterator[Any]) -> list[str]:
    """The ids of all that is listed."""
    return [one.id async for one in found]


def numbered(first: int, last: int) -> list[dict[str, str]]:
    """Items with their number as id."""
    return [{"id": f"i-{number}"} for number in range(first, last)]


@pytest.mark.parametrize("word", LISTS)
async def test_all_of_them(word: str) -> None:
    """Parts of 50 until the total is reached; the filter goes along, percent-encoded."""
    lister = Lister(lambda skip: {f"{word}s": numbered(skip, min(skip + 50, 120)), "total": 120})
    events: list[Event] = []
    async with lister.server as server:
        client = EquosClient(api_key=API_KEY, endpoint=server.endpoint, on_event=events.append)
        async with client:
            assert await ids(LISTS[word](client, client="tenant 42&take=1")) == [
                f"i-{number}" for number in range(120)
            ]
            assert await ids(LISTS[word](client)) != []
    assert lister.queries[:3] == [
        {"take": "50", "skip": str(skip), "client": "tenant 42&take=1"} for skip in (0, 50, 100)
    ]
    assert "client" not in lister.queries[3]
    assert {(one.kind, one.operation, one.resource) for one in events} == {("ended", "read", word)}
    assert {str(one.url) for one in events} == {f"{server.endpoint}/v3/{word}s"}


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
async def test_against_the_emulator(order: Any) -> None:
    """In any order no id is returned twice; unless the list changes, none is missed."""
    async with EquosEmulator(page_order=order) as emulator:
        client = EquosClient(KEY, api_key=API_KEY, endpoint=emulator.endpoint)
        async with client:
            for kind in KINDS.values():
                begun = [await kind.started_id(client) for _ in range(60)]
                found = await ids(LISTS[kind.word](client))
                assert len(set(found)) == len(found)
                assert set(found) <= set(begun)
                assert order == "shuffled" or set(found) == set(begun)
                assert await ids(LISTS[kind.word](client, client="somebody else")) == []
                for one in begun:
                    await kind.stop(client, one)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_one_of_them(kind: Kind, emulator: EquosEmulator) -> None:
    """As it is now, or None; without the tokens that only a start's answer has."""
    client = EquosClient(KEY, api_key=API_KEY, endpoint=emulator.endpoint)
    get = {"session": client.get_session, "conversation": client.get_conversation}[kind.word]
    async with client:
        one = await kind.started_id(client)
        found = await get(one)
        assert found is not None
        assert found.id == one
        await kind.stop(client, one)
        found = await get(one)
        assert found is not None
        assert found.status == "ended"
        assert await get("nobody") is None
        with pytest.raises(ConfigurationError, match="session_id"):
            await get("..")
        assert await client.ping() == HealthResponse(**vars_of(await client.ping()))


def vars_of(health: HealthResponse) -> dict[str, Any]:
    """Its fields, which the emulator fills."""
    assert health.status
    assert health.version
    return {"status": health.status, "version": health.version}


async def test_a_conversation_in_full(emulator: EquosEmulator) -> None:
    """All fields of the answer are read."""
    client = EquosClient(api_key=API_KEY, endpoint=emulator.endpoint)
    async with client, client.conversation(TALK) as started:
        talk = started.conversation
        assert isinstance(talk, EquosConversation)
        assert talk.name == "support call"
        assert talk.character_id == "ch_1"
        assert talk.max_seconds == 600
        assert talk.server_url
        assert started.consumer_access_token
        assert "user-7" not in repr(started)
        assert started.consumer_access_token not in repr(started)


async def test_nonsense_is_skipped() -> None:
    """An item without a usable id is left out, and reported once for each path."""
    good: dict[str, Any] = {"id": "s-1", "name": 7, "transcript": []}
    odd: list[Any] = [
        7,
        None,
        {},
        {"id": 7},
        {"id": ""},
        {"id": ".."},
        {"id": "x" * 300},
        [],
        "s-2",
    ]
    lister = Lister(lambda skip: {"sessions": [good, *odd] * 3, "total": -1, "skip": skip})
    events: list[Event] = []
    async with lister.server as server:
        client = EquosClient(api_key=API_KEY, endpoint=server.endpoint, on_event=events.append)
        async with client:
            found = [one async for one in client.sessions()]
    assert [(one.id, one.name) for one in found] == [("s-1", None)]
    told = [one.reason for one in events if one.kind == "unreadable_field"]
    assert sorted(told) == [
        "$.sessions[]",
        "$.sessions[].id",
        "$.sessions[].name",
        "$.skip",
        "$.total",
    ]
    assert len(lister.queries) == 1 + MAX_STALE


@pytest.mark.parametrize(
    "body", [{}, {"sessions": None}, {"sessions": {"id": "s-1"}}, [], None, {"sessions": "s-1"}]
)
async def test_no_list(body: object) -> None:
    """It is asked for again, and then no usable answer: that is not the same as none."""
    lister = Lister(lambda _: body)
    async with lister.server as server:
        clock = SkippingClock()
        async with EquosClient(api_key=API_KEY, endpoint=server.endpoint, clock=clock) as client:
            with pytest.raises(APIConnectionError, match="unusable"):
                await ids(client.sessions())
    assert len(lister.queries) == 3


async def test_a_part_larger_than_most_answers() -> None:
    """Each item may hold a whole transcript: 8 MiB are read, and no more."""
    size = 3 << 20
    lister = Lister(lambda _: {"sessions": [{"id": "s-1", "transcript": "x" * size}], "total": 1})
    async with lister.server as server:
        clock = SkippingClock()
        async with EquosClient(api_key=API_KEY, endpoint=server.endpoint, clock=clock) as client:
            (one,) = [one async for one in client.sessions()]
            assert len(one.transcript) == size
            size = 9 << 20
            with pytest.raises(APIConnectionError, match="unusable"):
                await ids(client.sessions())


async def test_a_reader_that_leaves() -> None:
    """Nothing more is asked for."""
    lister = Lister(lambda skip: {"sessions": numbered(skip, skip + 50), "total": 500})
    async with lister.server as server:
        async with EquosClient(api_key=API_KEY, endpoint=server.endpoint) as client:
            async with aclosing(client.sessions()) as found:
                async for one in found:
                    assert one.id == "i-0"
                    break
    assert len(lister.queries) == 1


async def test_a_bad_filter() -> None:
    """It is refused when it is used, before anything is sent."""
    client = EquosClient(api_key=API_KEY, endpoint="http://127.0.0.1:9")
    filters: tuple[Any, ...] = ("", 7, "\ud800")
    for bad in filters:
        with pytest.raises(ConfigurationError, match="client"):
            await ids(client.sessions(client=bad))


async def test_how_many_at_once() -> None:
    """Looks have a limit of their own, and no start waits for them."""
    go = asyncio.Event()

    async def behave(connection: Connection) -> None:
        if connection.method == "GET":
            await go.wait()
        await connection.reply(connection.good_status, connection.act())

    async with RawServer(always=behave) as server:
        limits = Limits(read_connections=2)
        client = EquosClient(KEY, api_key=API_KEY, endpoint=server.endpoint, limits=limits)
        async with client:
            looks = [asyncio.create_task(client.get_session(f"s-{n}")) for n in range(5)]
            await until(lambda: server.requests == 2)
            await client.start_session(REQUEST)
            assert server.requests == 3
            go.set()
            assert all(await asyncio.gather(*looks))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_the_servers_name_for_the_exchange(kind: Kind) -> None:
    """The event has that of the last answer, if it is a plain one."""
    names = iter(["first-1", "second-2", "x" * 300])

    async def behave(connection: Connection) -> None:
        name = next(names)
        if name == "first-1":
            await connection.reply(429, b"", f"X-Request-Id: {name}\r\n")
        else:
            headers = f"X-Request-Id: {name}\r\n"
            await connection.reply(connection.good_status, connection.act(), headers)

    events: list[Event] = []
    async with RawServer(always=behave) as server:
        clock = SkippingClock()
        async with kind.client(server.endpoint, clock=clock, on_event=events.append) as client:
            await kind.stop(client, await kind.started_id(client))
    told = [one.request_id for one in events if one.kind == "ended"]
    assert told == ["second-2", None]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("status", ["brand-new", "", None, 7])
async def test_an_unknown_status(status: object, kind: Kind) -> None:
    """It never fails a call, and counts as live."""

    async def behave(connection: Connection) -> None:
        answer = json.loads(connection.act())
        answer.get(kind.word, answer)["status"] = status
        await connection.reply(connection.good_status, dump(answer))

    events: list[Event] = []
    async with RawServer(always=behave) as server:
        async with kind.client(server.endpoint, on_event=events.append) as client:
            ended = await kind.stop(client, await kind.started_id(client))
    assert ended.status == (status if isinstance(status, str) else None)
    assert "not_live" not in {one.kind for one in events}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("status", ["ended", "error", "blocked"])
async def test_one_that_is_over_already(status: str, kind: Kind) -> None:
    """It is returned, and reported."""

    async def behave(connection: Connection) -> None:
        answer = json.loads(connection.act())
        answer.get(kind.word, answer)["status"] = status
        await connection.reply(connection.good_status, dump(answer))

    events: list[Event] = []
    async with RawServer(always=behave) as server:
        async with kind.client(server.endpoint, on_event=events.append) as client:
            await kind.started_id(client)
    assert [(one.resource, one.reason) for one in events if one.kind == "not_live"] == [
        (kind.word, f"the server answered that it is {status}")
    ]


class Item:
    """Something with an id."""

    def __init__(self, number: int) -> None:
        self.id = str(number)


def page(first: int, last: int, total: int | None) -> Page[Item]:
    """A part with these items."""
    return Page(tuple(map(Item, range(first, last))), last - first, total)


class TestListing:
    """Reading a list ends, whatever the server answers."""

    def test_a_part_shorter_than_asked(self) -> None:
        """The server may allow fewer: the next begins after what came."""
        listing = Listing[Item]()
        assert len(list(listing.take(page(0, 20, 40)))) == 20
        assert (listing.skip, listing.is_over) == (20, False)
        assert len(list(listing.take(page(20, 40, 40)))) == 20
        assert (listing.is_over, listing.problem) == (True, None)

    def test_no_total(self) -> None:
        """An empty part is the end."""
        listing = Listing[Item]()
        for _ in listing.take(page(0, 50, None)):
            pass
        assert not listing.is_over
        assert list(listing.take(page(0, 0, None))) == []
        assert (listing.is_over, listing.problem) == (True, None)

    def test_a_total_of_each_part_only(self) -> None:
        """A full part does not end the list then."""
        listing = Listing[Item]()
        for first, last in ((0, 50), (50, 100), (100, 120)):
            assert not listing.is_over
            listing.take(page(first, last, last - first))
        assert (listing.skip, listing.is_over, listing.problem) == (120, True, None)

    def test_a_list_that_moves(self) -> None:
        """New items move the others on: a part without new ids is not the end."""
        listing = Listing[Item]()
        listing.take(page(0, 50, 150))
        assert list(listing.take(page(0, 50, 200))) == []
        assert len(list(listing.take(page(50, 100, 200)))) == 50
        assert not listing.is_over

    def test_one_that_loops(self) -> None:
        """The same part again and again."""
        listing = Listing[Item]()
        for _ in range(1 + MAX_STALE):
            assert not listing.is_over
            listing.take(page(0, 50, 10**9))
        assert (listing.is_over, listing.problem) == (True, "$.skip")

    @pytest.mark.parametrize(("total", "most"), [(100, 200 + GROWTH), (None, MAX_ITEMS)])
    def test_one_without_an_end(self, total: int | None, most: int) -> None:
        """New ids for ever, and a total that runs ahead."""
        listing, number = Listing[Item](), 0
        while not listing.is_over:
            listing.take(page(number, number + 50, total))
            number += 50
            total = None if total is None else total + 50
        assert number == most
        assert listing.problem == "$.total"


class TestRows:
    """A resource is found by a request, and used through a client."""

    def test_by_its_request(self) -> None:
        """The type decides; anything else is refused."""
        assert resource_of(REQUEST) is SESSION
        assert resource_of(TALK) is CONVERSATION
        with pytest.raises(ConfigurationError) as caught:
            resource_of({"name": "x"})
        for name in ("CreateSessionPassRequest", "CreateEquosConversationRequest", "dict"):
            assert name in str(caught.value)

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_its_time(self, kind: Kind) -> None:
        """It can be read, and set in a copy."""
        resource = resource_of(kind.request)
        changed = resource.with_seconds(kind.request, 60)
        assert resource.seconds_of(changed) == 60
        assert resource.seconds_of(kind.request) == 600
        assert changed.name == kind.request.name

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    async def test_through_a_client(self, kind: Kind, emulator: EquosEmulator) -> None:
        """For what of this package runs on one: it knows the row only."""
        resource = RESOURCES[resource_of(kind.request).word]
        async with EquosClient(KEY, api_key=API_KEY, endpoint=emulator.endpoint) as client:
            started = await begin(client, resource, kind.request, deadline=30)
            session_id = resource.id_of(started)
            assert resource.address_of(started)
            assert resource.granted_of(started) == 600
            found, ended = (
                await read(client, resource, session_id),
                await end(client, resource, session_id),
            )
            assert found is not None
            assert ended is not None
            assert (found.id, ended.status) == (session_id, "ended")
            assert clock_of(client).now() > 0
        assert emulator.live == {}
