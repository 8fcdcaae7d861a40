"""Make calls: each has a URL, headers, a deadline, and a future in the running loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar

from equos_async import _validate
from equos_async._api.operations import Operation
from equos_async._http.transport import Transport
from equos_async.clock import Clock
from equos_async.errors import ConfigurationError
from equos_async.settings import Timeouts

from .call import Call, Target
from .keys import Keys

T = TypeVar("T")


class CallFactory:
    """Makes the calls of one client.

    Args:
        base: The URL before an operation's path.
        keys: The keys.
        transport: Sends the requests; it belongs to one event loop.
        timeouts: The time limits.
        clock: The source of time.

    Attributes:
        loop: The event loop of the client; None before the first call.
        is_inherited: Whether this is a fork of the process in which it was used.
    """

    def __init__(
        self, *, base: str, keys: Keys, transport: Transport, timeouts: Timeouts, clock: Clock
    ) -> None:
        self._base = base
        self._keys = keys
        self._transport = transport
        self._timeouts = timeouts
        self._clock = clock
        self.loop: asyncio.AbstractEventLoop | None = None
        self.is_inherited: bool = False

    def check(self) -> None:
        """Check that this is the client's event loop, if it has one that is not closed.

        Raises:
            ConfigurationError: It is not.
        """
        if self.loop is not None and not self.loop.is_closed():
            self.bind()

    def bind(self) -> asyncio.AbstractEventLoop:
        """Bind the client to the running event loop.

        Raises:
            ConfigurationError: No loop is running, or the client belongs to another one.
        """
        if self.is_inherited:
            raise ConfigurationError(
                "this client was in use before os.fork: its sessions are those of the parent "
                "process; create a client in each process"
            )
        try:
            self.loop = self._transport.bind()
        except RuntimeError:
            if self.loop is not None:
                raise ConfigurationError(
                    "the event loop of this client does not run here"
                ) from None
            raise ConfigurationError(
                "no asyncio event loop is running here: this library runs on asyncio only, "
                "with anyio on its asyncio backend, and not on trio"
            ) from None
        return self.loop

    def make(
        self,
        operation: Operation[T],
        target: Target,
        deadline: float | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Call[T]:
        """Make a call that begins now.

        Args:
            operation: The operation.
            target: The session that it is about.
            deadline: Seconds for the whole call; None: the default of its effect.
            query: Further parameters of its URL.

        Raises:
            ConfigurationError: The deadline is wrong, or there is no event loop.
        """
        effect = operation.effect
        seconds = (
            effect.deadline(self._timeouts)
            if deadline is None
            else _validate.number("deadline", deadline)
        )
        loop = self.bind()
        began = self._clock.now()
        return Call(
            operation=operation,
            effect=effect,
            target=target,
            url=operation.url(self._base, target.session_id, query),
            began=began,
            deadline=began + seconds,
            answer=loop.create_future(),
            head=self._keys.head(operation),
        )
