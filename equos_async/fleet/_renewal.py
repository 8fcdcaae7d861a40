"""Replace sessions before their ends."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, cast

from equos_async._api.operations import resource_of
from equos_async._shown import keyed
from equos_async.errors import EquosError
from equos_async.events import logger

from ._admission import closed_error
from ._records import Records
from ._session import LiveSession, SessionRecord
from ._states import Reason, State
from .values import AnyRequest


class Renewals:
    """The renewals of one fleet that are in progress.

    Args:
        records: The fleet's sessions.
        fulfil: Starts a session, when it has a slot.
        stop: Begins to stop a session.
        tell: Reports what happened to a session.
        is_closed: Whether nothing may be started any more.
    """

    def __init__(
        self,
        records: Records[SessionRecord],
        fulfil: Callable[..., Coroutine[Any, Any, None]],
        stop: Callable[..., object],
        tell: Callable[..., None],
        is_closed: Callable[[], bool],
    ) -> None:
        self._records = records
        self._fulfil = fulfil
        self._stop = stop
        self._tell = tell
        self._is_closed = is_closed
        self._tasks: set[asyncio.Task[LiveSession[Any]]] = set()

    def begin(self, old: SessionRecord) -> asyncio.Task[LiveSession[Any]]:
        """Begin to replace a session, unless that is in progress.

        Raises:
            EquosError: It is not live, or was already replaced.
        """
        if self._is_closed():
            raise closed_error()
        if old.state is not State.LIVE or self._records.holder(old.key) is not old:
            raise _not_live(old)
        renewing = old.renewing
        if renewing is not None and renewing is asyncio.current_task():
            told = "renew() was called by the renew function of the same session"
            raise EquosError(told, operation="start", session_id=old.session_id)
        if renewing is None:
            renewing = asyncio.create_task(self._replace(old))
            old.renewing = None if renewing.done() else renewing  # an eager task may be over
            self._tasks.add(renewing)
            renewing.add_done_callback(self._over)
        return renewing

    def cancel(self) -> None:
        """Cancel all renewals."""
        for task in self._tasks:
            call_off(task)

    def _over(self, task: asyncio.Task[LiveSession[Any]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # an event has reported it; asyncio need not log it

    async def _replace(self, old: SessionRecord) -> LiveSession[Any]:
        old.renewing = asyncio.current_task()  # an eager task begins before it is returned
        try:
            request = await self._request_for(old)
            new = self._take_up(old, request)
            await self._fulfil(new, cast("AnyRequest", new.request), wait=True)
        except EquosError as error:
            old.renewing = None  # it may be tried again
            self._tell("renewal_failed", old, str(error))
            raise
        try:
            await self._hand_over(old, new)
        finally:
            new.relieves = None  # it would keep all earlier records in memory
        self._stop(old, Reason.RENEWED)
        return new.handle

    async def _hand_over(self, old: SessionRecord, new: SessionRecord) -> None:
        if old.hand_over is None:
            return
        try:
            await _call(old.hand_over, old.handle, new.handle)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise  # the fleet is closing: both sessions are stopped
            self._swap_back(old, new)
            self._stop(new)
            raise self._failed(old, "on_renewed", error) from None

    async def _request_for(self, old: SessionRecord) -> AnyRequest:
        if old.renew is None:
            return cast("AnyRequest", old.request)
        try:
            request: AnyRequest = await _call(old.renew, old.handle)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            if isinstance(error, EquosError):
                raise
            raise self._raised(old, "renew", error) from None
        if self._is_closed():
            raise closed_error()
        return request

    def _take_up(self, old: SessionRecord, request: AnyRequest) -> SessionRecord:
        left = old.ends - old.owner.clock.now()
        if left <= 0 or old.state is not State.LIVE:  # its timer is late, or the hook stopped it
            raise _not_live(old)
        resource = resource_of(request)
        duration = resource.seconds_of(request) or old.duration
        new = SessionRecord(
            owner=old.owner,
            key=old.key,
            resource=resource,
            request=resource.with_seconds(request, duration),
            duration=duration,
            deadline=left,
            renew=old.renew,
            hand_over=old.hand_over,
            group=old.group,
            presence=None if old.presence is None else old.presence.carried_on(),
            replaces=old,
        )
        self._records.add(new, holds_key=False)
        return new

    def _failed(self, old: SessionRecord, hook: str, error: BaseException) -> EquosError:
        raised = self._raised(old, hook, error)
        self._tell("renewal_failed", old, str(raised))
        return raised

    def _raised(self, old: SessionRecord, hook: str, error: BaseException) -> EquosError:
        """Handle the failure of a hook; an exception that ends the program is raised again."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
        logger.error("%s raised for %r: its old session goes on", hook, old.key, exc_info=error)
        told = f"{hook} raised {type(error).__name__}"
        return EquosError(told, operation="start", session_id=old.session_id)

    def _swap_back(self, old: SessionRecord, new: SessionRecord) -> None:
        in_place = self._records.holder(old.key) is new and new.state is State.LIVE
        if in_place and old.state is State.LIVE:
            self._records.hand_key(new, old)
        elif old.state is not State.ENDED:
            self._stop(old)  # the new session was ended meanwhile


def call_off(renewal: asyncio.Task[LiveSession[Any]]) -> None:
    """Cancel a renewal, unless one of its hooks asks for that: the hook goes on to its end."""
    if renewal is not asyncio.current_task(renewal.get_loop()):
        renewal.cancel()


def _not_live(old: SessionRecord) -> EquosError:
    told = f"the session of {keyed(old.key)} is not live any more, or was replaced"
    return EquosError(told, operation="start", session_id=old.session_id)


async def _call(hook: Callable[..., Any], *handles: LiveSession[Any]) -> Any:
    result = hook(*handles)
    return await result if inspect.isawaitable(result) else result


def _is_cancelled() -> bool:
    """Whether this task was cancelled; a hook may also raise ``CancelledError`` itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
