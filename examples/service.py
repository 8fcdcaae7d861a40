"""An asyncio service: people queue up to talk, and a few workers serve them.

It shows where to handle each error, and that Ctrl-C and SIGTERM leave nothing running. Without
EQUOS_ENDPOINT it uses a local server; for the real service set EQUOS_ENDPOINT=https://api.equos.ai
and EQUOS_CLIENT_KEY.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

from attrs import evolve

from equos_async import (
    APIConnectionError,
    APIStatusError,
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
    OverloadedError,
    StartOutcomeUnknownError,
)
from equos_async.testing import Drop, EquosEmulator, Status

TEMPLATE = CreateSessionPassRequest(
    name="reception",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="nobody", name="Nobody"),
    max_duration=300,  # limits the cost of a start of unknown outcome
)
WORKERS = 4


async def serve(client: EquosClient, visitor: str) -> str:
    """Serve one visitor; returns how it went."""
    person = EquosParticipantIdentity(identity=visitor.lower(), name=visitor)
    try:
        async with client.session(evolve(TEMPLATE, consumer_identity=person)) as started:
            await asyncio.sleep(0)  # here the visitor joins started.session.host.server_url
            return f"served at {started.session.host.server_url}"
    except StartOutcomeUnknownError:
        return "not tried again: a session may be running, see client.unresolved"
    except (APIStatusError, OverloadedError) as error:
        return f"the server says no ({error})"
    except APIConnectionError as error:
        return f"no connection ({error})"


async def work(client: EquosClient, visitors: asyncio.Queue[str]) -> None:
    """Serve one visitor after the other."""
    while True:
        visitor = await visitors.get()
        print(f"{visitor}: {await serve(client, visitor)}", flush=True)
        visitors.task_done()


async def serve_all(client: EquosClient, names: list[str]) -> None:
    """Serve all visitors; Ctrl-C stops every session."""
    visitors: asyncio.Queue[str] = asyncio.Queue()
    for name in names:
        visitors.put_nowait(name)
    workers = [asyncio.create_task(work(client, visitors)) for _ in range(WORKERS)]
    try:
        await visitors.join()
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def run(endpoint: str | None, key: str | None, names: list[str]) -> None:
    """Serve all, close the client, and print what is unresolved, also after Ctrl-C."""
    client = EquosClient(key, endpoint=endpoint)
    try:
        async with client:
            await serve_all(client, names)
    finally:
        for one in client.unresolved:
            print(f"look at this: {one.operation} of {one.name!r}, {one.reason}", flush=True)


async def main() -> None:
    """Use the real service, or a local server that has a bad day."""
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        # SIGTERM ends the program as Ctrl-C does; by default the process would be killed.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    names = ["Ada", "Grace", "Edsger", "Barbara", "Alan", "Frances"]
    if "EQUOS_ENDPOINT" in os.environ:
        await run(None, None, names)
        return
    async with EquosEmulator() as server:
        print(f"EQUOS_ENDPOINT is not set: using a local server, {server.endpoint}", flush=True)
        server.faults.start.add(Status(429, retry_after=0))
        server.faults.start.add(Status(422, message="the agent has no voice"))
        server.faults.start.add(Drop("after"))
        server.faults.stop.add(Status(503))
        try:
            await run(server.endpoint, "any-key", names)
        finally:
            print(f"left on the server: {len(server.live_sessions)}", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main())
