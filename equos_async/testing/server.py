"""The command ``equos-async emulator``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import Any, Final, get_args

from attrs import asdict

from equos_async.errors import ConfigurationError

from .emulator import EquosEmulator
from .records import EmulatorRequest
from .scenarios import SCENARIOS
from .service import PageOrder
from .spec import FAULT_SYNTAX, parse_fault

DEFAULT_PORT: Final = 3001
"""As in the vendor's reference: http://localhost:3001."""

MAX_PORT: Final = 65_535

_SCENARIOS: Final = {name.replace(" ", "-"): scenario for name, scenario in SCENARIOS.items()}

_BODY: Final = (
    '{"name": "by hand", "avatar": {"id": "av_1"}, "agent": {"id": "ag_1"}, '
    '"consumerIdentity": {"identity": "user-7", "name": "Ada"}, "maxDuration": 60}'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; default %(default)s")
    add("--port", type=_port, default=DEFAULT_PORT, help="default %(default)s; 0: any free one")
    add("--fault", type=parse_fault, action="append", default=[], metavar="SPEC", help=FAULT_SYNTAX)
    add(
        "--scenario",
        choices=_SCENARIOS,
        action="append",
        default=[],
        metavar="NAME",
        help=f"a named sequence of faults: {', '.join(_SCENARIOS)}",
    )
    add(
        "--limit-concurrent",
        type=int,
        metavar="N",
        help="how many sessions and conversations may be live",
    )
    add(
        "--limit-duration",
        type=float,
        metavar="SECONDS",
        help="the largest max_duration that is accepted",
    )
    add(
        "--page-order",
        choices=get_args(PageOrder),
        default="newest",
        help="which comes first on lists; default %(default)s",
    )
    add(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="origin of web pages that may call the API, such as http://localhost:5173; *: all",
    )
    add(
        "--livekit",
        action="store_true",
        help="make tokens for the LiveKit server of LIVEKIT_URL, LIVEKIT_API_KEY and "
        "LIVEKIT_API_SECRET",
    )
    add("--seed", type=int, default=0, help="random seed for faults with share=")
    add(
        "--log",
        choices=("text", "json"),
        default="text",
        help="format of the line for each request",
    )
    add("--json", dest="log", action="store_const", const="json", help="the same as --log json")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"must be from 0 to {MAX_PORT}, not {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, then print the counts.

    Raises:
        OSError: The output cannot be written, because it was closed for example.
    """
    say = _Json() if args.log == "json" else _Text()
    ended = asyncio.Event()

    def log(request: EmulatorRequest) -> None:
        try:
            print(say.request(request), flush=True)
        except OSError:
            ended.set()  # the last line fails in the same way, and its error is reported

    url, key, secret = _livekit() if args.livekit else (None, None, None)
    emulator = EquosEmulator(
        host=args.host,
        port=args.port,
        limit_concurrent=args.limit_concurrent,
        limit_duration=args.limit_duration,
        seed=args.seed,
        page_order=args.page_order,
        on_request=log,
        cors_origins=args.cors_origin,
        livekit_url=url,
        livekit_key=key,
        livekit_secret=secret,
    )
    for name in args.scenario:
        emulator.play(_SCENARIOS[name])
    for fault in args.fault:
        fault.add_to(emulator.faults)
    return asyncio.run(_serve(emulator, say, f"{args.host}:{args.port}", ended))


_LIVEKIT: Final = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")


def _livekit() -> list[str]:
    """The LiveKit server in the environment, as other users can see a process's arguments."""
    if missing := [name for name in _LIVEKIT if not os.environ.get(name)]:
        raise ConfigurationError(f"--livekit: not set: {', '.join(missing)}")
    return [os.environ[name] for name in _LIVEKIT]


async def _serve(
    emulator: EquosEmulator, say: _Text | _Json, where: str, ended: asyncio.Event
) -> int:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, ended.set)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(emulator)
        except OSError as error:
            # Not the text of the error, because it repeats the address.
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            print(f"cannot listen on {where}: {why}", file=sys.stderr)
            return 1
        print(say.hello(emulator), flush=True)
        await ended.wait()
    print(say.counts(emulator), flush=True)
    return 0


class _Text:
    """Output for people."""

    def hello(self, emulator: EquosEmulator) -> str:
        url = emulator.endpoint
        return (
            f"Local Equos server for tests: {url} (a page shows what is live). "
            "Any key is accepted; Ctrl-C ends it.\n"
            f"Try: curl -s {url}/v3/session-passes -H 'Authorization: Bearer any-key' "
            f"-H 'Content-Type: application/json' -d '{_BODY}'"
        )

    def request(self, request: EmulatorRequest) -> str:
        outcome = "no answer" if request.status is None else str(request.status)
        # Escaped, because a path may contain control sequences of terminals.
        return f"{request.method} {request.path.encode('unicode_escape').decode()} {outcome}"

    def counts(self, emulator: EquosEmulator) -> str:
        return (
            f"{emulator.request_count} requests, {len(emulator.live)} live, "
            f"{emulator.ended_count} ended, {emulator.billed_seconds:.0f} s billed"
        )


class _Json:
    """Output for programs: a JSON object in each line."""

    def hello(self, emulator: EquosEmulator) -> str:
        return json.dumps({"endpoint": emulator.endpoint})

    def request(self, request: EmulatorRequest) -> str:
        return json.dumps(asdict(request))

    def counts(self, emulator: EquosEmulator) -> str:
        live: list[dict[str, Any]] = [
            {"id": one.id, "name": one.name, "resource": one.resource}
            for one in emulator.live.values()
        ]
        return json.dumps(
            {
                "requests": emulator.request_count,
                "live": live,
                "ended": emulator.ended_count,
                "billed_seconds": emulator.billed_seconds,
            }
        )
