"""The ``async with`` blocks of a client: start a session, and stop it on every way out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from equos_async._api.operations import Resource
from equos_async.errors import EquosError

from .call import Holder
from .tasks import CallTasks

T = TypeVar("T")


@asynccontextmanager
async def hold(
    tasks: CallTasks, resource: Resource[Any, T, Any], request: object, deadline: float | None
) -> AsyncGenerator[T, None]:
    """Start a session or conversation, and stop it on every way out of the block.

    A failed stop is raised; if the block raised too, it becomes a note of the block's exception.
    """
    started = await tasks.begin(resource, request, deadline=deadline, holder=Holder.BLOCK)
    session_id = resource.id_of(started)
    try:
        yield started
    except GeneratorExit:  # the block's coroutine is being closed, and must not wait
        tasks.drop_block(session_id)
        raise
    except BaseException as error:
        try:
            await tasks.leave_block(resource, session_id)
        except EquosError as failure:
            error.add_note(f"stopping {resource.word} {session_id} failed: {failure}")
        raise
    await tasks.leave_block(resource, session_id)
