"""An asyncio service: a queue of people who want to talk, and a few workers that serve them.

It shows where each error belongs, and that Ctrl-C leaves nothing running. Run it as it is: it
brings a local server; or point it to the real one with EQUOS_ENDPOINT and EQUOS_CLIENT_KEY.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from attrs import evolve, frozen

from equos_async import (
    APIConnectionError,
    APIStatusError,
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
    Event,
    OverloadedError,
    StartOutcomeUnknownError,
)
from equos_async.testing import Drop, EquosEmulator, Status

TEMPLATE = CreateSessionPassRequest(
    name="reception",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="nobody", name="Nobody"),
    max_duration=300,  # the bound of what an unknown outcome can cost
)


@frozen
class Visitor:
    """Somebody who wants to talk."""

    identity: str
    name: str


async def serve(client: EquosClient, visitor: Visitor) -> str:
    """One conversation; returns how it went."""
    person = EquosParticipantIdentity(identity=visitor.identity, name=visitor.name)
    try:
        async with client.session(evolve(TEMPLATE, consumer_identity=person)) as started:
            await asyncio.sleep(0)  # here the visitor joins started.session.host.server_url
            return f"served in session {started.session.name!r}"
    except StartOutcomeUnknownError as error:
        return f"not repeated, a session may be running: {error.reason_for_people}"
    except (APIStatusError, OverloadedError) as error:
        return f"the server says no: {error}"
    except APIConnectionError as error:
        return f"no connection: {error}"
