"""Conversations: what is asked for, what is answered, and how they end."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from equos_async.testing import EquosEmulator
from tests.emulator.support import CONVERSATION, CONVERSATIONS, Caller


def claims(token: str) -> Any:
    """The claims of a JWT."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class TestStart:
    async def test_the_answer_holds_what_was_asked(self, caller: Caller) -> None:
        """201, running at once, with the character, and the room that its tokens open."""
        answer = await caller.converse()
        assert answer.status == 201
        told = answer.json["conversation"]
        for name in ("name", "client", "characterId", "maxSeconds", "promptCtx"):
            assert told[name] == CONVERSATION[name]
        assert told["promptTemplateVars"] == {"city": "Paris"}
        assert told["status"] == "running"
        assert (told["consumerIdentity"], told["consumerName"]) == ("user-7", "Ada")
        assert (told["remoteAgentIdentity"], told["remoteAgentName"]) == ("bot-1", "Bot")
        assert told["character"]["id"] == "ch_1"
        assert told["character"]["livekitIdentity"]
        for field, identity in (("consumer", "user-7"), ("remoteAgent", "bot-1")):
            said = claims(answer.json[f"{field}AccessToken"])
            assert (said["sub"], said["video"]["room"]) == (identity, told["room"])

    async def test_what_was_not_asked_for_is_absent(self, caller: Caller) -> None:
        """Only a name and a character are required; every conversation has a time limit."""
        answer = await caller.send(
            "POST", CONVERSATIONS, json={"name": "a", "characterId": "ch_1", "client": None}
        )
        assert answer.status == 201
        assert set(answer.json) == {"conversation"}
        absent = {"client", "promptCtx", "consumerName", "joinedAt", "endedAt"}
        assert not absent & set(answer.json["conversation"])
        assert answer.json["conversation"]["maxSeconds"] == 3600

    async def test_a_server_of_ones_own(self, caller: Caller, emulator: EquosEmulator) -> None:
        """It is named in the answer, without tokens, and its secret is nowhere."""
        host = {"serverUrl": "wss://mine.example.test", "accessToken": "secret-token"}
        answer = await caller.converse(host=host)
        assert answer.json["conversation"]["serverUrl"] == "wss://mine.example.test"
        assert set(answer.json) == {"conversation"}
        assert b"secret-token" not in answer.body
        assert "secret-token" not in repr((emulator.live, emulator.requests))

    @pytest.mark.parametrize(
        ("changes", "messages"),
        [
            ({"name": ""}, ["name should not be empty"]),
            ({"characterId": None}, ["characterId must be a string"]),
            (
                {"client": 1, "promptCtx": []},
                ["client must be a string", "promptCtx must be a string"],
            ),
            ({"maxSeconds": 0}, ["maxSeconds must be a positive number"]),
            ({"host": {"serverUrl": "x"}}, ["host.accessToken must be a string"]),
            ({"consumer": "Ada"}, ["consumer must be an object"]),
            ({"remoteAgent": {"name": "x"}}, ["remoteAgent.identity must be a string"]),
            ({"promptTemplateVars": []}, ["promptTemplateVars must be an object"]),
        ],
    )
    async def test_bad_fields(
        self, caller: Caller, emulator: EquosEmulator, changes: dict[str, Any], messages: list[str]
    ) -> None:
        """The answer is a list of messages, and nothing is started."""
        answer = await caller.converse(**changes)
        assert answer.status == 400
        assert answer.json == {"message": messages, "statusCode": 400, "error": "Bad Request"}
        assert emulator.live == {}

    async def test_the_limits_of_the_organisation(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """They count both kinds."""
        emulator.limit_duration, emulator.limit_concurrent = 600, 1
        answer = await caller.converse(maxSeconds=601)
        assert (answer.status, answer.json["message"]) == (
            400,
            "maxSeconds must be less than organization limit",
        )
        await caller.started_id()
        assert (await caller.converse()).status == 429
        emulator.suspended = True
        assert (await caller.converse()).status == 403


class TestEnd:
    async def test_stop(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A POST is answered 201: the ended conversation, then null, which is an empty body."""
        path = f"{CONVERSATIONS}/{await caller.conversation_id()}/stop"
        emulator.advance(5)
        first = await caller.send("POST", path, json={})
        second = await caller.send("POST", path, skip_auto_headers=["Content-Type"])
        assert (first.status, first.json["status"]) == (201, "ended")
        assert first.json["endedAt"] > first.json["startedAt"]
        assert (second.status, second.body) == (201, b"")
        assert "Content-Type" not in second.headers
        assert emulator.live_conversations == {}
        assert emulator.billed_seconds == 5

    async def test_its_time_is_over(self, caller: Caller, emulator: EquosEmulator) -> None:
        """It ends by itself after maxSeconds."""
        conversation_id = await caller.conversation_id(maxSeconds=10)
        emulator.advance(10)
        assert emulator.ended_conversations[conversation_id].seconds == 10

    async def test_each_kind_is_stopped_by_its_own(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """The id of one kind is unknown to the operations of the other."""
        session_id, conversation_id = await caller.started_id(), await caller.conversation_id()
        assert (await caller.stop(conversation_id)).body == b""
        path = f"{CONVERSATIONS}/{session_id}/stop"
        assert (await caller.send("POST", path, json={})).body == b""
        assert list(emulator.live) == [session_id, conversation_id]

    async def test_a_session_is_stopped_with_the_server_key_too(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """``PATCH /v3/sessions/{id}/stop`` ends what a session pass started."""
        path = f"/v3/sessions/{await caller.started_id()}/stop"
        answer = await caller.send("PATCH", path, json={})
        assert (answer.status, answer.json["status"]) == (200, "ended")
        assert (await caller.send("PATCH", path, json={})).body == b""
        assert emulator.live == {}


class TestBooks:
    async def test_both_kinds(self, caller: Caller, emulator: EquosEmulator) -> None:
        """They are distinguished, share one numbering, and are recorded with their resource."""
        session_id, conversation_id = await caller.started_id(), await caller.conversation_id()
        assert list(emulator.live_sessions) == [session_id]
        assert list(emulator.live_conversations) == [conversation_id]
        told = [(one.resource, one.number) for one in emulator.live.values()]
        assert told == [("session", 1), ("conversation", 2)]
        assert emulator.live[conversation_id].max_duration == 600
        emulator.end_session(conversation_id)
        assert list(emulator.ended_conversations) == [conversation_id]
        assert (emulator.ended_sessions, emulator.ended_count) == ({}, 1)
        asked = [(one.operation, one.resource, one.name) for one in emulator.requests]
        assert asked == [
            ("start", "session", "support call"),
            ("start", "conversation", "support call"),
        ]

    async def test_somebody_joins(self, caller: Caller, emulator: EquosEmulator) -> None:
        """The first time is kept; what is not live cannot be joined."""
        conversation_id = await caller.conversation_id()
        began = emulator.clock.now()
        emulator.advance(3)
        assert emulator.join(conversation_id) is True
        emulator.advance(3)
        assert emulator.join(conversation_id) is True
        assert emulator.live[conversation_id].joined_at == began + 3
        told = (await caller.send("GET", f"{CONVERSATIONS}/{conversation_id}")).json
        assert told["joinedAt"] == told["updatedAt"] > told["startedAt"]
        emulator.end_session(conversation_id)
        assert emulator.join(conversation_id) is False
        assert emulator.ended_conversations[conversation_id].joined_at == began + 3
