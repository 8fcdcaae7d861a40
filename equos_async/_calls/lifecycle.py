"""The states of a client, from open to closed."""

from __future__ import annotations

from enum import Enum

from equos_async._api.effects import Alone, Effect
from equos_async.errors import ClientClosedError, OperationName

from .call import moved


class State(Enum):
    """The state of a client."""

    OPEN = "open"
    CLOSING = "closing"  # starts are refused; calls in progress are settled
    GIVING_UP = "giving up"  # the time for closing is over
    CLOSED = "closed"


class Lifecycle:
    """The current state of one client; it never goes back."""

    def __init__(self) -> None:
        self.state: State = State.OPEN

    @property
    def gave_up(self) -> bool:
        """Whether the client sends no more requests."""
        return self.state in {State.GIVING_UP, State.CLOSED}

    def check(self, effect: Effect, session_id: str | None = None) -> None:
        """Check that a call may begin.

        Raises:
            ClientClosedError: The client is closed, or closing and refuses such calls.
        """
        closing = self.state is State.CLOSING and effect.alone is Alone.GOES_ON
        if self.state is not State.OPEN and not closing:
            raise closed_error(effect.name, session_id)

    def move(self, old: State, new: State) -> None:
        """Move to another state from the one that it must have."""
        self.state = moved(self.state, old, new)


def closed_error(
    operation: OperationName | None = None, session_id: str | None = None
) -> ClientClosedError:
    """The error for a call after the client was closed."""
    return ClientClosedError("the client is closed", operation=operation, session_id=session_id)
