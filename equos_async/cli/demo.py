"""The demo: hundreds of sessions from one client against a server that misbehaves, shown live."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from queue import SimpleQueue
from typing import IO, Any, cast

from attrs import define, evolve

from equos_async.client import EquosClient
from equos_async.errors import EquosError, StartOutcomeUnknownError
from equos_async.events import Unresolved, logger
from equos_async.models import CreateSessionPassRequest, EquosParticipantIdentity
from equos_async.settings import Settle, Timeouts

from .signals import run_command
from .tally import UNITS, Show, Tally, display, table

LOST = ", whose start's answer was lost; each was reported"
"""The note about sessions that are left on the server, if the client reported all of them."""

SERVER = ("--scenario=bad-day",)
"""The options of the emulator."""

SERVE = """
import os, runpy, signal, threading

def watch():
    os.read(0, 1)  # returns when the demo's end of the pipe is closed
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so is its end of the output
    os.kill(os.getpid(), signal.SIGTERM)

# A daemon, as Python must not wait for it. It must not read sys.stdin, whose lock it would keep.
threading.Thread(target=watch, daemon=True).start()
runpy.run_module("equos_async", run_name="__main__", alter_sys=True)
"""
"""The emulator's program: it ends when the demo has ended, in whatever way."""

SETTLE = Settle(patience=7.0, look_for=8.0)
"""Time for two looks: the list is long, and after each of its pages the client waits a second."""

TIMES = Timeouts(start_attempt=5.0, stop_attempt=5.0, deadline=10.0)
"""Shorter than the defaults, so that the demo does not wait long for what hangs."""

TEMPLATE = CreateSessionPassRequest(
    name="demo",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
    max_duration=600,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``equos-async demo``."""
    add = partial(parser.add_argument, metavar="N")
    add("--sessions", type=_count, default=250, help="sessions in total; default %(default)s")
    add("--at-once", type=_count, default=50, help="sessions at the same time; default %(default)s")
    add("--seed", type=int, default=7, help="random seed of the faults; default %(default)s")
    parser.add_argument(
        "--no-settle",
        action="store_true",
        help="without the server key: starts whose answer is lost are only reported",
    )
    parser.add_argument("--json", action="store_true", help="print the table as one JSON object")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the demo.

    Returns:
        0 if each session that is left on the server was reported; 1 if one was not; 130 if the
        demo was interrupted, and 143 if it was terminated. The sessions are stopped then, too.
    """
    tally = Tally(total=args.sessions, settles=not args.no_settle)
    with _emulator(args.seed) as emulator:
        code = _finish(emulator.endpoint, tally, args)
    return _conclude(tally, emulator.last_words(), as_json=args.json) or code


def _finish(endpoint: str, tally: Tally, args: argparse.Namespace) -> int:
    """Run all sessions; the exit code says whether that was interrupted."""
    shown = nullcontext(_nothing) if args.json else display(tally)
    with suppress(KeyboardInterrupt), quiet(), shown as show:
        return run_command(_run_sessions, endpoint, tally, args.at_once, show)
    return 130


def _nothing() -> None:
    """Show nothing during the run: with ``--json`` one object is printed at its end."""


def _conclude(tally: Tally, left: dict[str, Any], *, as_json: bool) -> int:
    """Print what happened; 1 if a session is left on the server and was not reported."""
    forgotten = unreported(left["live"], tally.unresolved)
    if as_json:
        told: dict[str, Any] = {"unreported": forgotten}
        for name, number, words in table(tally, left):
            unit = words if words in UNITS else ""
            told[f"{name}{unit}".replace(" ", "_")] = round(number)
        print(json.dumps(told))
        return int(bool(forgotten))
    is_known = all(one.operation == "start" for one in tally.unresolved) and not forgotten
    for name, number, words in table(tally, left, note=LOST if is_known and left["live"] else ""):
        print(f"{name:<18}  {number:>6.0f}{words}")
    if forgotten:
        print(f"left on the server, and not reported: {forgotten}")
    return int(bool(forgotten))


def unreported(live: list[dict[str, str]], unresolved: Iterable[Unresolved]) -> list[str]:
    """The names of the sessions on the server that the client does not know to be unresolved."""
    known = {one.session_id for one in unresolved} | {one.name for one in unresolved}
    return [one["name"] for one in live if not {one["id"], one["name"]} & known]


async def _run_sessions(endpoint: str, tally: Tally, at_once: int, show: Show) -> int:
    todo = iter(range(tally.total))
    async with EquosClient(
        "demo-key",
        api_key="demo-server-key" if tally.settles else None,
        endpoint=endpoint,
        timeouts=TIMES,
        settle=SETTLE,
        on_event=tally.count,
    ) as client:
        workers = {asyncio.create_task(_work(client, todo, tally)) for _ in range(at_once)}
        try:
            working = workers
            while working:
                show()
                _, working = await asyncio.wait(working, timeout=0.1)
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            try:
                await asyncio.wait(workers)
                await client.aclose(deadline=5.0)
            finally:  # after a second Ctrl-C the table is printed, too
                tally.unresolved = client.unresolved
                show()
    return 0


async def _work(client: EquosClient, todo: Iterator[int], tally: Tally) -> None:
    """Run sessions, one after the other."""
    for number in todo:
        name, begun, held = f"demo-{number}", time.perf_counter(), False
        try:
            async with client.session(evolve(TEMPLATE, name=name)):
                held = True
                tally.begin(name, time.perf_counter() - begun)
                await asyncio.sleep(0.2)  # here the person talks to the avatar
        except StartOutcomeUnknownError:
            tally.unknown += 1
        except EquosError:
            held = False
            tally.failed += 1
        finally:
            tally.stopped += held  # after Ctrl-C, too: leaving the block waits for the stop


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Hide the library's warnings, because the command prints the same facts at its end."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@define
class _Emulator:
    """The emulator, in a process of its own."""

    endpoint: str
    lines: deque[str]

    def last_words(self) -> dict[str, Any]:
        """Its counts at its end: live sessions and billed seconds."""
        words: dict[str, Any] = json.loads(self.lines[-1])
        return words


@contextmanager
def _emulator(seed: int) -> Generator[_Emulator]:
    command = [sys.executable, "-c", SERVE, "emulator", "--port=0", "--log=json"]
    # In a session of its own, so that Ctrl-C does not reach it: the client still has to stop its
    # sessions.
    process = subprocess.Popen(  # noqa: S603 - our own command line
        [*command, f"--seed={seed}", *SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    output = cast("IO[str]", process.stdout)
    first, lines = SimpleQueue[str](), deque[str](maxlen=2)

    def read() -> None:
        """Read its log, because it would block on a full pipe."""
        first.put(output.readline())
        lines.extend(output)

    reader = threading.Thread(target=read, daemon=True)
    with process:
        reader.start()
        try:
            yield _Emulator(json.loads(first.get())["endpoint"], lines)
        finally:
            process.terminate()
            reader.join()
