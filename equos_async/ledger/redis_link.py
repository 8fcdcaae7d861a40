"""The connection to a ledger's Redis, whichever server, node or primary has the ledger now."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from redis import asyncio as engine
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from equos_async.errors import LedgerError

# Errors of a server that does not accept writes, or not yet. Before Redis 7 the error of a script
# has the word within its text; the client's own errors may lack it.
_ELSEWHERE: Final = re.compile(r"\b(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN)\b")
_ELSEWHERE_ERRORS: Final = (
    exceptions.ReadOnlyError,
    exceptions.BusyLoadingError,
    exceptions.ClusterDownError,
)
_ERRORS: Final = (exceptions.RedisError, exceptions.RedisClusterException)
LOOK_AROUND: Final = 30.0
"""Seconds between two reads of a cluster's nodes."""

MOST_UNANSWERED: Final = 2
"""Unanswered checks after which a listener's connection counts as dead."""

Way = tuple[str, str, int]
"""A URL, and a node that is reached with its settings; an empty name is the URL's own node."""


class Ways:
    """The clients of a ledger with one or more URLs.

    Args:
        urls: The URL of one server, or of some nodes of a cluster.
        settings: Settings for the pool of each client.

    Raises:
        ValueError: A URL is not one of Redis.
    """

    def __init__(self, urls: Sequence[str], settings: dict[str, Any]) -> None:
        self._settings = settings
        self._clients: dict[Way, Any] = {}
        self._seeds: list[Way] = [(url, "", 0) for url in urls]
        self._nodes: list[Way] = []
        for seed in self._seeds:
            self._client(seed)
        self.way: Way = self._seeds[0]

    def __call__(self) -> Any:
        """The client that is in use."""
        return self._client(self.way)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._clients.values())

    def _client(self, way: Way) -> Any:
        if way not in self._clients:
            url, host, port = way
            pools: Any = engine.BlockingConnectionPool  # its own types are not complete
            pool = pools.from_url(url, **self._settings)
            if host:
                pool.connection_kwargs.update(host=host, port=port)
            clients: Any = engine.Redis
            self._clients[way] = clients.from_pool(pool)
        return self._clients[way]

    def move(self, host: str, port: int) -> None:
        """Use the node that has the ledger's keys."""
        self.way = (self.way[0], host, port)

    def learn(self, nodes: Sequence[tuple[str, int]]) -> None:
        """Remember the nodes of the cluster, for the time when one fails."""
        self._nodes = [(self.way[0], host, port) for host, port in nodes]

    def go_on(self, failed: Way) -> None:
        """Use the next URL or node, unless that was done since this one failed."""
        if self.way == failed:
            ways = [*self._seeds, *self._nodes]
            after = ways.index(failed) + 1 if failed in ways else 0
            self.way = ways[after % len(ways)]


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

    async def listen(self, channel: str) -> AsyncIterator[str | None]:
        """Yield the published messages, without end; None if some may have been missed.

        A connection may die silently: one without answers is replaced. The check is to subscribe
        again, because its answer is the same in each version of the protocol.

        Raises:
            LedgerError: The server cannot be reached.
        """
        while True:
            self._check()
            try:
                with suppress(_SilentError):
                    async with self._ways().pubsub() as listener:
                        await listener.subscribe(channel)
                        yield None
                        unanswered = 0
                        while True:
                            message = await listener.get_message(timeout=self._timeout)
                            unanswered = await _heard(listener, channel, message, unanswered)
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


class _SilentError(Exception):
    """A listener's connection has died silently."""


async def _heard(listener: Any, channel: str, message: object, unanswered: int) -> int:
    """Check a silent connection again; returns the number of unanswered checks in a row.

    Raises:
        _SilentError: There were too many.
    """
    if message is not None:
        return 0
    if unanswered + 1 == MOST_UNANSWERED:
        raise _SilentError
    await listener.subscribe(channel)
    return unanswered + 1


class OneWay:
    """A client that finds its server itself: the caller's, one for a cluster, or one with Sentinel.

    Args:
        client: The client.
        others: Further clients to close with it.
    """

    way: Final = ("", "", 0)

    def __init__(self, client: Any, *others: Any) -> None:
        self._client = client
        self._others = others

    def __call__(self) -> Any:
        """The client."""
        return self._client

    def __iter__(self) -> Iterator[Any]:
        return iter((self._client, *self._others))

    def move(self, host: str, port: int) -> None:
        """Do nothing: the client finds its server itself."""

    def learn(self, nodes: Sequence[tuple[str, int]]) -> None:
        """Do nothing: the client knows the nodes."""

    def go_on(self, failed: Way) -> None:
        """Do nothing: the client finds its server itself."""


class Sentinels:
    """Makes clients of the primary that Sentinels name.

    Args:
        sentinels: Host and port of each.
        service: The name of the primary.
        timeout: Seconds that a step may take; each Sentinel gets a quarter of it.
        settings: Settings of each connection to the primary; ``sentinel_kwargs`` for Sentinels.
    """

    def __init__(
        self,
        sentinels: Sequence[tuple[str, int]],
        service: str,
        *,
        timeout: float,
        settings: dict[str, Any],
    ) -> None:
        self._asked = {
            "socket_timeout": timeout / 4,
            "socket_connect_timeout": timeout / 4,
            "retry": Retry(NoBackoff(), 0),  # the next Sentinel is asked instead
        } | settings.get("sentinel_kwargs", {})
        given = {name: one for name, one in settings.items() if name != "sentinel_kwargs"}
        self._settings = settings_of(timeout) | given
        self._sentinels = sentinels
        self._service = service

    def __call__(self) -> OneWay:
        """Make a client of this process."""
        kinds: Any = Sentinel
        told = kinds(self._sentinels, sentinel_kwargs=self._asked)
        return OneWay(told.master_for(self._service, **self._settings), *told.sentinels)


def settings_of(timeout: float) -> dict[str, Any]:
    """The settings of each connection."""
    return {
        # A timeout of this library is over each whole step. The client's own timeout of an answer
        # would make another task each time, and loses cancellations on Python 3.11.
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "health_check_interval": 5,
        "decode_responses": True,
        "encoding_errors": "replace",  # one invalid row must not stop steps for all rows
        # If the server has closed a connection, the step is sent again on a new one, once: each
        # step may be done twice. After a timeout it is not, because a start must fail fast.
        "retry": Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
    }


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
