"""The command line: ``equos-async demo | emulator | start | stop | sessions | reap``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, NoReturn
from urllib.request import getproxies_environment

from equos_async import __version__
from equos_async._shown import shown
from equos_async.errors import (
    APIConnectionError,
    APIStatusError,
    ConfigurationError,
    EquosError,
    StartOutcomeUnknownError,
)
from equos_async.testing import server

from . import calls, demo, ledger, signals

PROGRAM: Final = "equos-async"

EXIT_CODES: Final = """exit codes:
  0    done
  1    the demo left a session that it did not report, or the emulator cannot listen
  2    wrong usage or settings
  3    the server refused
  4    no usable answer of the server or the ledger; for a start: nothing was sent
  5    the outcome of a start is unknown
  130  interrupted by Ctrl-C
  141  the output was closed; a session that was just started is stopped
  143  terminated by SIGTERM"""

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "demo": ("demo --sessions 100 --at-once 20", "demo --no-settle"),
    "emulator": (
        "emulator",
        "emulator --port 0 --fault start:429,retry_after=2,times=3",
        "emulator --scenario deploy --log json",
    ),
    "start": (
        "start --avatar av_1 --agent ag_1 --identity user-7 --max-duration 60",
        "start --character ch_1 --identity user-7 --json --show-token",
    ),
    "stop": ("stop SESSION_ID", "stop CONVERSATION_ID --conversation --json"),
    "sessions": (
        "sessions --ledger sqlite:ledger.db",
        "sessions --ledger redis://localhost --json",
    ),
    "reap": ("reap --ledger redis://localhost", "reap --ledger sqlite:ledger.db --wait 0"),
}
"""Command lines for the help of each command."""

KEYS: Final = "The keys come from EQUOS_CLIENT_KEY and EQUOS_API_KEY."


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong; the usage is in the help."""

    def error(self, message: str) -> NoReturn:
        """End with that line, and the exit code of wrong usage."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error becomes one line."""
    args = _parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()  # here a closed pipe can still be told
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        server.discard_output()
        print("the output was closed before all of it was written", file=sys.stderr)
        return 141
    except EquosError as error:
        print(shown(f"{type(error).__name__}: {error}{_hint(error, args)}"), file=sys.stderr)
        return _code_of(error)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Equos live avatar sessions.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, about: str, run: Callable[..., int]) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:],
            epilog="\n  ".join(("examples:", *(f"{PROGRAM} {one}" for one in EXAMPLES[name]))),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    demo.add_arguments(add("demo", "run many sessions against a misbehaving server", demo.run))
    server.add_arguments(add("emulator", "run the local server in the foreground", server.run))
    start = add("start", f"start a session or conversation. {KEYS}", partial(_run, calls.start))
    calls.add_start_arguments(start)
    stop = add("stop", f"stop a session or conversation. {KEYS}", partial(_run, calls.stop))
    calls.add_stop_arguments(stop)
    listing = add(
        "sessions", "list the sessions that a ledger knows of", partial(_run, ledger.show)
    )
    ledger.add_arguments(listing)
    reap = add("reap", f"stop what dead workers left. {KEYS}", partial(_run, ledger.reap))
    calls.add_common_arguments(reap)
    ledger.add_arguments(reap)
    ledger.add_reap_arguments(reap)
    return parser


def _run(
    command: Callable[[argparse.Namespace], Coroutine[Any, Any, int]], args: argparse.Namespace
) -> int:
    """Run a command in an event loop of its own."""
    with demo.quiet():
        return asyncio.run(signals.until_terminated(command, args))


def _hint(error: EquosError, args: argparse.Namespace) -> str:
    """A proxy that was set and not used is what many would look for last."""
    if not isinstance(error, APIConnectionError) or args.trust_env:
        return ""
    set_ = {"http", "https"} & getproxies_environment().keys()
    return "; the proxy of the environment is used with --trust-env only" if set_ else ""


def _code_of(error: EquosError) -> int:
    if isinstance(error, ConfigurationError):
        return 2
    if isinstance(error, APIStatusError):
        return 3
    return 5 if isinstance(error, StartOutcomeUnknownError) else 4
