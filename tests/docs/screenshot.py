"""Takes a picture of the local server's page, in Chromium, after some calls.

``python -m tests.docs.screenshot --out .github/assets/page.png``
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
from pathlib import Path

from attrs import evolve

from equos_async import (
    APIStatusError,
    CreateEquosConversationRequest,
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
)
from equos_async.testing import EquosEmulator, Status

SIZE = "1280,860"
CALL = CreateSessionPassRequest(
    name="support call",
    avatar="av_1",
    agent="ag_1",
    client="tenant-42",
    consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
    max_duration=600,
)
TALK = CreateEquosConversationRequest(
    name="reception", character_id="ch_1", client="front-desk", max_seconds=300
)


async def call(emulator: EquosEmulator) -> None:
    """Make some calls, of which one is retried and one is refused; three stay live."""
    client = EquosClient("any-key", api_key="any-key", endpoint=emulator.endpoint)
    emulator.faults.start.add(Status(429, retry_after=0))
    for name in ("support call", "sales call", "first try"):
        started = await client.start_session(evolve(CALL, name=name))
        emulator.advance(20)
    await client.stop_session(started.session.id)
    talk = await client.start_conversation(TALK)
    emulator.join(talk.conversation.id)
    emulator.faults.start.add(Status(422, message="the agent has no voice"))
    try:
        await client.start_session(CALL)
    except APIStatusError as error:
        print(f"refused, as it should be: {error}")
    emulator.faults.start.add(Status(503), times=None, share=0.2)
    await client.aclose()


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", default=SIZE, help="pixels; default %(default)s")
    args = parser.parse_args()
    browser = shutil.which("chromium")
    if browser is None:
        parser.error("there is no chromium")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--timeout=3000")
    with EquosEmulator() as emulator:
        asyncio.run(call(emulator))
        shot = (f"--window-size={args.size}", f"--screenshot={args.out.resolve()}")
        subprocess.run([browser, *flags, *shot, emulator.endpoint], check=True, timeout=60)


if __name__ == "__main__":
    main()
