"""The API's answers about conversations, written by hand, as those in ``sessions``.

The source is the vendor's published SDKs, Python 3.1.5 of April 2026.
"""

from __future__ import annotations

from typing import Any, Final

from .entries import Entry, Kind
from .replies import date
from .tokens import LiveKit
from .validation import problems_of_conversation

_MADE: Final = "2026-01-10T09:11:47.000Z"

DEFAULT_SECONDS: Final = 3600.0
"""Assumption: the ``maxSeconds`` of a conversation whose start had none; each answer has one."""


def begun(entry: Entry, conversation: dict[str, Any], livekit: LiveKit) -> dict[str, Any]:
    """``CreateEquosConversationResponse``: the only answer with the character, and with tokens.

    Assumption: there are no tokens for a LiveKit server of the caller's own, because only the
    caller has its secret.
    """
    answer: dict[str, Any] = {
        "conversation": {**conversation, "character": _character(entry.wanted["characterId"])}
    }
    if "host" in entry.wanted:
        return answer
    parts = {"consumer": "consumerAccessToken", "remoteAgent": "remoteAgentAccessToken"}
    for part, name in parts.items():
        if (one := entry.wanted.get(part)) is not None:
            answer[name] = livekit.token(entry.id, one["identity"], one["name"], entry.started_at)
    return answer


def describe(entry: Entry, status: str, livekit: LiveKit) -> dict[str, Any]:
    """``EquosConversation``."""
    wanted = entry.wanted
    began = date(entry.started_at)
    conversation: dict[str, Any] = {
        "id": entry.id,
        "organizationId": "org_1",
        "name": wanted["name"],
        "status": status,
        # Assumption: the price of a second; the unit is not documented.
        "charge": True,
        "chargeBySecond": 1,
        "maxSeconds": entry.max_duration,
        "characterId": wanted["characterId"],
        # Assumption: the room of a conversation has its id.
        "room": entry.id,
        "serverUrl": wanted["host"]["serverUrl"] if "host" in wanted else livekit.url,
        "transcript": [
            {"id": one.id, "author": one.author, "content": one.content, "recordedAt": date(one.at)}
            for one in entry.said
        ],
        "timeline": _timeline(entry),
        "startedAt": began,
        "createdAt": began,
        "updatedAt": began,
    }
    for optional in ("client", "promptCtx", "promptTemplateVars"):
        if optional in wanted:
            conversation[optional] = wanted[optional]
    for part in ("consumer", "remoteAgent"):
        if part in wanted:
            conversation[f"{part}Identity"] = wanted[part]["identity"]
            conversation[f"{part}Name"] = wanted[part]["name"]
    if entry.joined_at is not None:
        conversation["joinedAt"] = conversation["updatedAt"] = date(entry.joined_at)
    if entry.ended_at is not None:
        conversation["endedAt"] = conversation["updatedAt"] = date(entry.ended_at)
    return conversation


def _timeline(entry: Entry) -> list[dict[str, Any]]:
    """Assumption: the values of ``type``; the SDK has the field names only."""
    happened: list[dict[str, Any]] = [
        {
            "type": "utterance",
            "author": one.author,
            "content": one.content,
            "recordedAt": date(one.at),
        }
        for one in entry.said
    ]
    if entry.joined_at is not None:
        happened.append({"type": "joined", "recordedAt": date(entry.joined_at)})
    return sorted(happened, key=lambda one: str(one["recordedAt"]))


def _character(character_id: str) -> dict[str, Any]:
    return {
        "id": character_id,
        "organizationId": "org_1",
        "name": "Ada",
        "livekitIdentity": "ada",
        "search": False,
        "client": "tenant-42",
        "faceId": "face_1",
        "face": {"id": "face_1"},
        "voiceId": "voice_1",
        "voice": {"id": "voice_1"},
        "brainId": "brain_1",
        "brain": {"id": "brain_1"},
        "knowledgeBaseId": "kb_1",
        "knowledgeBase": {"id": "kb_1"},
        "elevenlabsAgentId": "agent_1",
        "createdAt": _MADE,
        "updatedAt": _MADE,
    }


CONVERSATION: Final = Kind(
    resource="conversation",
    plural="conversations",
    fields={
        "name": (),
        "characterId": (),
        "client": (),
        "host": ("serverUrl",),  # its access token is a secret, and not needed
        "remoteAgent": ("identity", "name"),
        "consumer": ("identity", "name"),
        "maxSeconds": (),
        "promptCtx": (),
        "promptTemplateVars": (),
    },
    seconds="maxSeconds",
    default_seconds=DEFAULT_SECONDS,
    variables="promptTemplateVars",
    first_status="running",
    problems=problems_of_conversation,
    describe=describe,
    begun=begun,
)
