"""The benchmark: ``python -m tests.bench.bench`` compares a start-and-stop pair, arm by arm.

The server is a process of its own that answers prepared bytes. Each arm of each round runs in a
fresh process, and the arms take turns, so that what the machine does meanwhile falls on all.
Ratios are taken of one round's figures; the tables show their median and range.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from attrs import evolve, frozen

from . import arms_report, importtime, server
from .arms import ARMS

SLOW: Final = ("httpx", "vendor-sdk")
SLOW_SHARE: Final = 0.1
"""These take so long that fewer pairs measure them as well."""

PACKAGES: Final = (
    *("aiohttp", "aiohttp-retry", "cattrs", "equos", "httpx", "pyreqwest", "uvloop"),
)


@frozen
class Setting:
    """One way to run all arms."""

    callers: int
    loop: str = "asyncio"
    tls: bool = False
    python: str = sys.executable

    def __str__(self) -> str:
        callers = "1 caller" if self.callers == 1 else f"{self.callers} callers"
        wire = "TLS" if self.tls else "plain HTTP"
        return f"{release(self.python)}, {callers}, {self.loop}, {wire}"


@cache
def release(python: str) -> str:
    """The name of an interpreter with its version."""
    program = "import platform; print('Python', platform.python_version())"
    return subprocess.check_output([python, "-c", program], text=True).strip()


MAIN: Final = Setting(64)
OTHERS: Final = (
    Setting(1),
    Setting(512),
    Setting(1, "uvloop"),
    Setting(64, "uvloop"),
    Setting(512, "uvloop"),
    Setting(64, tls=True),
)


class Bench:
    """Runs arms in processes of their own, and remembers which cannot run here, and why."""

    def __init__(self, arms: Sequence[str], pairs: int, certificate: Path) -> None:
        self.arms = list(arms)
        self.pairs = pairs
        self.skipped: dict[str, str] = {}
        self._certificate = certificate

    def run(self, setting: Setting, rounds: int) -> dict[str, list[dict[str, float]]]:
        """All arms, taking turns."""
        results: dict[str, list[dict[str, float]]] = {arm: [] for arm in self.arms}
        with server.running(self._certificate if setting.tls else None) as url:
            for number in range(rounds):
                turn = number % len(self.arms)
                for arm in self.arms[turn:] + self.arms[:turn]:
                    figures = self._measure(arm, url, setting)
                    if figures is not None:
                        results[arm].append(figures)
                print(f"{setting}: round {number + 1} of {rounds}", file=sys.stderr)
        return {arm: figures for arm, figures in results.items() if figures}

    def soak(self, pairs: int) -> list[float]:
        """The library's memory in MiB, time and again over many pairs."""
        with server.running() as url:
            found = self._child("ours", url, MAIN, pairs, "--soak")
        figures: list[float] = json.loads(found.stdout)["rss_mib"]
        return figures

    def _measure(self, arm: str, url: str, setting: Setting) -> dict[str, float] | None:
        if arm in self.skipped:
            return None
        pairs = max(50, int(self.pairs * (SLOW_SHARE if arm in SLOW else 1.0)))
        found = self._child(arm, url, setting, pairs)
        if found.returncode == 0:
            figures: dict[str, float] = json.loads(found.stdout)
            return figures
        problem = found.stderr.strip().splitlines()[-1]
        if "ImportError" not in problem and "ModuleNotFoundError" not in problem:
            raise RuntimeError(f"{arm} failed: {found.stderr}")
        self.skipped[arm] = problem
        return None

    def _child(
        self, arm: str, url: str, setting: Setting, pairs: int, *options: str
    ) -> subprocess.CompletedProcess[str]:
        command = [setting.python, "-m", "tests.bench.arms", arm, url, "--loop", setting.loop]
        command += ["--callers", str(setting.callers), "--pairs", str(pairs), *options]
        trust = {"SSL_CERT_FILE": str(self._certificate.with_name("ca.pem"))}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **trust}
        )


@contextmanager
def certificate() -> Generator[Path, None, None]:
    """A certificate for the local server; beside it, as ``ca.pem``, whom to trust for it."""
    import trustme  # noqa: PLC0415 - makes a key at import, and only TLS wants it

    with tempfile.TemporaryDirectory() as directory:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(Path(directory, "ca.pem")))
        path = Path(directory, "server.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
        yield path


def conditions() -> dict[str, Any]:
    """The conditions of the measurement: system, versions and date."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe(found: dict[str, Any], rounds: int, pairs: int) -> str:
    """The conditions in a line or two."""
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items() if number)
    return (
        f"`nox -s bench`: {found['system']}, {found['cpus']} CPUs, {found['date']}; {packages}. "
        f"{rounds} rounds of {pairs:,} pairs; medians, with ranges in brackets."
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of the main setting")
    parser.add_argument("--pairs", type=int, default=1500, help="in each arm of each round")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--also", nargs="*", default=[], help="interpreters of other releases")
    parser.add_argument("--tables", type=Path, default=Path("bench.md"))
    parser.add_argument("--picture", type=Path, default=Path("bench.svg"))
    parser.add_argument("--readme", type=Path, help="where to renew the table")
    parser.add_argument("--quick", action="store_true", help="few rounds of the main setting only")
    parser.add_argument("--soak", action="store_true", help="only watch memory, over many pairs")
    parser.add_argument("--soak-pairs", type=int, default=200_000)
    return parser.parse_args()


def main() -> None:
    """Run it all, print the tables, and write tables and picture."""
    args = parse()
    if args.quick:
        args.rounds, args.pairs = 2, 400
    arms = list(dict.fromkeys(["raw", *args.arms]))
    with certificate() as path:
        bench = Bench(arms, args.pairs, path)
        if args.soak:
            in_use = bench.soak(args.soak_pairs)
            print(f"MiB in use over {args.soak_pairs:,} pairs:", *(f"{one:.1f}" for one in in_use))
            return
        mains = [MAIN, *(Setting(MAIN.callers, python=python) for python in args.also)]
        settings = {str(one): bench.run(one, args.rounds) for one in mains}
        imports = {
            release(one.python): importtime.measure(one.python, 4 * args.rounds) for one in mains
        }
        if not args.quick:
            fewer = (args.rounds + 2) // 3
            older = (evolve(one, python=python) for python in args.also for one in OTHERS[:2])
            settings |= {str(one): bench.run(one, fewer) for one in (*OTHERS, *older)}
    write(args, bench, settings, imports)


def write(
    args: argparse.Namespace, bench: Bench, settings: dict[str, Any], imports: dict[str, Any]
) -> None:
    """Print the tables, and write them and the picture into the pages."""
    found = conditions()
    about = describe(found, args.rounds, args.pairs)
    table = arms_report.markdown(settings, imports, about)
    table += "".join(f"\nNot measured: {arm} ({why}).\n" for arm, why in bench.skipped.items())
    args.tables.write_text(table)
    note = f"{MAIN}, aiohttp {found['packages']['aiohttp']}"
    title = "CPU of a start-and-stop pair, as a ratio to raw aiohttp"
    args.picture.write_text(arms_report.picture(title, settings[str(MAIN)], note))
    if args.readme:
        mains = {setting: settings[setting] for setting in list(settings)[: 2 + len(args.also)]}
        text = args.readme.read_text()
        start, end = (text.index(mark) for mark in ("<!-- bench -->", "<!-- /bench -->"))
        short = arms_report.summary(mains)
        args.readme.write_text(f"{text[:start]}<!-- bench -->\n{short}\n{about}\n{text[end:]}")
    print(table)


if __name__ == "__main__":
    main()
