"""One row of a ledger at its worker: its desired and its confirmed state."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from enum import Enum
from typing import Any, Final

from attrs import define

from equos_async import _validate
from equos_async.errors import ConfigurationError, EquosError, FleetFullError
from equos_async.ledger.protocol import LedgerRow, Placing

_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,99}", re.ASCII)
"""The form of a whole number, with a limit of digits for all engines."""


class Desired(Enum):
    """The state that the row should have."""

    PLACE = "a slot, for which a start waits"
    INTENT = "a start in progress or of unknown outcome"
    SESSION = "a session with its id"
    ABSENT = "nothing"


class Confirmed(Enum):
    """The state that the engine is known to have."""

    NOTHING = "nothing"
    QUEUED = "a turn in the queue"
    INTENT = "a start in progress"
    SESSION = "the session that was written last"
    CLAIMED = "a row that has become another worker's"
    UNSURE = "any of these: an answer was lost, or has not come yet"


class Step(Enum):
    """What a worker does next with a row."""

    REST = "nothing"
    PLACE = "ask for the slot"
    RECORD = "write what is known"
    REMOVE = "remove it"
    FORGET = "drop it here"


_AGREED: Final = {
    Desired.PLACE: {Confirmed.QUEUED, Confirmed.INTENT, Confirmed.SESSION, Confirmed.CLAIMED},
    Desired.INTENT: {Confirmed.INTENT, Confirmed.SESSION, Confirmed.CLAIMED},
    # A row that another worker has claimed is never written again: both stop the session.
    Desired.SESSION: {Confirmed.SESSION, Confirmed.CLAIMED},
    Desired.ABSENT: {Confirmed.NOTHING},
}
_TOWARDS: Final = {
    Desired.PLACE: Step.PLACE,
    # Recorded, not placed: it had its slot before the engine lost it, and its session may run.
    Desired.INTENT: Step.RECORD,
    Desired.SESSION: Step.RECORD,
    Desired.ABSENT: Step.REMOVE,
}


def step(desired: Desired, confirmed: Confirmed) -> Step:
    """The next step from the confirmed to the desired state."""
    if confirmed not in _AGREED[desired]:
        return _TOWARDS[desired]
    return Step.FORGET if desired is Desired.ABSENT else Step.REST


@define(eq=False)
class Wish:
    """The wishes of a start that has no slot yet.

    Attributes:
        seconds: Seconds after which its session ends at the latest.
        wait: Whether it waits for a slot.
        renews: Whether it comes before new starts.
        waits: Called when it has to wait.
        full: Makes the error if there is no slot and it does not wait.
        turn: Done when it has its slot, or cannot have one.
    """

    seconds: float
    wait: bool
    renews: bool
    waits: Callable[[], None]
    full: Callable[[Placing], FleetFullError]
    turn: asyncio.Future[None]


@define(eq=False)
class Entry:
    """What the ledger has, or should have, of one session.

    Attributes:
        row: The row to write.
        claimed: Called with the worker that claimed it; with ``NOBODY`` if another worker has
        stopped the session or called its start off.
        group: The group whose limit applies, if there is one.
        until: When the session ends at the latest, on the clock.
        wish: The wishes of its start, while that has no slot.
        writer: The task that writes it; one at a time, so that no old state overwrites a new one.
        is_called: Whether it may have changed since the last step of the engine.
        removed: When it is removed, the answer of ``KeyedLedger.remove``.
        markers: The markers of its start's attempts, if the row has their beginning.
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
        """The next step for it."""
        return step(self.desired, self.confirmed)

    @property
    def may_be_refused(self) -> bool:
        """Whether its start waits, and another worker may have its key."""
        is_unsure = self.confirmed is Confirmed.NOTHING or self.confirmed is Confirmed.UNSURE
        return self.desired is Desired.PLACE and is_unsure

    def call(self) -> None:
        """Check it again: its turn may have come, or another worker has stopped it."""
        self.is_called = True
        if self.confirmed in {Confirmed.QUEUED, Confirmed.INTENT, Confirmed.SESSION}:
            self.confirmed = Confirmed.UNSURE

    def compare(self, held: Mapping[str, str | None]) -> None:
        """Take the state that the ledger has of it."""
        if self.desired is Desired.PLACE or self.confirmed is Confirmed.CLAIMED:
            return  # it waits in the queue, or is another worker's
        if self.row.id not in held:
            self.confirmed = Confirmed.NOTHING
        elif held[self.row.id] is None:
            self.confirmed = Confirmed.INTENT
        else:
            same = held[self.row.id] == self.row.session_id
            self.confirmed = Confirmed.SESSION if same else Confirmed.UNSURE


def _claimed_by_nobody(_: str) -> None:
    """Used by the entry that stands for no row."""


NO_ENTRY: Final = Entry(
    LedgerRow(id="", key="", name="", owner="", endpoint=""), claimed=_claimed_by_nobody
)
"""The entry of a session without a row."""


def called_off() -> EquosError:
    """The error for a start whose key was stopped on another worker."""
    told = "stop() on another worker came before the session was started"
    return EquosError(told, operation="start")


def text_of(key: Hashable) -> str:
    """The text of a key in a row.

    Whole numbers are written as digits. A string that looks like one is written in quotation marks,
    so that 1 and "1" are two keys.

    Raises:
        ConfigurationError: Other machines could not read the same key.
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
    """The key from its text in a row."""
    if _WHOLE.fullmatch(text):
        return int(text)
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if is_quoted else text
