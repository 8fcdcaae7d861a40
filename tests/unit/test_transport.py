"""What aiohttp's exceptions become: values, with a row for each."""

from __future__ import annotations

import asyncio
import inspect
import pkgutil
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import aiohttp
import pytest

from equos_async.request import Failure, Request
from equos_async.transport import Transport

HELPS, FATAL = "a repetition may help", "no repetition helps"

ROWS = {
    "ClientConnectionError": HELPS,
    "ClientConnectionResetError": HELPS,
    "ClientConnectorCertificateError": FATAL,
    "ClientConnectorDNSError": HELPS,
    "ClientConnectorError": HELPS,
    "ClientConnectorSSLError": HELPS,
    "ClientError": HELPS,
    "ClientHttpProxyError": HELPS,
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


class Failing:
    """A session whose requests end in an error, after they were sent or before."""

    def __init__(self, error: Exception, *, sent: bool) -> None:
        self.error = error
        self.sent = sent

    async def request(self, *_: object, data: Request, **__: object) -> NoReturn:
        data.sent = self.sent
        raise self.error


async def failure_of(error: Exception, *, sent: bool) -> Failure:
    """What becomes of a request whose session raises an error."""
    transport = Transport(
        headers={},
        connect_timeout=5,
        keepalive=4,
        trust_env=False,
        http_session=cast("aiohttp.ClientSession", Failing(error, sent=sent)),
    )
    failure = await transport.send(Request("POST", "http://x.test/", b"{}"))
    assert isinstance(failure, Failure)
    return failure


def words(_: Exception) -> str:
    """The text of any error."""
    return "words"


@pytest.mark.parametrize("name", client_exceptions())
async def test_each_exception_of_aiohttp_has_a_row(name: str) -> None:
    """A new exception fails here until somebody has thought about it."""
    assert name in ROWS, f"aiohttp has a new exception {name}: is a repetition any use after it?"
    cls = client_exceptions()[name]
    # A class of the same name whose text needs none of what the real constructors want.
    double: type[Exception] = type(name, (cls,), {"__str__": words})
    error = double.__new__(double)
    failure = await failure_of(error, sent=True)
    assert failure.sent
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
async def test_other_exceptions(error: Exception, fatal: bool, timed_out: bool) -> None:
    """The network's are worth another attempt; a session that cannot send is not."""
    failure = await failure_of(error, sent=False)
    assert (failure.fatal, failure.timed_out, failure.sent) == (fatal, timed_out, False)


async def test_a_reason_is_one_bounded_line() -> None:
    """What a server put into an exception cannot write lines into a log."""
    error = aiohttp.ClientError("a\nb\r\n" + "x" * 5000)
    reason = (await failure_of(error, sent=True)).reason
    assert reason.startswith("ClientError: a b x")
    assert len(reason) < 350
    assert "\n" not in reason


class Writer:
    """What aiohttp hands to a body that is to be written."""

    def __init__(self, *, closing: bool = False) -> None:
        self.written: list[bytes] = []
        self.transport: Any = SimpleNamespace(is_closing=lambda: closing, abort=lambda: None)

    async def write(self, chunk: bytes) -> None:
        self.written.append(chunk)


class TestRequest:
    async def test_it_is_written_once(self) -> None:
        """The second time is refused, by whichever of aiohttp's two ways."""
        request, writer = Request("POST", "http://x.test/", b"{}"), Writer()
        assert not request.sent
        await request.write(writer)  # type: ignore[arg-type]
        assert request.sent
        assert writer.written == [b"{}"]
        with pytest.raises(aiohttp.ClientConnectionError, match="sent before"):
            await request.write_with_length(writer, 2)  # pyright: ignore[reportArgumentType]
        assert writer.written == [b"{}"]

    def test_it_is_a_payload_of_its_bytes(self) -> None:
        """Its size and its text are there, for aiohttp to ask for."""
        request = Request("POST", "http://x.test/", b'{"a":1}')
        assert (request.size, request.decode()) == (7, '{"a":1}')

    async def test_what_is_withdrawn_is_never_written(self) -> None:
        """Withdrawn before its turn, it stays unsent."""
        request, writer = Request("POST", "http://x.test/", b"{}"), Writer()
        request.withdraw()
        with pytest.raises(aiohttp.ClientConnectionError, match="withdrawn"):
            await request.write_with_length(writer, None)  # type: ignore[arg-type]
        assert not request.sent
        assert writer.written == []

    @pytest.mark.parametrize("writer", [Writer(closing=True), SimpleNamespace(transport=None)])
    async def test_a_closed_connection_takes_nothing(self, writer: Any) -> None:
        """A connection that closed while it was handed over leaves the request unsent."""
        request = Request("POST", "http://x.test/", b"{}")
        with pytest.raises(aiohttp.ClientConnectionError, match="before the request left"):
            await request.write_with_length(writer, None)
        assert not request.sent

    async def test_to_expire_unsent_and_idle_is_to_withdraw(self) -> None:
        """There is no sender to interrupt."""
        request = Request("POST", "http://x.test/", b"{}")
        request.expire()
        assert request.withdrawn
        assert not request.expired
        assert asyncio.current_task() is not None
