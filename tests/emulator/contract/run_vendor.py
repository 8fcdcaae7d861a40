"""The vendor's own Python packages start, find and stop what the emulator has.

``python -m tests.emulator.contract.run_vendor PROGRAM PYTHON``, where PROGRAM is one of those
beside this file that use a package of the vendor's, and PYTHON has that package.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from equos_async.testing import EquosEmulator

KEY, API_KEY = "pk_contract", "sk_contract"


def main(program: str, python: str) -> None:
    """Run it; it is an error if it fails or leaves something live."""
    path = Path(__file__).with_name(f"{program}.py")
    with EquosEmulator(client_key=KEY, api_key=API_KEY, allow_live=False) as emulator:
        command = [python, str(path), emulator.endpoint, KEY, API_KEY]
        subprocess.run(command, check=True)
        print(f"{program}: {emulator.request_count} requests, {emulator.ended_count} stopped")


if __name__ == "__main__":
    main(*sys.argv[1:])
