"""One session of a fleet: its record, its handle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar, cast

from attrs import define, field

from equos_async._api.operations import CONVERSATION, SESSION, Resource
from equos_async._calls.watch import Watch
from equos_async.clock import Clock, SetTimer, set_unless_done
from equos_async.errors import EquosError, ResourceName
from equos_async.models import EquosConversation, EquosSession

from ._rows import NO_ENTRY, Entry
from ._states import Reason, State
from .values import AnyEnded, AnyRequest, AnyStarted, EndOutcome, SessionEnd

T = TypeVar("T")


class LiveSession:
    """A live session or conversation, to be stopped by :meth:`stop` or by leaving ``async with``.

    Nobody asks the API how it is: one that ended by itself is noticed only when
    somebody tries to stop it, at the latest the fleet when its time is over.
    """

    __slots__ = ("__weakref__", "_record")

    def __init__(self, record: SessionRecord) -> None:
        self._record = record

    @property
    def key(self) -> Hashable:
        """Whose session it is."""
        return self._record.key

    @property
    def resource(self) -> ResourceName:
        """The kind of this session, ``"session"`` or ``"conversation"``."""
        return self._record.resource.word

    @property
    def session_id(self) -> str:
        """The id of the session or conversation."""
        return self._record.resource.id_of(self._record.response)

    @property
    def session(self) -> EquosSession:
        """The session as the server described it when it was started.

        Raises:
            AttributeError: It is a conversation.
        """
        return self._record.begun(SESSION).session

    @property
    def conversation(self) -> EquosConversation:
        """The conversation as the server described it when it was started.

        Raises:
            AttributeError: It is a session.
        """
        return self._record.begun(CONVERSATION).conversation

    @property
    def server_url(self) -> str | None:
        """The LiveKit server to join, ``wss://…``; None where a conversation's answer lacks it."""
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
        """Seconds until then; 0 where it has ended."""
        record = self._record
        return 0.0 if record.end else max(0.0, record.ends - record.owner.clock.now())

    @property
    def state(self) -> Literal["live", "stopping", "ended"]:
        """Whether it is live, its stop is under way, or it is over, as far as the fleet knows."""
        if self._record.end is not None:
            return "ended"
        return "stopping" if self._record.state is State.STOPPING else "live"

    async def stop(self) -> AnyEnded | None:
        """Stop it. Calls at the same time, and later ones, get the same answer.

        It goes on where its caller is cancelled. One that failed may be tried again; the client
        itself does so, first after a second, until it is confirmed or the session's time is over.

        Returns:
            The ended session or conversation; None where it was not running, and the server sent no
            details.

        Raises:
            EquosError: As ``EquosClient.stop_session``; it may still be running.
        """
        return await shared(self._record.owner.stop(self._record))

    async def ended(self) -> SessionEnd:
        """Wait until it is over: stopped by anyone, or at its end."""
        record = self._record
        if record.end is not None:
            return record.end
        if record.over is None:
            record.over = asyncio.get_running_loop().create_future()
        return await asyncio.shield(record.over)

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
        return f"<LiveSession {self.key!r} {self.session_id} {state}>"


HandOver = Callable[[LiveSession, LiveSession], Awaitable[object] | None]


async def shared(task: asyncio.Task[T]) -> T:
    """The result of a task that others wait for too: cancelling a waiter leaves it alone."""
    await asyncio.wait([task])
    return task.result()


class Owner(Protocol):
    """What a session needs of its fleet."""

    @property
    def clock(self) -> Clock:
        """The source of time."""
        ...

    def stop(self, record: SessionRecord) -> asyncio.Task[AnyEnded | None]:
        """Set out to stop it."""
        ...


@define(eq=False, repr=False)
class SessionRecord:
    """What the fleet knows of one session, from the wish for it to its end.

    Attributes:
        owner: The fleet that runs it.
        resource: What it is.
        duration: Seconds that it is asked for.
        name: What its caller calls it; ``client`` is the caller's own identifier.
        request: What to start; once it is live, what to start again where it is to be renewed.
        hand_over: Who is told of its replacement.
        replaces: The session that it renews, until it is live.
        seconds: What is reserved for it in the session budget.
        unwanted: Why it is to end as soon as it is there.
        entry: What the ledger holds of it.
        watch: What sees to its start beyond what the client tells.
        callers: How many wait for its start, or got it: the last to go takes it with them.
        decided: What those wait for who joined its start: why there is none, or None.
        answer: What its caller waits for, until it is live; cancelled where the caller is gone.
        task: The start, then the stop, that is under way; at last the stop that ended it.
        started: The server's answer.
        began: When it was known to be live, on the clock.
        ends: When the fleet stops it, on the clock; ``expires`` is the same since the epoch.
        timer: What is to be done about it next; None when its time is over.
        reason: Why it is being stopped; ``claimed_by`` is the worker, where that is ``LOST``.
        is_confirmed: Whether the client has stopped it after its stop had failed.
        renewing: The task that gets its replacement, until that is there.
        end: How it ended.
        over: What waits for that.
    """

    owner: Owner
    key: Hashable
    resource: Resource[Any, Any, Any]
    request: AnyRequest | None
    duration: float
    deadline: float | None
    hand_over: HandOver | None
    replaces: SessionRecord | None = None
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
    timer: SetTimer | None = None
    reason: Reason = Reason.ASKED
    claimed_by: str = ""
    is_confirmed: bool = False
    renewing: asyncio.Task[None] | None = None
    end: SessionEnd | None = None
    over: asyncio.Future[SessionEnd] | None = None
    name: str = field(init=False)
    client: str | None = field(init=False)
    handle: LiveSession = field(init=False)

    def __attrs_post_init__(self) -> None:
        request = cast("AnyRequest", self.request)
        self.name, self.client = request.name, request.client
        self.handle = LiveSession(self)

    @property
    def response(self) -> AnyStarted:
        """The server's answer; there is one from LIVE on."""
        return cast("AnyStarted", self.started)

    def begun(self, resource: Resource[Any, T, Any]) -> T:
        """The server's answer, as that of a resource.

        Raises:
            AttributeError: It is another one.
        """
        if self.resource is not resource:
            raise AttributeError(f"{self.key!r} has a {self.resource.word}, no {resource.word}")
        return cast("T", self.started)

    def ended_as(
        self, outcome: EndOutcome, reason: str, *, last: AnyEnded | None = None
    ) -> SessionEnd:
        """How it ended, where that is now."""
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
            started_at=None if self.started is None else ended_at - timedelta(seconds=seconds),
            ended_at=ended_at,
            last=last,
        )

    def decide(self, error: BaseException | None) -> None:
        """Tell those who joined its start how that went."""
        decided, self.decided = self.decided, None
        if decided is not None:
            set_unless_done(decided, error)

    @property
    def session_id(self) -> str | None:
        """Its id, where known."""
        return None if self.started is None else self.resource.id_of(self.started)

    @property
    def why(self) -> str:
        """Why it is being stopped, in words, where that was not simply asked for."""
        return self.reason.value.format(by=self.claimed_by)

    def __repr__(self) -> str:
        return f"<SessionRecord {self.key!r} {self.session_id} {self.state.value}>"


def granted(asked: float, told: float | None) -> float:
    """Seconds that a session has: the server may grant less than was asked for."""
    return told if told is not None and 0 < told < asked else asked
