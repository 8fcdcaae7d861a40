"""Keys: the key of each call, and keys that come from callables or are replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, cast

import pytest

from equos_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    Event,
    RetryPolicy,
)
from tests.clocks import FakeClock, SkippingClock, settle, until
from tests.conftest import API_KEY, KEY, REQUEST
from tests.faults.server import Connection, RawServer, error_body, good
from tests.kinds import CONVERSATION, KINDS, SESSION, TALK, Kind

VARIABLES = ("EQUOS_CLIENT_KEY", "EQUOS_API_KEY")


@pytest.fixture(autouse=True)
def _no_keys_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


async def more(value: Callable[[], int], than: int) -> None:
    """Run the loop until a number has grown."""
    await until(lambda: value() > than)


class Door:
    """A server that lets some keys in, and remembers what it was shown."""

    def __init__(self, *keys: str) -> None:
        self.keys = set(keys)
        self.heads: list[str] = []
        self.server = RawServer(always=self)

    async def __call__(self, connection: Connection) -> None:
        head = connection.head.decode()
        self.heads.append(head)
        if any(f"{key}\r\n" in head for key in self.keys):
            await good(connection)
        else:
            await connection.reply(401, error_body(401, "Unauthorized"))


class Source:
    """Returns its answers, one after another and the last for ever, or raises them."""

    def __init__(self, *answers: object) -> None:
        self.answers: list[Any] = list(answers)
        self.asked = 0

    def __call__(self) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def failing(work: Awaitable[object]) -> EquosError:
    """The error of what fails."""
    with pytest.raises(EquosError) as caught:
        await work
    return caught.value


class TestWhichKey:
    """A row names the key that it needs."""

    def test_none_at_all(self) -> None:
        """Both arguments and both variables are named."""
        with pytest.raises(ConfigurationError) as caught:
            EquosClient()
        for name in ("client_key", "api_key", *VARIABLES):
            assert name in str(caught.value)

    def test_an_empty_variable_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As compose files set it; an empty argument is a mistake."""
        monkeypatch.setenv("EQUOS_CLIENT_KEY", "")
        assert EquosClient(api_key=API_KEY)
        with pytest.raises(
            ConfigurationError, match="client_key must be a non-empty string, not an empty one"
        ):
            EquosClient("", api_key=API_KEY)
        with pytest.raises(ConfigurationError, match="api_key must be a non-empty string, not int"):
            EquosClient(api_key=cast("Any", 7))

    async def test_the_server_key_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ends sessions by another operation; session passes need the client key."""
        monkeypatch.setenv("EQUOS_API_KEY", API_KEY)
        door = Door(API_KEY)
        async with door.server, EquosClient(endpoint=door.server.endpoint) as client:
            with pytest.raises(ConfigurationError, match="client_key.*EQUOS_CLIENT_KEY") as caught:
                await client.start_session(REQUEST)
            assert caught.value.operation == "start"
            assert await client.stop_session("s-1") is not None
            assert door.server.paths == ["/v3/sessions/s-1/stop"]
        (head,) = door.heads
        assert f"X-Api-Key: {API_KEY}\r\n" in head
        assert "Authorization" not in head

    async def test_the_client_key_alone(self) -> None:
        """A call that needs the server key is refused before anything is sent."""
        door = Door(KEY)
        async with door.server, EquosClient(KEY, endpoint=door.server.endpoint) as client:
            for work in (
                client.start_conversation(TALK),
                client.stop_conversation("c-1"),
                client.get_session("s-1"),
                client.get_conversation("c-1"),
                anext(client.sessions()),
                anext(client.conversations()),
            ):
                error = await failing(work)
                assert isinstance(error, ConfigurationError)
                assert "api_key" in str(error)
                assert "EQUOS_API_KEY" in str(error)
            with pytest.raises(ConfigurationError, match="api_key"):
                async with client.conversation(TALK):
                    pass
        assert door.heads == []

    async def test_both(self) -> None:
        """Each call carries its own, and a ping none."""
        door = Door(KEY, API_KEY)
        async with door.server:
            client = EquosClient(KEY, api_key=API_KEY, endpoint=door.server.endpoint)
            async with client, client.session(REQUEST), client.conversation(TALK):
                await failing(client.ping())
        session, conversation, ping, second, first = door.heads
        for head in (session, first):
            assert f"Authorization: Bearer {KEY}\r\n" in head
            assert API_KEY not in head
        for head in (conversation, second):
            assert f"X-Api-Key: {API_KEY}\r\n" in head
            assert KEY not in head
        assert ping.startswith("GET /v3/health ")
        assert KEY not in ping
        assert API_KEY not in ping

    @pytest.mark.parametrize(("kind", "other"), [(SESSION, CONVERSATION), (CONVERSATION, SESSION)])
    async def test_the_wrong_request(self, kind: Kind, other: Kind) -> None:
        """Both types are named, and nothing is sent."""
        client = EquosClient(KEY, api_key=API_KEY, endpoint="http://127.0.0.1:9")
        async with client:
            with pytest.raises(ConfigurationError) as caught:
                await kind.start(client, other.request)
            assert type(kind.request).__name__ in str(caught.value)
            assert type(other.request).__name__ in str(caught.value)


async def coroutine(value: str) -> str:
    """A key that takes its time."""
    await settle(3)
    return value


class Promise:
    """Something awaitable that is no coroutine."""

    def __await__(self) -> Generator[Any, None, str]:
        yield
        return KEY


ASKED: dict[str, Callable[[], str | Awaitable[str]]] = {
    "plain": lambda: KEY,
    "coroutine": lambda: coroutine(KEY),
    "awaitable": Promise,
}


class TestAsked:
    """A callable is asked at the first request, once for all calls."""

    @pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
    async def test_once_for_all(self, ask: Callable[[], str | Awaitable[str]]) -> None:
        """Many calls at once wait for one answer; later ones ask no more."""
        asked = 0

        def count() -> str | Awaitable[str]:
            nonlocal asked
            asked += 1
            return ask()

        door = Door(KEY)
        async with door.server, EquosClient(count, endpoint=door.server.endpoint) as client:
            assert asked == 0
            await asyncio.gather(*(client.start_session(REQUEST) for _ in range(20)))
            await client.stop_session("s-1")
        assert asked == 1
        assert len(door.heads) == 21

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    async def test_it_raises(self, kind: Kind) -> None:
        """A start fails at once, by the class's name alone; a stop tries on."""
        (name,) = kind.keys
        (key,) = kind.keys.values()
        door = Door(key)
        broken = LookupError("secret words")
        source = Source(broken, broken, broken, key)
        settings: dict[str, Any] = {name: source}
        async with door.server:
            client = EquosClient(endpoint=door.server.endpoint, clock=SkippingClock(), **settings)
            async with client:
                error = await failing(kind.start(client, kind.request))
                assert type(error) is APIConnectionError
                assert str(error) == f"the callable for {name} raised LookupError; nothing was sent"
                assert (error.attempts, error.__cause__, error.__context__) == (1, None, None)
                assert door.heads == []
                assert await kind.stop(client, "s-1") is not None
                assert source.asked == 4
        assert client.unresolved == ()

    @pytest.mark.parametrize("answer", ["", "two words", 7, None, "schlüssel"])
    async def test_it_gives_no_key(self, answer: object) -> None:
        """An invalid key is not sent, and not quoted."""
        door = Door(KEY)
        source = Source(answer)
        async with door.server, EquosClient(source, endpoint=door.server.endpoint) as client:
            error = await failing(client.start_session(REQUEST))
        assert type(error) is APIConnectionError
        assert "client_key must" in str(error)
        assert "two words" not in str(error)
        assert door.heads == []

    async def test_it_cancels_itself(self) -> None:
        """That is a failure of the callable; no caller is cancelled."""
        door = Door(KEY)
        source = Source(asyncio.CancelledError())
        async with door.server, EquosClient(source, endpoint=door.server.endpoint) as client:
            error = await failing(client.start_session(REQUEST))
        assert "raised CancelledError" in str(error)

    async def test_it_hangs(self) -> None:
        """Each call waits until its own deadline; after the last one the callable is cancelled."""
        clock, door, hangs = FakeClock(), Door(KEY), asyncio.Event()
        ended: list[str] = []

        async def hang() -> str:
            try:
                await hangs.wait()
            finally:
                ended.append("over")
            return KEY

        source = Source(hang())
        async with door.server:
            client = EquosClient(source, endpoint=door.server.endpoint, clock=clock)
            long = asyncio.create_task(failing(client.start_session(REQUEST, deadline=9)))
            short = asyncio.create_task(failing(client.start_session(REQUEST, deadline=5)))
            await settle()
            clock.advance(5)
            error = await short
            assert type(error) is APITimeoutError
            assert (
                str(error) == "the callable for client_key did not return in time; nothing was sent"
            )
            assert not long.done()
            assert ended == []
            clock.advance(4)
            assert isinstance(await long, APITimeoutError)
            await settle()
            assert ended == ["over"]
            source.answers = [KEY]
            assert await client.stop_session("s-1") is not None
            assert source.asked == 2
            await client.aclose()

    async def test_a_deadline_comes_with_the_answer(self) -> None:
        """A call that gave up gets no second error, and the others get their key."""
        clock, door = FakeClock(), Door(KEY)
        given = asyncio.get_running_loop().create_future()
        async with door.server:
            client = EquosClient(lambda: given, endpoint=door.server.endpoint, clock=clock)
            short = asyncio.create_task(failing(client.start_session(REQUEST, deadline=5)))
            long = asyncio.create_task(client.start_session(REQUEST, deadline=9))
            await settle()
            given.set_result(KEY)
            clock.advance(5)
            assert isinstance(await short, APITimeoutError)
            assert (await long).session.id == "s-0"
            await client.aclose()

    async def test_the_client_closes(self) -> None:
        """A start that waits for its key is let go, and the question with it."""
        before = asyncio.all_tasks()
        hangs = asyncio.Event()
        client = EquosClient(lambda: _wait(hangs), endpoint="http://127.0.0.1:9")
        start = asyncio.create_task(failing(client.start_session(REQUEST)))
        await settle()
        await client.aclose()
        assert isinstance(await start, ClientClosedError)
        await settle(3)
        assert asyncio.all_tasks() == before


