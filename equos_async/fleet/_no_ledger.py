"""Stand-ins for a worker and its rows in a fleet without a ledger."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from collections.abc import Set as AbstractSet
from typing import Final

from equos_async.errors import EquosError, FleetFullError
from equos_async.ledger.protocol import Placing

from ._rows import NO_ENTRY, Entry
from .values import AnyRequest


class NoRows:
    """Writes no rows."""

    waiting: Final = 0
    worker: Final = None
    waiting_groups: Final[AbstractSet[str | None]] = frozenset()

    def waiting_of(self, group: str | None) -> int:
        """There is no queue."""
        return 0

    def entry(
        self,
        key: Hashable,
        request: AnyRequest,
        claimed: Callable[[str], None],
        *,
        group: str | None,
    ) -> Entry:
        """As :meth:`RowWriter.entry`; so are the methods below."""
        return NO_ENTRY

    async def place(
        self,
        entry: Entry,
        *,
        seconds: float,
        wait: bool,
        renews: bool,
        waits: Callable[[], None],
        full: Callable[[Placing], FleetFullError],
    ) -> None:
        """There is no limit but the fleet's own."""

    def resize(self, limit: int) -> None:
        """There is no limit but the fleet's own."""

    def turn_away(self, entry: Entry, error: EquosError) -> None:
        """No start waits here."""

    async def record(self, entry: Entry, session_id: str, seconds: float) -> None:
        """There is nothing to write to."""

    async def remove(self, entry: Entry) -> None:
        """Nothing was written."""

    def drop(self, entry: Entry) -> None:
        """Nothing was written."""


class NoWorker:
    """A worker without a ledger."""

    is_reached: None = None
    name: None = None

    def __init__(self) -> None:
        self.rows: Final = NoRows()

    async def take_name(self) -> None:
        """There are no names without a ledger."""

    def enter(self) -> None:
        """There are no rows of other workers."""

    async def stop(self, key: Hashable) -> None:
        """There are no other workers."""

    async def mark_ended(self, session_id: str) -> bool:
        """There are no other workers."""
        return False

    async def leave(self) -> None:
        """There is no lease to give up."""
