"""The client: what users call, and nothing else."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, NoReturn, Self

import aiohttp

from . import _validate
from ._api.operations import SESSION, STOP_SESSION
from ._calls.call import Holder
from ._calls.lifecycle import State
from ._calls.tasks import CallTasks, closed_error
from ._emitter import Emitter
from ._http.transport import Transport
from .clock import Clock
from .errors import ConfigurationError, EquosError
from .events import Event, Unresolved
from .models import CreateEquosSessionResponse, CreateSessionPassRequest, EquosSession
from .settings import Limits, RetryPolicy, Timeouts

DEFAULT_ENDPOINT: Final = "https://api.equos.ai"


class EquosClient:
    """A client for the session-passes API, to be shared by all that one event loop runs.

    Use it with ``async with``, or call :meth:`aclose`. Making one does no I/O and needs no
    running loop. While the process lives, a session that the server told of is either in a
    caller's hands or stopped; what never became known is in :attr:`unresolved`.

    Args:
        client_key: The public client key from Equos Studio; by default ``EQUOS_CLIENT_KEY``.
        endpoint: The API's base URL; by default ``EQUOS_ENDPOINT``, else the production API.
        api_version: The version segment of the path.
        timeouts: How long things may take.
        retry: How often and how soon calls are tried again.
        limits: How many connections at once.
        http_session: A session of yours to use; it is never closed. Its cookies, proxies and
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
        client_key: str | None = None,
        *,
        endpoint: str | None = None,
        api_version: str = "v3",
        timeouts: Timeouts = Timeouts(),
        retry: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        http_session: aiohttp.ClientSession | None = None,
        on_event: Callable[[Event], object] | None = None,
        allow_insecure_http: bool = False,
        trust_env: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._base = ""  # first what a repr needs: a traceback may show a client half made
        if client_key is None:
            client_key = os.environ.get("EQUOS_CLIENT_KEY")
        client_key = _validate.hidden(client_key)  # before anything can fail and show this frame
        key = _validate.client_key(client_key)
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
        _validate.instance("retry", retry, RetryPolicy)
        _validate.instance("limits", limits, Limits)
        hook = _validate.hook("on_event", on_event)
        self._transport = Transport(
            connect_timeout=timeouts.connect,
            keepalive=limits.keepalive,
            trust_env=trust_env,
            http_session=http_session,
            clock=own_clock,
        )
        self._tasks = CallTasks(
            base=self._base,
            key=key,
            transport=self._transport,
            timeouts=timeouts,
            policy=retry,
            limits=limits,
            clock=own_clock,
            emitter=Emitter(hook, "on_event"),
        )

    async def start_session(
        self, request: CreateSessionPassRequest, *, deadline: float | None = None
    ) -> CreateEquosSessionResponse:
        """Start a session: ``POST /v3/session-passes``.

        It is sent again only where every attempt before was provably not processed. A caller
        that is cancelled leaves nothing behind: an unsent start is withdrawn, and the session of
        a sent one is stopped when the answer comes.

        Args:
            request: What to start.
            deadline: Seconds for the whole call, instead of ``Timeouts.deadline``.

        Raises:
            ConfigurationError: Bad input, or another event loop than before; nothing was sent.
            ClientClosedError: The client is closed; nothing was sent.
            APIConnectionError: Nothing was sent, nothing exists.
            OverloadedError: Not sent, or not again: the server wants a pause beyond the deadline.
            APIStatusError: The server refused.
            StartOutcomeUnknownError: A billed session may exist.
        """
        return await self._tasks.begin(SESSION, request, deadline=deadline)

    async def stop_session(
        self, session_id: str, *, deadline: float | None = None
    ) -> EquosSession | None:
        """Stop a session: ``PATCH /v3/session-passes/{id}/stop``.

        It goes on, with its retries, where its caller is cancelled.

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
        return await self._tasks.run(STOP_SESSION, session_id, deadline=deadline)

    @asynccontextmanager
    async def session(
        self, request: CreateSessionPassRequest, *, deadline: float | None = None
    ) -> AsyncGenerator[CreateEquosSessionResponse, None]:
        """Start a session for a block; on every way out of the block it is stopped.

        A stop that fails is raised, unless the block itself raised: then it becomes a note of
        that exception. Either way the session is in :attr:`unresolved` then.

        Args:
            request: What to start.
            deadline: Seconds for the start, instead of ``Timeouts.deadline``.

        Raises:
            EquosError: As :meth:`start_session` and :meth:`stop_session`.
        """
        started = await self._tasks.begin(SESSION, request, deadline=deadline, holder=Holder.BLOCK)
        session_id = started.session.id
        try:
            yield started
        except GeneratorExit:  # the block's coroutine is being closed, and must not wait
            self._tasks.drop_block(SESSION, session_id)
            raise
        except BaseException as error:
            try:
                await self._tasks.leave_block(SESSION, session_id)
            except EquosError as failure:
                error.add_note(f"stopping session {session_id} failed: {failure}")
            raise
        await self._tasks.leave_block(SESSION, session_id)

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
        """The newest 1,000 sessions that may be running and that nobody holds, oldest first."""
        return self._tasks.unresolved

    async def aclose(self, *, deadline: float = 10.0) -> tuple[Unresolved, ...]:
        """Settle what is in flight, then close; safe to call again, also at the same time.

        New starts are refused and unsent ones withdrawn. Sent ones are waited for, stops are
        still taken and finished, and the sessions of open :meth:`session` blocks are stopped.

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


def clock_of(client: EquosClient) -> Clock:
    """A client's source of time, for what of this package runs on that client."""
    # No user needs it.
    return client._clock  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
