"""One row of a ledger as its worker sees it: what it is to be, and what it is known to be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from enum import Enum
from typing import Any, Final

from attrs import define

from equos_async import _validate
from equos_async.errors import ConfigurationError, EquosError
from equos_async.ledger.protocol import LedgerRow

_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,99}", re.ASCII)
"""How a whole number is written; no engine is asked to carry more digits."""


class Desired(Enum):
    """What is to be written."""

    PLACE = "a place, which a start waits for"
    INTENT = "that a start is under way, or how it ended is unknown"
    SESSION = "a session by its id"
    ABSENT = "nothing"


class Confirmed(Enum):
    """What the engine is known to hold."""

    NOTHING = "nothing"
    QUEUED = "a turn in the line"
    INTENT = "that a start is under way"
    SESSION = "the session that was written last"
    CLAIMED = "a row that has become another worker's"
    UNSURE = "any of these: an answer was lost, or did not come yet"


class Step(Enum):
    """What a worker does next about a row."""

    REST = "nothing"
    PLACE = "ask for the place"
    RECORD = "write what is known"
    REMOVE = "remove it"
    FORGET = "let go of it here"


_AGREED: Final = {
    Desired.PLACE: {Confirmed.QUEUED, Confirmed.INTENT, Confirmed.SESSION, Confirmed.CLAIMED},
    Desired.INTENT: {Confirmed.INTENT, Confirmed.SESSION, Confirmed.CLAIMED},
    # What another worker has claimed is never written again: it ends there, and here.
    Desired.SESSION: {Confirmed.SESSION, Confirmed.CLAIMED},
    Desired.ABSENT: {Confirmed.NOTHING},
}
_TOWARDS: Final = {
    Desired.PLACE: Step.PLACE,
    # Not placed: it had its place before the engine lost it, and its session may be running.
    Desired.INTENT: Step.RECORD,
    Desired.SESSION: Step.RECORD,
    Desired.ABSENT: Step.REMOVE,
}


def step(desired: Desired, confirmed: Confirmed) -> Step:
    """What is to be done so that a row becomes what it is to be."""
    if confirmed not in _AGREED[desired]:
        return _TOWARDS[desired]
    return Step.FORGET if desired is Desired.ABSENT else Step.REST


@define(eq=False)
class Wish:
    """What a start that has no place yet wants.

    Attributes:
        seconds: After which its session is over, whenever in its time it is started.
        wait: Whether it waits for a place.
        renews: Whether it comes before newcomers.
        waits: Called when it has to wait.
        turn: Done when it has its place, or cannot have one.
    """

    seconds: float
    wait: bool
    renews: bool
    waits: Callable[[], None]
    turn: asyncio.Future[None]


@define(eq=False)
class Entry:
    """What the ledger holds, or should hold, of one session.

    Attributes:
        row: As it is to be written.
        claimed: Called with the worker that claimed it, or with ``NOBODY`` where another one
            has ended it, or called its start off.
        group: Whose limit holds for it, where there is one.
        until: When the session is over at the latest, on the clock.
        wish: While its start has no place.
        writer: Whoever is at it now; one at a time, so that no old news comes after new.
        is_called: Whether something may have happened to it since the engine was asked.
        removed: Once it is, as ``KeyedLedger.remove``.
        markers: Those of its start's attempts, where the row has what they begin with.
    """

    row: LedgerRow
    claimed: Callable[[str], None]
    group: str | None = None
    desired: Desired = Desired.PLACE
    confirmed: Confirmed = Confirmed.NOTHING
    until: float = 0.0
    wish: Wish | None = None
    writer: asyncio.Task[Any] | None = None
    is_called: bool = False
    removed: bool | None = None
    markers: Iterator[str] | None = None

    @property
    def step(self) -> Step:
        """What is to be done about it."""
        return step(self.desired, self.confirmed)

    def call(self) -> None:
        """Its turn may have come, or another worker has ended it: it is to ask."""
        self.is_called = True
        if self.confirmed in {Confirmed.QUEUED, Confirmed.INTENT, Confirmed.SESSION}:
            self.confirmed = Confirmed.UNSURE

    def compare(self, held: Mapping[str, str | None]) -> None:
        """Know what the ledger holds of it."""
        if self.desired is Desired.PLACE or self.confirmed is Confirmed.CLAIMED:
            return  # in the line, or another worker's
        if self.row.id not in held:
            self.confirmed = Confirmed.NOTHING
        elif held[self.row.id] is None:
            self.confirmed = Confirmed.INTENT
        else:
            same = held[self.row.id] == self.row.session_id
            self.confirmed = Confirmed.SESSION if same else Confirmed.UNSURE


def _claimed_by_nobody(_: str) -> None:
    """For the entry that stands for none."""


NO_ENTRY: Final = Entry(
    LedgerRow(id="", key="", name="", owner="", endpoint=""), claimed=_claimed_by_nobody
)
"""What stands in a session's record where nothing is to be written."""


def called_off() -> EquosError:
    """For a start whose key was stopped on another worker."""
    told = "stop() on another worker came before the session was started"
    return EquosError(told, operation="start")


def text_of(key: Hashable) -> str:
    """A key as a row holds it.

    Whole numbers are written as they always were. A string that could be taken for one stands in
    quotation marks, so that 1 and "1" are two keys, and come back as what they were.

    Raises:
        ConfigurationError: Other machines could not read the key as the same.
    """
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise ConfigurationError(
            f"key must be a string or an integer with a ledger, not {type(key).__name__}"
        )
    if isinstance(key, int):
        if abs(key) >= 10**100:
            raise ConfigurationError("key must have at most 100 digits with a ledger")
        return str(int(key))
    text = str.__str__(_validate.text("key", key, empty=True))
    return f'"{text}"' if _WHOLE.fullmatch(text) or text.startswith('"') else text


def key_of(text: str) -> str | int:
    """The key that a row's text stands for."""
    if _WHOLE.fullmatch(text):
        return int(text)
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if is_quoted else text
