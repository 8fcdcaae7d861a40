"""The plan: which faults happen to which request."""

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
    """Faults that wait for requests that they fit.

    Attributes:
        operations: The operations that they happen to.
        faults: What happens to one request, in this order.
        left: To how many more requests; None: to all that fit.
        share: To which share of those.
        when: Says of a request whether it fits.
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
    """What goes wrong with one operation, or with all; made by :class:`Faults`."""

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
        """Add a fault, or several that happen one after the other to one request.

        Args:
            faults: What happens: ``add(Delay(1), Drop("after"))``.
            times: To how many requests; None: to all that fit, until :meth:`clear`.
            share: To which share of the requests, drawn with the emulator's seed.
            when: Says of a request whether it fits: ``when=lambda request: request.name == "a"``.

        Raises:
            ValueError: No fault, or an impossible ``times`` or ``share``.
        """
        self._faults.append(Planned(self._operations, faults, times, share, when))

    def clear(self) -> None:
        """Forget what has been added here; from now on this works."""
        self._faults.discard(self._operations)


class Faults(FaultQueue):
    """The faults of an emulator: ``faults.start.add(Status(429, retry_after=2), times=3)``.

    They wait in the order in which they were added, and a request gets the first that fits it.
    What is added to ``faults`` itself fits starts, stops and look-ups, and counts them all.

    Args:
        seed: For ``share``: the same seed and the same order of requests, the same faults.
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
        """What is still to come, in its order."""
        return tuple(self._planned)

    def append(self, planned: Planned) -> None:
        """Add a plan that has been made elsewhere."""
        with self._lock:
            self._planned.append(planned)

    def discard(self, operations: tuple[Operation, ...]) -> None:
        """Forget what was planned for these operations; what fits others too, stays so."""
        with self._lock:
            rest = [
                evolve(one, operations=tuple(o for o in one.operations if o not in operations))
                for one in self._planned
            ]
            self._planned = [one for one in rest if one.operations]

    def take(self, request: EmulatorRequest) -> tuple[Fault, ...]:
        """What happens to a request; it is used up by that."""
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
