"""Hundreds of generated requests against the emulator, judged by its own OpenAPI document.

``python -m tests.emulator.contract.run_schemathesis``, in an environment with schemathesis. All
checks are on but one: schemathesis wants a 405 for undeclared methods where NestJS says 404, for
which ``hooks.py`` has a check of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from equos_async.testing import EquosEmulator

KEY = "pk_contract"
API_KEY = "sk_contract"
MINIMUM = 1_500
"""Requests that a run has to make, or it has not tested enough."""

OPTIONS = (
    "--checks=all",
    "--exclude-checks=unsupported_method",
    "--mode=all",
    "--phases=examples,coverage,fuzzing,stateful",
    "--max-examples=150",
    "--seed=20251210",
    "--generation-deterministic",
    "--no-color",
)


def main() -> int:
    """Run it; returns 0 if all checks passed."""
    program = str(Path(sys.executable).parent / "schemathesis")
    keys = [f"--header=Authorization: Bearer {KEY}", f"--header=x-api-key: {API_KEY}"]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.emulator.contract.hooks", "PYTHONPATH": str(Path.cwd())}
    with (
        EquosEmulator(client_key=KEY, api_key=API_KEY) as emulator,
        tempfile.TemporaryDirectory() as folder,
    ):
        url = emulator.endpoint
        done = subprocess.run(
            [program, "run", f"{url}/docs/v3-json", f"--url={url}", *keys, *OPTIONS],
            cwd=folder,  # where it leaves its notes
            env={**os.environ, **hooks},
            check=False,
        )
        statuses = [request.status for request in emulator.requests]
        print({one: statuses.count(one) for one in sorted(set(statuses), key=str)})
        print(f"{emulator.request_count} requests, {emulator.ended_count} stopped")
        enough = emulator.request_count >= MINIMUM and {200, 201, 400, 401} <= set(statuses)
    return done.returncode or int(not enough)


if __name__ == "__main__":
    sys.exit(main())
