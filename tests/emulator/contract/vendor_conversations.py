"""With ``equos`` 3.1.5, which has conversations: ``ENDPOINT CLIENT_KEY API_KEY``."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def main(endpoint: str, _: str, api_key: str) -> None:
    """Start, list, get, stop, and ask for the health."""
    # Imported by name: no other environment has it.
    equos: Any = import_module("equos")
    models = equos.models
    client = equos.EquosClient(api_key, equos.EquosOptions(endpoint=endpoint))
    request = models.CreateEquosConversationRequest(
        name="vendor's",
        character_id="ch_1",
        client="tenant-42",
        max_seconds=60,
        consumer=models.EquosParticipantIdentity(identity="user-7", name="Ada"),
    )
    started = client.conversations.start(request)
    check(isinstance(started, models.CreateEquosConversationResponse), started)
    check(started.conversation.character.livekit_identity == "ada", started)
    check(started.consumer_access_token.count(".") == 2, started)
    page = client.conversations.list(client_query="tenant-42")
    check([one.id for one in page.conversations] == [started.conversation.id], page)
    found = client.conversations.get(started.conversation.id)
    check(isinstance(found, models.EquosConversation) and found.status == "running", found)
    ended = client.conversations.stop(started.conversation.id)
    check(isinstance(ended, models.EquosConversation) and ended.status == "ended", ended)
    check(isinstance(client.health.check(), models.HealthResponse), "no health")


def check(holds: bool, told: object) -> None:
    """Raise an error with the observed values if a condition is false."""
    if not holds:
        raise SystemExit(f"not as it should be: {told!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
