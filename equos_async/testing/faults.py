"""What a server can do wrong, as data: values that are added to an operation's queue."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from attrs import Factory, define, field, frozen

Operation = Literal["start", "stop"]


@frozen
class Status:
    """Answer with a status, and do nothing else.

    Attributes:
        status: The HTTP status.
        message: The words of a NestJS error body.
        retry_after: The Retry-After header: seconds, or any text.
        headers: More headers.
        body: A body of your own instead of the error body.
    """

    status: int
    message: str = "fault"
    retry_after: float | str | None = None
    headers: Mapping[str, str] = Factory(dict[str, str])
    body: bytes | None = None


@frozen
class Delay:
    """Wait before going on: with the next fault of the same addition, or with the answer."""

    seconds: float


@frozen
class Hang:
    """Act, and never answer."""


@frozen
class Drop:
    """Close the connection without an answer, before or after acting."""

    when: Literal["before", "after"] = "before"


@frozen
class Reset:
    """As :class:`Drop`, with a TCP reset."""

    when: Literal["before", "after"] = "before"


@frozen
class Truncate:
    """Act, send the answer's head and the first bytes of its body, and close."""

    keep: int = 20


@frozen
class Garbage:
    """Act, and answer with bytes that are not HTTP."""

    data: bytes = b"\x00\xff not http\r\n\r\n"


@frozen
class Redirect:
    """Redirect, and do nothing else."""

    location: str
    status: int = 307


Fault = Status | Delay | Hang | Drop | Reset | Truncate | Garbage | Redirect


@define
class _Entry:
    faults: tuple[Fault, ...]
    left: int | None
    share: float
    when: Callable[[object], bool] | None


@define
class FaultQueue:
    """The faults of one operation; the first entry that fits a request is used up by it."""

    rng: random.Random
    entries: list[_Entry] = field(factory=list[_Entry], init=False)

    def add(
        self,
        *faults: Fault,
        times: int | None = 1,
        share: float = 1.0,
        when: Callable[[object], bool] | None = None,
    ) -> None:
        """Add a fault, or several that happen one after the other to one request.

        Args:
            faults: What happens.
            times: To how many requests; None: to all that fit, until :meth:`clear`.
            share: The share of requests, drawn with the emulator's seed, that it happens to.
            when: Says of a request (an ``EmulatorRequest``) whether it fits.
        """
        self.entries.append(_Entry(faults, times, share, when))

    def clear(self) -> None:
        """From now on everything works."""
        self.entries.clear()

    def take(self, request: object) -> tuple[Fault, ...]:
        """What happens to a request."""
        for entry in self.entries:
            if entry.when is not None and not entry.when(request):
                continue
            if entry.share < 1.0 and self.rng.random() >= entry.share:
                continue
            if entry.left is not None:
                entry.left -= 1
                if entry.left == 0:
                    self.entries.remove(entry)
            return entry.faults
        return ()


class Faults:
    """The queues of both operations: ``faults.start.add(Status(429, retry_after=2), times=3)``."""

    def __init__(self, seed: int = 0) -> None:
        rng = random.Random(seed)  # noqa: S311 - a share of requests, not cryptography
        self.start = FaultQueue(rng)
        self.stop = FaultQueue(rng)

    def __iter__(self) -> Iterator[FaultQueue]:
        return iter((self.start, self.stop))

    def add(
        self,
        *faults: Fault,
        times: int | None = 1,
        share: float = 1.0,
        when: Callable[[object], bool] | None = None,
    ) -> None:
        """Add to both operations; see :meth:`FaultQueue.add`."""
        for queue in self:
            queue.add(*faults, times=times, share=share, when=when)

    def clear(self) -> None:
        """From now on everything works."""
        for queue in self:
            queue.clear()

    def of(self, operation: Operation) -> FaultQueue:
        """The queue of one operation."""
        return self.start if operation == "start" else self.stop

    def named(self, name: str) -> tuple[FaultQueue, ...]:
        """The queues that ``start``, ``stop`` or ``both`` stands for."""
        return {"start": (self.start,), "stop": (self.stop,)}.get(name, (self.start, self.stop))
