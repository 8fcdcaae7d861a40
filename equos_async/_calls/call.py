"""One call: its operation, its holder and its state."""

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
from equos_async._http.exchange import Exchange
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
    """The one that gets the result of a call."""

    CALLER = "a caller who waits for it"
    BLOCK = "a block that ends its session on the way out"
    NOBODY = "no one: what it starts is stopped"


class Work(Enum):
    """The state of a call's work; the state of its future says whether the caller still waits."""

    NEW = "its task has not run yet"
    QUEUED = "waits for a permit"
    ON_WIRE = "an attempt is in progress"
    BACKOFF = "waits for its next attempt"
    SETTLING = "the session that it may have started is searched for"
    ACCEPTED = "the server accepted it"
    ENDING = "the session that it started is being stopped, because no caller took it"
    DONE = "over"


@frozen(eq=False, repr=False)
class Tried:
    """The result of one attempt, and its verdict."""

    reply: Reply | Failure
    outcome: Outcome
    verdict: Verdict
    value: Any
    unreadable: Unreadable | None


def moved(current: StateT, old: StateT, new: StateT) -> StateT:
    """Change a state, if the change is allowed.

    Raises:
        RuntimeError: The current state is another one, which is a bug of this library.
    """
    if current is not old:
        raise RuntimeError(f"cannot go from {old} to {new}: the state is {current}")
    return new


@define(eq=False, repr=False)
class Target:
    """The session that a call is about; compared by identity."""

    operation: OperationName
    resource: ResourceName | None
    session_id: str | None = None
    name: str | None = None
    client: str | None = None
    max_duration: float | None = None
    own_id: str = field(default="", init=False)

    @property
    def id(self) -> str:
        """The identity of the session, the same for all calls about it; a start has its own."""
        if self.session_id is None and not self.own_id:
            self.own_id = secrets.token_hex(8)
        return self.session_id or self.own_id


@define(eq=False, repr=False, kw_only=True)
class Call(Generic[T]):
    """One call: its state, and the future that its caller waits for.

    Attributes:
        operation: The operation.
        effect: Its effect on the server.
        target: The session that it is about.
        url: The URL of its requests.
        request: The request of a start.
        resource: The resource that it starts, if it is a start.
        began: When the caller made it, on the client's clock.
        deadline: The call's deadline, on the client's clock.
        answer: The caller's future; done or cancelled if the caller no longer waits.
        holder: Who gets the result.
        task: The client's task that runs the call.
        ending: The call, in the same task, that stops what this one started.
        late: Whether it failed for its caller, and is repeated.
        in_doubt: Whether it was reported that a session may be running.
        watch: Follows the call after its caller has the result.
        key: The fleet's key of the session, if there is one.
        work: The state of its work.
        exchange: The latest attempt's exchange on the wire.
        head: The headers of its requests.
        carried: The headers of the latest attempt.
        permit: The permit of an attempt on the wire.
        attempts: The number of attempts.
        is_last: Whether this attempt is the last one.
        sent_at: When the latest attempt began.
        latest: The result of the latest attempt.
        retries: The retries, as they were reported.
        is_marked: Whether its first attempts carried markers.
        mark: Makes a request with a marker, if attempts carry one.
        markers: The markers of its attempts, the first one first.
        marker: The marker of the latest attempt.
        lost: An attempt whose answer was lost, while this call waits for its settlement.
        heir: The call that continues for this one's caller, while this one waits for a late answer.
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
    exchange: Exchange | None = None
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
        """The call that continues for the caller: this one, unless it has an heir."""
        return self if self.heir is None else self.heir.current

    @property
    def status(self) -> int | None:
        """The status of the latest answer."""
        return None if self.latest is None else self.latest.outcome.status

    @property
    def is_wanted(self) -> bool:
        """Whether the caller still waits for the result."""
        return self.holder is not Holder.NOBODY and not self.answer.done()

    @property
    def is_on_server(self) -> bool:
        """Whether the server accepted the call, or may have read the attempt in progress."""
        return self.is_sent or self.work in {Work.ACCEPTED, Work.SETTLING, Work.ENDING}

    @property
    def is_sent(self) -> bool:
        """Whether the server may have read the attempt in progress."""
        return self.work is Work.ON_WIRE and self.exchange is not None and self.exchange.guard.sent

    @property
    def is_handed_over(self) -> bool:
        """Whether its caller has the result."""
        answer = self.answer
        return answer.done() and not answer.cancelled() and answer.exception() is None

    @property
    def is_refused(self) -> bool:
        """Whether the latest answer is a final refusal."""
        return self.latest is not None and self.latest.verdict is Verdict.REFUSED

    @property
    def may_be_sent(self) -> bool:
        """Whether the caller waits, or the call continues without a caller."""
        return self.effect.alone is Alone.GOES_ON or not self.answer.done()

    def next_request(self) -> object:
        """The request for one attempt, with its own marker if attempts carry one."""
        if self.mark is None:  # any more
            self.marker = None
            return self.request
        if self.markers is None:
            self.markers = markers_of(new_marker())
        self.marker = next(self.markers)
        return self.mark(self.request, self.marker)

    @property
    def is_settled(self) -> bool:
        """Whether the call is over and nothing runs, although something was reported."""
        if self.in_doubt or (self.ending is not None and self.ending.in_doubt):
            return False
        if self.late or self.holder is Holder.NOBODY:
            return True
        return self.answer.cancelled() or self.answer.exception() is not None

    def tell_watch(self) -> None:
        """Tell its watch if the call is over and nothing runs, which may become true later."""
        if self.watch is not None and self.work is Work.DONE and self.is_settled:
            self.watch.settle()

    @property
    def is_unsent(self) -> bool:
        """Whether it is in progress, and nothing was sent that the server may still act on."""
        return self.work is not Work.DONE and not self.is_on_server

    def be_watched(self) -> None:
        """Let the watch of the current context follow this call."""
        watch = WATCH.get()
        if watch is not None and watch.take(lambda: self.current.is_unsent):
            self.watch, self.key, self.markers = watch, watch.key, watch.markers

    def move(self, old: Work, new: Work) -> None:
        """Move to another state of its work."""
        self.work = moved(self.work, old, new)

    def refuse(self, error: BaseException) -> None:
        """Give the error to a caller that still waits; without one, asyncio would log the error."""
        if self.is_wanted:
            self.answer.set_exception(error)

    def give_back(self) -> None:
        """Return the permit; harmless if it was returned."""
        if self.permit is not None:
            self.permit.leave()
            self.permit = None

    def withdraw(self) -> None:
        """Forbid any further send, and end the task."""
        exchange = (self.ending or self).exchange
        if exchange is not None:
            exchange.guard.withdraw()
        self.task.cut()


class CallGuard(SendGuard):
    """The send guard of one attempt; it also checks that the caller still waits.

    The cancellation of a caller takes effect one pass of the event loop later. In that time the
    request could be sent.
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
