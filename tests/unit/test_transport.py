"""The transport: what aiohttp's exceptions become, what is sent, and when it ends."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pkgutil
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import aiohttp
import pytest
from aiohttp.http_exceptions import BadStatusLine
from multidict import CIMultiDict

from equos_async import Clock, CreateSessionPassRequest, EquosClient
from equos_async._http.exchange import Exchange
from equos_async._http.lookups import Lookups
from equos_async._http.request import Failure, Reply, Request, SendGuard, SendRefusedError
from equos_async._http.transport import Transport, failure_of
from equos_async.testing import EquosEmulator
from tests import wires
from tests.clocks import FakeClock, settle, until
from tests.conftest import KEY, Replies
from tests.faults.server import Connection, RawServer

HELPS, FATAL = "a repetition may help", "no repetition helps"

ROWS = {
    "ClientConnectionError": HELPS,
    "ClientConnectionResetError": HELPS,
    "ClientConnectorCertificateError": FATAL,
    "ClientConnectorDNSError": HELPS,
    "ClientConnectorError": HELPS,
    "ClientConnectorSSLError": HELPS,
    "ClientError": HELPS,
    "ClientHttpProxyError": FATAL,  # here with a status of 407; others may help
    "ClientOSError": HELPS,
    "ClientPayloadError": HELPS,
    "ClientProxyConnectionError": HELPS,
    "ClientResponseError": HELPS,
    "ClientSSLError": HELPS,
    "ConnectionTimeoutError": HELPS,
    "ContentTypeError": HELPS,
    "InvalidURL": FATAL,
    "InvalidUrlClientError": FATAL,
    "InvalidUrlRedirectClientError": FATAL,
    "NonHttpUrlClientError": FATAL,
    "NonHttpUrlRedirectClientError": FATAL,
    "RedirectClientError": HELPS,
    "ServerConnectionError": HELPS,
    "ServerDisconnectedError": HELPS,
    "ServerFingerprintMismatch": FATAL,
    "ServerTimeoutError": HELPS,
    "SocketTimeoutError": HELPS,
    "TooManyRedirects": HELPS,
    "UploadAbortedError": HELPS,
    "UnixClientConnectorError": HELPS,
    "WSMessageTypeError": FATAL,
    "WSServerHandshakeError": HELPS,
}


def client_exceptions() -> dict[str, type[Exception]]:
    """Every exception that aiohttp's client may raise."""
    module = import_module("aiohttp.client_exceptions")
    return {
        name: cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == module.__name__
    }


def words(_: Exception) -> str:
    """The text of any error."""
    return "words"


@pytest.mark.parametrize("name", client_exceptions())
def test_each_exception_of_aiohttp_has_a_row(name: str) -> None:
    """A new exception of aiohttp fails here until it has a row."""
    assert name in ROWS, f"aiohttp has a new exception {name}: is a repetition any use after it?"
    cls = client_exceptions()[name]
    # A class of the same name whose text needs none of what the real constructors want.
    double: type[Exception] = type(name, (cls,), {"__str__": words, "status": 407})
    error = double.__new__(double)
    failure = failure_of(error, sent=True)
    assert failure.fatal is (ROWS[name] == FATAL)
    assert failure.reason.startswith(name)
    assert failure.timed_out is issubclass(cls, TimeoutError)


def test_other_modules_define_no_more() -> None:
    """The client's exceptions are all in one module of aiohttp, and derive from one."""
    found = {
        cls
        for module in pkgutil.iter_modules(aiohttp.__path__)
        if module.name.startswith("client")
        for cls in vars(import_module(f"aiohttp.{module.name}")).values()
        if inspect.isclass(cls) and issubclass(cls, aiohttp.ClientError)
    }
    assert {cls.__name__ for cls in found} <= set(ROWS)


@pytest.mark.parametrize(
    ("error", "fatal", "timed_out"),
    [
        (TimeoutError(), False, True),
        (ConnectionResetError("gone"), False, False),
        (OSError(24, "Too many open files"), False, False),
        (RuntimeError("Session is closed"), True, False),
        (ValueError("Cannot combine AUTHORIZATION header with AUTH argument"), True, False),
    ],
)
def test_other_exceptions(error: Exception, fatal: bool, timed_out: bool) -> None:
    """The network's are worth another attempt; a session that cannot send is not."""
    failure = failure_of(error, sent=False)
    assert (failure.fatal, failure.timed_out, failure.sent) == (fatal, timed_out, False)


