"""The connection to a ledger's Redis, whichever server, node or primary has the ledger now."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from redis import exceptions

from equos_async.errors import LedgerError

from .redis_ways import Way, Ways

T = TypeVar("T")
# Errors of a server that does not accept writes, or not yet. Before Redis 7 the error of a script
# has the word within its text; the client's own errors may lack it. A primary that is cut off from
# its replicas answers NOREPLICAS if it has to have one.
_ELSEWHERE: Final = re.compile(r"\b(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|NOREPLICAS)\b")
_ELSEWHERE_ERRORS: Final = (
    exceptions.ReadOnlyError,
    exceptions.BusyLoadingError,
    exceptions.ClusterDownError,
)
_ERRORS: Final = (exceptions.RedisError, exceptions.RedisClusterException)
LOOK_AROUND: Final = 30.0
"""Seconds between two reads of a cluster's nodes."""

MOST_UNANSWERED: Final = 2
"""Messages of its own that do not arrive before a listener replaces its connection."""


class RedisLink:
    """Runs scripts on a ledger's server, and listens to its messages.

    Args:
        make: Makes the clients; called again after a fork, because connections belong to one
            process.
        timeout: Seconds that a step may take.
        owned: Whether to close the clients.
    """

    def __init__(self, make: Callable[[], Any], *, timeout: float, owned: bool = True) -> None:
        self._make = make
        self._ways: Any = make()
        self._timeout = timeout
        self._owned = owned
        self._process = os.getpid()
        # The parent's clients after a fork: kept, as closing them would disturb the parent.
        self._inherited: list[Any] = []
        self._look_at: float | None = 0.0 if isinstance(self._ways, Ways) else None
        self.closed: bool = False

    async def aclose(self) -> None:
        """Close the connections, unless they are the caller's."""
        self.closed = True
        if self._owned and self._process == os.getpid():
            for client in self._ways:
                # After an error the connection is closed, too.
                with suppress(*_ERRORS):
                    await client.aclose()

    async def evaluate(self, digest: str, script: str, keys: int, words: Sequence[str]) -> Any:
        """Run a script; again if the server names another node.

        Raises:
            LedgerError: It was not run, or it is not known whether it was.
        """
        self._check()

        async def ask() -> Any:
            try:
                return _decoded(await self._ways().evalsha(digest, keys, *words))
            except exceptions.NoScriptError:
                return _decoded(await self._ways().eval(script, keys, *words))

        way = self._ways.way
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    told = await ask()
                except exceptions.MovedError as moved:
                    self._ways.move(str(cast("Any", moved).host), moved.port)
                    way = self._ways.way
                    told = await ask()
                except _ERRORS as error:
                    if not _is_elsewhere(error):
                        raise
                    await self._drop()  # the same name may lead to another server by now
                    told = await ask()
        except TimeoutError:
            failure: Exception = TimeoutError(f"no answer within {self._timeout:g} s")
        except _ERRORS as error:
            failure = error
        else:
            await self._look_around()
            return told
        await self._leave(way, failure)
        raise failed(failure)

    async def _leave(self, way: Way, failure: Exception) -> None:
        """After a failure, leave the connections and the node."""
        if not isinstance(failure, exceptions.ResponseError) or _is_elsewhere(failure):
            await self._drop()
        self._ways.go_on(way)
        if self._look_at is not None:
            self._look_at = 0.0

    async def _drop(self) -> None:
        """Close the idle connections; those in use are closed when they fail."""
        pool = getattr(self._ways(), "connection_pool", None)  # a cluster's client has none
        if pool is not None:
            with suppress(*_ERRORS, OSError, TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await pool.disconnect(inuse_connections=False)

    async def _look_around(self) -> None:
        """Read the nodes of a cluster."""
        now = asyncio.get_running_loop().time()
        if self._look_at is None or now < self._look_at:
            return
        self._look_at = now + LOOK_AROUND
        try:
            async with asyncio.timeout(self._timeout):
                slots = await self._ways().execute_command("CLUSTER", "SLOTS")
        except exceptions.ResponseError:
            self._look_at = None  # no cluster, or no right to ask
        except (*_ERRORS, TimeoutError):
            return  # the step itself was done; the nodes are read again later
        else:
            self._ways.learn(sorted(_nodes(slots)))

    async def listen(
        self, channel: str, ask: Callable[[], Awaitable[object]]
    ) -> AsyncIterator[str]:
        """Yield the messages that are published, without end, and those of ``ask``.

        A connection may die silently, or lead to a server that the steps have left. So while no
        message arrives, a step publishes one; if it does not arrive either, the connection is
        replaced. A new connection, which the client may also open while it reads, has time limits
        for the same reason.

        Args:
            channel: The channel.
            ask: The step. It publishes a message, and all that may have been missed.

        Raises:
            LedgerError: The server cannot be reached.
        """
        while True:
            self._check()
            try:
                async with self._ways().pubsub() as listener:
                    await _within(self._timeout, listener.subscribe(channel))
                    unanswered = 0
                    await ask()
                    while unanswered < MOST_UNANSWERED:
                        read = listener.get_message(timeout=self._timeout)
                        message = await _within(3 * self._timeout, read)
                        unanswered = await _heard(message, unanswered, ask)
                        if message is not None and message["type"] == "message":
                            yield _decoded(message["data"])
            except _ERRORS as error:
                raise failed(error) from None

    def _check(self) -> None:
        if self.closed:
            raise LedgerError("the ledger is closed")
        if self._process != os.getpid() and self._owned:
            self._inherited.append(self._ways)
            self._ways = self._make()
            self._process = os.getpid()


async def _within(seconds: float, step: Awaitable[T]) -> T:
    """Wait for a listener's connection, which may be silent from its first moment.

    Raises:
        exceptions.TimeoutError: It took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            return await step
    except TimeoutError:
        raise exceptions.TimeoutError(f"no answer within {seconds:g} s") from None


async def _heard(message: object, unanswered: int, ask: Callable[[], Awaitable[object]]) -> int:
    """Ask for a message if there was none; returns how many have not arrived, in a row."""
    if message is not None:
        return 0
    await ask()
    return unanswered + 1


def failed(error: Exception) -> LedgerError:
    """The error for a failure of the server."""
    return LedgerError(f"Redis: {error or type(error).__name__}")


def _is_elsewhere(error: Exception) -> bool:
    return isinstance(error, _ELSEWHERE_ERRORS) or _ELSEWHERE.search(str(error)) is not None


def _nodes(slots: Any) -> set[tuple[str, int]]:
    """The nodes in an answer to CLUSTER SLOTS: for each range its ends, then each node's parts."""
    parts = [node for _, _, *nodes in _decoded(slots) for node in nodes]
    return {(host, port) for host, port, *_ in parts if host}


def _decoded(told: Any) -> Any:
    """Decode an answer, which is bytes with some clients of callers."""
    if isinstance(told, list):
        return [_decoded(one) for one in cast("Sequence[Any]", told)]
    return told.decode(errors="replace") if isinstance(told, bytes) else told