async def _wait(event: asyncio.Event) -> str:
    await event.wait()
    return KEY


class TestReplaced:
    """After a 401 a key is asked for again, and the call is sent once more with another one."""

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    async def test_a_new_key(self, kind: Kind, clock: SkippingClock) -> None:
        """The callable is called once for all; each call is sent once more, as a retry."""
        (name,) = kind.keys
        source = Source("old-key-1", "new-key-2")
        events: list[Event] = []
        door = Door("new-key-2")
        settings: dict[str, Any] = {name: source, "clock": clock, "on_event": events.append}
        async with door.server:
            async with EquosClient(endpoint=door.server.endpoint, **settings) as client:
                ids = await asyncio.gather(*(kind.started_id(client) for _ in range(20)))
                await asyncio.gather(*(kind.stop(client, one) for one in ids))
            assert door.server.live == set()
        assert source.asked == 2
        assert len(door.heads) == 60
        assert [one.delay for one in events if one.kind == "retry"] == [0.0] * 20
        assert clock.slept == []

    async def test_sessions_are_not_stranded(self) -> None:
        """Sessions that were started with the old key are stopped with the new one."""
        source = Source("old-key-1", "new-key-2")
        door = Door("old-key-1")
        async with door.server:
            async with EquosClient(source, endpoint=door.server.endpoint) as client:
                async with client.session(REQUEST), client.session(REQUEST):
                    door.keys = {"new-key-2"}
            assert door.server.live == set()
        assert client.unresolved == ()

    async def test_a_late_refusal(self) -> None:
        """A newer key that another call has got is used without a further call."""
        source, door = Source("old-key-1", "new-key-2"), Door("new-key-2")
        go = asyncio.Event()

        async def behave(connection: Connection) -> None:
            if not door.heads:
                door.heads.append("")
                await go.wait()
            await door(connection)

        door.server.always = behave
        async with door.server, EquosClient(source, endpoint=door.server.endpoint) as client:
            late = asyncio.create_task(client.start_session(REQUEST))
            await until(lambda: door.heads)
            await client.start_session(REQUEST)
            go.set()
            await late
            assert source.asked == 2
            assert len(door.server.live) == 2

    async def test_the_same_key_again(self) -> None:
        """The call is not sent again, because the server has refused this key."""
        source, door = Source("old-key-1"), Door(KEY)
        async with door.server, EquosClient(source, endpoint=door.server.endpoint) as client:
            for number in (1, 2):
                error = await failing(client.start_session(REQUEST))
                assert isinstance(error, AuthenticationError)
                assert (error.attempts, len(door.heads)) == (1, number)
        assert source.asked == 3  # the second call asked first, and had the same

    async def test_another_wrong_key(self) -> None:
        """Once a call, no more."""
        source, door = Source(*(f"wrong-key-{n}" for n in range(9))), Door(KEY)
        async with door.server, EquosClient(source, endpoint=door.server.endpoint) as client:
            error = await failing(client.start_session(REQUEST))
        assert isinstance(error, AuthenticationError)
        assert (error.attempts, len(door.heads), source.asked) == (2, 2, 2)

    async def test_a_string_is_final(self) -> None:
        """There is no callable that could return another key."""
        door = Door(KEY)
        async with door.server, EquosClient("other-key", endpoint=door.server.endpoint) as client:
            assert isinstance(await failing(client.start_session(REQUEST)), AuthenticationError)
        assert len(door.heads) == 1

    async def test_it_raises_then(self) -> None:
        """A start gets the refusal as its error; a stop is repeated until there is a key."""
        source, door = Source("old-key-1", ValueError(), ValueError(), ValueError(), KEY), Door(KEY)
        async with door.server:
            client = EquosClient(source, endpoint=door.server.endpoint, clock=SkippingClock())
            async with client:
                error = await failing(client.start_session(REQUEST))
                assert isinstance(error, AuthenticationError)
                assert await client.stop_session("s-1") is not None
        assert source.asked == 5
        assert len(door.heads) == 2

    async def test_a_stop_that_meets_it_first(self) -> None:
        """It waits as for any other failure, and asks again."""
        source, door = Source("old-key-1", ValueError(), KEY), Door(KEY)
        async with door.server:
            client = EquosClient(source, endpoint=door.server.endpoint, clock=SkippingClock())
            async with client:
                assert await client.stop_session("s-1") is not None
        assert (source.asked, len(door.heads)) == (3, 2)

    async def test_it_hangs_then(self) -> None:
        """The call gets the refusal as its error at its deadline."""
        clock, door, hangs = FakeClock(), Door(KEY), asyncio.Event()
        source = Source("old-key-1", _wait(hangs))
        async with door.server:
            client = EquosClient(source, endpoint=door.server.endpoint, clock=clock)
            start = asyncio.create_task(failing(client.start_session(REQUEST, deadline=5)))
            await until(lambda: source.asked == 2)
            await settle()
            clock.advance(5)
            assert isinstance(await start, AuthenticationError)
            await client.aclose()

    async def test_a_caller_that_leaves_then(self) -> None:
        """Nothing goes out for it any more, and nothing is unknown."""
        door, hangs = Door("new-key-2"), asyncio.Event()
        source = Source("old-key-1", _wait(hangs))
        async with door.server, EquosClient(source, endpoint=door.server.endpoint) as client:
            start = asyncio.create_task(client.start_session(REQUEST))
            await until(lambda: source.asked == 2)
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
        assert len(door.heads) == 1
        assert client.unresolved == ()

    async def test_a_stop_that_is_seen_through(self) -> None:
        """It failed with the old key; when it is asked again, the key is, too."""
        clock, door = FakeClock(chance=1), Door("old-key-1")
        source = Source("old-key-1", "old-key-1", "new-key-2")
        async with door.server:
            client = EquosClient(
                source,
                endpoint=door.server.endpoint,
                clock=clock,
                retry=RetryPolicy(stop_attempts=1),
            )
            started = await client.start_session(REQUEST)
            door.keys = {"new-key-2"}
            error = await failing(client.stop_session(started.session.id))
            assert isinstance(error, AuthenticationError)
            for seconds in (1, 2):  # the first time with the old key still
                count = len(door.heads)
                await settle()
                clock.advance(seconds)
                await more(lambda: len(door.heads), count)
            await until(lambda: not client.unresolved)
            assert door.server.live == set()
            await client.aclose()

    async def test_a_seen_through_stop_is_refused(self) -> None:
        """The refusal marks the key, so that the callable is called next time."""
        clock, door = FakeClock(chance=1), Door("key-number-1")
        source = Source("key-number-1", ValueError(), "key-number-2", "key-number-3")
        async with door.server:
            client = EquosClient(
                source,
                endpoint=door.server.endpoint,
                clock=clock,
                retry=RetryPolicy(stop_attempts=1),
            )
            started = await client.start_session(REQUEST)
            door.keys = {"key-number-3"}
            await failing(client.stop_session(started.session.id))
            for seconds in (1, 2):
                asked = source.asked
                await settle()
                clock.advance(seconds)
                await more(lambda: source.asked, asked)
            await until(lambda: not client.unresolved)
            assert door.server.live == set()
            await client.aclose()

    async def test_every_key_is_masked(self, request_: CreateSessionPassRequest) -> None:
        """Also those that are no longer used."""
        keys = [f"secret-key-{number}" for number in range(5)]

        async def echo(connection: Connection) -> None:
            await connection.reply(401, error_body(401, f"not any of {keys}"))

        source = Source(*keys)
        async with (
            RawServer(always=echo) as server,
            EquosClient(source, endpoint=server.endpoint) as client,
        ):
            for _ in range(3):
                await failing(client.start_session(request_))
            error = await failing(client.start_session(request_))
        assert isinstance(error, APIStatusError)
        assert "secret-key-" not in f"{error} {error.body}"
        assert str(error).count("***") == 5
