"""The object that users hold, and the tasks that outlive a cancelled caller."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, NoReturn, Self, TypeVar

import aiohttp
from attrs import evolve
from multidict import CIMultiDict

from . import _validate
from ._api import answers, operations
from ._calls.call import Call
from ._calls.runner import CallRunner
from ._emitter import Reporter, Subject
from ._http.request import Reply
from ._http.transport import Transport
from ._retry.throttle import Traffic
from ._version import __version__
from .clock import Clock, set_unless_done
from .errors import (
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    EquosError,
    Operation,
    StartOutcomeUnknownError,
    StartUnreadableError,
)
from .events import Event, EventKind, Unresolved
from .models import CreateEquosSessionResponse, CreateSessionPassRequest, EquosSession
from .settings import Limits, RetryPolicy, Timeouts

T = TypeVar("T")

DEFAULT_ENDPOINT: Final = "https://api.equos.ai"
SHUTDOWN_GRACE: Final = 10.0
"""Seconds that a stop is given when the event loop shuts down under it."""


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
        self._closing: asyncio.Task[None] | None = None
        self._given_up = False
        self._closed = False
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
        self._clock = Clock() if clock is None else _validate.instance("clock", clock, Clock)
        if http_session is not None:
            _validate.instance("http_session", http_session, aiohttp.ClientSession)
        _validate.instance("retry", retry, RetryPolicy)
        _validate.instance("limits", limits, Limits)
        self._reporter = Reporter(_validate.hook("on_event", on_event), self._clock)
        self._transport = Transport(
            clock=self._clock,
            connect_timeout=timeouts.connect,
            keepalive=limits.keepalive,
            trust_env=trust_env,
            http_session=http_session,
        )
        self._runner = CallRunner(
            transport=self._transport,
            headers=CIMultiDict(
                {**operations.headers(key), "User-Agent": f"equos-async/{__version__}"}
            ),
            traffic=Traffic(retry, limits),
            timeouts=timeouts,
            clock=self._clock,
            reporter=self._reporter,
            mask=answers.masker(key),
        )
        self._calls: set[Call[Any]] = set()
        self._blocks: set[str] = set()

    # What users call.

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
        return await self._start(request, deadline, in_block=False)

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
        call = self._stop_call(session_id, deadline)
        self._launch(call, self._run_stop)
        return await call.answer

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
        started = await self._start(request, deadline, in_block=True)
        try:
            yield started
        except BaseException as error:
            try:
                await self._leave_block(started.session.id)
            except EquosError as failure:
                error.add_note(f"stopping session {started.session.id} failed: {failure}")
            raise
        await self._leave_block(started.session.id)

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
        return self._reporter.unresolved

    async def aclose(self, *, deadline: float = 10.0) -> tuple[Unresolved, ...]:
        """Settle what is in flight, then close; safe to call again, also at the same time.

        New starts are refused and unsent ones withdrawn. Sent ones are waited for, stops are
        still taken and finished, and the sessions of open :meth:`session` blocks are stopped.

        Args:
            deadline: Seconds after which it takes no more stops, gives up, and reports.

        Returns:
            :attr:`unresolved`, as it is then.
        """
        seconds = _validate.number("deadline", deadline, zero=True)
        if self._closing is None:
            loop = self._transport.bind()
            for call in self._calls:
                call.last_attempt = not call.endpoint.repeatable
                if call.last_attempt and not call.on_server:
                    call.refuse(_closed_error("start"))
                    call.withdraw()
            self._closing = loop.create_task(self._close(self._clock.now() + seconds))
            for session_id in list(self._blocks):
                self._launch_orphan(session_id)
            self._blocks.clear()
        await asyncio.shield(self._closing)
        return self.unresolved

    async def __aenter__(self) -> Self:
        if self._closing is not None:
            raise _closed_error()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "open" if self._closing is None else "closed" if self._closed else "closing"
        return f"<EquosClient {self._base} {state}>"

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

    # Calls, and the tasks that carry them out whatever becomes of their callers.

    async def _start(
        self, request: CreateSessionPassRequest, deadline: float | None, *, in_block: bool
    ) -> CreateEquosSessionResponse:
        if self._closing is not None:
            raise _closed_error("start")
        _validate.instance("request", request, CreateSessionPassRequest)
        subject = Subject("start", None, request.name, request.client, request.max_duration)
        # The body is in no local variable: this frame is in the traceback of every failed start.
        call = self._call(
            operations.START, subject, operations.encode(request), deadline, in_block=in_block
        )
        self._launch(call, self._run_start)
        try:
            return await call.answer
        except asyncio.CancelledError:
            self._abandon(call)
            raise

    def _stop_call(
        self, session_id: str, deadline: float | None = None
    ) -> Call[EquosSession | None]:
        subject = Subject("stop", _validate.session_id(session_id))
        if self._closed or self._given_up:
            raise _closed_error("stop", session_id)
        return self._call(operations.STOP, subject, operations.EMPTY_BODY, deadline)

    def _call(
        self,
        endpoint: operations.Endpoint[T],
        subject: Subject,
        body: bytes,
        deadline: float | None = None,
        *,
        in_block: bool = False,
    ) -> Call[T]:
        seconds = (
            self._timeouts.deadline if deadline is None else _validate.number("deadline", deadline)
        )
        loop = self._transport.bind()
        began = self._clock.now()
        return Call(
            endpoint=endpoint,
            subject=subject,
            url=endpoint.url(self._base, subject.session_id or ""),
            body=body,
            began=began,
            deadline=began + seconds,
            answer=loop.create_future(),
            in_block=in_block,
        )

    def _launch(self, call: Call[T], run: Callable[[Call[T]], Coroutine[Any, Any, None]]) -> None:
        """Run a call in a task of the client's own: its caller's end is not its end."""
        call.task = self._transport.bind().create_task(run(call))
        self._calls.add(call)
        if self._reporter.heard and not call.answer.done():
            call.answer.add_done_callback(partial(self._ended, call))
        call.task.add_done_callback(partial(self._settle, call))

    def _settle(self, call: Call[Any], task: asyncio.Task[None]) -> None:
        """Let go of a call: a done callback, for a task cancelled at once never runs a line."""
        self._calls.discard(call)
        if task.cancelled():
            if call.endpoint.repeatable and call.attempts == 0:
                self._reporter.stop_failed(call.subject, 0, "cancelled before it was sent")
            if self._given_up:
                call.refuse(call.describe(_closed_error()))
            call.answer.cancel()
        elif (error := task.exception()) is not None:
            if call.answer.done() and not isinstance(error, EquosError):
                raise error  # a bug that no caller can be told of: the loop's handler is
            call.refuse(error)

    def _ended(self, call: Call[Any], answer: asyncio.Future[Any]) -> None:
        """A caller is served: a done callback, in that caller's context."""
        problem = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        session_id = call.subject.session_id
        if isinstance(problem, EquosError):
            session_id = problem.session_id
        elif problem is None and call.endpoint is operations.START:
            session_id = answer.result().session.id
        error = None if problem is None else type(problem).__name__
        self._tell("ended", call, error or "answered", error=error, session_id=session_id)

    def _tell(self, kind: EventKind, call: Call[Any], reason: str, **details: Any) -> None:
        """Tell of a call that is over."""
        self._reporter.emit(
            kind,
            call.subject,
            call.attempts,
            reason,
            status=call.status,
            seconds=self._clock.now() - call.began,
            method=call.endpoint.method,
            url=self._base + call.endpoint.path,
            retries=call.retries,
            **details,
        )

    def _abandon(self, call: Call[CreateEquosSessionResponse]) -> None:
        """The caller of a start was cancelled."""
        if call.answer.cancelled():
            if not call.on_server:
                call.withdraw()
        elif call.answer.exception() is None:
            # The answer and the cancellation fell in one tick: nobody has seen that session.
            session_id = call.answer.result().session.id
            self._blocks.discard(session_id)
            self._launch_orphan(session_id)

    async def _run_start(self, call: Call[CreateEquosSessionResponse]) -> None:
        try:
            reply = await self._runner.carry_out(call)
        except EquosError as error:
            if not isinstance(error, StartOutcomeUnknownError):
                self._reporter.resolved(call.subject)  # refused late: nothing exists after all
            raise
        try:
            started = call.endpoint.decode(reply.body)
        except StartUnreadableError as error:
            unreadable = error
        else:
            return await self._deliver(call, started)
        raise await self._unreadable(call, reply, unreadable)

    async def _deliver(
        self, call: Call[CreateEquosSessionResponse], started: CreateEquosSessionResponse
    ) -> None:
        """Put a session into its caller's hands, or stop it where there are none."""
        self._reporter.resolved(call.subject)
        session_id = started.session.id
        if call.in_block and self._closing is not None:
            call.refuse(_closed_error("start", session_id))
        if call.answer.done():
            await self._stop_orphan(call, session_id)
            return
        if call.in_block:
            self._blocks.add(session_id)
        call.answer.set_result(started)

    async def _unreadable(
        self, call: Call[Any], reply: Reply, error: StartUnreadableError
    ) -> StartUnreadableError:
        """Stop the session, where its id could be read, and complete the error."""
        call.describe(error, reply)
        if error.session_id is None:
            self._reporter.unknown(call.subject, call.attempts, str(error), reply.status)
            error.args = (f"{error}: a billed session may exist, and its id could not be read",)
            return error
        # The stop has a deadline of its own; who waits for the start is not made to wait for it.
        late = self._clock.call_at(call.deadline, call.refuse, error)
        stopped = await self._stop_orphan(call, error.session_id)
        late.cancel()
        self._reporter.resolved(call.subject)
        error.args = (f"{error}; its session {'has been' if stopped else 'could not be'} stopped",)
        return error

    async def _stop_orphan(self, start: Call[Any], session_id: str) -> bool:
        """Stop a session that nobody holds, in its start's own task; whether that worked."""
        subject = evolve(start.subject, operation="stop", session_id=session_id)
        try:
            await self._run_orphan(self._call(operations.STOP, subject, operations.EMPTY_BODY))
        except EquosError:
            return False  # told by an event, and in `unresolved`
        return True

    def _launch_orphan(self, session_id: str) -> None:
        call = self._call(operations.STOP, Subject("stop", session_id), operations.EMPTY_BODY)
        call.answer.cancel()
        self._launch(call, self._run_orphan)
        if self._given_up:
            call.withdraw()  # there is no time for it any more: it is reported

    async def _run_orphan(self, call: Call[EquosSession | None]) -> None:
        await self._run_stop(call)
        self._tell("orphan_stopped", call, "nobody held the session any more")

    async def _run_stop(self, call: Call[EquosSession | None]) -> None:
        try:
            reply = await self._persist(call)
        except (EquosError, asyncio.CancelledError) as error:
            reason = str(error) or "the event loop shut down"
            self._reporter.stop_failed(call.subject, call.attempts, reason)
            raise
        self._reporter.resolved(call.subject)
        set_unless_done(call.answer, call.endpoint.decode(reply.body))

    async def _persist(self, call: Call[EquosSession | None]) -> Reply:
        """A stop that survives the first cancellation of its task.

        Two things cancel it: `aclose` when its time is over, and the shutdown of the event loop
        (`asyncio.run` on Ctrl-C, say), which waits for tasks that need a moment more.
        """
        try:
            return await self._runner.carry_out(call)
        except asyncio.CancelledError:
            pass
        if self._given_up:
            raise call.describe(APITimeoutError("the client closed before the stop was answered"))
        call.deadline = min(call.deadline, self._clock.now() + SHUTDOWN_GRACE)
        return await self._runner.carry_out(call)

    async def _leave_block(self, session_id: str) -> None:
        """Stop the session of a block, unless `aclose` has taken that over."""
        if session_id in self._blocks:
            self._blocks.discard(session_id)
            await self.stop_session(session_id)

    async def _close(self, deadline: float) -> None:
        timer = self._clock.call_at(deadline, self._give_up)
        try:
            while tasks := [call.task for call in self._calls]:
                # Not even the event loop's shutdown takes the connections from under the stops
                # that survive it; the timer ends this all the same.
                with suppress(asyncio.CancelledError):
                    await asyncio.wait(tasks)
        finally:
            timer.cancel()
            self._closed = True
            await self._transport.close()

    def _give_up(self) -> None:
        """The time of `aclose` is over: end every call with what is known of it."""
        self._given_up = True
        self._runner.ending = "the client was closed"
        for call in self._calls:
            call.withdraw()


def _closed_error(
    operation: Operation | None = None, session_id: str | None = None
) -> ClientClosedError:
    return ClientClosedError("the client is closed", operation=operation, session_id=session_id)
