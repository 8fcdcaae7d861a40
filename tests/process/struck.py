"""A program that a signal handler's exception strikes at one step of the library after the other.

``python -m tests.process.struck HOLDER WIRE STRIDE``: it holds two sessions, ``bare``, in a
``block`` or in a ``fleet``, again and again, and each time one of its steps, STRIDE after the last
one, raises ``KeyboardInterrupt``. It prints what was left on the server, and how often that was.
``LOOP`` is ``eager``, where tasks begin at once, or ``uvloop``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

import equos_async
from equos_async import EquosClient, SessionFleet
from equos_async._http import gate
from equos_async.testing import EquosEmulator
from tests.conftest import KEY
from tests.process.caller import REQUEST

PACKAGE = str(Path(equos_async.__file__).parent)
LOOP = os.environ.get("LOOP", "")
Hold = Callable[[EquosClient], Coroutine[Any, Any, None]]


class Strike:
    """Raises at a step of the library: where a function or coroutine goes on, or at a line.

    Python calls signal handlers between any two of them.
    """

    def __init__(self, step: int) -> None:
        self.left = step
        self.place = ""
        # Python 3.11 calls it once more, without holding it, where the strike hits a finalizer that
        # the garbage collector runs while the call is prepared: so it has to outlive the strike.
        self.trace = self.enter

    def enter(self, frame: FrameType, what: str, _: object) -> Any:
        """A function is called, or a coroutine goes on."""
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE) or "/testing/" in name:
            return None
        if name.endswith("/client.py") or frame.f_code.co_name == "end":
            return None  # nothing has begun there, or the result is the caller's already
        return self.step(frame, what, None)

    def step(self, frame: FrameType, what: str, _: object) -> Any:
        """The library takes a step."""
        self.left -= what in {"call", "line"}
        if not self.left and not self.place:
            sys.settrace(None)
            self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            raise KeyboardInterrupt
        return self.step


async def bare(client: EquosClient) -> None:
    """Start, and stop by hand."""
    started = await client.start_session(REQUEST)
    try:
        await asyncio.sleep(0.01)
    finally:
        await client.stop_session(started.session.id)


async def block(client: EquosClient) -> None:
    """Let a block start and stop."""
    async with client.session(REQUEST):
        await asyncio.sleep(0.01)


async def fleet(client: EquosClient) -> None:
    """Let a fleet of its own stop what it started."""
    async with SessionFleet(client, drain_deadline=2) as one:
        await one.start(REQUEST, key=1)
        await asyncio.sleep(0.01)


HOLDERS: dict[str, Hold] = {"bare": bare, "block": block, "fleet": fleet}


async def run(client: EquosClient, hold: Hold, strike: Strike) -> None:
    """Two at the same time, and the client's end."""
    if LOOP == "eager":
        asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
    sys.settrace(strike.trace)
    await asyncio.wait([asyncio.create_task(hold(client)) for _ in range(2)])
    await client.aclose()
    sys.settrace(None)


def meet(hold: Hold, strike: Strike) -> tuple[int, int]:
    """How many sessions a strike leaves on the server, and of how many the client tells."""
    with EquosEmulator() as emulator:
        client = EquosClient(KEY, endpoint=emulator.endpoint)
        with suppress(KeyboardInterrupt):
            with asyncio.Runner(
                loop_factory=uvloop.new_event_loop if LOOP == "uvloop" else None
            ) as runner:
                runner.run(run(client, hold, strike))
        return len(emulator.live_sessions), len(client.unresolved)


def main(holder: str, wire: str, stride: str) -> None:
    """One strike after the other, until a run ends before its strike."""
    if wire == "session":
        gate.find_misfit = lambda: "the test wants the session"
    strikes = 0
    while True:
        strike = Strike(1 + strikes * int(stride))
        left, told = meet(HOLDERS[holder], strike)
        if not strike.place:
            break
        strikes += 1
        if left or told:
            print(f"{strike.place}: left {left}, told {told}")
    print(f"{strikes} strikes", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
