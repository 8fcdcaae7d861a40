"""The keys of one client: strings, or callables that are called once for all waiting calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from attrs import frozen
from multidict import CIMultiDict

from equos_async import _validate
from equos_async._api import operations, words
from equos_async._api.operations import Credential, Operation
from equos_async._http.request import Failure
from equos_async._validate import Secret
from equos_async.clock import Clock, set_unless_done
from equos_async.errors import ConfigurationError

T = TypeVar("T")
KeySource: TypeAlias = str | Callable[[], str | Awaitable[str]]


@frozen(kw_only=True, eq=False)
class NoKey(Failure):
    """There was no key, so nothing was sent."""

    sent: bool = False


class Keys:
    """The keys of a client, and the heads of its requests.

    Args:
        sources: Each key, or the callable that returns it.
        headers: Further headers of each request.
        mask: Masks keys in texts; it gets each new key.
        clock: The source of time.
    """

    def __init__(
        self,
        sources: Mapping[Credential, KeySource],
        *,
        headers: Mapping[str, str],
        mask: words.Masker,
        clock: Clock,
    ) -> None:
        self.mask: words.Masker = mask
        self._headers = headers
        self._keys = {one: Key(one, source, mask, clock) for one, source in sources.items()}
        self._keys[Credential.NONE] = Key(Credential.NONE, None, mask, clock)
        self._heads: dict[Operation[Any], Head] = {}
        self._firsts: dict[Sequence[Operation[Any]], Operation[Any]] = {}

    def head(self, operation: Operation[Any]) -> Head:
        """The headers for the requests of an operation.

        Raises:
            ConfigurationError: The client does not have the key that it needs.
        """
        try:
            return self._heads[operation]
        except KeyError:
            pass
        needed = operation.credential
        if needed not in self._keys:
            raise ConfigurationError(
                f"this call needs {needed.value}: pass it to the client, or set {needed.variable}",
                operation=operation.effect.name,
            )
        head = self._heads[operation] = Head(operation, self._keys[needed], self._headers)
        return head

    def has(self, operation: Operation[Any]) -> bool:
        """Whether the client has the key that an operation needs."""
        return operation.credential in self._keys

    def first(self, rows: Sequence[Operation[T]]) -> Operation[T]:
        """The first of some operations whose key the client has, else the last one."""
        try:
            return self._firsts[rows]
        except KeyError:
            found = next((one for one in rows if one.credential in self._keys), rows[-1])
            self._firsts[rows] = found
            return found


class Key:
    """One key, and its callable, which is called once for all calls that wait for the key.

    Args:
        credential: The kind of key.
        source: The key, or its callable; None if no key is needed.
        mask: Masks keys in texts.
        clock: The source of time.

    Attributes:
        value: The key, if it is known.
        is_fresh: Whether it may be used without a call of its callable.
    """

    def __init__(
        self, credential: Credential, source: KeySource | None, mask: words.Masker, clock: Clock
    ) -> None:
        self._name = credential.value
        self._mask = mask
        self._clock = clock
        self._source = source if callable(source) else None
        self._asking: asyncio.Task[object] | None = None
        self._waiting: set[asyncio.Future[NoKey | None]] = set()
        self._heads: list[Head] = []
        self.value: Secret | None = None
        self.is_fresh: bool = source is None
        if isinstance(source, str):
            self._learn(source)

    def carry(self, head: Head) -> None:
        """Update a head with each new value."""
        self._heads.append(head)

    def refuse(self) -> bool:
        """The server refused the value; returns whether there may be another one."""
        if self._source is None:
            return False
        self.is_fresh = False
        return True

    async def ask(self, deadline: float) -> NoKey | None:
        """Wait for the key; the last waiter that gives up cancels the call of the callable."""
        loop = asyncio.get_running_loop()
        asking = self._asking
        if asking is None:
            asking = self._asking = loop.create_task(self._ask())
            asking.add_done_callback(self._answered)
        answer: asyncio.Future[NoKey | None] = loop.create_future()
        late = NoKey(reason=f"the callable for {self._name} did not return in time", timed_out=True)
        timer = self._clock.call_at(deadline, set_unless_done, answer, late)
        self._waiting.add(answer)
        try:
            return await answer
        finally:
            timer.cancel()
            self._waiting.discard(answer)
            if not self._waiting and self._asking is asking:
                self._asking = None
                asking.cancel()

    async def _ask(self) -> object:
        found = None if self._source is None else self._source()
        # Hidden, because the repr of a task shows its result.
        return _validate.hidden(await found if isinstance(found, Awaitable) else found)

    def _answered(self, asking: asyncio.Task[object]) -> None:
        error = asyncio.CancelledError() if asking.cancelled() else asking.exception()
        if asking is not self._asking:
            return  # it was cancelled, or replaced
        self._asking = None
        problem: NoKey | None = None
        if error is not None:  # its text may contain the key
            problem = NoKey(reason=f"the callable for {self._name} raised {type(error).__name__}")
        else:
            try:
                self._learn(asking.result())
            except ConfigurationError as refused:
                problem = NoKey(reason=str(refused))
        for answer in self._waiting:
            set_unless_done(answer, problem)

    def _learn(self, value: object) -> None:
        key = _validate.key(self._name, value)
        self.is_fresh = True
        if key != self.value:
            self.value = key
            self._mask.add(key)
            for head in self._heads:
                head.renew()


class Head:
    """The headers of the requests of one operation.

    Args:
        operation: The operation.
        key: The key that it needs.
        headers: What else each request carries.

    Attributes:
        key: The key that it needs.
        fields: The headers, with the key if it is known. A new key makes a new mapping; it is never
            changed, because requests share it.
    """

    def __init__(self, operation: Operation[Any], key: Key, headers: Mapping[str, str]) -> None:
        self._operation = operation
        self._headers = headers
        self.key: Key = key
        self.fields: CIMultiDict[str] = self._made()
        key.carry(self)

    def renew(self) -> None:
        """Use a new key."""
        self.fields = self._made()

    def _made(self) -> CIMultiDict[str]:
        credential, has_body = self._operation.credential, self._operation.encode is not None
        fields = operations.headers(credential, self.key.value, body=has_body)
        return CIMultiDict({**fields, **self._headers})
