"""One session of a fleet, from the order of it to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from attrs import define, field

from equos_async.clock import Alarm, Clock
from equos_async.errors import EquosError
from equos_async.models import CreateEquosSessionResponse, CreateSessionPassRequest, EquosSession

from ._worker import Entry
from .values import SessionEnd

T = TypeVar("T")


class LiveSession:
    """A live session of a fleet, to be stopped by :meth:`stop` or by leaving ``async with``.

    The API cannot be asked how a session is: one that ended by itself is noticed only when
    somebody tries to stop it, at the latest the fleet when its time is over.
    """

    __slots__ = ("__weakref__", "_held")

    def __init__(self, held: Held) -> None:
        self._held = held

    @property
    def key(self) -> Hashable:
        """Whose session it is."""
        return self._held.key

    @property
    def session(self) -> EquosSession:
        """The session as the server described it when it was started."""
        return self._held.started.session

    @property
    def server_url(self) -> str:
        """The LiveKit server to join, ``wss://…``."""
        return self.session.host.server_url

    @property
    def consumer_access_token(self) -> str | None:
        """The LiveKit token of the end user; a secret, for that user only."""
        return self._held.started.consumer_access_token

    @property
    def expires_at(self) -> datetime:
        """When the fleet stops it, in UTC."""
        return datetime.fromtimestamp(self._held.expires, UTC)

    @property
    def remaining(self) -> float:
        """Seconds until then; 0 where it has ended."""
        held = self._held
        return 0.0 if held.end else max(0.0, held.ends - held.clock.now())

    async def stop(self) -> EquosSession | None:
        """Stop it. Calls at the same time, and later ones, get the same answer.

        It goes on where its caller is cancelled. One that failed may be tried again; the fleet
        itself does so when the session's time is over.

        Returns:
            The ended session; None where it was not running, and the server sent no details.

        Raises:
            EquosError: As ``EquosClient.stop_session``; it may still be running.
        """
        return await shared(self._held.stop(self._held))

    async def ended(self) -> SessionEnd:
        """Wait until it is over: stopped by anyone, or at its end."""
        held = self._held
        if held.end is not None:
            return held.end
        if held.over is None:
            held.over = asyncio.get_running_loop().create_future()
        return await asyncio.shield(held.over)

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
            exc.add_note(f"stopping session {self.session.id} failed: {failure}")

    def __repr__(self) -> str:
        end = self._held.end
        state = f"live, {self.remaining:.0f} s left" if end is None else end.outcome
        return f"<LiveSession {self.key!r} {self.session.id} {state}>"


HandOver = Callable[[LiveSession, LiveSession], Awaitable[object] | None]


async def shared(task: asyncio.Task[T]) -> T:
    """The result of a task that others wait for too: cancelling a waiter leaves it alone."""
    await asyncio.wait([task])
    return task.result()


@define(eq=False)
class Order:
    """One start, from the reservation of its key to its session or its error.

    Attributes:
        duration: Seconds that the session is asked for.
        replaces: The session that it renews.
        seconds: What is reserved for it in the budget.
        called_off: Why its session is not wanted any more.
        entry: What the ledger holds of it, where there is one.
        answer: What whoever started it waits for; cancelled where nobody does any more.
        task: What carries it out, once it has a place; then what stops an unreadable session.
    """

    key: Hashable
    request: CreateSessionPassRequest
    duration: float
    deadline: float | None
    hand_over: HandOver | None
    replaces: Held | None = None
    seconds: float = 0.0
    called_off: EquosError | None = None
    entry: Entry | None = None
    answer: asyncio.Future[Held] = field(init=False)
    task: asyncio.Task[Any] | None = None

    def __attrs_post_init__(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()


@define(eq=False)
class Held:
    """What the fleet knows of one live session.

    Attributes:
        stop: What sets out to stop it.
        began: When it was known to be live, on the clock.
        ends: When the fleet stops it, on the clock; ``expires`` is the same since the epoch.
        asked: Seconds that it was asked for.
        seconds: What is reserved for it in the budget.
        request: What to start again shortly before the end, where it is to be renewed.
        hand_over: Who is told of the replacement then.
        entry: What the ledger holds of it, where there is one.
        alarm: What the agenda will do about it next.
        why: Why it is being stopped, where that was nobody's wish.
        stopping: The latest attempt to stop it.
        renewing: The task that gets its replacement, until that is there.
        end: How it ended.
        over: What waits for that.
    """

    clock: Clock
    stop: Callable[[Held], asyncio.Task[EquosSession | None]]
    key: Hashable
    started: CreateEquosSessionResponse
    began: float
    ends: float
    expires: float
    asked: float
    seconds: float
    request: CreateSessionPassRequest | None
    hand_over: HandOver | None
    entry: Entry | None
    handle: LiveSession = field(init=False)
    alarm: Alarm = field(init=False)
    why: str = ""
    stopping: asyncio.Task[EquosSession | None] | None = None
    renewing: asyncio.Task[None] | None = None
    end: SessionEnd | None = None
    over: asyncio.Future[SessionEnd] | None = None

    def __attrs_post_init__(self) -> None:
        self.handle = LiveSession(self)


def granted(asked: float, told: float | None) -> float:
    """Seconds that a session has: the server may grant less than was asked for."""
    return told if told is not None and 0 < told < asked else asked
