"""The command line: parse the arguments, run one command, and return its exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from textwrap import fill
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

from . import calls, completion, demo, ledger, listing, output, signals

PROGRAM: Final = "equos-async"

EXIT_CODES: Final = """exit codes:
  0    done
  1    the demo left a session that it did not report, the emulator cannot
       listen, or the output cannot be written
  2    wrong usage or settings
  3    the server refused
  4    no usable answer from the server or the ledger; a start was not sent
  5    the outcome of a start is unknown
  129  its terminal was closed (SIGHUP)
  130  interrupted by Ctrl-C
  141  the output was closed early; a session that was just started is stopped
  143  terminated by SIGTERM"""

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "demo": ("demo --sessions 100 --at-once 20", "demo --no-settle", "demo --json"),
    "emulator": (
        "emulator",
        "emulator --port 0 --fault start:429,retry_after=2,times=3",
        "emulator --scenario deploy --log json",
    ),
    "start": (
        "start --avatar av_1 --agent ag_1 --identity ada --max-duration 60",
        "start --character ch_1 --identity user-7 --json --show-token",
    ),
    "stop": (
        "stop SESSION_ID",
        "stop CONVERSATION_ID --conversation --json",
        "stop --ledger redis://localhost --key guild-1",
    ),
    "sessions": (
        "sessions --ledger sqlite:ledger.db",
        "sessions --ledger redis://localhost --json",
        "sessions --ledger redis://localhost --watch",
    ),
    "reap": ("reap --ledger redis://localhost", "reap --ledger sqlite:ledger.db --wait 0"),
    "forget": (
        "forget --ledger sqlite:ledger.db ROW",
        "forget --ledger redis://localhost ROW --json",
    ),
    "completion": ("completion bash", "completion zsh"),
}
"""Examples for the help of each command."""

WIDTH: Final = 79
"""Columns of the texts in the help that argparse does not wrap."""

KEYS: Final = "The keys are read from EQUOS_CLIENT_KEY and EQUOS_API_KEY."


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, without the usage; remembers its arguments."""

    def __init__(self, **settings: Any) -> None:
        self.arguments: list[argparse.Action] = []
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an argument, as argparse does."""
        self.arguments.append(super().add_argument(*names, **settings))
        return self.arguments[-1]

    def error(self, message: str) -> NoReturn:
        """Exit with that line, and with the exit code for wrong usage."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is printed in one line."""
    output.prepare()
    try:
        try:
            return _outcome(_parser().parse_args(argv))
        finally:
            sys.stdout.flush()  # a closed pipe is noticed here at the latest, after --help too
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _unwritten("the output was closed before all of it was written", 141)
    except OSError as error:
        return _unwritten(f"{type(error).__name__}: {error}", 1)


def _outcome(args: argparse.Namespace) -> int:
    try:
        return int(args.run(args))
    except EquosError as error:
        output.tell(shown(f"{type(error).__name__}: {error}{_hint(error, args)}"))
        return _code_of(error)


def _unwritten(why: str, code: int) -> int:
    """Say why the output is not complete, and return the exit code."""
    output.discard(sys.stdout)
    output.tell(why)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, description="Equos live avatar sessions.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    added: dict[str, list[argparse.Action]] = {}

    def add(name: str, about: str, run: Callable[..., int], more: str = "") -> _Parser:
        examples = "\n  ".join(("examples:", *(f"{PROGRAM} {one}" for one in EXAMPLES[name])))
        command = commands.add_parser(
            name,
            help=about,
            description=fill(f"{about[0].upper()}{about[1:]}. {more}", WIDTH),
            epilog=f"{examples}\n\nexit codes: {PROGRAM} --help",
        )
        command.set_defaults(run=run)
        added[name] = command.arguments
        return command

    demo.add_arguments(add("demo", "run many sessions against a misbehaving server", demo.run))
    server.add_arguments(add("emulator", "run the local server in the foreground", server.run))
    start = add("start", "start a session or conversation", partial(_run, calls.start), KEYS)
    calls.add_start_arguments(start)
    stop = add("stop", "stop a session or conversation", partial(_run, ledger.stop), KEYS)
    ledger.add_stop_arguments(stop)
    ledger.add_arguments(stop)
    sessions = add("sessions", "list the sessions in a ledger", partial(_run, listing.show))
    ledger.add_arguments(sessions)
    listing.add_arguments(sessions)
    reap = add("reap", "stop the sessions of dead workers", partial(_run, ledger.reap), KEYS)
    calls.add_common_arguments(reap)
    ledger.add_arguments(reap)
    ledger.add_reap_arguments(reap)
    about = "remove a row from a ledger, without a stop"
    forget = add("forget", about, partial(_run, ledger.forget), ledger.FORGET)
    ledger.add_forget_arguments(forget)
    ledger.add_arguments(forget)

    def complete(args: argparse.Namespace) -> int:
        print(completion.script(args.shell, PROGRAM, added), end="")
        return 0

    about = "print a script for shell completion"
    completion.add_arguments(add("completion", about, complete, completion.USE))
    return parser


def _run(
    command: Callable[[argparse.Namespace], Coroutine[Any, Any, int]], args: argparse.Namespace
) -> int:
    """Run a command in an event loop of its own."""
    with demo.quiet():
        return signals.run_command(command, args)


def _hint(error: EquosError, args: argparse.Namespace) -> str:
    """A hint for a failed connection: a proxy of the environment is not used by default."""
    if not isinstance(error, APIConnectionError) or args.trust_env:
        return ""
    set_ = {"http", "https"} & getproxies_environment().keys()
    return "; a proxy of the environment is used only with --trust-env" if set_ else ""


def _code_of(error: EquosError) -> int:
    if isinstance(error, ConfigurationError):
        return 2
    if isinstance(error, APIStatusError):
        return 3
    return 5 if isinstance(error, StartOutcomeUnknownError) else 4
