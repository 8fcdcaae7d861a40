"""Judges built distributions: the same bytes twice, and no file that does not belong.

``python -m tests.guards.check_dist DIST AGAIN``, as ``nox -s build`` runs it.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

DATA = {
    "equos_async/py.typed",
    "equos_async/testing/openapi.json",
    "equos_async/testing/page/page.css",
    "equos_async/testing/page/page.html",
    "equos_async/testing/page/page.js",
}
"""What the package holds beside modules. Whatever else shall be shipped is added here."""

METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}

TOP = {
    ".github/CONTRIBUTING.md",  # the README links to it
    ".gitignore",  # hatchling's, always
    "CHANGELOG.md",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "noxfile.py",
    "pyproject.toml",
}
SHIPPED = {
    ".docs": {".css", ".md", ".py", ".svg"},
    ".github": {".png", ".svg"},
    "examples": {".py", ".html"},
    "tests": {".json", ".py", ".txt"},
}
"""The other folders of the sdist, by the suffixes of what belongs there."""


def package() -> set[str]:
    """The files of the package."""
    return DATA | {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "equos_async").rglob("*.py")
    }


def in_wheel(wheel: Path) -> set[str]:
    """The files in a wheel; metadata files by their names within their folder."""
    folder = "-".join(wheel.name.split("-")[:2]) + ".dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        return {name.removeprefix(folder) for name in archive.namelist()}


def in_sdist(sdist: Path) -> set[str]:
    """The files in an sdist, by their paths below its folder."""
    folder = sdist.name.removesuffix(".tar.gz") + "/"
    with tarfile.open(sdist) as archive:
        return {one.name.removeprefix(folder) for one in archive.getmembers() if one.isfile()}


def expected_in_sdist() -> set[str]:
    """The files that an sdist must contain, to test and build the project from it alone."""
    others = {
        path.relative_to(ROOT).as_posix()
        for folder, suffixes in SHIPPED.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes
    }
    return package() | TOP | others


def differences(what: str, found: set[str], expected: set[str]) -> list[str]:
    """The differences of a list of files from the expected one, and what to do about them."""
    return [
        *(f"{what} holds {name}: remove it, or allow it here" for name in found - expected),
        *(f"{what} lacks {name}: see [tool.hatch.build]" for name in expected - found),
    ]


def main(dist: Path, again: Path) -> int:
    """Print what is wrong; the exit code."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    problems = [
        *differences("the wheel", in_wheel(wheel), package() | METADATA),
        *differences("the sdist", in_sdist(sdist), expected_in_sdist()),
        *(
            f"{built.name} is another one when it is built from the sdist: builds must not depend "
            "on time, place or what lies around"
            for built in (wheel, sdist)
            if built.read_bytes() != (again / built.name).read_bytes()
        ),
    ]
    print("\n".join(sorted(problems)) or f"{wheel.name} and {sdist.name} hold what they should")
    return bool(problems)


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:])))
