"""Join an avatar's room with the `livekit` package, and print who comes and what they send.

It needs `pip install livekit`. Ctrl-C and SIGTERM leave the room and stop the session. For the real
service set EQUOS_ENDPOINT=https://api.equos.ai and EQUOS_CLIENT_KEY. Without EQUOS_ENDPOINT it uses
a local server whose tokens are for the LiveKit server at LIVEKIT_URL, such as that of
`livekit-server --dev`; no avatar comes to that room.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import time
from contextlib import suppress

from livekit import rtc

from equos_async import (
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
)
from equos_async.testing import EquosEmulator

REQUEST = CreateSessionPassRequest(
    name="guided tour",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
    max_duration=300,
)
JOIN_SECONDS = float(os.environ.get("JOIN_SECONDS", "20"))
STAY_SECONDS = float(os.environ.get("STAY_SECONDS", "60"))


def watch(room: rtc.Room) -> asyncio.Event:
    """Print what happens in a room; returns what is set when it closes."""
    closed = asyncio.Event()

    def came(who: rtc.RemoteParticipant) -> None:
        print(f"{who.identity} is here", flush=True)

    def sends(
        track: rtc.RemoteTrack, _: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        # rtc.AudioStream(track) and rtc.VideoStream(track) have its frames.
        print(f"{who.identity} sends {rtc.TrackKind.Name(track.kind)}", flush=True)

    def close(_: object) -> None:
        closed.set()

    room.on("participant_connected", came)
    room.on("track_subscribed", sends)
    room.on("disconnected", close)
    return closed


async def visit(started: CreateEquosSessionResponse) -> str:
    """Join the room, and stay until it closes or the time is over; returns how it went."""
    room = rtc.Room()
    closed = watch(room)
    try:
        async with asyncio.timeout(JOIN_SECONDS):
            await room.connect(started.session.host.server_url, started.consumer_access_token or "")
    except rtc.ConnectError as error:
        return f"could not join: {error.message}"
    except TimeoutError:
        return f"could not join: no answer within {JOIN_SECONDS:g} s"
    try:
        print(f"in room {room.name}, with {[*room.remote_participants]}", flush=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(STAY_SECONDS):
                await closed.wait()
    finally:
        await room.disconnect()
    return "the room was closed" if closed.is_set() else f"left after {STAY_SECONDS:g} s"


async def run(client: EquosClient) -> None:
    """Run one session; it is stopped on every way out, also if the room cannot be joined."""
    async with client.session(REQUEST) as started:
        print(f"session {started.session.id}: {started.session.host.server_url}", flush=True)
        print(await visit(started), flush=True)
    print("stopped", flush=True)


async def main() -> None:
    """Use the real service, or a local server for a LiveKit server of yours."""
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        # SIGTERM ends the program as Ctrl-C does; by default the process would be killed.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if "EQUOS_ENDPOINT" in os.environ:
        async with EquosClient() as client:
            await run(client)
        return
    async with EquosEmulator(
        livekit_url=os.environ.get("LIVEKIT_URL", "ws://127.0.0.1:7880"),
        livekit_key=os.environ.get("LIVEKIT_API_KEY", "devkey"),
        livekit_secret=os.environ.get("LIVEKIT_API_SECRET", "secret"),
    ) as server:
        print(f"EQUOS_ENDPOINT is not set: using a local server, {server.endpoint}", flush=True)
        async with EquosClient("any-key", endpoint=server.endpoint) as client:
            await run(client)


if __name__ == "__main__":
    # What is registered first runs last: threads of the package may still call into Python when it
    # has shut down, and would abort the process if Python ended first.
    atexit.register(time.sleep, 0.5)
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main())
