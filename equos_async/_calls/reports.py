"""Report calls: their events, and what stays unresolved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

from equos_async._api import answers
from equos_async._api.effects import Stake
from equos_async._api.operations import Resource
from equos_async._emitter import Emitter
from equos_async._http.request import Failure, Reply
from equos_async.clock import Clock
from equos_async.errors import EquosError
from equos_async.events import MAX_REASON, Event, EventKind, Unresolved

from .call import Call
from .outcome import Mask, Unknown, reason_of
from .unresolved import UnresolvedLog


class CallReports:
    """Reports the calls of one client.

    Args:
        base: The URL before an operation's path.
        clock: The source of time.
        emitter: Emits the events.
        mask: Masks secrets in texts from outside.
    """

    def __init__(self, *, base: str, clock: Clock, emitter: Emitter[Event], mask: Mask) -> None:
        self.unresolved: UnresolvedLog = UnresolvedLog(clock)
        self._base = base
        self._clock = clock
        self._emitter = emitter
        self._mask = mask
        self._told_fields: set[str] = set()

    def watch(self, call: Call[Any]) -> None:
        """Report a call's end when its caller gets the result, if anything listens."""
        if self._emitter.heard and call.is_wanted:
            call.answer.add_done_callback(partial(self._ended, call))

    def retry(self, call: Call[Any], reply: Reply | Failure, wait: float) -> None:
        """A call will be sent again."""
        told = self._emit(
            "retry",
            call,
            reason_of(reply, self._mask),
            status=call.status,
            delay=wait,
            seconds=self._clock.now() - call.began,
        )
        call.retries += (told,)

    def pause(self, call: Call[Any], seconds: float) -> None:
        """The server asked for a pause."""
        reason = "the server asked for a pause"
        self._emit("paused", call, reason, status=call.status, delay=seconds)

    def unreadable_fields(self, call: Call[Any], paths: tuple[str, ...]) -> None:
        """Fields of an answer had values of a wrong type; reported once for each."""
        for path in paths:
            field = f"{call.operation.path} {path}"
            if field not in self._told_fields:
                self._told_fields.add(field)
                self._emit("unreadable_field", call, path, status=call.status)

    def unknown(self, call: Call[Any], result: Unknown, reason: str) -> None:
        """A session may be running that no caller holds; reported once for each call."""
        call.in_doubt = True
        if call.target in self.unresolved:
            return
        self.unresolved.add(call, reason)
        status = result.reply.status if isinstance(result.reply, Reply) else None
        self._emit("start_unknown", call, reason, status=status)

    def settled(self, call: Call[Any], *, is_known: bool) -> None:
        """The session of a lost start was found and has ended.

        Args:
            call: The start.
            is_known: Whether the outcome of the whole start is known with that.
        """
        if is_known:
            self.resolved(call.current)
        seconds = self._clock.now() - call.began
        self._emit("settled", call, "found by its marker and ended", seconds=seconds)

    def settling_off(self, call: Call[Any], reason: str) -> None:
        """Lost starts cannot be searched for."""
        self._emit("settling_off", call, reason, status=call.status)

    def not_live(self, call: Call[Any], resource: Resource[Any, Any, Any], value: Any) -> None:
        """A session is returned although the server says that it has ended."""
        reason = f"the server answered that it is {resource.status_of(value)}"
        session_id = resource.id_of(value)
        self._emit("not_live", call, reason, status=call.status, session_id=session_id)

    def failed(self, call: Call[Any], reason: str) -> None:
        """A session could not be stopped, and may run on."""
        call.in_doubt = True
        self.unresolved.add(call, reason)
        self._emit("stop_failed", call, reason)

    def resolved(self, call: Call[Any]) -> None:
        """The outcome is known after all."""
        call.in_doubt = False
        self.unresolved.drop(call.target)

    def orphan_stopped(self, call: Call[Any]) -> None:
        """A session that no caller held was stopped."""
        self._over("orphan_stopped", call, f"no caller held the {call.target.resource} any more")

    def stopped_late(self, call: Call[Any]) -> None:
        """A session was stopped after a stop had failed."""
        self._emit(
            "stopped_late",
            call,
            "the stop had failed before",
            status=call.status,
            seconds=self._clock.now() - call.began,
        )

    def pending(self, calls: Iterable[Call[Any]], reason: str) -> tuple[Unresolved, ...]:
        """The unresolved entries that some calls would leave if they ended now."""
        return tuple(
            self.unresolved.describe(call.target, reason)
            for call in calls
            if (call.effect.stake is Stake.RUNNING or call.is_on_server)
            and call.effect.stake is not Stake.NOTHING
            and call.target not in self.unresolved
        )

    def _ended(self, call: Call[Any], answer: asyncio.Future[Any]) -> None:
        """A caller has its result: a done callback, in that caller's context."""
        call = call.current
        problem = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        session_id = call.target.session_id
        if isinstance(problem, EquosError):
            session_id = problem.session_id
        elif problem is None and call.resource is not None:
            session_id = call.resource.id_of(answer.result())
        error = None if problem is None else type(problem).__name__
        self._over("ended", call, error or "answered", error=error, session_id=session_id)

    def _over(self, kind: EventKind, call: Call[Any], reason: str, **details: Any) -> None:
        """Report a call that is over."""
        self._emit(
            kind,
            call,
            reason,
            status=call.status,
            seconds=self._clock.now() - call.began,
            method=call.operation.method,
            url=self._base + call.operation.path,
            retries=call.retries,
            request_id=_request_id(call),
            **details,
        )

    def _emit(self, kind: EventKind, call: Call[Any], reason: str, **details: Any) -> Event:
        target = call.target
        details.setdefault("session_id", target.session_id)
        event = Event(
            kind=kind,
            operation=target.operation,
            resource=target.resource,
            attempts=call.attempts,
            reason=reason[:MAX_REASON],
            name=target.name,
            client=target.client,
            **details,
        )
        self._emitter.emit(event, key=call.key)
        return event


def _request_id(call: Call[Any]) -> str | None:
    """The server's request id of the latest answer, if it sent one."""
    reply = None if call.latest is None else call.latest.reply
    return answers.request_id(reply.headers) if isinstance(reply, Reply) else None