def test_a_reason_is_one_bounded_line() -> None:
    """A server's text in an exception cannot add lines to a log."""
    reason = failure_of(aiohttp.ClientError("a\nb\r\n" + "xy " * 5000), sent=True).reason
    assert reason.startswith("ClientError: a b xy")
    assert len(reason) < 2100
    assert "\n" not in reason


def test_a_key_is_not_cut_in_half() -> None:
    """It is masked later, and half of it would not be known for what it is."""
    reason = failure_of(aiohttp.ClientError("x" * 1990 + f" {KEY * 3} y"), sent=True).reason
    assert KEY[:6] not in reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadStatusLine("secret"), "BadStatusLine: the answer breaks the rules of HTTP"),
        (aiohttp.ServerDisconnectedError("secret"), "ServerDisconnectedError: the server disc"),
        (aiohttp.ClientPayloadError("secret"), "ClientPayloadError: the answer breaks"),
        (
            aiohttp.ClientHttpProxyError(
                cast("Any", SimpleNamespace(real_url="x")), (), status=407
            ),
            "ClientHttpProxyError: the proxy answered with status 407",
        ),
    ],
)
def test_a_reason_quotes_no_answer(error: Exception, reason: str) -> None:
    """A broken answer may contain a token."""
    found = failure_of(error, sent=True).reason
    assert found.startswith(reason)
    assert "secret" not in found


class Writer:
    """The writer that aiohttp passes to a body."""

    def __init__(self, *, closing: bool = False) -> None:
        self.written: list[bytes] = []
        self.transport: Any = SimpleNamespace(is_closing=lambda: closing, abort=lambda: None)

    async def write(self, chunk: bytes) -> None:
        self.written.append(chunk)


def a_request(url: str = "http://x.test/", method: str = "POST", **options: Any) -> Request:
    """A request with a body; a GET without one."""
    headers = CIMultiDict({"Accept": "application/json", "Authorization": "Bearer secret"})
    if method != "GET":
        headers["Content-Type"] = "application/json"
        options.setdefault("body", b"{}")
    return Request(method=method, url=url, headers=headers, **options)


class TestSendGuard:
    def test_what_is_sent_and_answered(self) -> None:
        """It is sent once, and counts as sent from then on."""
        guard = SendGuard()
        assert not guard.sent
        guard.send()
        assert (guard.sent, guard.answered, guard.withdrawn) == (True, False, False)
        guard.answer()
        guard.withdraw()
        assert (guard.sent, guard.answered, guard.withdrawn) == (True, True, False)
        with pytest.raises(SendRefusedError, match="already sent"):
            guard.send()

    def test_what_is_withdrawn_is_never_sent(self) -> None:
        """A request withdrawn before its turn stays unsent, whatever a test double answers."""
        guard = SendGuard()
        guard.withdraw()
        guard.withdraw()
        guard.answer()
        assert (guard.sent, guard.answered, guard.withdrawn) == (False, False, True)
        with pytest.raises(SendRefusedError, match="withdrawn"):
            guard.send()
        assert not guard.sent


class TestExchange:
    async def test_it_is_written_once(self) -> None:
        """The second time is refused."""
        exchange, writer = Exchange(a_request(), SendGuard()), Writer()
        await exchange.write(cast("Any", writer))
        assert exchange.guard.sent
        with pytest.raises(SendRefusedError):
            await exchange.write(cast("Any", writer))
        assert writer.written == [b"{}"]

    @pytest.mark.parametrize("writer", [Writer(closing=True), SimpleNamespace(transport=None)])
    async def test_a_closed_connection_takes_nothing(self, writer: Any) -> None:
        """A connection that closed while it was handed over leaves the request unsent."""
        exchange = Exchange(a_request(), SendGuard())
        with pytest.raises(aiohttp.ClientConnectionError, match="before the request left"):
            await exchange.write(writer)
        assert not exchange.guard.sent

    def test_nothing_secret_shows(self) -> None:
        """Neither a body nor a header is in a repr."""
        request = a_request(body=b"secret")
        reply = Reply(status=200, headers={"X": "secret"}, body=b"secret")
        exchange = Exchange(request, SendGuard())
        assert (
            "secret"
            not in f"{request!r} {reply!r} {exchange!r} {Failure(sent=True, reason='secret')!r}"
        )


