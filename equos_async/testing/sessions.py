"""The API's answers about session passes, written by hand.

Nothing here comes from the client's own tables, so a mistake in them is not repeated here.
"""

from __future__ import annotations

from typing import Any, Final

from .entries import Entry, Kind
from .replies import date
from .tokens import LiveKit
from .validation import problems_of_session

_MADE: Final = "2025-12-10T09:11:47.000Z"


def begun(entry: Entry, session: dict[str, Any], livekit: LiveKit) -> dict[str, Any]:
    """``CreateEquosSessionResponse``."""
    consumer = entry.wanted["consumerIdentity"]
    token = livekit.token(entry.id, consumer["identity"], consumer["name"], entry.started_at)
    # Assumption: no remoteAgentAccessToken, as a session pass cannot have a remote agent.
    return {"session": session, "consumerAccessToken": token}


def describe(entry: Entry, status: str, livekit: LiveKit) -> dict[str, Any]:
    """``EquosSession``."""
    wanted = entry.wanted
    began = date(entry.started_at)
    session: dict[str, Any] = {
        "id": entry.id,
        "organizationId": "org_1",
        "freemium": False,
        "name": wanted["name"],
        "provider": "livekit",
        "status": status,
        "host": {"serverUrl": livekit.url},
        "avatarId": wanted["avatar"]["id"],
        "avatar": _avatar(wanted["avatar"]["id"], wanted["agent"]["id"]),
        "agentId": wanted["agent"]["id"],
        "agent": _agent(wanted["agent"]["id"]),
        "knowledgeBaseId": "kb_1",
        "knowledgeBase": {"id": "kb_1"},
        "remoteAgentIdentity": None,
        "transcript": _transcript(entry),
        "startedAt": began,
        "createdAt": began,
        "updatedAt": began,
    }
    for optional in ("client", "maxDuration", "additionalCtx", "templateVars"):
        if optional in wanted:
            session[optional] = wanted[optional]
    if entry.ended_at is not None:
        session["endedAt"] = session["updatedAt"] = date(entry.ended_at)
    return session


def _transcript(entry: Entry) -> dict[str, Any] | None:
    """The transcript as in the vendor's hand-written SDK; null if nothing was said."""
    identities = {"user": entry.wanted["consumerIdentity"]["identity"]}
    said = [
        {
            "text": one.content,
            "received_at": date(one.at),
            "identity": identities.get(one.author, "ada"),
        }
        for one in entry.said
    ]
    return {"transcription": said} if said else None


def _avatar(avatar_id: str, agent_id: str) -> dict[str, Any]:
    return {
        "id": avatar_id,
        "organizationId": "org_1",
        "identity": "ada",
        "name": "Ada",
        "description": "Support avatar",
        "client": "tenant-42",
        "thumbnailUrl": "https://cdn.example.test/ada.png",
        "agentId": agent_id,
        "agent": _agent(agent_id),
        "createdAt": _MADE,
        "updatedAt": _MADE,
    }


def _agent(agent_id: str) -> dict[str, Any]:
    return {
        "id": agent_id,
        "organizationId": "org_1",
        "name": "Support",
        "provider": "gemini",
        "client": "tenant-42",
        "model": "gemini-2.5-flash-native-audio-preview-09-2025",
        "voice": "Puck",
        "instructions": "You help.",
        "greetingMsg": "Hello!",
        "remoteId": "remote_1",
        "search": True,
        "emotions": False,
        "memory": True,
        "createdAt": _MADE,
        "updatedAt": _MADE,
    }


SESSION: Final = Kind(
    resource="session",
    plural="sessions",
    fields={
        "name": (),
        "client": (),
        "maxDuration": (),
        "avatar": ("id",),
        "agent": ("id",),
        "additionalCtx": (),
        "templateVars": (),
        "consumerIdentity": ("identity", "name"),
    },
    seconds="maxDuration",
    default_seconds=None,
    variables="templateVars",
    first_status="starting",
    problems=problems_of_session,
    describe=describe,
    begun=begun,
)
