"""Show which layers use the CPU of a pair, by samples of the running program."""

from __future__ import annotations

import argparse
import asyncio
import selectors
import signal
import sys
import time
from collections import Counter
from functools import partial
from types import FrameType
from typing import Final

from tests.bench import arms, server

LAYERS: Final = {
    "equos_async/_api/": "JSON and models",
    "equos_async/models": "JSON and models",
    "cattrs": "JSON and models",
    "attrs generated": "JSON and models",
    "json/": "JSON and models",
    "equos_async/_validate": "JSON and models",
    "equos_async/_http/": "HTTP",
    "aiohttp/": "HTTP",
    "multidict/": "HTTP",
    "yarl/": "HTTP",
    "equos_async/_calls/": "calls, retries, limits",
    "equos_async/_retry/": "calls, retries, limits",
    "equos_async/client": "calls, retries, limits",
    "equos_async/clock": "calls, retries, limits",
    "tests/bench": "the benchmark's callers",
}
"""The layer of a file, by a part of its name; all others are the event loop and its sockets."""

LOOP: Final = "event loop and sockets"
INTERVAL: Final = 0.0005
"""Seconds of CPU between samples."""


def layer_of(name: str) -> str:
    """The layer of a file."""
    return next((layer for part, layer in LAYERS.items() if part in name), LOOP)


class Turns(selectors.DefaultSelector):
    """Counts the turns of an event loop."""

    count = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, and count the turn."""
        self.count += 1
        return super().select(timeout)


async def profile(arm: str, url: str, callers: int, pairs: int) -> tuple[Counter[str], float]:
    """Samples by layer, and the microseconds of CPU that a pair took."""
    found: Counter[str] = Counter()

    def sample(_: int, frame: FrameType | None) -> None:
        if frame is not None:
            found[layer_of(frame.f_code.co_filename)] += 1

    async with arms.ARMS[arm](url) as pair:
        await arms.drive(pair, callers, callers + 64)
        signal.signal(signal.SIGPROF, sample)
        cpu = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        await arms.drive(pair, callers, pairs)
        signal.setitimer(signal.ITIMER_PROF, 0)
        cpu = time.process_time() - cpu
    return found, cpu / pairs * 1e6


def main() -> None:
    """Print a table for each number of callers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--arms", nargs="+", choices=arms.ARMS, default=["raw", "ours", "floor"])
    args = parser.parse_args()
    layers = list(dict.fromkeys([*LAYERS.values(), LOOP]))
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"| Python {version}: µs of a pair | {' | '.join(layers)} | turns of the loop | all |")
    print("|---|" + "---:|" * (len(layers) + 2))
    with server.running() as url:
        for callers in args.callers:
            for arm in args.arms:
                turns = Turns()
                factory = partial(asyncio.SelectorEventLoop, turns)
                with asyncio.Runner(loop_factory=factory) as runner:
                    found, cpu = runner.run(profile(arm, url, callers, args.pairs))
                shares = (found[one] / found.total() * cpu for one in layers)
                cells = " | ".join(f"{one:.0f}" for one in shares)
                share = turns.count / args.pairs
                print(f"| {arm}, {callers} | {cells} | {share:.2f} | {cpu:.0f} |", flush=True)


if __name__ == "__main__":
    main()
