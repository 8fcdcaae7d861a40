"""The ways to a ledger's Redis: URLs, a cluster's nodes, Sentinels, or the caller's client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from redis import asyncio as engine
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

Way = tuple[str, str, int]
"""A URL, and a node that is reached with its settings: no host or port is the URL's own."""


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
            if port:
                pool.connection_kwargs.update({"port": port} | ({"host": host} if host else {}))
            clients: Any = engine.Redis
            self._clients[way] = clients.from_pool(pool)
        return self._clients[way]

    def move(self, host: str, port: int) -> None:
        """Use the node that has the ledger's keys; one without a name is at the same host."""
        self.way = (self.way[0], host or self.way[1], port)

    def learn(self, nodes: Sequence[tuple[str, int]]) -> None:
        """Remember the nodes of the cluster, for the time when one fails."""
        self._nodes = [(self.way[0], host, port) for host, port in nodes]

    def go_on(self, failed: Way) -> None:
        """Use the next URL or node, unless that was done since this one failed."""
        if self.way == failed:
            ways = [*self._seeds, *self._nodes]
            after = ways.index(failed) + 1 if failed in ways else 0
            self.way = ways[after % len(ways)]


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
