"""The wire, spelled by hand: the server's answers as literal dicts.

Nothing here comes from the client's own tables, so a mistake there cannot hide here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import Factory, frozen

from .books import Entry
from .tokens import access_token

_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}


@frozen
class Reply:
    """An answer, before it meets a socket."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = Factory(dict[str, str])


NULL: Final = Reply(200)
"""NestJS sends a handler's null as an empty body without a Content-Type."""


def error(status: int, message: str | list[str], name: str | None = None) -> Reply:
    """NestJS: ``{"statusCode", "message": string or list of strings, "error"?}``."""
    body: dict[str, object] = {"message": message, "statusCode": status}
    if name is not None:
        body["error"] = name
    return json_reply(status, body)


def json_reply(status: int, body: object) -> Reply:
    """An answer in JSON."""
    return Reply(status, json.dumps(body).encode(), _JSON)


def started(entry: Entry) -> Reply:
    """201 ``CreateEquosSessionResponse``."""
    consumer = entry.wanted["consumerIdentity"]
    token = access_token(entry.id, consumer["identity"], consumer["name"], entry.started_at)
    # Assumption: no remoteAgentAccessToken, as a session pass cannot have a remote agent.
    session = _session(entry, "starting")
    return json_reply(201, {"session": session, "consumerAccessToken": token})


def stopped(entry: Entry) -> Reply:
    """200 ``EquosSession``."""
    return json_reply(200, _session(entry, "ended"))


def _session(entry: Entry, status: str) -> dict[str, Any]:
    wanted = entry.wanted
    began = _date(entry.started_at)
    session: dict[str, Any] = {
        "id": entry.id,
        "organizationId": "org_1",
        "freemium": False,
        "name": wanted["name"],
        "provider": "livekit",
        "status": status,
        "host": {"serverUrl": "wss://rtc.example.test"},
        "avatarId": wanted["avatar"]["id"],
        "avatar": _avatar(wanted["avatar"]["id"], wanted["agent"]["id"]),
        "agentId": wanted["agent"]["id"],
        "agent": _agent(wanted["agent"]["id"]),
        "knowledgeBaseId": "kb_1",
        "knowledgeBase": {"id": "kb_1"},
        "remoteAgentIdentity": None,
        "transcript": None,
        "startedAt": began,
        "createdAt": began,
        "updatedAt": began,
    }
    for optional in ("client", "maxDuration", "additionalCtx", "templateVars"):
        if wanted.get(optional) is not None:
            session[optional] = wanted[optional]
    if entry.ended_at is not None:
        session["endedAt"] = session["updatedAt"] = _date(entry.ended_at)
    return session


def _avatar(avatar_id: str, agent_id: str) -> dict[str, Any]:
    return {
        "id": avatar_id,
        "organizationId": "org_1",
        "identity": "ada",
        "name": "Ada",
        "description": "Support avatar",
        "client": "tenant-42",
        "thumbnailUrl": "https://cdn.example.test/ada.png",
        "agentId": {"id": agent_id},
        "agent": {"id": agent_id},
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


_MADE: Final = "2025-12-10T09:11:47.000Z"


def _date(at: float) -> str:
    """RFC 3339 with milliseconds and ``Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
