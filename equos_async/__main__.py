"""The command line: ``python -m equos_async demo | emulator | start | stop | sessions | reap``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any

import attrs

from . import (
    APIStatusError,
    ConfigurationError,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
    StartOutcomeUnknownError,
    __version__,
    demo,
    ledger_cli,
)
from .testing import server

EXIT_CODES = """Exit codes: 0 done; 1 the demo left what it did not report, or the emulator cannot
listen; 2 wrong usage or settings; 3 the server refused; 4 no usable answer of the server or the
ledger, and for a start nothing was sent; 5 the outcome of a start is unknown; 130 interrupted."""

TOKENS = ("consumer_access_token", "remote_agent_access_token")


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
        "start", help="start a session; the key comes from EQUOS_CLIENT_KEY only"
    )
    _add_common(start)
    for option, meaning in (
        ("--avatar", "id of an existing avatar"),
        ("--agent", "id of an existing agent"),
        ("--identity", "identity of the end user"),
    ):
        start.add_argument(option, required=True, help=meaning)
    start.add_argument("--name", default="command line", help="what to call the session")
    start.add_argument("--identity-name", default="", help="display name of the end user")
    start.add_argument("--client", help="your own identifier")
    start.add_argument("--max-duration", type=float, help="seconds after which it ends by itself")
    start.add_argument("--context", help="more context for the agent")
    start.add_argument(
        "--template-var", action="append", default=[], metavar="NAME=VALUE", help="repeatable"
    )
    start.add_argument("--show-token", action="store_true", help="print the access tokens too")
    start.set_defaults(run=_run_start)

    stop = commands.add_parser(
        "stop", help="stop a session; the key comes from EQUOS_CLIENT_KEY only"
    )
    _add_common(stop)
    stop.add_argument("session_id", help="id of the session")
    stop.set_defaults(run=_run_stop)

    listing = commands.add_parser("sessions", help="list the sessions that a ledger knows of")
    ledger_cli.add_arguments(listing)
    listing.set_defaults(run=_run_sessions)

    reap = commands.add_parser(
        "reap", help="stop what dead workers left; the key comes from EQUOS_CLIENT_KEY only"
    )
    _add_common(reap)
    ledger_cli.add_arguments(reap)
    reap.add_argument(
        "--wait",
        type=float,
        default=15.0,
        help="seconds to look for late workers: a lease, in which those that live come back after "
        "an outage; 0 where none lives; default %(default)g",
    )
    reap.set_defaults(run=_run_reap)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint", help="base URL; default EQUOS_ENDPOINT, else production")
    parser.add_argument("--api-version", default="v3", help="default %(default)s")
    parser.add_argument("--deadline", type=float, help="seconds for the whole call")


def _run_start(args: argparse.Namespace) -> int:
    async def call() -> dict[str, Any]:
        request = CreateSessionPassRequest(
            name=args.name,
            avatar=args.avatar,
            agent=args.agent,
            consumer_identity=EquosParticipantIdentity(args.identity, args.identity_name),
            client=args.client,
            max_duration=args.max_duration,
            additional_ctx=args.context,
            template_vars=_pairs(args.template_var),
        )
        async with EquosClient(endpoint=args.endpoint, api_version=args.api_version) as client:
            started = _plain(await client.start_session(request, deadline=args.deadline))
        return {
            name: value for name, value in started.items() if args.show_token or name not in TOKENS
        }

    return _print_result(call)


def _run_stop(args: argparse.Namespace) -> int:
    async def call() -> dict[str, Any] | None:
        async with EquosClient(endpoint=args.endpoint, api_version=args.api_version) as client:
            ended = await client.stop_session(args.session_id, deadline=args.deadline)
        return None if ended is None else _plain(ended)

    return _print_result(call)


def _run_sessions(args: argparse.Namespace) -> int:
    async def call() -> int:
        await ledger_cli.show(args)
        return 0

    return _exit_code(call)


def _run_reap(args: argparse.Namespace) -> int:
    async def call() -> int:
        return 0 if await ledger_cli.reap(args) else 4

    return _exit_code(call)


def _print_result(result: Callable[[], Awaitable[Any]]) -> int:
    async def call() -> int:
        json.dump(await result(), sys.stdout, indent=2)
        print()
        return 0

    return _exit_code(call)


def _exit_code(call: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        with demo.quiet():
            return asyncio.run(call())
    except EquosError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return _code_of(error)


def _code_of(error: EquosError) -> int:
    if isinstance(error, ConfigurationError):
        return 2
    if isinstance(error, APIStatusError):
        return 3
    return 5 if isinstance(error, StartOutcomeUnknownError) else 4


def _pairs(options: list[str]) -> dict[str, str] | None:
    parts = [option.partition("=") for option in options]
    if not all(name and sign for name, sign, _ in parts):
        raise ConfigurationError("--template-var must be NAME=VALUE")
    return {name: value for name, _, value in parts} or None


def _plain(value: Any) -> dict[str, Any]:
    """A model as JSON can hold it."""

    def serialize(_: object, __: object, one: Any) -> Any:
        return one.isoformat() if isinstance(one, datetime) else one

    return attrs.asdict(value, value_serializer=serialize)


if __name__ == "__main__":
    sys.exit(main())
