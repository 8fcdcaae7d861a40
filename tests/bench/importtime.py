"""Measures the import of the library, and that of aiohttp for comparison.

Each import runs in a fresh process and measures its own CPU time; they take turns, and the
ratio is taken of neighbours, so that what the machine does meanwhile falls on both.
"""

from __future__ import annotations

import os
import subprocess
from typing import Final

# The package itself loads what it is asked for, so that is asked for too.
STATEMENTS: Final = (
    "import aiohttp",
    "import equos_async",
    "from equos_async import EquosClient",
)

_MEASURE: Final = """
import time
begun = time.process_time()
{statement}
print((time.process_time() - begun) * 1e3)
"""


def import_ms(python: str, statement: str) -> float:
    """Milliseconds of CPU that one import takes in a fresh process."""
    command = [python, "-c", _MEASURE.format(statement=statement)]
    # Else each import would compile its modules anew, which no user's does.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=env)
    return float(done.stdout)


def measure(python: str, rounds: int) -> list[dict[str, float]]:
    """The import times in each round."""
    for statement in STATEMENTS:
        import_ms(python, statement)  # writes the bytecode, fills the disk cache
    results: list[dict[str, float]] = []
    for number in range(rounds):
        order = STATEMENTS if number % 2 else STATEMENTS[::-1]
        found = {statement: import_ms(python, statement) for statement in order}
        results.append({statement: found[statement] for statement in STATEMENTS})
    return results
