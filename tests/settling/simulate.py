"""Prints what settling does with servers that make it hard: ``python -m tests.settling.simulate``.

The model, with all its assumptions, is :mod:`tests.settling.model`. The exit code is 1 where the
library's rules leave a stray or end what somebody holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from statistics import median

from attrs import frozen

from tests.settling.model import Counts, Rules, run
from tests.settling.server import KINDS, Kind

ALL = Rules()
VARIANTS = {
    "all rules": ALL,
    "without confirmed ends": Rules(confirmed=False),
    "without one state": Rules(one_state=False),
    "without both": Rules(confirmed=False, one_state=False),
}


@frozen
class Row:
    """All runs of one kind of server under some rules."""

    kind: Kind
    rules: str
    runs: tuple[Counts, ...]

    @property
    def with_held_ended(self) -> int:
        """Runs in which a session was ended that a caller held."""
        return sum(one.held_ended > 0 for one in self.runs)

    @property
    def with_strays(self) -> int:
        """Runs in which a session was left that could have been found."""
        return sum(one.strays > 0 for one in self.runs)


def simulate(seeds: Iterable[int], kinds: Iterable[Kind] = KINDS) -> list[Row]:
    """Every kind of server under every choice of rules."""
    seeds = tuple(seeds)
    return [
        Row(kind, name, tuple(run(kind, seed, rules) for seed in seeds))
        for kind in kinds
        for name, rules in VARIANTS.items()
    ]


def table(rows: Iterable[Row]) -> str:
    """A Markdown table."""
    head = (
        "| server | rules | runs | held ended in | strays in | lost | sessions | unknown "
        "| again | p50 s | pages |"
    )
    lines = [
        head,
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        waits = [wait for one in row.runs for wait in one.waits]
        lines.append(
            f"| {row.kind.name} | {row.rules} | {len(row.runs)} | {row.with_held_ended} | "
            f"{row.with_strays} | {sum(one.lost for one in row.runs)} | "
            f"{sum(one.sessions for one in row.runs)} | {sum(one.unknown for one in row.runs)} | "
            f"{sum(one.again for one in row.runs)} | {median(waits) if waits else 0:.1f} | "
            f"{sum(one.pages for one in row.runs)} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    seeds = parser.parse_args(arguments).seeds
    rows = simulate(range(seeds))
    print(table(rows))
    bad = [
        row for row in rows if row.rules == "all rules" and row.with_held_ended + row.with_strays
    ]
    for row in bad:
        print(f"BROKEN: {row.kind.name}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
