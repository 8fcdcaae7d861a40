"""Attempts of one call, to an outcome that is a value."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from attrs import evolve

from equos_async._api import answers
from equos_async._api.answers import Unreadable
from equos_async._api.effects import Alone, Effect
from equos_async._http.exchange import Exchange
from equos_async._http.request import Failure, Reply, Request
from equos_async._http.transport import Transport
from equos_async._retry.backoff import last_wait, parse_retry_after
from equos_async._retry.classify import Outcome, Verdict
from equos_async._retry.throttle import Again, ClientThrottle
from equos_async.clock import Clock
from equos_async.errors import OperationName
from equos_async.settings import Timeouts

from .call import Call, CallGuard, Tried, Work
from .keys import NoKey
from .lifecycle import Lifecycle, State
from .limiter import Limiter
from .outcome import Accepted, Refused, Result, Unknown, Unsent
from .reports import CallReports

T = TypeVar("T")


class CallRunner:
    """Runs calls: waits for a permit, sends, classifies, waits, and sends again.

    Args:
        transport: Sends the requests.
        throttle: The limits, the retry budget and the pause that all calls share.
        timeouts: The time limits.
        clock: The source of time and chance.
        lifecycle: The state of the client.
        reports: Reports what happens to a call.
        overdue: Ends the caller's wait for an attempt whose time is over; its answer is still
            awaited.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        throttle: ClientThrottle,
        timeouts: Timeouts,
        clock: Clock,
        lifecycle: Lifecycle,
        reports: CallReports,
        overdue: Callable[[Call[Any], Failure], None],
    ) -> None:
        self._transport = transport
        self._throttle = throttle
        self._timeouts = timeouts
        self._clock = clock
        self._lifecycle = lifecycle
        self._reports = reports
        self._tell_overdue = overdue
        self._busy: set[Limiter] = set()
        self._limiters: dict[OperationName, Limiter] = {
            name: Limiter(limit, clock, self._busy) for name, limit in throttle.limits.items()
        }
        self._gate = Limiter(throttle.gate, clock, self._busy)

    def deadline_of(self, effect: Effect) -> float:
        """Seconds for a whole call, if the caller set no deadline."""
        return effect.deadline(self._timeouts)

    async def run_again(self, call: Call[T]) -> Result[T] | None:
        """Send a call again that has left nothing on the server; None: no attempt is left."""
        again = None if call.latest is None else self._again(call, call.latest)
        if call.latest is None or again is None:
            return None
        call.work = Work.BACKOFF
        self._report_retry(call, call.latest.reply, again.wait)
        await self._clock.sleep(again.wait)
        return await self.run(call, again.paid)

    async def resume(self, call: Call[T], exchange: Exchange) -> Result[T]:
        """Await the answer to a sent attempt whose task a signal handler's exception ended."""
        call.work = Work.ON_WIRE
        tried = self._learn(call, await self._transport.resume(exchange), 0.0)
        if tried.verdict is not Verdict.ACCEPTED:
            return _last(tried)
        call.move(Work.ON_WIRE, Work.ACCEPTED)
        return Accepted(tried.value)

    async def run(self, call: Call[T], paid: float = 0.0) -> Result[T]:
        """Send until the server accepts or refuses, or the outcome is unknown."""
        call.work = Work.QUEUED  # also if the call continues after its task was cancelled
        rules, renewed = call.effect.retry, False
        while True:
            gated = rules.gated and call.attempts > 0
            tried = await (self._pass_gate(call) if gated else self._attempt(call, paid))
            if tried is None:
                return self._left_waiting(call)
            if tried.verdict is Verdict.ACCEPTED:
                call.move(Work.ON_WIRE, Work.ACCEPTED)
                return Accepted(tried.value)
            if tried.outcome.status == 401 and not renewed:
                tried, renewed = await self._renew(call, tried)
                if renewed:
                    continue
            again = self._again(call, tried) if tried.verdict is Verdict.RETRY else None
            if again is None:
                return _last(tried)
            call.move(Work.ON_WIRE, Work.BACKOFF)
            self._report_retry(call, tried.reply, again.wait)
            await self._clock.sleep(again.wait)
            call.move(Work.BACKOFF, Work.QUEUED)
            paid = again.paid

    async def _renew(self, call: Call[Any], tried: Tried) -> tuple[Tried, bool]:
        """Get a new key after a refused one; returns whether the call is sent again with it.

        Assumption: the server does nothing before a 401, so that even a start may be sent again.
        """
        head, missing = call.head, None
        if head.fields is call.carried and not head.key.refuse():
            return tried, False
        if not self._may_retry(call):
            return tried, False
        call.move(Work.ON_WIRE, Work.BACKOFF)
        if not head.key.is_fresh:
            missing = await head.key.ask(call.deadline)
        if missing is None and head.fields is not call.carried:
            self._report_retry(call, tried.reply, 0.0)
            call.move(Work.BACKOFF, Work.QUEUED)
            return tried, True
        call.move(Work.BACKOFF, Work.ON_WIRE)
        if missing is not None:
            tried = call.latest = evolve(tried, verdict=call.effect.retry.keyless)
        return tried, False

    def _may_retry(self, call: Call[Any]) -> bool:
        """Whether a call may be sent again.

        A stop may, unless it has failed for its caller: then its repetitions are calls of their
        own. Any other call may while the client is open and its caller waits.
        """
        if call.effect.alone is Alone.GOES_ON:
            return not call.late
        is_called_off = call.watch is not None and call.watch.is_called_off
        return self._lifecycle.state is State.OPEN and call.is_wanted and not is_called_off

    def _report_retry(self, call: Call[Any], reply: Reply | Failure, wait: float) -> None:
        self._reports.retry(call, reply, wait)
        if call.watch is not None:
            call.watch.rests()

    def _again(self, call: Call[Any], tried: Tried) -> Again | None:
        if call.is_last or not self._may_retry(call):
            return None
        rules, now = call.effect.retry, self._clock.now()
        left = call.deadline - now
        again = self._throttle.again(
            tried.outcome,
            rules,
            attempts=call.attempts,
            left=left,
            now=now,
            chance=self._clock.chance(),
        )
        asked = tried.outcome.retry_after is not None
        spare = call.attempts < rules.attempts(self._throttle.policy) and left > 0
        if again is None and rules.patient and asked and spare:
            call.is_last = True
            return Again(last_wait(left, call.effect.attempt(self._timeouts)), 0.0)
        return again

    async def _pass_gate(self, call: Call[Any]) -> Tried | None:
        """Make one more attempt, after the retry gate admits it."""
        if not await self._gate.enter(call.deadline):
            return None
        try:
            return await self._attempt(call, 0.0)
        finally:
            self._gate.leave()

    async def _attempt(self, call: Call[Any], paid: float) -> Tried | None:
        """Take a permit, send, and evaluate the result; None: there was no permit."""
        effect = call.effect
        if not call.head.key.is_fresh:
            missing = await call.head.key.ask(call.deadline)
            if missing is not None:
                call.move(Work.QUEUED, Work.ON_WIRE)
                call.attempts += 1
                return self._learn(call, missing, paid)
        limiter, now = self._limiters[effect.name], self._clock.now()
        if not limiter.enter_at_once(now):
            if not await self._enter(limiter, call):
                return None
            now = self._clock.now()
        call.move(Work.QUEUED, Work.ON_WIRE)
        call.permit = limiter
        call.attempts += 1
        call.sent_at = now
        if call.watch is not None:
            call.watch.sent_at = now
        call.carried = call.head.fields
        end = now + effect.attempt(self._timeouts)
        listens = effect.alone is Alone.LISTENS
        try:
            exchange = call.exchange = Exchange(self._request(call), CallGuard(call))
            reply = await self._transport.send(
                exchange,
                until=min(end, call.deadline),
                listen_until=max(end, call.began + self._timeouts.deadline) if listens else None,
                overdue=partial(self._overdue, call) if listens else None,
            )
            return self._learn(call, reply, paid)
        finally:
            call.give_back()

    def _request(self, call: Call[Any]) -> Request:
        operation, session_id = call.operation, call.target.session_id
        named = session_id if operation.names_id else None
        return Request(
            method=operation.method,
            url=call.url,
            headers=call.head.fields,
            body=operation.body(call.next_request() if call.is_marked else call.request),
            max_answer=operation.max_answer,
            is_foreign=None if named is None else partial(answers.is_foreign, session_id=named),
        )

    def _overdue(self, call: Call[Any]) -> None:
        """The caller gets its error now; a call that only waits for a late answer has no permit."""
        call.give_back()
        if not call.answer.done():
            seconds = min(call.effect.attempt(self._timeouts), call.deadline - call.began)
            reason = f"no answer within {seconds:g} s"
            self._tell_overdue(call, Failure(sent=True, reason=reason, timed_out=True))

    async def _enter(self, limiter: Limiter, call: Call[Any]) -> bool:
        """Wait for a permit, unless the server asked for a pause that is too long for the call."""
        if self._clock.now() + self._pause_left(call) >= call.deadline:
            return False
        return await limiter.enter(call.deadline)

    def _left_waiting(self, call: Call[Any]) -> Refused | Unsent | Unknown:
        """A call got no permit before its deadline: it ends with the outcome so far."""
        left = self._pause_left(call)
        if left > 0:
            return Unsent(pause=left)
        return Unsent() if call.latest is None else _last(call.latest)

    def _pause_left(self, call: Call[Any]) -> float:
        return self._throttle.limits[call.effect.name].pause_left(self._clock.now())

    def _learn(self, call: Call[Any], reply: Reply | Failure, paid: float) -> Tried:
        """Decode an answer, classify it, and check all queues again."""
        value: Any = None
        missed: tuple[str, ...] = ()
        unreadable: Unreadable | None = None
        if isinstance(reply, Failure):
            keyless = isinstance(reply, NoKey)
            outcome = Outcome(sent=reply.sent, fatal=reply.fatal, keyless=keyless)
        elif 200 <= reply.status <= 299:
            decoded = call.operation.decode(reply.body)
            if isinstance(decoded, Unreadable):
                unreadable = decoded
            else:
                value, missed = decoded.value, decoded.unreadable
            outcome = Outcome(status=reply.status, readable=unreadable is None)
        else:
            asked = parse_retry_after(reply.headers, self._clock.wall())
            outcome = Outcome(status=reply.status, retry_after=asked)
        rules, now = call.effect.retry, self._clock.now()
        verdict, pause = self._throttle.learn(
            outcome,
            rules,
            attempts=call.attempts,
            paid=paid,
            now=now,
            chance=self._clock.chance(),
        )
        call.latest = Tried(reply, outcome, verdict, value, unreadable)
        if missed:
            self._reports.unreadable_fields(call, missed)
        if pause is not None:
            self._reports.pause(call, pause)
            self._limiters[rules.pauses].turn_away(now + pause)
        for limiter in tuple(self._busy):
            if limiter is not call.permit:  # that one looks when it gets the permit back
                limiter.look()
        return call.latest


def _last(tried: Tried) -> Refused | Unsent | Unknown:
    """The outcome of the last attempt."""
    reply = tried.reply
    if isinstance(reply, Failure):
        return Unknown(reply) if reply.sent else Unsent(reply)
    if tried.unreadable is not None:
        return Unknown(reply, tried.unreadable)
    if tried.verdict is Verdict.UNKNOWN:
        return Unknown(reply)
    return Refused(reply, tried.outcome.retry_after)
