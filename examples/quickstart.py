"""A session against the local server, from start to stop, and what a refusal looks like."""

import asyncio

from equos_async import APIStatusError, CreateSessionPassRequest, EquosClient
from equos_async import EquosParticipantIdentity as Person
from equos_async.testing import EquosEmulator

ADA = Person(identity="user-7", name="Ada")
CALL = CreateSessionPassRequest(name="call", avatar="av_1", agent="ag_1", consumer_identity=ADA)


async def main() -> None:
    async with EquosEmulator() as server, EquosClient("key", endpoint=server.endpoint) as client:
        async with client.session(CALL) as started:
            print("joinable at", started.session.host.server_url)
            server.suspended = True
            try:
                await client.start_session(CALL)
            except APIStatusError as error:
                print("refused:", error)
        print("left on the server:", len(server.live_sessions))


asyncio.run(main())
