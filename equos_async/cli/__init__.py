"""The command line: ``python -m equos_async demo | emulator | start | stop | sessions | reap``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from equos_async import __version__
from equos_async._shown import shown
from equos_async.errors import (
    APIStatusError,
    ConfigurationError,
    EquosError,
    StartOutcomeUnknownError,
)
from equos_async.testing import server

from . import calls, demo, ledger, signals

EXIT_CODES = """Exit codes: 0 done; 1 the demo left what it did not report, or the emulator cannot
listen; 2 wrong usage or settings; 3 the server refused; 4 no usable answer of the server or the
ledger, and for a start nothing was sent; 5 the outcome of a start is unknown; 130 interrupted;
143 terminated."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m equos_async",
        description="Equos live avatar sessions.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    show = commands.add_parser("demo", help="run many sessions against a misbehaving local server")
    demo.add_arguments(show)
    show.set_defaults(run=demo.run)

    serve = commands.add_parser("emulator", help="run the local server in the foreground")
    server.add_arguments(serve)
    serve.set_defaults(run=server.run)

    start = commands.add_parser(
        "start",
        help="start a session or conversation; keys come from EQUOS_CLIENT_KEY and EQUOS_API_KEY",
    )
    calls.add_start_arguments(start)
    start.set_defaults(run=partial(_run, calls.start))

    stop = commands.add_parser(
        "stop",
        help="stop a session or conversation; keys come from EQUOS_CLIENT_KEY and EQUOS_API_KEY",
    )
    calls.add_stop_arguments(stop)
    stop.set_defaults(run=partial(_run, calls.stop))

    listing = commands.add_parser("sessions", help="list the sessions that a ledger knows of")
    ledger.add_arguments(listing)
    listing.set_defaults(run=partial(_run, ledger.show))

    reap = commands.add_parser(
        "reap", help="stop what dead workers left; the key comes from EQUOS_CLIENT_KEY only"
    )
    calls.add_common_arguments(reap)
    ledger.add_arguments(reap)
    ledger.add_reap_arguments(reap)
    reap.set_defaults(run=partial(_run, ledger.reap))
    return parser


def _run(
    command: Callable[[argparse.Namespace], Coroutine[Any, Any, int]], args: argparse.Namespace
) -> int:
    """Run a command in an event loop of its own; an error becomes one line and an exit code."""
    try:
        with demo.quiet():
            return asyncio.run(signals.until_terminated(command, args))
    except EquosError as error:
        print(shown(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return _code_of(error)


def _code_of(error: EquosError) -> int:
    if isinstance(error, ConfigurationError):
        return 2
    if isinstance(error, APIStatusError):
        return 3
    return 5 if isinstance(error, StartOutcomeUnknownError) else 4
