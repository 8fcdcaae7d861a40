"""Send steps of a ledger in Redis together that are called at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from equos_async.errors import LedgerError

MOST: Final = 64
"""Steps in one request: few enough that other workers wait for a few milliseconds only."""

UNDER_WAY: Final = 4
"""Requests in flight; steps that are called meanwhile are sent together."""

Words = Sequence[str]


class Together:
    """Sends each step at once, and several together if they come faster than answers.

    A single step is not delayed.

    Args:
        send: Sends some steps, and returns an answer for each.
    """

    def __init__(self, send: Callable[[Sequence[Words]], Awaitable[Sequence[Any]]]) -> None:
        self._send = send
        self._loop: asyncio.AbstractEventLoop | None = None
        self._steps: list[tuple[Words, asyncio.Future[Any]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, words: Words) -> Any:
        """Run a step, and return its answer.

        Raises:
            LedgerError: It was not done, or it is not known whether it was.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # the first one, or this process was forked
            self._loop, self._steps, self._tasks = loop, [], set()
        answer: asyncio.Future[Any] = loop.create_future()
        self._steps.append((words, answer))
        if len(self._tasks) < UNDER_WAY:
            task = loop.create_task(self._work_off())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await answer
        finally:
            del answer  # else an error and this frame would refer to each other

    async def aclose(self) -> None:
        """Wait for the requests in flight, which end within the timeout of a step."""
        here = asyncio.get_running_loop()
        if tasks := [task for task in self._tasks if task.get_loop() is here]:
            await asyncio.wait(tasks)

    async def _work_off(self) -> None:
        while self._steps:
            steps = self._steps[:MOST]
            del self._steps[:MOST]
            # Steps whose callers were cancelled are not sent.
            waiting = [one for one in steps if not one[1].done()]
            if not waiting:
                continue
            try:
                told = await self._send([words for words, _ in waiting])
            except Exception as error:  # raised for each caller, in its own task
                told = [LedgerError(str(error)) for _ in waiting]
            for (_, answer), one in zip(waiting, told, strict=True):
                if answer.done():
                    continue
                if isinstance(one, LedgerError):
                    answer.set_exception(one)
                else:
                    answer.set_result(one)
