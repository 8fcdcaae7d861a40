"""One call: its operation, its holder, and how far it has come."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen
from multidict import CIMultiDict

from equos_async._api.answers import Unreadable
from equos_async._api.effects import Alone, Effect
from equos_async._api.operations import Operation, Resource
from equos_async._http.request import Failure, Reply, SendGuard
from equos_async._marker import markers_of, new_marker
from equos_async._retry.classify import Outcome, Verdict
from equos_async._retry.search import LostAttempt
from equos_async.errors import OperationName, ResourceName
from equos_async.events import Event

from .grace import CallTask
from .keys import Head
from .limiter import Limiter
from .watch import WATCH, Watch

T = TypeVar("T")
StateT = TypeVar("StateT", bound=Enum)


class Holder(Enum):
    """Who gets the result of a call."""

    CALLER = "a caller who waits for it"
    BLOCK = "a block that ends its session on the way out"
    NOBODY = "nobody: what it begins is ended"


class Work(Enum):
    """How far a call has come; whether its caller still waits is its future's state."""

    NEW = "its task has not run yet"
    QUEUED = "waits for a permit"
    ON_WIRE = "an attempt is under way"
    BACKOFF = "waits for its next attempt"
    SETTLING = "what it may have begun is looked for"
    ACCEPTED = "the server accepted it"
    ENDING = "what it began is being ended, for nobody took it"
    DONE = "over"


@frozen(eq=False, repr=False)
class Tried:
    """What one attempt brought, and what it means."""

    reply: Reply | Failure
    outcome: Outcome
    verdict: Verdict
    value: Any
    unreadable: Unreadable | None


def moved(current: StateT, old: StateT, new: StateT) -> StateT:
    """A state that follows another one.

    Raises:
        RuntimeError: The current state is not the one to be left: a mistake of this library.
    """
    if current is not old:
        raise RuntimeError(f"cannot go from {old} to {new}: the state is {current}")
    return new


@define(eq=False, repr=False)
class Target:
    """What a call is about; each call has one, known by its identity."""

    operation: OperationName
    resource: ResourceName | None
    session_id: str | None = None
    name: str | None = None
    client: str | None = None
    max_duration: float | None = None
    own_id: str = field(default="", init=False)

    @property
    def id(self) -> str:
        """The session's id, however many calls are about it; a start has one of its own."""
        if self.session_id is None and not self.own_id:
            self.own_id = secrets.token_hex(8)
        return self.session_id or self.own_id


