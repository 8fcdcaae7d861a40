"""One call: its operation, its caller, and what is known of it."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from attrs import define, field

from equos_async._api import answers, operations
from equos_async._emitter import Subject
from equos_async._http.request import Failure, Reply, SendGuard
from equos_async._retry.classify import Outcome
from equos_async.errors import EquosError
from equos_async.events import Event

T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=EquosError)


@define(eq=False, repr=False, kw_only=True)
class Call(Generic[T]):
    """One start or stop, with what is known of it and the future that its caller waits for.

    Attributes:
        deadline: The time on the client's clock at which the call is over.
        answer: What the caller gets; done or cancelled where nobody waits any more.
        in_block: Whether the session belongs to a ``session()`` block.
        began: When the caller made it, on the client's clock.
        task: The client's task that runs the call.
        on_wire: The guard of the attempt that is under way.
        attempts: How many were made.
        latest: What came of the latest of them.
        retries: What was told of them.
        paid: Tokens that its last retry took from the budget.
        accepted: Whether the server said 2xx.
        last_attempt: Whether no further one may follow, whatever comes of it.
    """

    endpoint: operations.Endpoint[T]
    subject: Subject
    url: str
    body: bytes
    began: float
    deadline: float
    answer: asyncio.Future[T]
    in_block: bool = False
    task: asyncio.Task[None] = field(init=False)
    on_wire: SendGuard | None = None
    attempts: int = 0
    latest: tuple[Reply | Failure, Outcome] | None = None
    retries: tuple[Event, ...] = ()
    paid: float = 0.0
    accepted: bool = False
    last_attempt: bool = False

    @property
    def status(self) -> int | None:
        """What the latest attempt was answered with."""
        return None if self.latest is None else self.latest[1].status

    @property
    def on_server(self) -> bool:
        """Whether the server accepted it, or may have read the attempt that is under way."""
        return self.accepted or (self.on_wire is not None and self.on_wire.sent)

    def refuse(self, error: BaseException) -> None:
        """Let whoever still waits have an error."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def withdraw(self) -> None:
        """Make sure that nothing more is sent, and end the task."""
        if self.on_wire is not None:
            self.on_wire.withdraw()
        self.task.cancel()

    def describe(self, error: ErrorT, reply: Reply | Failure | None = None) -> ErrorT:
        """Complete an error with what is known of the call."""
        error.operation = self.endpoint.operation
        error.attempts = self.attempts
        error.session_id = error.session_id or self.subject.session_id
        if isinstance(reply, Reply):
            error.request_id = answers.request_id(reply.headers)
        return error
