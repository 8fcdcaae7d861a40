"""What can be run on this project: `nox` for the default set, `nox -l` for the list."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


def installed() -> list[str]:
    """The Pythons that are there and run: a name on PATH may be a shim for nothing."""
    found: list[str] = []
    for minor in (11, 12, 13, 14):
        python = shutil.which(f"python3.{minor}")
        if (
            python
            and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
        ):
            found.append(f"3.{minor}")
    return found or [f"{sys.version_info[0]}.{sys.version_info[1]}"]


nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "layers", "tests", "demo", "build"]


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session(python=installed())
def tests(session: nox.Session) -> None:
    """Run the tests against the built wheel, with the source tree out of the way."""
    session.install(".[cli]", *group("test"))
    # Not in a temporary folder of nox's: that becomes TMPDIR, below this project's pyproject.toml.
    away = Path(session.virtualenv.location) / "checkout"
    shutil.rmtree(away, ignore_errors=True)
    away.mkdir()
    for name in ("tests", "examples", ".github"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, away / name)
    for name in ("README.md", "CHANGELOG.md", "pyproject.toml", "noxfile.py"):
        shutil.copy(ROOT / name, away / name)
    session.chdir(away)
    # Not pytest-cov: the package brings a pytest plugin, so pytest loads it before that measures.
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy --strict and pyright --strict."""
    session.install(".[cli]", *group("types"))
    session.run("mypy")
    session.run("pyright")


@nox.session
def layers(session: nox.Session) -> None:
    """Prove with import-linter that each module imports only what stands above it."""
    session.install(".", *group("lint"))
    session.run("lint-imports")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo as the README says it."""
    session.install(".[cli]")
    session.run("python", "-m", "equos_async", "demo", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel and check their metadata."""
    session.install("build", "twine")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, (ROOT / "dist").iterdir()))


@nox.session
def simulate(session: nox.Session) -> None:
    """Run the retry layer through the outage model and draw the picture of the README."""
    session.install(".")
    out = str(ROOT / ".github" / "assets")
    session.run("python", "-m", "tests.bench.simulate", "--out", out, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure CPU, latency and memory against raw aiohttp and others, and a fleet at scale."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "tests.bench.bench", *session.posargs)
    session.run("python", "-m", "tests.bench.fleet_scale")


@nox.session
def ledger(session: nox.Session) -> None:
    """Kill workers that share a ledger (--long: for an hour), then measure what it costs."""
    session.install(".[redis]", *group("test"))
    long = "--long" in session.posargs
    sizes = ["--rounds", "20", "--seeds", *"12345"] if long else ["--rounds", "1", "--seeds", "1"]
    session.run("python", "-m", "tests.ledger.chaos", *sizes)
    session.run("python", "-m", "tests.bench.ledger_cost")


@nox.session
def contract(session: nox.Session) -> None:
    """Let tools that others wrote judge the emulator by its OpenAPI document."""
    session.install(".", "schemathesis>=4", "openapi-python-client>=0.24")
    session.run("python", "-m", "tests.emulator.contract.run_schemathesis", *session.posargs)
    session.run("python", "-m", "tests.emulator.contract.run_generated_client")
