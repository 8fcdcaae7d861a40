"""The programs that tests need, and the packages that contain them."""

from __future__ import annotations

import os
import shutil
from typing import Final

import pytest

PACKAGES: Final = {
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "curl": "curl",
    "redis-server": "redis-server",
}
"""The programs, and the package of Debian's that brings each."""


def need(*programs: str) -> list[str]:
    """Where some programs are. Where one is not the test is skipped; in CI that is a failure."""
    found = {program: shutil.which(program) for program in programs}
    missing = [program for program, where in found.items() if where is None]
    if missing:
        # In CI they are there, or CI is broken; a newcomer's machine may do without.
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse(f"needs {' and '.join(missing)}")
    return [str(where) for where in found.values()]


def summary(reasons: list[str]) -> list[str]:
    """The lines at the end of a run about its skipped tests, each with its reason."""
    if not reasons:
        return []
    lines = [f"{reasons.count(one)} skipped: {one}" for one in sorted(set(reasons))]
    words = set(" ".join(reasons).split())
    packages = sorted(package for program, package in PACKAGES.items() if program in words)
    if packages:
        lines.append(f"to skip none: apt install {' '.join(packages)}")
    return lines
