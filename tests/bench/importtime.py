"""What importing the library costs beside what importing aiohttp costs.

Each import runs in a fresh process and measures its own CPU time; the two take turns, and the
ratio is taken of neighbours, so that what the machine does meanwhile falls on both.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

MODULES: Final = ("aiohttp", "equos_async")

_MEASURE: Final = """
import time
begun = time.process_time()
import {module}
print((time.process_time() - begun) * 1e3)
"""


def import_ms(module: str) -> float:
    """Milliseconds of CPU that one import takes in a fresh process."""
    command = [sys.executable, "-c", _MEASURE.format(module=module)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def measure(rounds: int) -> list[dict[str, float]]:
    """The modules' import times in each round."""
    for module in MODULES:
        import_ms(module)  # writes the bytecode, fills the disk cache
    results: list[dict[str, float]] = []
    for number in range(rounds):
        order = MODULES if number % 2 else MODULES[::-1]
        results.append({module: import_ms(module) for module in order})
    return results
