"""Plan which faults hit which request."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from attrs import evolve, frozen

from .faults import Fault
from .records import EmulatorRequest, Operation

BOTH: tuple[Operation, ...] = ("start", "stop")
ALL: tuple[Operation, ...] = (*BOTH, "read")


@frozen(eq=False)
class Planned:
    """Faults that wait for requests that match.

    Attributes:
        operations: The operations that they hit.
        faults: The faults that hit one request, in this order.
        left: How many more requests they hit; None: all that match.
        share: The share of the matching requests that they hit.
        when: Whether a request matches.
    """

    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...]
    left: int | None = 1
    share: float = 1.0
    when: Callable[[EmulatorRequest], bool] | None = None

    def __attrs_post_init__(self) -> None:
        if not self.faults:
            raise ValueError("no fault was given")
        if self.left is not None and self.left < 1:
            raise ValueError(f"times must be None or at least 1, not {self.left}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share}")


class FaultQueue:
    """The faults of one operation, or of all; made by :class:`Faults`."""

    def __init__(self, faults: Faults, operations: tuple[Operation, ...]) -> None:
        self._faults = faults
        self._operations = operations

    def add(
        self,
        *faults: Fault,
        times: int | None = 1,
        share: float = 1.0,
        when: Callable[[EmulatorRequest], bool] | None = None,
    ) -> None:
        """Add a fault, or several that hit the same request one after the other.

        Args:
            faults: The faults: ``add(Delay(1), Drop("after"))``.
            times: How many requests to hit; None: all that match, until :meth:`clear`.
            share: The share of the matching requests to hit, chosen with the emulator's seed.
            when: Whether a request matches: ``when=lambda request: request.name == "a"``.

        Raises:
            ValueError: No fault, or an impossible ``times`` or ``share``.
        """
        self._faults.append(Planned(self._operations, faults, times, share, when))

    def clear(self) -> None:
        """Remove all faults that were added here."""
        self._faults.discard(self._operations)


class Faults(FaultQueue):
    """The faults of an emulator: ``faults.start.add(Status(429, retry_after=2), times=3)``.

    A request gets the first added entry that matches it. An entry that is added to ``faults``
    itself matches starts, stops and look-ups, and ``times`` counts them all.

    Args:
        seed: The random seed for ``share``: the same seed and order of requests give the same
            faults.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(self, ALL)
        self.start: FaultQueue = FaultQueue(self, ("start",))
        self.stop: FaultQueue = FaultQueue(self, ("stop",))
        self.read: FaultQueue = FaultQueue(self, ("read",))
        self._random = random.Random(seed)  # noqa: S311 - a share of requests, not cryptography
        self._lock = threading.RLock()
        self._planned: list[Planned] = []

    @property
    def planned(self) -> tuple[Planned, ...]:
        """The entries that are left, in their order."""
        return tuple(self._planned)

    def append(self, planned: Planned) -> None:
        """Add an entry."""
        with self._lock:
            self._planned.append(planned)

    def discard(self, operations: tuple[Operation, ...]) -> None:
        """Remove these operations from all entries; entries without any other operation go."""
        with self._lock:
            rest = [
                evolve(one, operations=tuple(o for o in one.operations if o not in operations))
                for one in self._planned
            ]
            self._planned = [one for one in rest if one.operations]

    def take(self, request: EmulatorRequest) -> tuple[Fault, ...]:
        """The faults that hit a request; counts it against the entry."""
        if not self._planned:
            return ()
        with self._lock:
            for planned in self.planned:
                if self._fits(planned, request):
                    self._use_up(planned)
                    return planned.faults
        return ()

    def _use_up(self, planned: Planned) -> None:
        place = self._planned.index(planned)
        if planned.left == 1:
            del self._planned[place]
        elif planned.left is not None:
            self._planned[place] = evolve(planned, left=planned.left - 1)

    def _fits(self, planned: Planned, request: EmulatorRequest) -> bool:
        return (
            request.operation in planned.operations
            and (planned.when is None or planned.when(request))
            and (planned.share == 1.0 or self._random.random() < planned.share)
        )
