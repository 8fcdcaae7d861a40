"""One session of a fleet: its record and its handle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Literal, NoReturn, Protocol, Self, TypeVar, cast
from weakref import ReferenceType, ref

from attrs import define, field

from equos_async._api.operations import CONVERSATION, SESSION, Resource
from equos_async._calls.watch import Watch
from equos_async._shown import keyed
from equos_async.clock import Clock, SetTimer, set_unless_done
from equos_async.errors import EquosError, ResourceName
from equos_async.models import EquosConversation, EquosSession

from ._presence import Presence
from ._rows import NO_ENTRY, Entry
from ._states import Reason, State
from .values import AnyEnded, AnyRequest, AnyStarted, EndOutcome, K, K_co, SessionEnd

T = TypeVar("T")


class LiveSession(Generic[K_co]):
    """A live session or conversation; :meth:`stop` or leaving ``async with`` stops it.

    The API is not polled: if a session ended by itself, the fleet notices it only when it stops the
    session, at the latest when its time is over.
    """

    __slots__ = ("__weakref__", "_record")

    def __init__(self, record: SessionRecord) -> None:
        self._record = record

    @property
    def key(self) -> K_co:
        """Whose session it is."""
        return cast("K_co", self._record.key)

    @property
    def resource(self) -> ResourceName:
        """What it is, ``"session"`` or ``"conversation"``."""
        return self._record.resource.word

    @property
    def session_id(self) -> str:
        """The id of the session or conversation."""
        return self._record.resource.id_of(self._record.response)

    @property
    def session(self) -> EquosSession:
        """The session, as in the answer to its start.

        Raises:
            AttributeError: It is a conversation.
        """
        return self._record.begun(SESSION).session

    @property
    def conversation(self) -> EquosConversation:
        """The conversation, as in the answer to its start.

        Raises:
            AttributeError: It is a session.
        """
        return self._record.begun(CONVERSATION).conversation

    @property
    def server_url(self) -> str | None:
        """The LiveKit server to join, ``wss://…``; None if a conversation's answer lacks it."""
        return self._record.resource.address_of(self._record.response)

    @property
    def consumer_access_token(self) -> str | None:
        """The LiveKit token of the end user; a secret, for that user only."""
        return self._record.response.consumer_access_token

    @property
    def expires_at(self) -> datetime:
        """When the fleet stops it, in UTC."""
        return datetime.fromtimestamp(self._record.expires, UTC)

    @property
    def remaining(self) -> float:
        """Seconds until then; 0 if it has ended."""
        record = self._record
        return 0.0 if record.end else max(0.0, record.ends - record.owner.clock.now())

    @property
    def state(self) -> Literal["live", "stopping", "ended"]:
        """Whether it is live, being stopped, or ended, as far as the fleet knows."""
        if self._record.end is not None:
            return "ended"
        return "stopping" if self._record.state is State.STOPPING else "live"

    def touch(self) -> None:
        """Note that somebody uses it: it has been joined, and is not idle now.

        Call it when the user joins, speaks or sends something; it costs next to nothing.
        """
        if self._record.presence is not None:
            self._record.presence.touch(self._record.owner.clock.now())

    async def stop(self) -> AnyEnded | None:
        """Stop it. Concurrent and later calls get the same answer.

        If the caller is cancelled, the stop goes on. After a failure it may be called again; the
        client itself tries again, first after a second, until the stop is confirmed or the
        session's time is over.

        Returns:
            The ended session or conversation; None if it was not running and the server sent no
            details.

        Raises:
            EquosError: As ``EquosClient.stop_session``; the session may still be running.
        """
        self._record.owner.check()
        return await shared(self._record.owner.stop(self._record))

    async def renew(self) -> LiveSession[K_co]:
        """Replace it now by a new session for its key, before its time.

        The request is the same, or what the ``renew`` function of its start returns. When the new
        session is live and ``on_renewed``, if there is one, has returned, this one is stopped. If a
        renewal is in progress, this waits for it. If the caller is cancelled, the renewal goes on.

        Returns:
            The new session.

        Raises:
            EquosError: There is no new session, or it was stopped because ``on_renewed`` raised;
                this one goes on, unless it has ended or was replaced before.
        """
        record = self._record
        record.owner.check()
        task = record.owner.renew(record)
        await asyncio.wait([task])
        if task.cancelled():
            told = "the session was stopped, or the fleet closed, before its replacement was live"
            raise EquosError(told, operation="start", session_id=record.session_id)
        return task.result()

    async def ended(self) -> SessionEnd[K_co]:
        """Wait until it has ended, whatever ended it.

        If it may still be running when the fleet has closed, the outcome is ``failed`` or
        ``unresolved``.
        """
        record = self._record
        if record.end is not None:
            return record.end
        return await asyncio.shield(record.awaited)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        except EquosError as failure:
            if exc is None:
                raise
            exc.add_note(f"stopping {self.resource} {self.session_id} failed: {failure}")

    def __repr__(self) -> str:
        end = self._record.end
        state = f"{self.state}, {self.remaining:.0f} s left" if end is None else end.outcome
        return f"<LiveSession {keyed(self.key)} {self.session_id} {state}>"

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "a LiveSession cannot be pickled or copied: pass on its key, its session_id or its "
            "server_url"
        )


