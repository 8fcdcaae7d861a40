"""A session against the local server, from start to stop, and what a refusal looks like."""

import asyncio

from equos_async import APIStatusError, CreateSessionPassRequest, EquosClient
from equos_async import EquosParticipantIdentity as Person
from equos_async.testing import EquosEmulator

REQUEST = CreateSessionPassRequest(
    name="support call", avatar="av_1", agent="ag_1", consumer_identity=Person("user-7", "Ada"), max_duration=600
)


async def main() -> None:
    """Start, stop, and be refused."""
    async with EquosEmulator(limit_concurrent=1) as local, EquosClient("key", endpoint=local.endpoint) as client:
        async with client.session(REQUEST) as started:
            print("joinable at", started.session.host.server_url)
            try:
                await client.start_session(REQUEST, deadline=0.5)
            except APIStatusError as error:
                print("refused:", error)
        print("left on the server:", len(local.live_sessions))


asyncio.run(main())
