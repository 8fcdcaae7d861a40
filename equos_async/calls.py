"""One call from its first attempt to its last: the retry loop between client and transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import define, field

from . import wire
from .errors import (
    APIConnectionError,
    APITimeoutError,
    EquosError,
    OverloadedError,
    StartOutcomeUnknownError,
)
from .events import Event, Reporter, Subject
from .request import Failure, Reply, Request
from .retry import Outcome, Timeouts, Traffic, Verdict, parse_retry_after
from .transport import Transport
from .waiting import Clock, Timer, Turnstile

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
        on_wire: The attempt that is under way.
        attempts: How many were made.
        latest: What came of the latest of them.
        retries: What was told of them.
        paid: Tokens that its last retry took from the budget.
        accepted: Whether the server said 2xx.
        last_attempt: Whether no further one may follow, whatever comes of it.
    """

    endpoint: wire.Endpoint[T]
    subject: Subject
    url: str
    body: bytes
    began: float
    deadline: float
    answer: asyncio.Future[T]
    in_block: bool = False
    task: asyncio.Task[None] = field(init=False)
    on_wire: Request | None = None
    timer: Timer | None = None
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
            error.request_id = wire.request_id(reply.headers)
        return error


class CallRunner:
    """Carries calls out: waits for a place, sends, judges, waits, and sends again.

    Attributes:
        ending: Why tasks are being cancelled, for the error of a start that is on the wire then.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        traffic: Traffic,
        timeouts: Timeouts,
        clock: Clock,
        reporter: Reporter,
        mask: Callable[[str], str],
    ) -> None:
        self._transport = transport
        self._traffic = traffic
        self._timeouts = timeouts
        self._clock = clock
        self._reporter = reporter
        self._mask = mask
        self._starts = Turnstile(traffic.starts, clock)
        self._stops = Turnstile(traffic.stops, clock)
        self._stop_retries = Turnstile(traffic.stop_retries, clock)
        self.ending = "the event loop shut down"

    async def carry_out(self, call: Call[Any]) -> Reply:
        """Send until the server accepts.

        Returns:
            A reply with a 2xx status, its body not looked at yet.

        Raises:
            EquosError: It did not accept; the class says what that means.
        """
        while True:
            attempt = self._again if call.attempts and call.endpoint.repeatable else self._attempt
            reply, outcome, verdict = await attempt(call)
            if verdict is Verdict.ACCEPTED and isinstance(reply, Reply):
                call.accepted = True
                return reply
            if verdict is Verdict.UNKNOWN:
                raise self._unknown(call, reply)
            wait = self._wait(call, outcome) if verdict is Verdict.RETRY else None
            if wait is None:
                raise self._error(call, reply, outcome)
            told = self._reporter.emit(
                "retry",
                call.subject,
                call.attempts,
                self._reason(reply),
                status=outcome.status,
                delay=wait,
                seconds=self._clock.now() - call.began,
            )
            call.retries += (told,)
            await self._clock.sleep(wait)

    def _wait(self, call: Call[Any], outcome: Outcome) -> float | None:
        if call.last_attempt or (call.answer.done() and not call.endpoint.repeatable):
            return None  # nobody wants that session any more
        now = self._clock.now()
        call.paid = self._traffic.policy.cost(outcome)
        return self._traffic.delay(
            outcome,
            repeatable=call.endpoint.repeatable,
            attempts=call.attempts,
            left=call.deadline - now,
            now=now,
            chance=self._clock.chance(),
        )

    async def _again(self, call: Call[Any]) -> tuple[Reply | Failure, Outcome, Verdict]:
        """One more attempt of a stop, once the gate lets it pass."""
        await self._enter(self._stop_retries, call)
        try:
            return await self._attempt(call)
        finally:
            self._stop_retries.leave()

    async def _attempt(self, call: Call[Any]) -> tuple[Reply | Failure, Outcome, Verdict]:
        """Take a place in the lane, send, and learn from what comes of it."""
        row, session_id = call.endpoint, call.subject.session_id
        lane = self._stops if row.repeatable else self._starts
        limit = self._timeouts.stop_attempt if row.repeatable else self._timeouts.start_attempt
        if not lane.enter_at_once():
            await self._enter(lane, call)
        request = Request(
            row.method,
            call.url,
            call.body,
            None if session_id is None else partial(wire.is_foreign, session_id=session_id),
        )
        call.attempts += 1
        call.on_wire = request
        until = min(self._clock.now() + limit, call.deadline)
        call.timer = self._clock.call_at(until, self._overdue, call, request)
        try:
            reply = await self._transport.send(request)
            return (reply, *self._learn(call, reply))
        except asyncio.CancelledError:
            if request.sent and not row.repeatable:
                call.refuse(self._unknown(call, Failure(sent=True, reason=self.ending)))
            raise
        finally:
            call.timer.cancel()
            call.on_wire = None
            lane.leave()

    async def _enter(self, turnstile: Turnstile, call: Call[Any]) -> None:
        """Wait for a place; what gets none by its deadline ends with what is known of it."""
        if turnstile is self._starts and self._clock.now() + self._pause_left() >= call.deadline:
            raise self._overloaded(call)
        if not await turnstile.enter(call.deadline):
            if turnstile is self._starts and self._pause_left() > 0:
                raise self._overloaded(call)
            if call.latest is not None:
                raise self._error(call, *call.latest)
            raise call.describe(
                APITimeoutError("no place was free before the deadline; nothing was sent")
            )

    def _overdue(self, call: Call[Any], request: Request) -> None:
        """An attempt's time is over. A sent start is not cancelled: its session may still come."""
        waited_for = request.sent and not call.endpoint.repeatable and not call.answer.done()
        if waited_for and self._clock.now() < call.deadline:
            reason = f"no answer within {self._timeouts.start_attempt:g} s"
            call.refuse(self._unknown(call, Failure(sent=True, reason=reason)))
            call.timer = self._clock.call_at(call.deadline, self._overdue, call, request)
        else:
            request.expire()

    def _learn(self, call: Call[Any], reply: Reply | Failure) -> tuple[Outcome, Verdict]:
        if isinstance(reply, Reply):
            outcome = Outcome(status=reply.status, retry_after=self._retry_after(reply))
        else:
            outcome = Outcome(sent=reply.sent, fatal=reply.fatal)
        call.latest = reply, outcome
        now = self._clock.now()
        before = self._traffic.starts.paused_until
        verdict = self._traffic.learn(
            outcome,
            repeatable=call.endpoint.repeatable,
            attempts=call.attempts,
            paid=call.paid,
            now=now,
            chance=self._clock.chance(),
        )
        if (until := self._traffic.starts.paused_until) > before:
            self._reporter.emit(
                "paused",
                call.subject,
                call.attempts,
                "the server asked for time",
                status=outcome.status,
                delay=until - now,
            )
            self._starts.turn_away(until)
        return outcome, verdict

    def _retry_after(self, reply: Reply) -> float | None:
        if 200 <= reply.status <= 299:
            return None  # nothing is tried again
        return parse_retry_after(reply.headers, self._clock.wall())

    def _pause_left(self) -> float:
        return self._traffic.starts.pause_left(self._clock.now())

    # The errors that end a call.

    def _unknown(self, call: Call[Any], reply: Reply | Failure) -> StartOutcomeUnknownError:
        reason = self._reason(reply)
        status = reply.status if isinstance(reply, Reply) else None
        self._reporter.unknown(call.subject, call.attempts, reason, status)
        seconds = call.subject.max_duration
        error = StartOutcomeUnknownError(
            f"the start was sent, and no answer came that can be trusted ({reason}): "
            "a billed session may exist; "
            + (f"the server ends it after {seconds:g} s" if seconds else "it has no max_duration")
        )
        return call.describe(error, reply)

    def _error(self, call: Call[Any], reply: Reply | Failure, outcome: Outcome) -> EquosError:
        error: EquosError
        if isinstance(reply, Reply):
            error = wire.status_error(
                reply.status, reply.body, mask=self._mask, retry_after=outcome.retry_after
            )
        else:
            kind = APITimeoutError if reply.timed_out else APIConnectionError
            error = kind(self._reason(reply) + ("" if reply.sent else "; nothing was sent"))
        return call.describe(error, reply)

    def _overloaded(self, call: Call[Any]) -> OverloadedError:
        left = self._pause_left()
        sent = "it was not sent again" if call.attempts else "nothing was sent"
        error = OverloadedError(
            f"the server asked for a pause, {left:.1f} s more, and this call's deadline is before "
            f"its end; {sent}",
            retry_after=left,
        )
        return call.describe(error)

    def _reason(self, reply: Reply | Failure) -> str:
        return f"status {reply.status}" if isinstance(reply, Reply) else self._mask(reply.reason)