@define(eq=False, repr=False, kw_only=True)
class Call(Generic[T]):
    """One call, with what is known of it and the future that its caller waits for.

    Attributes:
        operation: What it does.
        effect: What that means on the server.
        target: What it is about.
        url: Where it is sent.
        request: What its body is made from.
        resource: What it begins, where it begins something.
        began: When the caller made it, on the client's clock.
        deadline: The time on the client's clock at which the call is over.
        answer: What the caller gets; done or cancelled where nobody waits any more.
        holder: Who gets it.
        task: The client's task that runs the call.
        ending: The call, in the same task, that ends what this one began.
        late: Whether it failed for its caller, and is asked for again.
        in_doubt: Whether something may be running, as it was reported.
        watch: What sees to it beyond its caller.
        key: Whose session it is about, where a fleet said so.
        work: How far it has come.
        guard: Of the latest attempt.
        head: What its requests carry.
        carried: What the latest attempt carried.
        permit: What its attempt holds while it is on the wire.
        attempts: How many were made.
        is_last: Whether no further one is to be made.
        sent_at: When the latest of them began.
        latest: What came of the latest of them.
        retries: What was told of them.
        is_marked: Whether it began with attempts that carry markers.
        mark: Makes a request that carries a marker, where attempts do.
        markers: Those of its attempts, from the first one on.
        marker: That of the latest attempt.
        lost: An attempt whose answer was lost, while this call waits for what becomes of it.
        heir: The call that goes on for this one's caller, while this one only listens.
    """

    operation: Operation[T]
    effect: Effect
    target: Target
    url: str
    began: float
    deadline: float
    answer: asyncio.Future[T]
    head: Head
    request: object = None
    resource: Resource[Any, T, Any] | None = None
    holder: Holder = Holder.CALLER
    task: CallTask = field(init=False)
    ending: Call[Any] | None = None
    late: bool = False
    in_doubt: bool = False
    watch: Watch | None = None
    key: object = None
    work: Work = Work.NEW
    guard: SendGuard | None = None
    carried: CIMultiDict[str] | None = None
    permit: Limiter | None = None
    attempts: int = 0
    is_last: bool = False
    sent_at: float = 0.0
    latest: Tried | None = None
    retries: tuple[Event, ...] = ()
    is_marked: bool = False
    mark: Callable[[Any, str], object] | None = None
    markers: Iterator[str] | None = None
    marker: str | None = None
    lost: LostAttempt | None = None
    heir: Call[T] | None = None

    @property
    def current(self) -> Call[T]:
        """The call that goes on for the caller: this one, unless it has an heir."""
        return self if self.heir is None else self.heir.current

    @property
    def status(self) -> int | None:
        """What the latest attempt was answered with."""
        return None if self.latest is None else self.latest.outcome.status

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for the result."""
        return self.holder is not Holder.NOBODY and not self.answer.done()

    @property
    def is_on_server(self) -> bool:
        """Whether the server accepted it, or may have read the attempt that is under way."""
        return self.is_sent or self.work in {Work.ACCEPTED, Work.SETTLING, Work.ENDING}

    @property
    def is_sent(self) -> bool:
        """Whether the server may have read the attempt that is under way."""
        return self.work is Work.ON_WIRE and self.guard is not None and self.guard.sent

    @property
    def is_refused(self) -> bool:
        """Whether the latest answer was such that asking again would not change it."""
        return self.latest is not None and self.latest.verdict is Verdict.REFUSED

    @property
    def may_be_sent(self) -> bool:
        """Whether somebody waits for it, or it is carried out without that."""
        return self.effect.alone is Alone.GOES_ON or not self.answer.done()

    def next_request(self) -> object:
        """What the body of one attempt is made from, where each carries a marker of its own."""
        if self.mark is None:  # any more
            self.marker = None
            return self.request
        if self.markers is None:
            self.markers = markers_of(new_marker())
        self.marker = next(self.markers)
        return self.mark(self.request, self.marker)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is running, now that it is over, and its caller was told otherwise."""
        if self.in_doubt or (self.ending is not None and self.ending.in_doubt):
            return False
        if self.late or self.holder is Holder.NOBODY:
            return True
        return self.answer.cancelled() or self.answer.exception() is not None

    def tell_watch(self) -> None:
        """Let its watch know where it is over and nothing is running; it may become so later."""
        if self.watch is not None and self.work is Work.DONE and self.is_settled:
            self.watch.settle()

    @property
    def is_unsent(self) -> bool:
        """Whether it is under way, and nothing was sent that the server may still act on."""
        return self.work is not Work.DONE and not self.is_on_server

    def be_watched(self) -> None:
        """Let whatever watches the context see to this call."""
        watch = WATCH.get()
        if watch is not None and watch.take(lambda: self.current.is_unsent):
            self.watch, self.key, self.markers = watch, watch.key, watch.markers

    def move(self, old: Work, new: Work) -> None:
        """Come further, from where it must be."""
        self.work = moved(self.work, old, new)

    def refuse(self, error: BaseException) -> None:
        """Let the caller who still waits have an error; asyncio would tell of one without."""
        if self.is_wanted:
            self.answer.set_exception(error)

    def give_back(self) -> None:
        """Give the permit back; harmless where that was done."""
        if self.permit is not None:
            self.permit.leave()
            self.permit = None

    def withdraw(self) -> None:
        """Make sure that nothing more is sent, and end the task."""
        guard = (self.ending or self).guard
        if guard is not None:
            guard.withdraw()
        self.task.cut()


class CallGuard(SendGuard):
    """The guard of one attempt, which looks for its caller in the moment of sending.

    A caller that is cancelled takes one pass of the event loop to say so, in which the request
    could leave.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Call[Any]) -> None:
        super().__init__()
        self._call = call

    def send(self) -> None:
        """The wire is about to write: from now on the request counts as sent.

        Raises:
            SendRefusedError: It must not be written; nothing changed.
        """
        if not self._call.may_be_sent:
            self.withdraw()
        super().send()
