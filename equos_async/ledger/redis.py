"""The ledger of many machines: a Redis or Valkey server that all of them reach."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from attrs import asdict, fields

from equos_async import _validate
from equos_async.errors import ConfigurationError, LedgerError

from .protocol import LedgerRow, Placing
from .redis_script import SCRIPT

# What the script's keys are called, in the order in which it unpacks them.
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
)

# What is understood of a row; newer releases may write more.
_FIELDS: Final = frozenset(one.name for one in fields(LedgerRow))


class RedisLedger:
    """A ledger in Redis 5 or newer, or Valkey, for all machines that reach it.

    Its clock is the server's. Each step is one script, so that no other worker comes between.
    What the server forgets when it is restarted is written anew by the workers that hold it; let
    it keep a file all the same (``appendonly yes``), for what it forgets of dead workers is lost.

    All keys share one hash tag: in a cluster they lie on one node, and whichever node the URL
    names tells where that is.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; a password in it is never told.
        namespace: What its keys begin with: one ledger is one organisation, and one limit.
        timeout: Seconds that a step may take.
        connections: How many there may be, the one that listens included.

    Raises:
        ConfigurationError: The extra ``redis`` is not installed, or an argument is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "equos",
        timeout: float = 1.0,
        connections: int = 16,
    ) -> None:
        try:
            from redis import asyncio as engine  # noqa: PLC0415 - an extra
            from redis import exceptions  # noqa: PLC0415
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "RedisLedger needs the extra: pip install 'equos-async[redis]'"
            ) from None
        if not set("{}").isdisjoint(_validate.text("namespace", namespace)):
            raise ConfigurationError("namespace must not hold braces: it stands between two")
        _validate.number("timeout", timeout)
        _validate.count("connections", connections)
        self._pools: Any = engine.BlockingConnectionPool  # its own types are not complete
        self._engine: Any = engine.Redis
        self._settings: dict[str, Any] = {
            "max_connections": connections,
            "timeout": timeout,
            # One timeout is over a whole step. Not the client's own for each answer: it would be
            # another task each time, and loses cancellations on Python 3.11.
            "socket_timeout": None,
            "socket_connect_timeout": timeout,
            "health_check_interval": 5,
            "decode_responses": True,
            # A connection that the server closed meanwhile is made anew, once: each step may be
            # done twice. What takes its time is not tried again, for a start must fail fast.
            "retry": Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
        }
        self._url = _validate.hidden(url)
        # By the node of a cluster that each goes to; an empty name is the URL's own.
        self._clients: dict[tuple[str, int], Any] = {}
        try:
            self._redis = self._client()
        except ValueError:
            raise ConfigurationError("url must begin with redis://, rediss:// or unix://") from None
        self._exceptions: Any = exceptions
        self._namespace = namespace
        self._keys = [f"{{{namespace}}}:{name}" for name in _KEYS]
        self._channel = f"{{{namespace}}}:turns:"
        self._script = SCRIPT
        self._digest = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._timeout = timeout
        # Which ledger it was when it was reached last: another one has forgotten that.
        self._knew = ""
        self._closed = False

    def _client(self, host: str = "", port: int = 0) -> Any:
        """What speaks to a node of a cluster, or to whatever the URL names."""
        if (host, port) not in self._clients:
            pool = self._pools.from_url(self._url, **self._settings)
            if host:
                pool.connection_kwargs.update(host=host, port=port)
            self._clients[host, port] = self._engine.from_pool(pool)
        return self._clients[host, port]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; safe to call again."""
        self._closed = True
        for client in self._clients.values():
            # A connection that cannot be closed politely is closed all the same.
            with suppress(self._exceptions.RedisError):
                await client.aclose()

    def __repr__(self) -> str:
        return f"<RedisLedger {self._namespace}>"

    async def place(
        self, row: LedgerRow, *, seconds: float, limit: int, wait: bool, lease: float
    ) -> Placing:
        """As :meth:`SessionLedger.place`."""
        what, holder, left = await self._hear("place", _text(row), seconds, limit, int(wait), lease)
        return Placing(what == "placed", holder or None, recovers_in=float(left))

    async def record(self, row: LedgerRow, *, seconds: float) -> str:
        """As :meth:`SessionLedger.record`."""
        owner: str = await self._run("record", _text(row), seconds)
        return owner

    async def remove(self, row_id: str) -> None:
        """As :meth:`SessionLedger.remove`."""
        await self._run("remove", row_id)

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, str | None]:
        """As :meth:`SessionLedger.renew`."""
        (text,) = await self._hear("renew", worker, lease)
        told: list[str] = json.loads(text)
        return {row_id: known or None for row_id, known in zip(told[::2], told[1::2], strict=True)}

    async def claim(
        self, worker: str, *, endpoint: str, lease: float, at_once: bool = False
    ) -> Sequence[LedgerRow]:
        """As :meth:`SessionLedger.claim`."""
        told = await self._hear("claim", worker, endpoint, lease, int(at_once))
        return [_row(text, told[0]) for text in told[1:]]

    async def rows(self) -> Sequence[LedgerRow]:
        """As :meth:`SessionLedger.rows`; read in portions, so that nobody has to wait for it."""
        cursor, found = "0", dict[str, LedgerRow]()
        while True:
            now, cursor, *texts = await self._run("rows", cursor)
            found |= {row.id: row for row in (_row(text, now) for text in texts)}
            if cursor == "0":
                return sorted(found.values(), key=lambda row: row.started)

    async def turns(self, worker: str) -> AsyncIterator[str]:
        """As :meth:`SessionLedger.turns`: the server calls."""
        try:
            async with self._redis.pubsub(ignore_subscribe_messages=True) as listener:
                await listener.subscribe(self._channel + worker)
                await self._run("call", worker)
                while True:
                    message = await listener.get_message(timeout=self._timeout)
                    if message is not None:
                        yield str(message["data"])
        except self._exceptions.RedisError as error:
            raise _failure(error) from None

    async def _hear(self, step: str, *args: object) -> Any:
        """A step by which the server hears of the worker."""
        self._knew, *told = await self._run(step, self._knew, *args)
        return told

    async def _run(self, step: str, *args: object) -> Any:
        if self._closed:
            raise LedgerError("the ledger is closed")
        names = [*self._keys, step, self._channel, *map(str, args)]
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._evaluate(names)
                except self._exceptions.MovedError as moved:
                    self._move(moved.host, moved.port)
                    return await self._evaluate(names)
        except TimeoutError:
            error: Exception = TimeoutError(f"no answer within {self._timeout:g} s")
        except self._exceptions.RedisError as failure:
            error = failure
        self._redis = self._client()  # another node may have taken over, which the URL's tells
        raise _failure(error)

    async def _evaluate(self, names: Sequence[str]) -> Any:
        client = self._redis
        try:
            return await client.evalsha(self._digest, len(self._keys), *names)
        except self._exceptions.NoScriptError:
            return await client.eval(self._script, len(self._keys), *names)

    def _move(self, host: str, port: int) -> None:
        """Go to the node of a cluster on which all of the ledger's keys lie."""
        self._redis = self._client(host, port)


def _failure(error: Exception) -> LedgerError:
    return LedgerError(f"Redis: {error or type(error).__name__}")


def _text(row: LedgerRow) -> str:
    # Without what is None: in the script a null would be something. And without what goes without
    # saying: older releases do not know all fields.
    given = asdict(row, filter=lambda attribute, value: value != attribute.default)
    return json.dumps(given)


def _row(text: str, now: str) -> LedgerRow:
    told: dict[str, Any] = json.loads(text)
    known: dict[str, Any] = {name: told[name] for name in told.keys() & _FIELDS}
    known["read_at"] = float(now)
    return LedgerRow(**known)
