"""Conversations with a character: two people talk at once, and their transcripts are printed.

It needs the server key, shows how to read and list conversations, and first ends what an earlier
run of it left. Ctrl-C and SIGTERM leave nothing running. Without EQUOS_ENDPOINT it uses a local
server; for the real service set EQUOS_ENDPOINT=https://api.equos.ai and EQUOS_API_KEY.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from attrs import evolve

from equos_async import (
    ConversationStatus,
    CreateEquosConversationRequest,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
)
from equos_async.testing import EquosEmulator

TEMPLATE = CreateEquosConversationRequest(
    name="reception",
    character_id="ch_1",
    client="front-desk",  # yours: the server lists conversations by it
    max_seconds=300,  # limits the cost of a conversation that is never stopped
)
SECONDS = float(os.environ.get("TALK_SECONDS", "1"))


async def tidy(client: EquosClient) -> None:
    """End what a killed earlier run left; correct only if no other run is in progress."""
    async for one in client.conversations(client=TEMPLATE.client):
        if one.status == ConversationStatus.RUNNING:
            await client.stop_conversation(one.id)
            print(f"ended {one.name!r}, which an earlier run left", flush=True)


async def talk(client: EquosClient, name: str, joinable: Callable[[str], object]) -> None:
    """Have one conversation, and print what was said in it."""
    person = EquosParticipantIdentity(identity=name.lower(), name=name)
    try:
        async with client.conversation(evolve(TEMPLATE, consumer=person)) as started:
            conversation = started.conversation
            # started.consumer_access_token goes to this person's browser, which joins with it.
            print(f"{name}: join {conversation.server_url}", flush=True)
            joinable(conversation.id)
            await asyncio.sleep(SECONDS)  # here they talk
        ended = await client.get_conversation(conversation.id)
    except EquosError as error:  # of one person; the other conversations go on
        print(f"{name}: sorry, {error}", flush=True)
        return
    for line in (ended and ended.transcript) or ():
        print(f"{name}: {line.author} said {line.content!r}", flush=True)


async def run(client: EquosClient, joinable: Callable[[str], object]) -> None:
    """Talk to all people at once; if this is cancelled, each conversation is stopped first."""
    await tidy(client)
    async with asyncio.TaskGroup() as group:
        for name in sys.argv[1:] or ["Ada", "Grace"]:
            group.create_task(talk(client, name, joinable))


async def main() -> None:
    """Use the real service, or a local server, on which the people say hello."""
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        # SIGTERM ends the program as Ctrl-C does; by default the process would be killed.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if "EQUOS_ENDPOINT" in os.environ:
        async with EquosClient() as client:
            await run(client, lambda _: None)
        return
    async with EquosEmulator() as server:
        print(f"EQUOS_ENDPOINT is not set: using a local server, {server.endpoint}", flush=True)
        async with EquosClient(api_key="any-key", endpoint=server.endpoint) as client:
            await run(client, lambda conversation: server.say(conversation, "Hello!"))
        print(f"left on the server: {len(server.live)}", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main())
