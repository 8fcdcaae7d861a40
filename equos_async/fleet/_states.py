"""The life of a fleet's session: its states, as one table."""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """The state of a session."""

    WAITING = "waiting"  # for a slot
    STARTING = "starting"  # its start was passed to the client
    LIVE = "live"
    STOPPING = "stopping"
    UNKNOWN = "unknown"  # its session may run, and its id is not known
    ENDED = "ended"


NEXT: Final[dict[State, frozenset[State]]] = {
    State.WAITING: frozenset({State.STARTING, State.ENDED}),
    State.STARTING: frozenset({State.WAITING, State.LIVE, State.UNKNOWN, State.ENDED}),
    State.LIVE: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.LIVE, State.ENDED}),
    State.UNKNOWN: frozenset({State.ENDED}),
    State.ENDED: frozenset(),
}
"""Which states may follow a state."""

KEYED: Final = frozenset({State.WAITING, State.STARTING, State.LIVE, State.STOPPING})
"""The states in which a session may hold its key."""


IN_DOUBT: Final = (State.STARTING, State.LIVE, State.STOPPING, State.UNKNOWN)
"""The states in which a session may be running on the server."""


class Reason(Enum):
    """Why a session is being stopped; its value is what a report says of it."""

    ASKED = ""
    EXPIRED = "its time was over"
    OVER = "the server answered that it had ended"
    IDLE = "it was idle: nobody called touch() in time"
    NEVER_JOINED = "nobody joined it in time"
    REPLACED = "a later start replaced it"
    ELSEWHERE = "another worker stopped it"
    MARKED = "mark_ended() was called for it"
    RENEWED = "its replacement took over"
    LOST = "worker {by} claimed it, because the lease of this worker had expired"
