"""The records of a fleet's sessions, by state."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Protocol, TypeVar

from ._states import KEYED, NEXT, State


class Recorded(Protocol):
    """What the records need of a session."""

    key: Hashable
    state: State

    @property
    def session_id(self) -> str | None:
        """Its id, from the state ``LIVE`` on."""
        ...


R = TypeVar("R", bound=Recorded)


class Records(Mapping[Hashable, R]):
    """All sessions of a fleet that have not ended; as a mapping, the live ones by key."""

    def __init__(self) -> None:
        self._by_state: dict[State, dict[R, None]] = {state: {} for state in State}
        self._holders: dict[Hashable, R] = {}
        self._by_id: dict[str | None, R] = {}
        self._live_holders = 0

    def add(self, record: R, *, holds_key: bool) -> None:
        """Add a new session, in the state of waiting."""
        self._by_state[record.state][record] = None
        if holds_key:
            self._holders[record.key] = record

    def move(self, record: R, to: State) -> None:
        """Move a session to another state.

        Raises:
            RuntimeError: The transition is not allowed.
        """
        if to not in NEXT[record.state]:
            raise RuntimeError(f"a session that is {record.state.value} cannot be {to.value}")
        was_live = _is_live(record)
        del self._by_state[record.state][record]
        record.state = to
        if to is not State.ENDED:
            self._by_state[to][record] = None
        elif was_live and self._by_id.get(record.session_id) is record:
            del self._by_id[record.session_id]
        if to is State.LIVE and not was_live:
            self._by_id[record.session_id] = record
        if self.holder(record.key) is record:
            self._live_holders += _is_live(record) - was_live
            if to not in KEYED:
                del self._holders[record.key]

    def hand_key(self, old: R, new: R) -> None:
        """Pass the key of one live session to another."""
        if self.holder(old.key) is not old or not (_is_live(old) and _is_live(new)):
            raise RuntimeError("only a live session can pass its key on, and only to a live one")
        self._holders[old.key] = new

    def holder(self, key: Hashable) -> R | None:
        """The session that has a key, live or not."""
        return self._holders.get(key)

    def by_id(self, session_id: str) -> R | None:
        """The live session with an id, also if another one has its key."""
        return self._by_id.get(session_id)

    def count(self, *states: State) -> int:
        """The number of sessions in some states."""
        return sum(len(self._by_state[state]) for state in states)

    def every(self, *states: State) -> list[R]:
        """The sessions in some states, in the order of the states."""
        return [record for state in states for record in self._by_state[state]]

    def __getitem__(self, key: Hashable) -> R:
        record = self._holders[key]
        if not _is_live(record):
            raise KeyError(key)
        return record

    def __iter__(self) -> Iterator[Hashable]:
        return (key for key, record in self._holders.items() if _is_live(record))

    def __len__(self) -> int:
        return self._live_holders


def _is_live(record: Recorded) -> bool:
    return record.state is State.LIVE or record.state is State.STOPPING
