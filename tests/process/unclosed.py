"""A program that closes no client: one event loop runs on in a thread, one rests, one is closed.

``python -m tests.process.unclosed``; ``LOOP`` is empty or ``uvloop``. On each loop there is a
session in a block that nobody leaves, and a start on the wire, for which it is told by a line.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import uvloop
from attrs import evolve

from equos_async import EquosClient, Limits
from tests.process.caller import REQUEST

NAMES = "thread", "resting", "closed"
KEPT: list[object] = []


async def hold(name: str) -> None:
    """One session, and one more that is under way."""
    client = EquosClient(limits=Limits(keepalive=0))
    live, starting = (
        client.session(evolve(REQUEST, name=f"{name}, {how}")) for how in ("live", "starting")
    )
    await live.__aenter__()
    KEPT.extend((live, starting, asyncio.ensure_future(starting.__aenter__())))
    await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    """Leave it all as it is."""
    new_loop = uvloop.new_event_loop if os.environ.get("LOOP") else asyncio.new_event_loop
    in_thread, resting, closed = (new_loop() for _ in NAMES)
    threading.Thread(target=in_thread.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(hold("thread"), in_thread).result()
    resting.run_until_complete(hold("resting"))
    closed.run_until_complete(hold("closed"))
    closed.close()
    print("the end", flush=True)


if __name__ == "__main__":
    main()
