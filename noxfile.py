"""What can be run on this project: `nox` for the default set, `nox -l` for the list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed
from nox.logger import logger

ROOT = Path(__file__).parent
WORKERS = min((os.cpu_count() or 1) + 1, 4)  # tests wait more than they compute
OF_REDIS = "*/ledger/redis*.py"
EPOCH = {"SOURCE_DATE_EPOCH": "1580601600"}  # any time will do; hatchling's own when there is none
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


if sys.hexversion < 0x030B0000:  # pip found nox for an older one; it would find nothing of ours
    sys.exit("nox has to run on Python 3.11 or newer here: make .venv anew with one")

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
# What tests say at their end is to be read, so they come late; but before the picture of the house,
# whose age they judge, is drawn anew for the pages.
nox.options.sessions = ["lint", "layers", "types", "demo", "build", "tests", "docs"]
if "CI" in os.environ:
    nox.options.sessions += ["lowest"]
if len(sys.argv) == 1:
    logger.info(
        "All checks, and the tests on Python %s: seven minutes on two cores, and five more for "
        "each further Python. "
        "A part of the tests: nox -s tests-%s -- tests/unit",
        ", ".join(installed()),
        installed()[-1],
    )

# uv knows nothing of pip's certificates; behind a proxy that inspects TLS it needs the system's.
os.environ.setdefault("UV_SYSTEM_CERTS", "true")


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def install(session: nox.Session, *what: str) -> None:
    """Install, and say what may help where that fails."""
    try:
        session.install(*what)
    except CommandFailed:
        session.error(
            "could not install. Where the lines above tell of a certificate: "
            "export SSL_CERT_FILE=/path/to/your/authorities.pem"
        )


def run_tests(session: nox.Session) -> None:
    """The tests against what is installed, with the source tree out of the way."""
    # Not in a temporary folder of nox's: that becomes TMPDIR, below this project's pyproject.toml.
    away = Path(session.virtualenv.location) / "checkout"
    shutil.rmtree(away, ignore_errors=True)
    away.mkdir()
    for name in ("tests", "examples", ".docs", ".github"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, away / name)
    for name in ("README.md", "CHANGELOG.md", "pyproject.toml", "noxfile.py"):
        shutil.copy(ROOT / name, away / name)
    session.chdir(away)
    if session.posargs:  # a part covers but a part: nothing is measured then
        session.run("pytest", *session.posargs)
        return
    # Not pytest-cov: the package brings a pytest plugin, so pytest loads it before that measures.
    session.run("coverage", "run", "-m", "pytest", f"-n{WORKERS}", "--dist=worksteal")
    session.run("coverage", "combine", "--quiet")
    # Without a Redis its tests are skipped, except in CI; the rest is covered all the same.
    without = [] if shutil.which("redis-server") else [f"--omit={OF_REDIS}"]
    session.run("coverage", "report", *without)


@nox.session(python=installed())
def tests(session: nox.Session) -> None:
    """Run the tests against the built wheel, on every Python that is installed."""
    install(session, ".[cli,otel,redis]", *group("test"))
    run_tests(session)


@nox.session(python=installed()[0], venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest version of each dependency that is declared."""
    install(session, "--resolution=lowest-direct", ".[cli,otel,redis]", *group("test"))
    run_tests(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    install(session, *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy and pyright, both strict, and that users see all of them."""
    install(session, ".[cli,otel,redis]", *group("types"))
    session.run("mypy")
    session.run("pyright")
    pages = str(Path(session.create_tmp()) / "pages")
    session.run("python", "-m", "tests.docs.blocks", pages)
    session.run("mypy", pages)  # the programs of the README and the pages
    session.chdir(session.create_tmp())  # away from the source: what is installed is what counts
    session.run("pyright", "--verifytypes", "equos_async", "--ignoreexternal")


@nox.session
def layers(session: nox.Session) -> None:
    """Prove with import-linter that each module imports only what stands above it."""
    install(session, ".", *group("lint"))
    session.run("lint-imports")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo as the README says it."""
    install(session, ".[cli]")
    session.run("python", "-m", "equos_async", "demo", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Draw the house and build the pages in build/docs; a warning is an error."""
    install(session, ".[otel,redis]", *group("docs"))
    session.run("python", "-m", "tests.docs.house", "--out", ".docs/house.svg")
    out = ("build/doctrees", ".docs", "build/docs")
    session.run("sphinx-build", "-W", "--keep-going", "-nqEa", "-d", *out)
    session.log(f"open {ROOT / 'build' / 'docs' / 'index.html'}")


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel twice, check their bytes, files and metadata, and import the wheel."""
    install(session, "build[uv]", "twine")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    away = Path(session.create_tmp())
    command = ("python", "-m", "build", "--installer=uv", "--outdir")
    session.run(*command, str(ROOT / "dist"), str(ROOT), env=EPOCH)
    (sdist,) = (ROOT / "dist").glob("*.tar.gz")
    shutil.rmtree(away)
    shutil.unpack_archive(sdist, away, filter="data")
    unpacked = away / sdist.name.removesuffix(".tar.gz")
    session.run(*command, str(away / "again"), str(unpacked), env=EPOCH)
    session.run("python", "-m", "tests.guards.check_dist", "dist", str(away / "again"))
    session.run("twine", "check", "--strict", *map(str, (ROOT / "dist").iterdir()))
    # With the declared dependencies and nothing else, not even what builds and checks.
    (wheel,) = (ROOT / "dist").glob("*.whl")
    clean = away / "clean"
    session.run("uv", "venv", "--quiet", str(clean))
    session.run("uv", "pip", "install", "--quiet", f"--python={clean}", str(wheel))
    python = clean / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    program = str(ROOT / "tests" / "guards" / "import_all.py")
    session.run(str(python), "-I", "-W", "error", program, external=True)


@nox.session
def simulate(session: nox.Session) -> None:
    """Run the retry layer through the outage model and draw the picture of the README."""
    install(session, ".")
    out = str(ROOT / ".github" / "assets")
    session.run("python", "-m", "tests.bench.simulate", "--out", out, *session.posargs)


@nox.session(python=installed()[-1], venv_backend="uv")
def bench(session: nox.Session) -> None:
    """Measure CPU, latency and memory against raw aiohttp and others, and a fleet at scale."""
    needs = [".", *group("bench")]
    install(session, *needs)
    also: list[str] = []
    if installed()[0] != installed()[-1]:
        oldest = Path(session.create_tmp()) / "oldest"
        session.run("uv", "venv", "--quiet", f"--python={installed()[0]}", str(oldest))
        also = ["--also", str(oldest / "bin" / "python")]
        session.run("uv", "pip", "install", "--quiet", f"--python={also[1]}", *needs)
    shown = ["--tables=.docs/bench.md", "--picture=.github/assets/bench.svg", "--readme=README.md"]
    session.run("python", "-m", "tests.bench.bench", *also, *shown, *session.posargs)
    session.run("python", "-m", "tests.bench.profile")
    session.run("python", "-m", "tests.bench.fleet_scale")


@nox.session
def ledger(session: nox.Session) -> None:
    """Kill workers that share a ledger (--long: in each way), then measure what it costs."""
    install(session, ".[redis]", *group("test"))
    sizes = [] if "--long" in session.posargs else ["--rounds", "1"]
    session.run("python", "-m", "tests.ledger.chaos", *sizes)
    session.run("python", "-m", "tests.bench.ledger_queue")
    session.run("python", "-m", "tests.bench.ledger_cost")


@nox.session
def soak(session: nox.Session) -> None:
    """Let storms blow for ten minutes (--minutes N), and write what is left into the docs."""
    install(session, ".", *group("test"))
    out = str(ROOT / ".docs" / "soak.md")
    session.run("python", "-m", "tests.bench.soak", "--out", out, *session.posargs)


@nox.session(venv_backend="uv")
def contract(session: nox.Session) -> None:
    """Let tools that others wrote, the vendor's packages too, judge the emulator."""
    install(session, ".", "schemathesis>=4", "openapi-python-client>=0.24")
    session.run("python", "-m", "tests.emulator.contract.run_schemathesis", *session.posargs)
    session.run("python", "-m", "tests.emulator.contract.run_generated_client")
    # Each in an environment of its own. They do not name python-dateutil, which 3.1.5 imports.
    for program, release in (("vendor_conversations", "3.1.5"), ("vendor_sessions", "1.2.7")):
        of_vendor = Path(session.create_tmp()) / program
        python = of_vendor / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        session.run("uv", "venv", "--quiet", "--clear", str(of_vendor))
        needs = (f"equos=={release}", "python-dateutil")
        session.run("uv", "pip", "install", "--quiet", f"--python={python}", *needs)
        session.run("python", "-m", "tests.emulator.contract.run_vendor", program, str(python))


@nox.session(python=installed()[-1], venv_backend="uv")
@nox.parametrize("release", ["==3.12.15", "==3.13.*", "==3.14.4", "newest", "pre-release"])
def differential(session: nox.Session, release: str) -> None:
    """Compare the direct wire with the session's on old, new and coming releases of aiohttp."""
    session.install(".", *group("test"))
    # In a step of its own, for some are older than what the package asks for.
    if release.startswith("=="):
        session.install(f"aiohttp{release}")
    else:
        allowed = ["--prerelease=allow"] if release == "pre-release" else []
        session.install("--upgrade-package=aiohttp", *allowed, "aiohttp")
    session.run("python", "-c", "import aiohttp; print('aiohttp', aiohttp.__version__)")
    session.run("python", "-m", "pytest", "-q", "tests/property/test_both_ways.py")
