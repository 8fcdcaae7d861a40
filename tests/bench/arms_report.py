"""The results of the benchmark, as Markdown tables and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from html import escape
from typing import Final, TypeAlias

from attrs import frozen

Rounds: TypeAlias = Mapping[str, list[dict[str, float]]]
"""For each arm, its figures in each round."""

LABELS: Final = {
    "ours": "equos-async",
    "injected": "equos-async, your session",
    "slow way": "equos-async, your session with a trace",
    "raw": "raw aiohttp",
    "traced": "raw aiohttp with a trace",
    "aiohttp-retry": "aiohttp-retry",
    "pyreqwest": "pyreqwest",
    "httpx": "httpx",
    "vendor-sdk": "vendor's SDK",
    "streams": "asyncio streams",
    "floor": "its parser, requests and models alone",
}


@frozen
class Spread:
    """A median and the range around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 1 if self.median >= 10 else 2
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    """The median and range of some values."""
    found = sorted(values)
    return Spread(statistics.median(found), found[0], found[-1])


def ratios(rounds: Rounds, arm: str, base: str = "raw", figure: str = "cpu_us") -> Spread:
    """An arm's figure over another's of the same round."""
    pairs = zip(rounds[arm], rounds[base], strict=True)
    return spread(mine[figure] / other[figure] for mine, other in pairs)


def markdown(
    settings: Mapping[str, Rounds], imports: Mapping[str, list[dict[str, float]]], about: str
) -> str:
    """All tables, with the conditions above them."""
    blocks = [f"# Benchmark\n\n{about}\n"]
    blocks += [_table(title, rounds) for title, rounds in settings.items()]
    blocks += [_import_table(release, found) for release, found in imports.items()]
    return "\n".join(blocks)


def summary(settings: Mapping[str, Rounds]) -> str:
    """The README's table: only the ratios, with a column for each setting."""
    first = next(iter(settings.values()))
    order = sorted(_SHORT & first.keys(), key=lambda arm: ratios(first, arm).median)
    lines = [f"| CPU of a pair, × raw aiohttp | {' | '.join(settings)} |"]
    lines.append("|---|" + "---|" * len(settings))
    for arm in order:
        cells = " | ".join(str(ratios(rounds, arm)) for rounds in settings.values())
        lines.append(f"| {LABELS[arm]} | {cells} |")
    return "\n".join(lines) + "\n"


_SHORT: Final = frozenset({"ours", "injected", "pyreqwest", "raw", "vendor-sdk"})
"""The arms in the README; all are in the other tables."""


def _table(title: str, rounds: Rounds) -> str:
    lines = [
        f"## {title}\n",
        "| | CPU, × raw aiohttp | CPU a pair, µs | pairs/s | p50, ms | p99, ms | peak, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, figures in rounds.items():
        middle = {key: statistics.median(one[key] for one in figures) for key in figures[0]}
        lines.append(
            f"| {LABELS[arm]} | {ratios(rounds, arm)} | {middle['cpu_us']:,.0f} "
            f"| {middle['pairs_per_s']:,.0f} | {middle['p50_ms']:.2f} | {middle['p99_ms']:.2f} "
            f"| {middle['peak_mib']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _import_table(release: str, imports: list[dict[str, float]]) -> str:
    lines = [f"## Import, {release}\n", "| | CPU, ms | × `import aiohttp` |", "|---|---|---|"]
    for statement in imports[0]:
        middle = statistics.median(one[statement] for one in imports)
        ratio = spread(one[statement] / one["import aiohttp"] for one in imports)
        lines.append(f"| `{statement}` | {middle:.0f} | {ratio} |")
    return "\n".join(lines) + "\n"


# The picture: horizontal bars, each from zero; a bar too long for the scale is cut, and says so.

_WIDTH: Final = 760
_LEFT: Final = 190
_SCALE: Final = 320.0  # pixels for a ratio of 1
_LONGEST: Final = 1.4
_ROW: Final = 34
_TOP: Final = 64
_LEGEND: Final = "1 = raw aiohttp; the lines show the range of the rounds"
_STYLE: Final = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.note { font-size: 12px; fill: #59636e }
.bar { fill: #8c959f }
.ours { fill: #0969da }
.one { stroke: #59636e; stroke-dasharray: 3 3 }
.range { stroke: #1f2328; stroke-width: 1.5; fill: none }
.cut { stroke: #ffffff; stroke-width: 3; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .note { fill: #9198a1 }
  .bar { fill: #656c76 }
  .ours { fill: #4493f8 }
  .one { stroke: #9198a1 }
  .range { stroke: #f0f6fc }
  .cut { stroke: #0d1117 }
}
"""


def picture(title: str, rounds: Rounds, note: str) -> str:
    """Bars by arm, the ratio to raw, as one SVG."""
    order = sorted(rounds, key=lambda arm: ratios(rounds, arm).median)
    height = _TOP + _ROW * len(order) + 34
    one = _LEFT + _SCALE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
        f'<text class="note" x="12" y="44">{escape(note)}</text>',
        *(_bar(arm, ratios(rounds, arm), _TOP + _ROW * row) for row, arm in enumerate(order)),
        f'<path class="one" d="M{one} {_TOP - 6}V{height - 28}"/>',
        f'<text class="note" x="{one}" y="{height - 12}" text-anchor="middle">{_LEGEND}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bar(arm: str, ratio: Spread, top: float) -> str:
    length = min(ratio.median, _LONGEST) * _SCALE
    end = _LEFT + length
    middle = top + 11
    kind = "bar ours" if arm == "ours" else "bar"
    if ratio.median > _LONGEST:
        mark = f'<path class="cut" d="M{end - 34} {top - 2}l-8 13l8 0l-8 13"/>'
        label = end + 10
    else:
        low, high = (_LEFT + min(one, _LONGEST) * _SCALE for one in (ratio.low, ratio.high))
        mark = f'<path class="range" d="M{low:.1f} {middle}H{high:.1f}"/>'
        label = max(end, high) + 10
    return (
        f'<text x="{_LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(LABELS[arm])}</text>'
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{length:.1f}" height="22" rx="3"/>'
        f'{mark}<text x="{label:.1f}" y="{middle + 4}">{ratio.median:.2f} ×</text>'
    )