HandOver = Callable[[LiveSession[K], LiveSession[K]], Awaitable[object] | None]
Renew = Callable[[LiveSession[K]], Awaitable[AnyRequest]]


async def shared(task: asyncio.Task[T]) -> T:
    """The result of a shared task; cancelling one waiter does not cancel the task."""
    await asyncio.wait([task])
    return task.result()


class Owner(Protocol):
    """The part of a fleet that a session needs."""

    @property
    def clock(self) -> Clock:
        """The source of time."""
        ...

    def check(self) -> None:
        """Check that this is its event loop."""
        ...

    def stop(self, record: SessionRecord) -> asyncio.Task[AnyEnded | None]:
        """Begin to stop it."""
        ...

    def renew(self, record: SessionRecord) -> asyncio.Task[LiveSession[Any]]:
        """Begin to replace it."""
        ...


@define(eq=False, repr=False)
class SessionRecord:
    """What the fleet knows of one session, from the call of ``start`` to its end.

    Attributes:
        owner: The fleet that runs it.
        resource: What it is.
        duration: Seconds that its request asks for.
        group: The group whose limit applies to it; None if it has none.
        name: The request's name; ``client`` is the request's ``client``.
        request: Its request, until it is over.
        renew: Makes the request for its replacement; None: the same request.
        hand_over: The ``on_renewed`` hook.
        replaces: The session that it renews, until it is live.
        relieves: The session that it takes over from, until that is to be stopped.
        seconds: Seconds reserved for it in the session budget.
        unwanted: The error for its caller, if it is to be stopped as soon as it is live.
        entry: Its row in the ledger.
        watch: Follows its start and all later calls of the client about it, until it is stopped.
        callers: How many callers wait for its start, or got it; if all are cancelled, so is the
            start.
        decided: A future for callers that joined its start: the error, or None when it is live.
        answer: The future of its first caller until it is live; cancelled if that caller is.
        task: The task of its start or stop; in the end, of the stop that ended it.
        started: The server's answer.
        began: When it was known to be live, on the clock.
        ends: When the fleet stops it, on the clock; ``expires`` is the same since the epoch.
        renew_at: When its replacement is started, on the clock; None: not by itself, or not again.
        presence: Tracks its use, if it is stopped when nobody uses it.
        timer: The timer of its next event; None when its time is over.
        reason: Why it is being stopped; with ``LOST``, ``claimed_by`` is the worker that claimed
            it.
        is_confirmed: Whether it is known to have ended although no stop of the fleet was answered.
        renewing: The task that starts its replacement, until that is live.
        end: How it ended.
        over: A future for those who wait for its end, done when the fleet has closed, too.
    """

    owner: Owner
    key: Hashable
    resource: Resource[Any, Any, Any]
    request: AnyRequest | None
    duration: float
    deadline: float | None
    hand_over: HandOver[Any] | None
    renew: Renew[Any] | None = None
    group: str | None = None
    presence: Presence | None = None
    replaces: SessionRecord | None = None
    relieves: SessionRecord | None = None
    state: State = State.WAITING
    seconds: float = 0.0
    unwanted: EquosError | None = None
    entry: Entry = NO_ENTRY
    watch: Watch | None = None
    callers: int = 1
    decided: asyncio.Future[BaseException | None] | None = None
    answer: asyncio.Future[None] | None = None
    task: asyncio.Task[Any] | None = None
    started: AnyStarted | None = None
    began: float = 0.0
    ends: float = 0.0
    expires: float = 0.0
    renew_at: float | None = None
    timer: SetTimer | None = None
    reason: Reason = Reason.ASKED
    claimed_by: str = ""
    is_confirmed: bool = False
    renewing: asyncio.Task[LiveSession[Any]] | None = None
    end: SessionEnd[Any] | None = None
    over: asyncio.Future[SessionEnd[Any]] | None = None
    name: str = field(init=False)
    client: str | None = field(init=False)
    _handle: ReferenceType[LiveSession[Any]] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        request = cast("AnyRequest", self.request)
        self.name, self.client = request.name, request.client

    @property
    def handle(self) -> LiveSession[Any]:
        """The handle for callers: the same object, as long as one of them keeps it."""
        handle = None if self._handle is None else self._handle()
        if handle is None:  # a strong reference to it would be a reference cycle
            handle = LiveSession(self)
            self._handle = ref(handle)
        return handle

    @property
    def is_under_way(self) -> bool:
        """Whether its start is in progress."""
        return self.state is State.WAITING or self.state is State.STARTING

    @property
    def response(self) -> AnyStarted:
        """The server's answer, which exists from LIVE on."""
        return cast("AnyStarted", self.started)

    def begun(self, resource: Resource[Any, T, Any]) -> T:
        """The server's answer, for one kind of resource.

        Raises:
            AttributeError: It is of the other kind.
        """
        if self.resource is not resource:
            raise AttributeError(f"{self.key!r} has a {self.resource.word}, no {resource.word}")
        return cast("T", self.started)

    def ended_as(
        self, outcome: EndOutcome, reason: str, *, last: AnyEnded | None = None
    ) -> SessionEnd[Any]:
        """Describe its end, as if it had ended now."""
        clock = self.owner.clock
        ended_at = datetime.fromtimestamp(clock.wall(), UTC)
        seconds = 0.0 if self.started is None else clock.now() - self.began
        return SessionEnd(
            key=self.key,
            session_id=self.session_id,
            outcome=outcome,
            seconds=seconds,
            reason=reason,
            resource=self.resource.word,
            name=self.name,
            client=self.client,
            group=self.group,
            started_at=None if self.started is None else ended_at - timedelta(seconds=seconds),
            ended_at=ended_at,
            last=last,
        )

    @property
    def awaited(self) -> asyncio.Future[SessionEnd[Any]]:
        """The future for those who wait for its end."""
        if self.over is None:
            self.over = asyncio.get_running_loop().create_future()
        return self.over

    def decide(self, error: BaseException | None) -> None:
        """Give the result to the callers that joined its start."""
        decided, self.decided = self.decided, None
        if decided is not None:
            set_unless_done(decided, error)

    @property
    def session_id(self) -> str | None:
        """Its id, if known."""
        return None if self.started is None else self.resource.id_of(self.started)

    @property
    def is_to_stop(self) -> bool:
        """Whether it is to be stopped, and the stop was not begun yet."""
        return self.state is State.STOPPING and self.task is None

    @property
    def why(self) -> str:
        """Why it is being stopped, in words; empty if a caller asked for it."""
        return self.reason.value.format(by=self.claimed_by)

    def __repr__(self) -> str:
        return f"<SessionRecord {keyed(self.key)} {self.session_id} {self.state.value}>"


def error_of(task: asyncio.Task[Any], cut_off: type[EquosError]) -> BaseException | None:
    """The error of a task; a cancelled one was ended by the event loop's shutdown."""
    if task.cancelled():
        return cut_off("the event loop shut down before the answer came")
    return task.exception()


def granted(asked: float, told: float | None) -> float:
    """Seconds that a session may run: the server may grant fewer than the request asks for."""
    return told if told is not None and 0 < told < asked else asked
