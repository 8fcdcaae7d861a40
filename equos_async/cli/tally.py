"""The counts of the demo: shown live, and as a table at its end."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final

from attrs import define, field

from equos_async.events import Event, Unresolved

Show = Callable[[], object]

UNITS: Final = (" ms", " s")
"""The words of the table that are units of the numbers before them."""


@define
class Tally:
    """The counts so far."""

    total: int
    settles: bool
    started: int = 0
    stopped: int = 0
    retried: int = 0
    unknown: int = 0
    failed: int = 0
    again: int = 0
    found: set[str | None] = field(factory=set[str | None])
    latencies: list[float] = field(factory=list[float])
    unresolved: tuple[Unresolved, ...] = ()

    def count(self, event: Event) -> None:
        """The client's ``on_event``."""
        self.retried += event.kind == "retry"
        if event.kind == "settled":
            self.found.add(event.name)

    def begin(self, name: str, seconds: float) -> None:
        """A session was started."""
        self.started += 1
        self.again += name in self.found
        self.latencies.append(seconds)

    @property
    def over(self) -> int:
        """The number of sessions that have ended, in whatever way."""
        return self.stopped + self.unknown + self.failed

    def __str__(self) -> str:
        again = f"  made again {self.again}" if self.settles else ""
        return (
            f"{self.over}/{self.total}  started {self.started}  "
            f"live {self.started - self.stopped}  retried {self.retried}{again}  "
            f"unknown {self.unknown}  failed {self.failed}"
        )


@contextmanager
def display(tally: Tally) -> Generator[Show, None, None]:
    """A bar and a live line with rich on a terminal; else a plain line a second."""
    if not sys.stdout.isatty() or find_spec("rich") is None:
        yield _plain_lines(tally)
        return
    from rich.console import Group  # noqa: PLC0415 - an extra
    from rich.live import Live  # noqa: PLC0415
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    def drawn() -> Group:
        bar = ProgressBar(total=tally.total, completed=tally.over)
        return Group(Text(str(tally), no_wrap=True, overflow="ellipsis"), bar)

    with Live(get_renderable=drawn) as live:
        yield live.refresh


def _plain_lines(tally: Tally) -> Show:
    due = time.monotonic()

    def show() -> None:
        nonlocal due
        if time.monotonic() >= due:
            due += 1.0
            print(tally, flush=True)

    return show


def table(
    tally: Tally, left: dict[str, Any], *, note: str = ""
) -> Iterator[tuple[str, float, str]]:
    """The rows of the table: a name, a number, and the words after it.

    Args:
        tally: The counts.
        left: The server's counts at its end.
        note: The words after the number of sessions that are left on the server.
    """
    spread = (
        statistics.quantiles(tally.latencies, n=100) if len(tally.latencies) > 1 else [0.0] * 99
    )
    yield "sessions started", tally.started, ""
    yield "sessions stopped", tally.stopped, ""
    yield "retries", tally.retried, ""
    if tally.settles:
        yield "lost starts found", len(tally.found), " and ended"
        yield "made again", tally.again, ""
    yield "outcome unknown", tally.unknown, f"{': not found' * tally.settles}, and reported"
    yield "failed", tally.failed, ": nothing exists"
    yield "left on the server", len(left["live"]), note
    yield "start latency p50", spread[49] * 1000, " ms"
    yield "start latency p99", spread[98] * 1000, " ms"
    yield "billed", left["billed_seconds"], " s"
