"""The ledger for several machines, in a Redis or Valkey server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, Final, Self, cast

from attrs import asdict

from equos_async import _validate
from equos_async.errors import ConfigurationError

from .protocol import NOBODY, LedgerRow, LedgerWorker, Namesake, Placing, batched
from .reading import row_of
from .redis_script import SCRIPT
from .redis_together import Together

# The number of rows that are recorded in one step.
AT_ONCE: Final = 200
# Connections to a server: one listens, and another one runs the steps.
LEAST: Final = 2
# The names of the script's keys, in the order in which it unpacks them.
_KEYS: Final = (
    "rows",
    "owned",
    "keys",
    "unresolved",
    "line",
    "tickets",
    "workers",
    "claimed",
    "claimed_at",
    "engine",
    "foreign",
    "names",
    "grouped",
    "parked",
    "standing",
)


class RedisLedger:
    """A ledger in Redis 5 or newer, or Valkey, for the workers of several machines.

    Each step is one script, so it is atomic, and uses the server's clock. If the server loses rows
    in a restart, the workers that hold them write them anew. Turn on its append-only file
    (``appendonly yes``) all the same, because lost rows of dead workers stay lost.

    All of its Redis keys share one hash tag, so in a cluster they are on one node. The ledger finds
    that node through any other, and learns the addresses of all, so it goes on if one dies.

    After a fork each process makes its own connections. With ``client``, create the client and the
    ledger in each process.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; or several URLs of one cluster's nodes, so
            that a worker finds it while one is down. A password in it is never shown.
        client: Instead of a URL, your own ``redis.asyncio`` client, for one server or a cluster.
            The ledger does not close it.
        namespace: The prefix of its Redis keys. Use one for each Equos organisation, because
            ``max_live`` is one limit for all workers with the same namespace.
        timeout: Seconds that a step may take.
        connections: The largest number of connections to a server, including the one that listens;
            at least 2.

    Raises:
        ConfigurationError: The extra ``redis`` is not installed, or an argument is wrong.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        client: Any = None,
        namespace: str = "equos",
        timeout: float = 1.0,
        connections: int = 16,
    ) -> None:
        link, ways = _extra("redis_link"), _extra("redis_ways")
        namespace = _validate.line("namespace", namespace)
        if not set("{}").isdisjoint(namespace):
            raise ConfigurationError("namespace must not contain '{' or '}'")
        _validate.number("timeout", timeout)
        if _validate.count("connections", connections) < LEAST:
            raise ConfigurationError(f"connections must be at least {LEAST}: one listens")
        if (url is None) == (client is None):
            raise ConfigurationError("RedisLedger needs either a url or a client")
        if isinstance(client, ways.Sentinels):
            self._link = link.RedisLink(client, timeout=timeout)
        elif url is None:
            if not hasattr(client, "evalsha") or not hasattr(client, "pubsub"):
                raise ConfigurationError(
                    "client must be a client of redis.asyncio that has pubsub()"
                )
            self._link = link.RedisLink(lambda: ways.OneWay(client), timeout=timeout, owned=False)
        else:
            urls = [_validate.hidden(one) for one in ([url] if isinstance(url, str) else url)]
            pool = {"max_connections": connections, "timeout": timeout}
            make = partial(ways.Ways, urls, ways.settings_of(timeout) | pool)
            try:
                self._link = link.RedisLink(make, timeout=timeout)
            except (ValueError, IndexError):
                kinds = "redis://, rediss:// or unix://"
                raise ConfigurationError(f"url must begin with {kinds}") from None
        self._namespace = namespace
        self._keys = [f"{{{namespace}}}:{name}" for name in _KEYS]
        self._channel = f"{{{namespace}}}:turns:"
        self._digest = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._together = Together(self._send)
        # The identity of the ledger at the last heartbeat: another one may lack rows.
        self._knew = ""

    @classmethod
    def from_sentinel(
        cls,
        sentinels: Sequence[tuple[str, int]],
        service: str,
        *,
        namespace: str = "equos",
        timeout: float = 1.0,
        **settings: Any,
    ) -> Self:
        """A ledger in the primary that Redis Sentinels name.

        Args:
            sentinels: Host and port of each.
            service: The name of the primary in their configuration, such as ``mymaster``.
            namespace: As above.
            timeout: As above.
            settings: Arguments for each connection to the primary, such as ``password`` or ``ssl``;
                ``sentinel_kwargs`` holds those for connections to Sentinels.

        Raises:
            ConfigurationError: The extra ``redis`` is not installed, or an argument is wrong.
        """
        ways = _extra("redis_ways")
        if not sentinels:
            raise ConfigurationError("sentinels must not be empty")
        _validate.number("timeout", timeout)
        named = _validate.text("service", service)
        told = ways.Sentinels(sentinels, named, timeout=timeout, settings=settings)
        return cls(client=told, namespace=namespace, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, but not a ``client`` of yours; may be called more than once."""
        await self._together.aclose()
        await self._link.aclose()

    def __repr__(self) -> str:
        return f"<RedisLedger {self._namespace}>"

    async def place(
        self, row: LedgerRow, *, seconds: float, limit: int, wait: bool, lease: float
    ) -> Placing:
        """As :meth:`SessionLedger.place`."""
        return await self.place_in_group(
            row, seconds=seconds, limit=limit, wait=wait, lease=lease, group_limit=None
        )

    async def place_in_group(
        self,
        row: LedgerRow,
        *,
        seconds: float,
        limit: int,
        wait: bool,
        lease: float,
        group_limit: int | None,
        renews: bool = False,
    ) -> Placing:
        """As :meth:`GroupedLedger.place_in_group`."""
        most = "" if group_limit is None else group_limit
        given = [self._knew, _text(row), seconds, limit, int(wait), lease, most, int(renews)]
        self._knew, what, holder, left, *session = await self._step("place", *given)
        return Placing(
            what == "placed",
            holder or None,
            recovers_in=float(left),
            called_off=what == "called off",
            group_full=what == "group full",
            session_id=session[0] if session else None,
        )

    async def record(self, row: LedgerRow, *, seconds: float) -> str:
        """As :meth:`SessionLedger.record`."""
        owner: str = await self._step("record", _text(row), seconds)
        return owner

    async def record_all(
        self, worker: str, rows: Sequence[tuple[LedgerRow, float]], *, lease: float
    ) -> Sequence[str]:
        """As :meth:`BulkLedger.record_all`; in batches, so that no other worker waits for long."""
        told: list[str] = []
        for portion in batched(rows, AT_ONCE):
            texts = json.dumps([_text(row) for row, _ in portion])
            seconds = json.dumps([left for _, left in portion])
            told += await self._hear("record_all", worker, lease, texts, seconds)
        return told

    async def remove(self, row_id: str, *, worker: str | None = None) -> bool | None:
        """As :meth:`KeyedLedger.remove`."""
        removed = await self._step("remove", row_id, worker or NOBODY)
        return None if removed is None else bool(removed)

    async def call_off(self, key: str, *, worker: str) -> Sequence[LedgerRow]:
        """As :meth:`KeyedLedger.call_off`."""
        now, *texts = await self._run("call_off", key, worker)
        return _rows(texts, now)

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, str | None]:
        """As :meth:`SessionLedger.renew`."""
        (text,) = await self._hear("renew", worker, lease)
        told: list[str] = json.loads(text)
        return {row_id: known or None for row_id, known in zip(told[::2], told[1::2], strict=True)}

    async def enlist(
        self,
        worker: str,
        *,
        name: str,
        process: str,
        lease: float,
        instead_of: str | None = None,
    ) -> Namesake | None:
        """As :meth:`NamedLedger.enlist`."""
        told = await self._hear("enlist", worker, name, process, lease, instead_of or worker)
        return Namesake(told[0], told[1], float(told[2])) if told else None

    async def claim(
        self,
        worker: str,
        *,
        endpoint: str,
        lease: float,
        at_once: bool = False,
        of: str | None = None,
        settles: bool = False,
    ) -> Sequence[LedgerRow]:
        """As :meth:`NamedLedger.claim` and :meth:`SettlingLedger.claim`."""
        told = await self._hear(
            "claim", worker, endpoint, lease, int(at_once), of or NOBODY, int(settles)
        )
        return _rows(told[1:], told[0])

    async def give_up(self, worker: str, row_id: str) -> None:
        """As :meth:`SettlingLedger.give_up`."""
        await self._run("give_up", worker, row_id)

    async def rows(self) -> Sequence[LedgerRow]:
        """As :meth:`SessionLedger.rows`; read in batches, so that nothing waits for it for long."""
        cursor, found = "0", dict[str, LedgerRow]()
        while True:
            now, cursor, *texts = await self._run("rows", cursor)
            found |= {row.id: row for row in _rows(texts, now)}
            if cursor == "0":
                return sorted(found.values(), key=lambda row: row.started)

    async def workers(self) -> Sequence[LedgerWorker]:
        """The workers that the engine knows, by their ids; for people who watch them."""
        now, *told = await self._run("workers")
        portions = zip(told[::3], told[1::3], told[2::3], strict=True)
        found = [LedgerWorker(one, float(ends) - float(now), held) for one, ends, held in portions]
        return sorted(found, key=lambda one: one.id)

    async def turns(self, worker: str) -> AsyncIterator[str]:
        """As :meth:`SessionLedger.turns`; the server publishes them."""
        async for called in self._link.listen(
            self._channel + worker, partial(self._run, "call", worker)
        ):
            if called:  # not empty, as the message of the step is
                yield called

    async def _hear(self, step: str, *args: object) -> Any:
        """Run a step that is also a heartbeat of the worker."""
        self._knew, *told = await self._run(step, self._knew, *args)
        return told

    async def _step(self, step: str, *args: object) -> Any:
        """Run a step of one session, together with steps that are called at the same time."""
        return await self._together.ask([step, *map(str, args)])

    async def _send(self, steps: Sequence[Sequence[str]]) -> Sequence[Any]:
        """Run some steps of sessions, each of which is short."""
        if len(steps) == 1:
            step, *args = steps[0]
            return [await self._run(step, *args)]
        told: Sequence[Any] = await self._run("all", json.dumps(steps))
        return told

    async def _run(self, step: str, *args: object) -> Any:
        words = [*self._keys, step, self._channel, *map(str, args)]
        return await self._link.evaluate(self._digest, SCRIPT, len(self._keys), words)


def _extra(name: str) -> ModuleType:
    """A module that needs the extra."""
    try:
        return import_module(f".{name}", __package__)
    except ImportError:
        raise ConfigurationError("RedisLedger needs the extra: pip install '.[redis]'") from None


def _text(row: LedgerRow) -> str:
    # Without defaults, because older releases do not know all fields, and so without None, which
    # the script would read as a value.
    given = asdict(row, filter=lambda attribute, value: value != attribute.default)
    return json.dumps(given)


def _rows(texts: Sequence[str], now: str) -> list[LedgerRow]:
    """The rows that can be read."""
    found = (row_of(_given(text), float(now)) for text in texts)
    return [row for row in found if row is not None]


def _given(text: str) -> dict[str, Any]:
    """The fields in a row's text; empty if it is no JSON object."""
    try:
        given: Any = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    return cast("dict[str, Any]", given) if isinstance(given, dict) else {}
