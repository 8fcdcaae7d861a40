"""The replacement of a session before its end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, cast

from equos_async.errors import EquosError
from equos_async.events import logger

from ._records import Records
from ._session import HandOver, SessionRecord
from ._states import Reason, State
from .values import AnyRequest


class Renewals:
    """The replacements of one fleet that are under way.

    Args:
        records: The fleet's sessions.
        fulfil: Starts a session, once it has its place.
        stop: Sets out to stop one.
    """

    def __init__(
        self,
        records: Records[SessionRecord],
        fulfil: Callable[..., Coroutine[Any, Any, None]],
        stop: Callable[..., object],
    ) -> None:
        self._records = records
        self._fulfil = fulfil
        self._stop = stop
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, old: SessionRecord) -> None:
        """Set out to replace a session that is live, and has its request still."""
        new = SessionRecord(
            owner=old.owner,
            key=old.key,
            resource=old.resource,
            request=old.request,
            duration=old.duration,
            deadline=old.ends - old.owner.clock.now(),
            hand_over=old.hand_over,
            group=old.group,
            presence=None if old.presence is None else old.presence.carried_on(),
            replaces=old,
        )
        old.renewing = asyncio.create_task(self._replace(old, new))
        self._tasks.add(old.renewing)
        old.renewing.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Begin none of them any more."""
        for task in self._tasks:
            task.cancel()

    async def _replace(self, old: SessionRecord, new: SessionRecord) -> None:
        self._records.add(new, holds_key=False)
        request = cast("AnyRequest", new.request)
        try:
            await self._fulfil(new, request, wait=True)
        except EquosError:
            return  # an event told it; the old session goes on to its end
        try:
            await _call(cast("HandOver[Any]", old.hand_over), old, new)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise  # all of them end, this one's sessions too
            self._swap_back(old, new)
            self._stop(new)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            logger.exception("on_renewed raised for %r: its new session is stopped", old.key)
        else:
            self._stop(old, Reason.RENEWED)

    def _swap_back(self, old: SessionRecord, new: SessionRecord) -> None:
        in_place = self._records.holder(old.key) is new and new.state is State.LIVE
        if in_place and old.state is State.LIVE:
            self._records.hand_key(new, old)
        elif old.state is not State.ENDED:
            self._stop(old)  # the key's conversation was ended meanwhile


async def _call(hand_over: HandOver[Any], old: SessionRecord, new: SessionRecord) -> None:
    result = hand_over(old.handle, new.handle)
    if inspect.isawaitable(result):
        await result


def _is_cancelled() -> bool:
    """Whether somebody wants this task to end; a hook may raise the same exception."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
