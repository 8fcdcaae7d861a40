"""Prints and draws what retry policies do to a server that breaks: ``nox -s simulate``.

The model, with all its assumptions, is :mod:`tests.bench.outage`. The exit code is 1 where this
library's own policies exceed the bounds that it promises.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen

from tests.bench.outage import (
    CALM,
    OUTAGE_END,
    POLICIES,
    START,
    STOP,
    TICKS,
    Kind,
    Policy,
    Run,
    run,
)

MAX_START_AMPLIFICATION = 1.3
MAX_STOP_AMPLIFICATION = 2.2
MAX_STOP_SECONDS = 35.0
MAX_START_P99 = 1.0
MAX_PEAK = 2.0

COLORS = {
    "vendor's browser SDK (1 retry)": "#8c8c8c",
    "naive, 3 retries": "#c2703d",
    "openai/anthropic, 2 retries": "#9467bd",
    "full jitter, 3 retries": "#bc9b1a",
    "full jitter + AWS quota": "#3b8fb8",
    "equos_async start": "#1a9850",
    "equos_async stop": "#d62860",
}


def simulate(callers: int, seed: int, policies: Iterable[Policy] = POLICIES) -> list[Run]:
    """Every policy through every kind of outage."""
    return [run(policy, kind, callers=callers, seed=seed) for kind in Kind for policy in policies]


def broken_bounds(runs: Iterable[Run]) -> list[str]:
    """Where the library's own policies exceed what it promises, in words."""
    found: list[str] = []
    for one in runs:
        limits: dict[str, tuple[float, float]] = {}
        if one.policy is START:
            limits["amplification"] = (one.amplification, MAX_START_AMPLIFICATION)
            if one.kind is Kind.ANNOUNCED:
                # Those who were told to come back are let out slowly: new calls queue behind.
                limits["peak, as a multiple of the capacity"] = (one.peak, MAX_PEAK)
            else:
                limits["p99 of new calls, s"] = (one.p99, MAX_START_P99)
        elif one.policy is STOP:
            limits["amplification"] = (one.amplification, MAX_STOP_AMPLIFICATION)
            limits["share of calls not done"] = (1 - one.done, 0.0)
            limits["seconds until the last was done"] = (one.last_done, MAX_STOP_SECONDS)
        found += [
            f"{one.policy.name}, {one.kind.value}: {what} is {value:.2f}, above {limit:g}"
            for what, (value, limit) in limits.items()
            if value > limit
        ]
    return found


def table(runs: Sequence[Run]) -> str:
    """A Markdown table a kind of outage."""
    lines: list[str] = []
    for kind in Kind:
        lines += [
            f"**{kind.value}**",
            "",
            (
                "| policy | attempts per call | done in the end | last call over | recovered "
                "| p99 of new calls | peak / capacity |"
            ),
            "|---|---|---|---|---|---|---|",
            *(_row(one) for one in runs if one.kind is kind),
            "",
        ]
    return "\n".join(lines)


def _row(one: Run) -> str:
    p99 = "some fail" if math.isinf(one.p99) else f"{one.p99:.2f} s"
    return (
        f"| {one.policy.name} | {one.amplification:.2f} | {one.done:.0%} | +{one.last_done:.0f} s "
        f"| +{one.recovery:.0f} s | {p99} | {one.peak:.2f} |"
    )


@frozen
class Axes:
    """Where seconds and requests are on the picture."""

    width: float
    height: float
    seconds: float
    top: float

    def x(self, second: float) -> float:
        """From seconds."""
        return 60 + second / self.seconds * (self.width - 80)

    def y(self, requests: float) -> float:
        """From requests a second."""
        return self.height - 50 - min(requests, self.top) / self.top * (self.height - 90)


