"""Access to a client for other modules of this package, beyond the public names."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from operator import attrgetter
from typing import Any, Final, TypeVar

from ._api.operations import CONVERSATION, SESSION, Resource
from ._calls.starts import Starts
from ._calls.tasks import CallTasks
from .client import EquosClient
from .clock import Clock
from .settings import RetryPolicy

T = TypeVar("T")


def clock_of(client: EquosClient) -> Clock:
    """The clock of a client."""
    return client._clock  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def check_loop(client: EquosClient) -> None:
    """Check that this is the event loop of a client, if it has one that is not closed.

    Raises:
        ConfigurationError: Another loop runs here, in another thread perhaps, or none.
    """
    _tasks_of(client).factory.check()


def is_inherited(client: EquosClient) -> bool:
    """Whether a client was in use before a fork, so that its sessions are the parent's."""
    return _tasks_of(client).factory.is_inherited


def policy_of(client: EquosClient) -> RetryPolicy:
    """The retry policy of a client."""
    return _tasks_of(client).policy


def pause_of(client: EquosClient) -> float:
    """Seconds for which the server asked a client for a pause of starts; 0: no pause."""
    return _tasks_of(client).throttle.starts.pause_left(clock_of(client).now())


def stops_of(client: EquosClient) -> int:
    """The number of stops that a client sends at once."""
    return _tasks_of(client).throttle.stops.limit


def begin(
    client: EquosClient,
    resource: Resource[Any, T, Any],
    request: object,
    *,
    deadline: float | None = None,
) -> Coroutine[Any, Any, T]:
    """Start a session or conversation, as :meth:`EquosClient.start_session`."""
    return _BEGIN[resource.word](client)(request, deadline=deadline)


def end(
    client: EquosClient,
    resource: Resource[Any, Any, T],
    session_id: str,
    *,
    deadline: float | None = None,
) -> Coroutine[Any, Any, T | None]:
    """Stop a session or conversation, as :meth:`EquosClient.stop_session`."""
    return _END[resource.word](client)(session_id, deadline=deadline)


async def read(
    client: EquosClient,
    resource: Resource[Any, Any, T],
    session_id: str,
    *,
    deadline: float | None = None,
) -> T | None:
    """Read a session or conversation, as :meth:`EquosClient.get_session`."""
    return await _tasks_of(client).run(resource.get, session_id, deadline=deadline)


def starts_of(client: EquosClient) -> Starts:
    """The part of a client that searches for lost starts, its own and those of others."""
    return _tasks_of(client).starts


def settles(client: EquosClient) -> bool:
    """Whether a client searches for starts whose answers were lost."""
    return starts_of(client).settling.is_on


def look_at_once(client: EquosClient) -> None:
    """Look once without waiting for starts whose answers were lost."""
    starts_of(client).settling.hurry()


# The public methods: if a user's subclass overrides them, a fleet calls those, too.
_BEGIN: Final[Mapping[str, Callable[[EquosClient], Callable[..., Coroutine[Any, Any, Any]]]]] = {
    SESSION.word: attrgetter("start_session"),
    CONVERSATION.word: attrgetter("start_conversation"),
}
_END: Final[Mapping[str, Callable[[EquosClient], Callable[..., Coroutine[Any, Any, Any]]]]] = {
    SESSION.word: attrgetter("stop_session"),
    CONVERSATION.word: attrgetter("stop_conversation"),
}


def _tasks_of(client: EquosClient) -> CallTasks:
    return client._tasks  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
