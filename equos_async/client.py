"""The client: what users call, and nothing else."""

from __future__ import annotations

import os
import ssl as ssl_module
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, NoReturn, Self, TypeVar

import aiohttp

from . import _validate
from ._api.operations import CONVERSATION, PING, SESSION, Credential
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
    """A client for sessions and conversations; one is enough for a whole event loop.

    Use it with ``async with``, or call :meth:`aclose`. Creating it does no I/O and needs no running
    loop. While the process lives, each session or conversation that the server confirmed is either
    returned to its caller or stopped. Starts of unknown outcome are in :attr:`unresolved`.

    A key is a string, or a function or coroutine function that returns one. The function is called
    at the first request and again after a 401, once for all calls that wait for it, in the event
    loop: it must not block. After a 401 a call is sent again once, if the new key is a different
    one.

    Args:
        client_key: The public client key from Equos Studio, for session passes; by default
            ``EQUOS_CLIENT_KEY``.
        api_key: The server key, for conversations and for reading; by default ``EQUOS_API_KEY``.
            One of the two keys is required.
        endpoint: The API's base URL; by default ``EQUOS_ENDPOINT``, else the production API.
        api_version: The version segment of the path.
        timeouts: Time limits of attempts and calls.
        retry: How often and how soon calls are tried again.
        limits: How many requests may be on the wire at once.
        settle: With a server key, the session of a start whose answer was lost is searched for and
            stopped, and the start is sent again; this sets for how long. None: no search, and
            starts carry no marker.
        headers: Further headers for each request; those that the client sets itself are refused.
        proxy: The URL of a proxy, with user and password if it needs them.
        ssl: An ``ssl.SSLContext``, instead of Python's defaults.
        http_session: An aiohttp session of yours. It is never closed; its cookies, proxies, TLS
            settings and connection pool apply.
        on_event: Called with each :class:`Event`; must not block.
        allow_insecure_http: Allow ``http://`` to hosts other than loopback, which sends the key in
            clear text.
        trust_env: Use the proxies of the environment; not with ``http_session``.
        clock: The source of time and random numbers, for tests.

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
        self._base = ""  # first, for the repr of a half-made client in a traceback
        # Before any line can raise, because a traceback may show this frame's variables.
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

        It is sent again only if the server provably processed none of the earlier attempts. A
        cancelled caller leaves no session: an unsent start is withdrawn; the session of one that
        was sent is stopped when the answer arrives.

        Args:
            request: What to start.
            deadline: Seconds for the whole call, instead of ``Timeouts.deadline``.

        Raises:
            ConfigurationError: Bad input, no key for it, or another event loop than before;
                nothing was sent.
            ClientClosedError: The client is closed; nothing was sent.
            APIConnectionError: Nothing was sent, so no session exists.
            OverloadedError: Not sent, or not sent again, because the server asked for a pause that
                ends after the deadline. No session exists.
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

        If the caller is cancelled, the stop and its retries continue. Without a client key the
        request is ``PATCH /v3/sessions/{id}/stop``, with the server key.

        Args:
            session_id: The session's id.
            deadline: Seconds for the whole call, instead of ``Timeouts.deadline``.

        Returns:
            The ended session; None if it was not running and the server sent no details.

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
        """Start a session for a block of code; on every way out of the block it is stopped.

        If the stop fails, its error is raised; if the block raised too, the failure is added to the
        block's exception as a note. In both cases the session is in :attr:`unresolved`, and the
        client goes on trying to stop it.

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
        """Start a conversation for a block of code, as :meth:`session` starts a session."""
        return hold(self._tasks, CONVERSATION, request, deadline)

    async def get_session(
        self, session_id: str, *, deadline: float | None = None
    ) -> EquosSession | None:
        """Read a session: ``GET /v3/sessions/{id}``, with the server key.

        Args:
            session_id: The session's id.
            deadline: Seconds for the whole call; by default the smaller of 30 and
                ``Timeouts.deadline``.

        Returns:
            The session; None if the server has none with this id.

        Raises:
            ConfigurationError: Bad input, no key for it, or another event loop than before.
            ClientClosedError: The client is closed, or was closed during the call.
            APIConnectionError: No usable answer came.
            OverloadedError: The server asked for a pause that ends after the deadline.
            APIStatusError: The server refused.
        """
        return await self._tasks.run(SESSION.get, session_id, deadline=deadline)

    async def get_conversation(
        self, conversation_id: str, *, deadline: float | None = None
    ) -> EquosConversation | None:
        """Read a conversation: ``GET /v3/conversations/{id}``; all else as :meth:`get_session`."""
        return await self._tasks.run(CONVERSATION.get, conversation_id, deadline=deadline)

    def sessions(self, *, client: str | None = None) -> AsyncGenerator[EquosSession, None]:
        """Read all sessions, 50 at a time: ``GET /v3/sessions``, with the server key.

        No id is returned twice. The server documents no order, so a session that begins or ends
        while the list is read may be missed. The vendor's reference does not say whether the list
        includes sessions that a session pass started; this is likely.

        Args:
            client: Only those with this identifier of yours.

        Raises:
            EquosError: As :meth:`get_session`, for each part of the list.
        """
        return read_all(self._tasks, SESSION, client)

    def conversations(
        self, *, client: str | None = None
    ) -> AsyncGenerator[EquosConversation, None]:
        """Read all conversations: ``GET /v3/conversations``; all else as :meth:`sessions`."""
        return read_all(self._tasks, CONVERSATION, client)

    async def ping(self, *, deadline: float | None = None) -> HealthResponse:
        """Check that the server can be reached: ``GET /v3/health``, without a key; bills nothing.

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
        """The time limits of attempts and calls."""
        return self._timeouts

    @property
    def unresolved(self) -> tuple[Unresolved, ...]:
        """The newest 1,000 starts of unknown outcome and failed stops, oldest first."""
        return self._tasks.unresolved

    def resolve(self, unresolved: Unresolved) -> bool:
        """Say that an entry of :attr:`unresolved` has been dealt with, by you or somebody else.

        It is removed from :attr:`unresolved`, a fleet's slot and budget and a ledger's row are
        freed, and the client neither searches for the session nor repeats its stop any more. If
        the answer to its start arrives later, the session in it is stopped all the same. Call it
        in the client's event loop.

        Args:
            unresolved: The entry; its ``id`` is what counts.

        Returns:
            True if it was removed. False if there is no such entry any more, or if the client has
            found the session and is stopping it already.

        Raises:
            ConfigurationError: It is not an ``Unresolved``.
        """
        _validate.instance("unresolved", unresolved, Unresolved)
        return self._tasks.resolve(unresolved.id)

    async def aclose(self, *, deadline: float = 10.0) -> tuple[Unresolved, ...]:
        """Settle what is in flight, then close; may be called more than once, also concurrently.

        New starts are refused and unsent ones withdrawn. The answers to sent ones are awaited,
        stops are still accepted and finished, and the sessions of open :meth:`session` and
        :meth:`conversation` blocks and of fleets are stopped.

        Args:
            deadline: Seconds after which no more stops are accepted and the client gives up. If
                several tasks close it, each waits for its own deadline, and the latest one decides
                when the client gives up.

        Returns:
            :attr:`unresolved` at that time, and the calls that another task's later deadline still
            allows.
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
        raise TypeError("an EquosClient cannot be pickled or copied: create one where it is needed")

    def __del__(self) -> None:
        transport = self.__dict__.get("_transport")  # absent if __init__ refused its arguments
        if transport is not None and transport.is_open:
            warnings.warn(
                f"unclosed {self!r}: use 'async with', or await aclose()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )


def _sources(given: Mapping[Credential, object]) -> dict[Credential, KeySource]:
    """The keys from the arguments, or else from the environment."""
    found: dict[Credential, KeySource] = {}
    for credential, value in given.items():
        source = _validate.hidden(os.environ.get(credential.variable)) if value is None else value
        if value is None and not source:
            continue
        found[credential] = _validate.key_source(credential.value, source)
    if not found:
        raise ConfigurationError(
            "client_key or api_key is required: pass one, or set "
            + " or ".join(credential.variable for credential in given)
        )
    return found