@pytest.fixture(params=[*wires.WIRES, "injected"])
async def transport(
    request: pytest.FixtureRequest, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Transport]:
    """A transport for each way of a request."""
    wires.take(request.param, monkeypatch)
    async with aiohttp.ClientSession() as session:
        transport = make_transport(clock, session if request.param == "injected" else None)
        yield transport
        if request.param in wires.WIRES:
            assert transport.direct is (request.param == "direct")
        await transport.close()
        assert not transport.is_open
        assert clock.due == []


@pytest.fixture
def clock() -> FakeClock:
    """A clock that a test moves."""
    return FakeClock()


def make_transport(clock: Clock, session: aiohttp.ClientSession | None = None) -> Transport:
    """A transport as the client makes it."""
    return Transport(
        clock=clock, connect_timeout=5, keepalive=4, trust_env=False, http_session=session
    )


async def silent(connection: Connection) -> None:
    """Send no answer."""
    await connection.gone()


class TestWithoutABody:
    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_what_is_sent(self, method: str, transport: Transport, clock: FakeClock) -> None:
        """There is no Content-Type, for Fastify refuses an empty body that has one."""
        heads: list[bytes] = []

        async def spy(connection: Connection) -> None:
            heads.append(connection.head)
            await connection.reply(200, b"null")

        headers = CIMultiDict({"Accept": "application/json", "User-Agent": "me"})
        headers["Accept-Encoding"] = "identity"
        async with RawServer(always=spy) as server:
            url = f"{server.endpoint}/v3/sessions?take=1&client=a%2Fb"
            request, guard = Request(method=method, url=url, headers=headers), SendGuard()
            reply = await transport.send(Exchange(request, guard), until=clock.now() + 9)
        assert isinstance(reply, Reply)
        assert (reply.status, reply.body, guard.answered) == (200, b"null", True)
        (found,) = heads
        assert found.decode().split("\r\n") == [
            f"{method} /v3/sessions?take=1&client=a%2Fb HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            "Accept: application/json",
            "User-Agent: me",
            "Accept-Encoding: identity",
            "Content-Length: 0",
            "",
            "",
        ]

    async def test_aiohttp_does_not_send_it_again(
        self, transport: Transport, clock: FakeClock
    ) -> None:
        """Aiohttp repeats a GET whose connection broke; the guard does not let it."""
        ok = functools.partial(Connection.reply, status=200, body=b"{}")

        async def drop(connection: Connection) -> None:
            connection.close()

        async with RawServer([ok, drop]) as server:
            request = a_request(server.endpoint + "/x", "GET")
            assert isinstance(
                await transport.send(Exchange(request, SendGuard()), until=2000), Reply
            )
            failure = await transport.send(Exchange(request, SendGuard()), until=2000)
            assert server.requests == 2
        assert isinstance(failure, Failure)
        assert (failure.sent, failure.fatal, failure.timed_out) == (True, False, False)


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
async def test_a_recorder_copies_the_body(
    copier: Callable[[Any], Any],
    emulator: EquosEmulator,
    request_: CreateSessionPassRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As vcrpy does before each request: the copy is the bytes, and the call works."""
    inner = aiohttp.ClientSession._request  # noqa: SLF001 - what recorders wrap
    recorded: list[bytes] = []

    async def recording(*args: Any, **options: Any) -> Any:
        recorded.append(copier(options["data"]).decode().encode())
        return await inner(*args, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", recording)
    async with EquosClient(KEY, endpoint=emulator.endpoint) as client:
        async with client.session(request_):
            assert len(emulator.live_sessions) == 1
    assert emulator.live_sessions == {}
    start, stop = recorded
    assert (b'"name":"support call"' in start, stop) == (True, b"{}")


async def test_what_a_recorder_sees(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body that a session is given can be read, and what is withdrawn is not written."""
    seen: list[Any] = []
    inner = aiohttp.ClientSession._request  # noqa: SLF001 - what monitors wrap

    async def record(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["data"])
        return await inner(*args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", record)
    transport, guard = make_transport(clock), SendGuard()
    guard.withdraw()
    request = a_request("http://127.0.0.1:9/", body=b'{"a":"\xc3\xa4"}')
    failure = await transport.send(Exchange(request, guard), until=2000)
    assert isinstance(failure, Failure)
    await transport.close()
    (body,) = seen
    assert isinstance(body, aiohttp.Payload)
    assert (body.size, body.decode()) == (10, '{"a":"ä"}')
    writer: Any = Writer()
    with pytest.raises(SendRefusedError):
        await body.write(writer)
    assert writer.written == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_withdrawn_is_not_sent(
    method: str, transport: Transport, clock: FakeClock
) -> None:
    """On a new connection and on one that is idle, the server reads nothing."""
    async with RawServer(
        always=functools.partial(Connection.reply, status=200, body=b"{}")
    ) as server:
        request = a_request(server.endpoint + "/x", method)
        for requests in (0, 1):
            guard = SendGuard()
            guard.withdraw()
            failure = await transport.send(Exchange(request, guard), until=2000)
            assert isinstance(failure, Failure)
            assert (failure.sent, failure.fatal) == (False, False)
            assert server.requests == requests
            await transport.send(Exchange(request, SendGuard()), until=2000)


async def test_a_double_answers_what_was_never_sent(clock: FakeClock, replies: Replies) -> None:
    """Afterwards it cannot be sent any more."""
    replies.post("http://x.test/", status=201, body=b"{}")
    transport, guard = make_transport(clock), SendGuard()
    reply = await transport.send(Exchange(a_request(), guard), until=2000)
    assert isinstance(reply, Reply)
    assert guard.withdrawn
    await transport.close()


class TestTimes:
    """On both wires an attempt ends at its time."""

    async def test_unsent_at_its_end(
        self, transport: Transport, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A request without a connection is withdrawn, even with a later ``listen_until``."""

        async def wait(*_: object, **__: object) -> NoReturn:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(aiohttp.TCPConnector, "connect", wait)
        sending, guard = Sending(transport, clock, a_request()), SendGuard()
        task = sending.begin(guard, until=5, listen_until=50)
        await settle()
        clock.advance(5)
        failure = await task
        assert isinstance(failure, Failure)
        assert (failure.sent, failure.timed_out, guard.withdrawn) == (False, True, True)
        assert sending.overdue == 0
        assert clock.due == []

    async def test_sent_and_not_listened_to(self, transport: Transport, clock: FakeClock) -> None:
        """It is cut off, and its connection is not used again."""
        async with RawServer([silent]) as server:
            sending = Sending(transport, clock, a_request(server.endpoint + "/x"))
            task = sending.begin(until=5)
            await until(lambda: server.requests)
            clock.advance(5)
            failure = await task
            assert isinstance(failure, Failure)
            assert (failure.sent, failure.timed_out) == (True, True)
            assert isinstance(await sending.begin(until=5), Reply)
            assert server.accepted == 2

    async def test_listened_to_and_answered(self, transport: Transport, clock: FakeClock) -> None:
        """``overdue`` is called once, and the answer is still returned."""
        told = asyncio.Event()

        async def late(connection: Connection) -> None:
            await told.wait()
            await connection.reply(201, b"{}")

        async with RawServer([late]) as server:
            sending = Sending(transport, clock, a_request(server.endpoint + "/x"))
            task = sending.begin(until=5, listen_until=50)
            await until(lambda: server.requests)
            clock.advance(5)
            await settle()
            assert sending.overdue == 1
            told.set()
            reply = await task
            assert isinstance(reply, Reply)
            assert sending.overdue == 1

    @pytest.mark.parametrize("tells", [True, False])
    async def test_listened_to_in_vain(
        self, tells: bool, transport: Transport, clock: FakeClock
    ) -> None:
        """It is cut off when listening is over."""
        async with RawServer([silent]) as server:
            sending = Sending(transport, clock, a_request(server.endpoint + "/x"), tells=tells)
            task = sending.begin(until=5, listen_until=50)
            await until(lambda: server.requests)
            clock.advance(5)
            await settle()
            assert clock.due == [45]
            clock.advance(45)
            failure = await task
            assert isinstance(failure, Failure)
            assert (failure.sent, failure.timed_out) == (True, True)
            assert sending.overdue == tells

    async def test_both_times_are_over_at_once(
        self, transport: Transport, clock: FakeClock
    ) -> None:
        """After a stall of the loop ``overdue`` is not called."""
        async with RawServer([silent]) as server:
            sending = Sending(transport, clock, a_request(server.endpoint + "/x"))
            task = sending.begin(until=5, listen_until=50)
            await until(lambda: server.requests)
            clock.advance(99)
            assert isinstance(await task, Failure)
            assert sending.overdue == 0

    @pytest.mark.parametrize("listen_until", [None, 50])
    async def test_an_answer_that_arrived_counts(
        self, listen_until: float | None, transport: Transport, clock: FakeClock
    ) -> None:
        """The answer is in the client's socket, unread, when the time is over."""

        async def in_the_last_moment(connection: Connection) -> None:
            await connection.reply(201, b"{}")
            clock.advance(5)

        async with RawServer([in_the_last_moment]) as server:
            sending = Sending(transport, clock, a_request(server.endpoint + "/x"))
            reply = await sending.begin(until=5, listen_until=listen_until)
            assert isinstance(reply, Reply)
            assert sending.overdue == 0

    async def test_a_part_of_an_answer_counts(self, transport: Transport, clock: FakeClock) -> None:
        """Once there was a head, its status is known."""

        async def half(connection: Connection) -> None:
            await connection.send(b"HTTP/1.1 403 X\r\nContent-Length: 9\r\n\r\nno")
            await connection.gone()

        async with RawServer([half]) as server:
            sending = Sending(transport, clock, a_request(server.endpoint + "/x"))
            task = sending.begin(guard := SendGuard(), until=5)
            await until(lambda: guard.answered)
            clock.advance(5)
            reply = await task
            assert isinstance(reply, Reply)
            assert (reply.status, reply.body) == (403, b"no")

    async def test_cancelled_when_its_time_is_over(
        self, transport: Transport, clock: FakeClock
    ) -> None:
        """Another's cancellation counts, also in the tick of the timer's."""
        for steps in range(6):
            async with RawServer([silent]) as server:
                sending = Sending(transport, clock, a_request(server.endpoint + "/x"))
                task = sending.begin(until=5)
                await until(functools.partial(getattr, server, "requests"))
                clock.advance(5)
                await settle(steps)
                was_done = task.done()
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() is not was_done

    async def test_withdrawn_and_cancelled_by_the_caller(
        self, transport: Transport, clock: FakeClock
    ) -> None:
        """At whichever step, the server reads the whole request or nothing."""
        for steps in range(12):
            async with RawServer() as server:
                request = a_request(server.endpoint + "/x", "GET")
                sending, guard = Sending(transport, clock, request), SendGuard()
                task = sending.begin(guard, until=5)
                await settle(steps)
                guard.withdraw()
                task.cancel()
                await asyncio.wait([task])
                await settle()
                assert server.requests <= guard.sent

    async def test_a_session_that_swallows_the_cancellation(
        self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The attempt ends by its time, even if a session swallows the cancellation."""

        async def swallowing(*_: object, **__: object) -> NoReturn:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise OSError("something else") from None
            raise AssertionError

        monkeypatch.setattr(aiohttp.ClientSession, "_request", swallowing)
        async with aiohttp.ClientSession() as session:
            sending = Sending(make_transport(clock, session), clock, a_request())
            task = sending.begin(until=5)
            await settle()
            clock.advance(5)
            failure = await task
            assert isinstance(failure, Failure)
            assert (failure.timed_out, failure.reason) == (True, "no answer in time")
            assert task.cancelling() == 0


class Sending:
    """Sends requests at given times from now on, and counts the calls of ``overdue``."""

    def __init__(
        self, transport: Transport, clock: FakeClock, request: Request, *, tells: bool = True
    ) -> None:
        self.transport = transport
        self.clock = clock
        self.request = request
        self.tells = tells
        self.overdue = 0

    def begin(
        self, guard: SendGuard | None = None, *, until: float, listen_until: float | None = None
    ) -> asyncio.Task[Reply | Failure]:
        """A task that sends the request."""
        now = self.clock.now()
        return asyncio.create_task(
            self.transport.send(
                Exchange(self.request, guard or SendGuard()),
                until=now + until,
                listen_until=None if listen_until is None else now + listen_until,
                overdue=self.count if self.tells else None,
            )
        )

    def count(self) -> None:
        """The time of an attempt is over, and it is listened to further."""
        self.overdue += 1


async def test_no_key_is_invented(clock: FakeClock) -> None:
    """A request without an Authorization brings none to a session that has something to say."""
    async with RawServer() as server, aiohttp.ClientSession(trust_env=True) as session:
        headers = CIMultiDict({"Accept": "application/json"})
        url = f"{server.endpoint}/v3/session-passes/g-1/stop"
        request = Request(method="PATCH", url=url, headers=headers, body=b"{}")
        transport = make_transport(clock, session)
        assert isinstance(await transport.send(Exchange(request, SendGuard()), until=2000), Reply)


async def test_names_are_found_while_python_ends() -> None:
    """It gives no more threads then: a stop at the program's end looks up without."""
    lookups = Lookups()
    await lookups.close()
    (found, *_) = await lookups.resolve("127.0.0.1", 80)
    assert (found["host"], found["port"]) == ("127.0.0.1", 80)
