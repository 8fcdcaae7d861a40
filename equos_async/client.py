"""The client: what users call, and nothing else."""

from __future__ import annotations

import os
import ssl as ssl_module
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from operator import attrgetter
from typing import Any, Final, NoReturn, Self, TypeVar

import aiohttp

from . import _validate
from ._api.operations import CONVERSATION, PING, SESSION, Credential, Resource
from ._api.words import Masker
from ._calls.blocks import hold
from ._calls.keys import Keys, KeySource
from ._calls.lifecycle import State, closed_error
from ._calls.pages import read_all
from ._calls.tasks import CallTasks
from ._emitter import Emitter
from ._http.transport import Transport
from ._version import __version__
from .clock import Clock
from .errors import ConfigurationError
from .events import Event, Unresolved
from .models import (
    CreateEquosConversationRequest,
    CreateEquosConversationResponse,
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    EquosConversation,
    EquosSession,
    HealthResponse,
)
from .settings import Limits, RetryPolicy, Settle, Timeouts

T = TypeVar("T")

DEFAULT_ENDPOINT: Final = "https://api.equos.ai"


class EquosClient:
    """A client for sessions and conversations, to be shared by all that one event loop runs.

    Use it with ``async with``, or call :meth:`aclose`. Making one does no I/O and needs no
    running loop. While the process lives, a session or conversation that the server told of is
    either in a caller's hands or stopped; what never became known is in :attr:`unresolved`.

    A key is a string, or a callable that returns one, plain or awaitable. That is asked at the
    first request and again after a 401, once for all calls, in the event loop: it must not block.
    A call that was refused is sent again, once, with a different key only.

    Args:
        client_key: The public client key from Equos Studio, for session passes; by default
            ``EQUOS_CLIENT_KEY``.
        api_key: The server key, for conversations and for reading; by default
            ``EQUOS_API_KEY``. One of the two has to be there.
        endpoint: The API's base URL; by default ``EQUOS_ENDPOINT``, else the production API.
        api_version: The version segment of the path.
        timeouts: How long things may take.
        retry: How often and how soon calls are tried again.
        limits: How many connections at once.
        settle: With a server key, a start whose answer was lost is looked for, ended, and made
            again: how long. None: it is not looked for, and no start carries a marker.
        headers: What else each request carries; none that the client sets itself.
        proxy: The URL of a proxy, with a user and password where it wants them.
        ssl: What TLS is to be like, instead of the default.
        http_session: A session of yours to use; it is never closed. Its cookies, proxies, TLS and
            pool are yours to set up.
        on_event: Called with each :class:`Event`; must not block.
        allow_insecure_http: Send the key over plain HTTP to hosts other than loopback.
        trust_env: Take proxies from the environment, for a session of the client's own.
        clock: The source of time and chance, for tests.

    Raises:
        ConfigurationError: An argument or an environment variable is wrong.
    """

    def __init__(
        self,
        client_key: str | Callable[[], str | Awaitable[str]] | None = None,
        *,
        api_key: str | Callable[[], str | Awaitable[str]] | None = None,
        endpoint: str | None = None,
        api_version: str = "v3",
        timeouts: Timeouts = Timeouts(),
        retry: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        settle: Settle | None = Settle(),
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | None = None,
        http_session: aiohttp.ClientSession | None = None,
        on_event: Callable[[Event], object] | None = None,
        allow_insecure_http: bool = False,
        trust_env: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._base = ""  # first what a repr needs: a traceback may show a client half made
        # Before anything can fail and show this frame.
        client_key, api_key = _validate.hidden(client_key), _validate.hidden(api_key)
        proxy, headers = _validate.hidden(proxy), _validate.hidden_values(headers)
        sources = _sources({Credential.CLIENT_KEY: client_key, Credential.SERVER_KEY: api_key})
        if endpoint is None:
            endpoint = os.environ.get("EQUOS_ENDPOINT") or DEFAULT_ENDPOINT
        self._endpoint = _validate.endpoint(endpoint, allow_insecure_http=allow_insecure_http)
        version = _validate.api_version(api_version)
        if self._endpoint.endswith(f"/{version}"):
            raise ConfigurationError(f"endpoint must be the base URL: /{version} is added to it")
        self._base = f"{self._endpoint}/{version}"
        self._timeouts = _validate.instance("timeouts", timeouts, Timeouts)
        own_clock = Clock() if clock is None else _validate.instance("clock", clock, Clock)
        self._clock = own_clock
        if http_session is not None:
            _validate.instance("http_session", http_session, aiohttp.ClientSession)
            if proxy is not None or ssl is not None:
                raise ConfigurationError(
                    "proxy and ssl are for the client's own session: set up http_session instead"
                )
        if ssl is not None:
            _validate.instance("ssl", ssl, ssl_module.SSLContext)
        _validate.instance("retry", retry, RetryPolicy)
        _validate.instance("limits", limits, Limits)
        if settle is not None:
            _validate.instance("settle", settle, Settle)
        hook = _validate.hook("on_event", on_event)
        through = None if proxy is None else _validate.proxy(proxy)
        mask = Masker(*(() if through is None else through.secrets))
        self._transport = Transport(
            connect_timeout=timeouts.connect,
            keepalive=limits.keepalive,
            trust_env=trust_env,
            proxy=through,
            tls=ssl,
            http_session=http_session,
            clock=own_clock,
        )
        self._tasks = CallTasks(
            base=self._base,
            keys=Keys(
                sources,
                headers={
                    "User-Agent": f"equos-async/{__version__}",
                    **_validate.headers(headers),
                },
                mask=mask,
                clock=own_clock,
            ),
            transport=self._transport,
            timeouts=timeouts,
            policy=retry,
            limits=limits,
            clock=own_clock,
            emitter=Emitter(hook, "on_event"),
            settle=settle,
        )

    async def start_session(
        self, request: CreateSessionPassRequest, *, deadline: float | None = None
    ) -> CreateEquosSessionResponse:
        """Start a session: ``POST /v3/session-passes``, with the client key.

        It is sent again only where every attempt before was provably not processed. A caller
        that is cancelled leaves nothing behind: an unsent start is withdrawn, and the session of
        a sent one is stopped when the answer comes.

        Args:
            request: What to start.
            deadline: Seconds for the whole call, instead of ``Timeouts.deadline``.

        Raises:
            ConfigurationError: Bad input, no key for it, or another event loop than before;
                nothing was sent.
            ClientClosedError: The client is closed; nothing was sent.
            APIConnectionError: Nothing was sent, nothing exists.
            OverloadedError: Not sent, or not again: the server wants a pause beyond the deadline.
            APIStatusError: The server refused.
            StartOutcomeUnknownError: A billed session may exist.
        """
        return await self._tasks.begin(SESSION, request, deadline=deadline)

    async def start_conversation(
        self, request: CreateEquosConversationRequest, *, deadline: float | None = None
    ) -> CreateEquosConversationResponse:
        """Start a conversation: ``POST /v3/conversations``, with the server key.

        Everything else is as with :meth:`start_session`.
        """
        return await self._tasks.begin(CONVERSATION, request, deadline=deadline)

    async def stop_session(
        self, session_id: str, *, deadline: float | None = None
    ) -> EquosSession | None:
        """Stop a session: ``PATCH /v3/session-passes/{id}/stop``.

        It goes on, with its retries, where its caller is cancelled. Without a client key it is
        ``PATCH /v3/sessions/{id}/stop``.

        Args:
            session_id: The session's id.
            deadline: Seconds for the whole call, instead of ``Timeouts.deadline``.

        Returns:
            The ended session; None where it is not running, and the server sent no details.

        Raises:
            ConfigurationError: Bad input, or another event loop than before; nothing was sent.
            ClientClosedError: The client is closed; nothing was sent.
            APIConnectionError: No usable answer came.
            APIStatusError: The server refused.
        """
        return await self._tasks.end(SESSION, session_id, deadline=deadline)

    async def stop_conversation(
        self, conversation_id: str, *, deadline: float | None = None
    ) -> EquosConversation | None:
        """Stop a conversation: ``POST /v3/conversations/{id}/stop``, with the server key.

        Everything else is as with :meth:`stop_session`.
        """
        return await self._tasks.end(CONVERSATION, conversation_id, deadline=deadline)

    def session(
        self, request: CreateSessionPassRequest, *, deadline: float | None = None
    ) -> AbstractAsyncContextManager[CreateEquosSessionResponse]:
        """Start a session for a block; on every way out of the block it is stopped.

        A stop that fails is raised, unless the block itself raised: then it becomes a note of
        that exception. Either way the session is in :attr:`unresolved` then.

        Args:
            request: What to start.
            deadline: Seconds for the start, instead of ``Timeouts.deadline``.

        Raises:
            EquosError: As :meth:`start_session` and :meth:`stop_session`.
        """
        return hold(self._tasks, SESSION, request, deadline)

    def conversation(
        self, request: CreateEquosConversationRequest, *, deadline: float | None = None
    ) -> AbstractAsyncContextManager[CreateEquosConversationResponse]:
        """Start a conversation for a block, as :meth:`session` does a session."""
        return hold(self._tasks, CONVERSATION, request, deadline)

    async def get_session(
        self, session_id: str, *, deadline: float | None = None
    ) -> EquosSession | None:
        """Read a session: ``GET /v3/sessions/{id}``, with the server key.

        Args:
            session_id: The session's id.
            deadline: Seconds for the whole call, instead of 30, or ``Timeouts.deadline`` where
                that is less.

        Returns:
            The session; None where the server knows none of that id.

        Raises:
            ConfigurationError: Bad input, no key for it, or another event loop than before.
            ClientClosedError: The client is closed, or was while it was asked.
            APIConnectionError: No usable answer came.
            OverloadedError: The server wants a pause of reading beyond the deadline.
            APIStatusError: The server refused.
        """
        return await self._tasks.run(SESSION.get, session_id, deadline=deadline)

    async def get_conversation(
        self, conversation_id: str, *, deadline: float | None = None
    ) -> EquosConversation | None:
        """Read a conversation: ``GET /v3/conversations/{id}``, as :meth:`get_session` does."""
        return await self._tasks.run(CONVERSATION.get, conversation_id, deadline=deadline)

    def sessions(self, *, client: str | None = None) -> AsyncGenerator[EquosSession, None]:
        """Read sessions, part by part: ``GET /v3/sessions``, with the server key.

        No id comes twice. The server promises no order, and a session that begins or ends
        meanwhile may be missed. Whether those that a session pass began are among them is
        likely, and nowhere stated.

        Args:
            client: Only those with this identifier of yours.

        Raises:
            EquosError: As :meth:`get_session`, for each part of the list.
        """
        return read_all(self._tasks, SESSION, client)

    def conversations(
        self, *, client: str | None = None
    ) -> AsyncGenerator[EquosConversation, None]:
        """Read conversations: ``GET /v3/conversations``, as :meth:`sessions` does sessions."""
        return read_all(self._tasks, CONVERSATION, client)

    async def ping(self, *, deadline: float | None = None) -> HealthResponse:
        """Reach the server: ``GET /v3/health``, without a key. It bills nothing.

        Raises:
            EquosError: As :meth:`get_session`.
        """
        return await self._tasks.run(PING, deadline=deadline)

    @property
    def endpoint(self) -> str:
        """The API's base URL."""
        return self._endpoint

    @property
    def timeouts(self) -> Timeouts:
        """How long things may take."""
        return self._timeouts

    @property
    def unresolved(self) -> tuple[Unresolved, ...]:
        """The newest 1,000 that may be running and that nobody holds, oldest first."""
        return self._tasks.unresolved

    async def aclose(self, *, deadline: float = 10.0) -> tuple[Unresolved, ...]:
        """Settle what is in flight, then close; safe to call again, also at the same time.

        New starts are refused and unsent ones withdrawn. Sent ones are waited for, stops are
        still taken and finished, and what open :meth:`session` and :meth:`conversation` blocks
        began is stopped.

        Args:
            deadline: Seconds after which it takes no more stops, gives up, and reports. Where
                several close, each waits as long as it said, and the longest decides about
                giving up.

        Returns:
            :attr:`unresolved`, as it is then, and what another's longer deadline still allows.
        """
        return await self._tasks.close(_validate.number("deadline", deadline, zero=True))

    async def __aenter__(self) -> Self:
        if self._tasks.state is not State.OPEN:
            raise closed_error()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        # Its arguments may have been refused: then there are no tasks yet.
        tasks: CallTasks | None = self.__dict__.get("_tasks")
        state = State.OPEN if tasks is None else tasks.state
        return f"<EquosClient {self._base} {state.value}>"

    def __getstate__(self) -> NoReturn:
        raise TypeError("an EquosClient cannot be pickled or copied: make one where it is used")

    def __del__(self) -> None:
        transport = self.__dict__.get("_transport")  # absent where __init__ refused its arguments
        if transport is not None and transport.is_open:
            warnings.warn(
                f"unclosed {self!r}: use 'async with', or await aclose()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )


# No user needs what follows: it is for what of this package runs on a client.


def clock_of(client: EquosClient) -> Clock:
    """A client's source of time."""
    return client._clock  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def begin(
    client: EquosClient,
    resource: Resource[Any, T, Any],
    request: object,
    *,
    deadline: float | None = None,
) -> Coroutine[Any, Any, T]:
    """Begin what a resource is, as :meth:`EquosClient.start_session` does a session."""
    return _BEGIN[resource.word](client)(request, deadline=deadline)


def end(
    client: EquosClient,
    resource: Resource[Any, Any, T],
    session_id: str,
    *,
    deadline: float | None = None,
) -> Coroutine[Any, Any, T | None]:
    """End what a resource is, as :meth:`EquosClient.stop_session` does a session."""
    return _END[resource.word](client)(session_id, deadline=deadline)


async def read(
    client: EquosClient,
    resource: Resource[Any, Any, T],
    session_id: str,
    *,
    deadline: float | None = None,
) -> T | None:
    """Read what a resource is, as :meth:`EquosClient.get_session` does a session."""
    return await _tasks_of(client).run(resource.get, session_id, deadline=deadline)


# By the methods that users call: what a client of theirs does in those, it does for a fleet, too.
_BEGIN: Final[Mapping[str, Callable[[EquosClient], Callable[..., Coroutine[Any, Any, Any]]]]] = {
    SESSION.word: attrgetter("start_session"),
    CONVERSATION.word: attrgetter("start_conversation"),
}
_END: Final[Mapping[str, Callable[[EquosClient], Callable[..., Coroutine[Any, Any, Any]]]]] = {
    SESSION.word: attrgetter("stop_session"),
    CONVERSATION.word: attrgetter("stop_conversation"),
}


def _tasks_of(client: EquosClient) -> CallTasks:
    return client._tasks  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def _sources(given: Mapping[Credential, object]) -> dict[Credential, KeySource]:
    """The keys that there are, as arguments or else in the environment."""
    found: dict[Credential, KeySource] = {}
    for credential, value in given.items():
        source = _validate.hidden(os.environ.get(credential.variable)) if value is None else value
        if value is None and not source:
            continue
        found[credential] = _validate.key_source(credential.value, source)
    if not found:
        raise ConfigurationError(
            "client_key or api_key must be there: pass one, or set "
            + " or ".join(credential.variable for credential in given)
        )
    return found
