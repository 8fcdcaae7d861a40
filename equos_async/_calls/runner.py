"""The attempts of one call, from the first to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from multidict import CIMultiDict

from equos_async._api import answers
from equos_async._emitter import Reporter
from equos_async._http.request import Failure, Reply, Request, SendGuard
from equos_async._http.transport import Transport
from equos_async._retry.backoff import cost, parse_retry_after
from equos_async._retry.classify import Outcome, Verdict
from equos_async._retry.throttle import Traffic
from equos_async.clock import Clock
from equos_async.errors import (
    APIConnectionError,
    APITimeoutError,
    EquosError,
    OverloadedError,
    StartOutcomeUnknownError,
)
from equos_async.settings import Timeouts

from .call import Call
from .limiter import Turnstile

T = TypeVar("T")


class CallRunner:
    """Carries calls out: waits for a place, sends, judges, waits, and sends again.

    Attributes:
        ending: Why tasks are being cancelled, for the error of a start that is on the wire then.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        headers: CIMultiDict[str],
        traffic: Traffic,
        timeouts: Timeouts,
        clock: Clock,
        reporter: Reporter,
        mask: Callable[[str], str],
    ) -> None:
        self._transport = transport
        self._headers = headers
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
        call.paid = cost(self._traffic.policy, outcome)
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
            method=row.method,
            url=call.url,
            headers=self._headers,
            body=call.body,
            is_foreign=(
                None if session_id is None else partial(answers.is_foreign, session_id=session_id)
            ),
        )
        call.attempts += 1
        call.on_wire = guard = SendGuard()
        try:
            reply = await self._transport.send(
                request,
                guard,
                until=min(self._clock.now() + limit, call.deadline),
                listen_until=None if row.repeatable else call.deadline,
                overdue=partial(self._overdue, call),
            )
            return (reply, *self._learn(call, reply))
        except asyncio.CancelledError:
            if guard.sent and not row.repeatable:
                call.refuse(self._unknown(call, Failure(sent=True, reason=self.ending)))
            raise
        finally:
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

    def _overdue(self, call: Call[Any]) -> None:
        """The time of a sent start is over. It is listened to: its session may still come."""
        if not call.answer.done():
            reason = f"no answer within {self._timeouts.start_attempt:g} s"
            call.refuse(self._unknown(call, Failure(sent=True, reason=reason)))

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
            error = answers.status_error(
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
