"""One drain of a fleet: what it still waits for, and what ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from equos_async.clock import Timer, set_unless_done

from ._session import Held, Order
from .values import DrainReport, SessionEnd


class Drain:
    """A drain that is under way.

    Attributes:
        pending: What has not ended, with what to say of it at the deadline.
        ends: What did.
        done: Done when nothing is pending, at the deadline, or when it is given up.
    """

    def __init__(self, call_at: Callable[..., Timer], deadline: float) -> None:
        self.pending: dict[Held | Order, str] = {}
        self.ends: list[SessionEnd] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer: Timer = call_at(deadline, set_unless_done, self.done, None)

    def settle(self, subject: Held | Order, end: SessionEnd | None) -> None:
        """Something is over, or failed for now; None: there was nothing."""
        if self.pending.pop(subject, None) is not None:
            if end is not None:
                self.ends.append(end)
            self.check()

    def replace(self, order: Order, held: Held) -> None:
        """A start that was on its way brought a session after all."""
        if self.pending.pop(order, None) is not None:
            self.pending[held] = "its stop was not answered in time"

    def check(self) -> None:
        """Be done when nothing is pending."""
        if not self.pending:
            set_unless_done(self.done, None)

    def report(self) -> DrainReport:
        """What is known now."""
        ends = self.ends + [
            SessionEnd(
                key=subject.key,
                session_id=subject.started.session.id if isinstance(subject, Held) else None,
                outcome="unresolved",
                reason=reason,
            )
            for subject, reason in self.pending.items()
        ]
        by_outcome: dict[str, list[SessionEnd]] = {}
        for end in ends:
            by_outcome.setdefault(end.outcome, []).append(end)
        return DrainReport(**{outcome: tuple(found) for outcome, found in by_outcome.items()})
