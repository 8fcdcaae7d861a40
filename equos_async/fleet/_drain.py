"""One drain of a fleet: the sessions that it waits for, and how the others ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from equos_async.clock import Timer, set_unless_done

from ._session import SessionRecord
from .values import REPORTED, DrainReport, SessionEnd

START_LATE: Final = "its start was not answered in time"
STOP_LATE: Final = "its stop was not answered in time"


class Drain:
    """A drain in progress.

    Attributes:
        pending: The sessions that have not ended, with the reasons for the report at the deadline.
        ends: The sessions that have ended.
        done: Done when nothing is pending, at the deadline, or when the drain is given up.
    """

    def __init__(
        self, call_at: Callable[..., Timer], deadline: float, are_told: Callable[[], bool]
    ) -> None:
        self._are_told = are_told
        self.pending: dict[SessionRecord, str] = {}
        self.ends: list[SessionEnd[Any]] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer: Timer = call_at(deadline, set_unless_done, self.done, None)

    def settle(self, subject: SessionRecord, end: SessionEnd | None) -> None:
        """A session has ended, or its stop failed for now; None: there was no session."""
        if self.pending.pop(subject, None) is not None:
            if end is not None:
                self.ends.append(end)
            self.check()

    def arrived(self, record: SessionRecord) -> None:
        """A start in progress was answered with a session."""
        if record in self.pending:
            del self.pending[record]  # moved to the end, behind those that were live before
            self.pending[record] = STOP_LATE

    def check(self) -> None:
        """Finish if nothing is pending and ``on_end`` has returned for all."""
        if not self.pending and self._are_told():
            set_unless_done(self.done, None)

    def report(self) -> DrainReport[Any]:
        """The report as of now."""
        ends = self.ends + [
            subject.ended_as("unresolved", reason) for subject, reason in self.pending.items()
        ]
        by_outcome: dict[str, list[SessionEnd]] = {}
        for end in ends:
            by_outcome.setdefault(REPORTED[end.outcome], []).append(end)
        return DrainReport(**{outcome: tuple(found) for outcome, found in by_outcome.items()})
