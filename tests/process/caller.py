"""A program as people write them: it holds sessions, starts more, and is ended from outside.

``python -m tests.process.caller HOLDER [TERM]``: a holder is ``bare``, ``block`` or ``fleet``; on
SIGTERM it calls ``sys.exit`` in its event loop (``exit``), cancels its main task (``cancel``), or
lets its fleet do that (``fleet``). ``LOOP`` is ``eager``, where tasks begin at once, or ``uvloop``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import uvloop
from attrs import evolve

from equos_async import (
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
    Limits,
    SessionFleet,
    Timeouts,
)

LIVE = 3
"""Sessions that it holds."""
ON_THE_WIRE = 2
"""Starts that it sends then; as many more wait for a connection as are live."""
EXIT_CODE = 3
ATTEMPT = 0.8
"""Seconds that an attempt may take."""

REQUEST = CreateSessionPassRequest(
    name="held",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
    max_duration=600,
)
Hold = Callable[[CreateSessionPassRequest, asyncio.Event], Coroutine[Any, Any, None]]


async def for_ever() -> None:
    """Hold a session until the program ends."""
    await asyncio.get_running_loop().create_future()


def bare(client: EquosClient) -> Hold:
    """Start and stop by hand."""

    async def hold(request: CreateSessionPassRequest, live: asyncio.Event) -> None:
        started = await client.start_session(request)
        try:
            live.set()
            await for_ever()
        finally:
            await client.stop_session(started.session.id)

    return hold


def block(client: EquosClient) -> Hold:
    """Let a block start and stop."""

    async def hold(request: CreateSessionPassRequest, live: asyncio.Event) -> None:
        async with client.session(request):
            live.set()
            await for_ever()

    return hold


def shared(fleet: SessionFleet) -> Hold:
    """Let a fleet stop what it started."""

    async def hold(request: CreateSessionPassRequest, live: asyncio.Event) -> None:
        await fleet.start(request, key=object())
        live.set()
        await for_ever()

    return hold


async def hold_all(hold: Hold) -> None:
    """Hold some, and then start more."""
    async with asyncio.TaskGroup() as group:
        live = [asyncio.Event() for _ in range(LIVE)]
        for one in live:
            group.create_task(hold(REQUEST, one))
        for one in live:
            await one.wait()
        for _ in range(ON_THE_WIRE + LIVE):
            group.create_task(hold(evolve(REQUEST, name="more"), asyncio.Event()))


async def run(client: EquosClient, holder: str, on_term: str) -> None:
    """Hold, until it is ended."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    if os.environ.get("LOOP") == "eager":
        loop.set_task_factory(vars(asyncio)["eager_task_factory"])
    if on_term == "exit":
        loop.add_signal_handler(signal.SIGTERM, sys.exit, EXIT_CODE)
    elif on_term == "cancel":
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    if holder == "bare":
        await hold_all(bare(client))
    elif holder == "block":
        async with client:
            await hold_all(block(client))
    else:
        async with client, SessionFleet(client, max_live=LIVE + ON_THE_WIRE) as fleet:
            if on_term == "fleet":
                fleet.stop_on_signals()
            await hold_all(shared(fleet))


def main(holder: str, on_term: str = "") -> None:
    """Run, and print what is unresolved at the end."""
    client = EquosClient(
        limits=Limits(start_connections=ON_THE_WIRE),
        timeouts=Timeouts(start_attempt=ATTEMPT, stop_attempt=ATTEMPT),
    )
    try:
        with suppress(KeyboardInterrupt, asyncio.CancelledError, EquosError):
            other = os.environ.get("LOOP") == "uvloop"
            with asyncio.Runner(loop_factory=uvloop.new_event_loop if other else None) as runner:
                runner.run(run(client, holder, on_term))
    finally:
        print("unresolved:", [one.session_id or one.name for one in client.unresolved], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
