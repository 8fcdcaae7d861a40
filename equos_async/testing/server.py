"""The emulator by hand: ``python -m equos_async emulator``."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Callable

from .emulator import EmulatorRequest, EquosEmulator
from .faults import Delay, Drop, Fault, Garbage, Hang, Redirect, Reset, Status, Truncate

FAULT_SYNTAX = (
    "OPERATION:KIND[,times=N][,share=0.1], where OPERATION is start, stop or both, and KIND is one "
    "of a status such as 429 (with ,retry_after=2), delay=SECONDS, drop=before|after, "
    "reset=before|after, truncate=BYTES, redirect=URL, garbage, hang; without times it goes on"
)

DEFAULT_PORT = 3001
"""The vendor's reference names http://localhost:3001."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="default %(default)s: loopback only")
    add("--port", type=int, default=DEFAULT_PORT, help="default %(default)s; 0: any")
    add("--fault", type=parse_fault, action="append", default=[], metavar="SPEC", help=FAULT_SYNTAX)
    add("--limit-concurrent", type=int, help="sessions that may be live at once")
    add("--limit-duration", type=float, help="seconds a session may ask for")
    add("--seed", type=int, default=0, help="of the faults that hit a share of requests")
    add(
        "--log",
        choices=("text", "json"),
        default="text",
        help="one line a request",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; the last words are the counts."""
    emulator = EquosEmulator(
        host=args.host,
        port=args.port,
        limit_concurrent=args.limit_concurrent,
        limit_duration=args.limit_duration,
        seed=args.seed,
        on_request=_log_json if args.log == "json" else _log_text,
    )
    for operation, faults, times, share in args.fault:
        for queue in emulator.faults.named(operation):
            queue.add(*faults, times=times, share=share)
    try:
        asyncio.run(_serve(emulator, as_json=args.log == "json"))
    except OSError as error:
        print(f"cannot listen on {args.host}:{args.port}: {error.strerror}")
        return 1
    return 0


def parse_fault(spec: str) -> tuple[str, tuple[Fault, ...], int | None, float]:
    """One ``--fault``: the operation, what happens, how often, and to which share of requests.

    Raises:
        argparse.ArgumentTypeError: The text is not of the documented form.
    """
    operation, _, rest = spec.partition(":")
    kind, *options = rest.split(",")
    values = {name: value for name, _, value in (option.partition("=") for option in options)}
    times, share = values.pop("times", None), values.pop("share", "1")
    name, _, value = kind.partition("=")
    try:
        fault = _fault(name, value, values)
        if operation in {"start", "stop", "both"} and not values:
            return operation, (fault,), None if times is None else int(times), float(share)
    except (ValueError, KeyError):
        pass  # told below, in the words of the syntax
    raise argparse.ArgumentTypeError(f"{spec!r} is not {FAULT_SYNTAX}")


def _fault(kind: str, value: str, options: dict[str, str]) -> Fault:
    if kind.isdecimal():
        return Status(int(kind), retry_after=options.pop("retry_after", None))
    if kind in {"drop", "reset"} and value in {"before", "after"}:
        return (Drop if kind == "drop" else Reset)("after" if value == "after" else "before")
    made: dict[str, Callable[[], Fault]] = {
        "delay": lambda: Delay(float(value)),
        "truncate": lambda: Truncate(int(value)),
        "redirect": lambda: Redirect(value),
        "garbage": Garbage,
        "hang": Hang,
    }
    return made[kind]()


async def _serve(emulator: EquosEmulator, *, as_json: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopped.set)
    async with emulator:
        _say(_hello_json(emulator) if as_json else _hello_text(emulator))
        await stopped.wait()
    _say(_counts_json(emulator) if as_json else _counts_text(emulator))


def _say(text: str) -> None:
    print(text, flush=True)


def _hello_text(emulator: EquosEmulator) -> str:
    body = (
        '{"name": "by hand", "avatar": {"id": "av_1"}, "agent": {"id": "ag_1"}, '
        '"consumerIdentity": {"identity": "user-7", "name": "Ada"}, "maxDuration": 60}'
    )
    return (
        f"A local Equos, for tests: {emulator.endpoint} (any client key; Ctrl-C ends it)\n"
        f"Try: curl -s {emulator.endpoint}/v3/session-passes -H 'Authorization: Bearer any-key' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


def _hello_json(emulator: EquosEmulator) -> str:
    return json.dumps({"endpoint": emulator.endpoint})


def _log_text(request: EmulatorRequest, status: int | None) -> None:
    outcome = "no answer" if status is None else str(status)
    _say(f"{request.method} {request.path} {outcome}")


def _log_json(request: EmulatorRequest, status: int | None) -> None:
    line = {"method": request.method, "path": request.path, "status": status, "at": request.at}
    _say(json.dumps(line))


def _counts_text(emulator: EquosEmulator) -> str:
    return (
        f"{emulator.request_count} requests, {len(emulator.live_sessions)} sessions live, "
        f"{emulator.ended_count} ended, {emulator.billed_seconds:.0f} s billed"
    )


def _counts_json(emulator: EquosEmulator) -> str:
    live = [{"id": one.id, "name": one.name} for one in emulator.live_sessions.values()]
    return json.dumps(
        {
            "requests": emulator.request_count,
            "live": live,
            "ended": emulator.ended_count,
            "billed_seconds": emulator.billed_seconds,
        }
    )