def picture(runs: Sequence[Run], kind: Kind = Kind.REFUSE) -> str:
    """An SVG: requests a second over time, one line a policy; readable on light and dark."""
    shown = [one for one in runs if one.kind is kind]
    capacity = shown[0].capacity
    lines = {one.policy.name: _per_second(one.requests) for one in shown}
    seconds = len(next(iter(lines.values())))
    top = 50.0 * math.ceil(max(max(line) for line in lines.values()) / 50)
    axes = Axes(860, 420, seconds, top)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {420 + 26 * 4}" '
            'font-family="system-ui, sans-serif" font-size="13">'
        ),
        (
            "<style>text{fill:#24292f}.g{stroke:#8c959f;stroke-opacity:.35}"
            "@media(prefers-color-scheme:dark){text{fill:#d0d7de}}</style>"
        ),
        (
            f'<rect x="{axes.x(CALM):.0f}" y="40" width="{axes.x(OUTAGE_END) - axes.x(CALM):.0f}" '
            f'height="{axes.height - 90:.0f}" fill="#d1242f" fill-opacity=".10"/>'
        ),
        (
            f'<text x="{axes.x((CALM + OUTAGE_END) / 2):.0f}" y="58" text-anchor="middle">'
            f"outage: {kind.value}</text>"
        ),
        '<text x="60" y="22" font-weight="600">Requests a second, by retry policy</text>',
        *_grid(axes, capacity),
        *(_line(axes, name, line) for name, line in lines.items()),
        *_legend(lines, axes.height),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _per_second(requests: Sequence[int]) -> list[float]:
    return [
        float(sum(requests[at : at + TICKS])) for at in range(0, len(requests) - TICKS + 1, TICKS)
    ]


def _grid(axes: Axes, capacity: float) -> Iterable[str]:
    for share in range(6):
        requests = axes.top * share / 5
        y = axes.y(requests)
        yield f'<line class="g" x1="60" x2="{axes.width - 20:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="52" y="{y + 4:.1f}" text-anchor="end">{requests:.0f}</text>'
    for second in range(0, int(axes.seconds) + 1, 10):
        yield (
            f'<text x="{axes.x(second):.0f}" y="{axes.height - 30:.0f}" '
            f'text-anchor="middle">{second} s</text>'
        )
    y = axes.y(capacity)
    yield (
        f'<line x1="60" x2="{axes.width - 20:.0f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8c959f" '
        f'stroke-dasharray="6 4"/><text x="{axes.width - 22:.0f}" y="{y - 6:.1f}" '
        'text-anchor="end">capacity</text>'
    )


def _line(axes: Axes, name: str, line: Sequence[float]) -> str:
    points = " ".join(
        f"{axes.x(at + 0.5):.1f},{axes.y(value):.1f}" for at, value in enumerate(line)
    )
    width = 3 if name.startswith("equos_async") else 1.5
    return (
        f'<polyline points="{points}" fill="none" stroke="{COLORS[name]}" '
        f'stroke-width="{width}" stroke-linejoin="round"/>'
    )


def _legend(names: Iterable[str], top: float) -> Iterable[str]:
    for number, name in enumerate(names):
        x, y = 60 + 400 * (number % 2), top + 12 + 24 * (number // 2)
        weight = ' font-weight="600"' if name.startswith("equos_async") else ""
        yield f'<rect x="{x}" y="{y - 9}" width="22" height="5" rx="2" fill="{COLORS[name]}"/>'
        yield f'<text x="{x + 30}" y="{y}"{weight}>{name}</text>'


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, draw, and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.simulate", description=__doc__)
    parser.add_argument("--callers", type=int, default=1000, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--out", type=Path, help="folder for the picture, outage.svg")
    args = parser.parse_args(argv)
    runs = simulate(args.callers, args.seed)
    print(f"{args.callers} callers, capacity {runs[0].capacity:g} requests a second\n")
    print(table(runs))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "outage.svg").write_text(picture(runs), encoding="utf-8")
    broken = broken_bounds(runs)
    for words in broken:
        print(f"BOUND EXCEEDED: {words}")
    print("all bounds hold" if not broken else "")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
