"""The two billed things, side by side: what holds for one is tested of the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from attrs import frozen

from equos_async import (
    CreateEquosConversationRequest,
    EquosClient,
    EquosParticipantIdentity,
)
from tests.conftest import API_KEY, KEY, REQUEST

TALK: Final = CreateEquosConversationRequest(
    name="support call",
    character_id="ch_1",
    consumer=EquosParticipantIdentity(identity="user-7", name="Ada"),
    client="tenant-42",
    max_seconds=600,
)


@frozen
class Kind:
    """One of them.

    Attributes:
        word: What it is called.
        request: What is asked for.
        keys: What a client of it needs.
        start: Begins one.
        stop: Ends one.
        block: Holds one.
        paths: Where starts and stops are sent.
    """

    word: str
    request: Any
    keys: dict[str, Any]
    start: Callable[..., Awaitable[Any]]
    stop: Callable[..., Awaitable[Any]]
    block: Callable[..., AbstractAsyncContextManager[Any]]
    paths: tuple[str, str]

    def client(self, endpoint: str, **settings: Any) -> EquosClient:
        """A client with the key for it, which searches for lost starts only if asked to."""
        settings.setdefault("settle", None)
        return EquosClient(endpoint=endpoint, **self.keys, **settings)

    async def started_id(self, client: EquosClient, **settings: Any) -> str:
        """Begin one; its id."""
        started = await self.start(client, self.request, **settings)
        found: str = getattr(started, self.word).id
        return found


SESSION: Final = Kind(
    "session",
    REQUEST,
    {"client_key": KEY},
    EquosClient.start_session,
    EquosClient.stop_session,
    EquosClient.session,
    ("/v3/session-passes", "/v3/session-passes/{id}/stop"),
)
CONVERSATION: Final = Kind(
    "conversation",
    TALK,
    {"api_key": API_KEY},
    EquosClient.start_conversation,
    EquosClient.stop_conversation,
    EquosClient.conversation,
    ("/v3/conversations", "/v3/conversations/{id}/stop"),
)
KINDS: Final = {kind.word: kind for kind in (SESSION, CONVERSATION)}
