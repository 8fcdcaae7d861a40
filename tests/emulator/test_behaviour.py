"""The API as the contract says it: starts, stops, refusals, limits."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime
from typing import Any

import pytest

from equos_async.testing import EquosEmulator
from equos_async.testing.tokens import LiveKit
from tests.emulator.support import BODY, KEY, STARTS, Caller


class TestStart:
    async def test_it_answers_with_a_full_session(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """A start is 201, with what was asked for and what the server adds."""
        answer = await caller.start()
        assert answer.status == 201
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        session = answer.json["session"]
        for name in ("name", "client", "maxDuration", "additionalCtx", "templateVars"):
            assert session[name] == BODY[name]
        assert session["status"] == "starting"
        assert session["host"] == {"serverUrl": "wss://rtc.example.test"}
        assert (session["avatarId"], session["avatar"]["id"]) == ("av_1", "av_1")
        assert (session["agentId"], session["agent"]["id"]) == ("ag_1", "ag_1")
        assert datetime.fromisoformat(session["startedAt"]).timestamp() == emulator.clock.now()
        assert session["startedAt"].endswith(".000Z")
        assert "endedAt" not in session
        assert list(emulator.live_sessions) == [session["id"]]

    async def test_optional_fields_may_be_absent_or_null(self, caller: Caller) -> None:
        """Null counts as absent, and answers have neither."""
        answer = await caller.send(
            "POST",
            STARTS,
            json={**BODY, "client": None, "maxDuration": None, "templateVars": None},
        )
        assert answer.status == 201
        assert {"client", "maxDuration", "templateVars"}.isdisjoint(answer.json["session"])

    async def test_the_token_is_a_livekit_jwt(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """The token is signed, and lets this user into this session's room."""
        answer = (await caller.start()).json
        *signed, signature = answer["consumerAccessToken"].split(".")
        header, claims = (json.loads(decode(part)) for part in signed)
        assert header == {"alg": "HS256", "typ": "JWT"}
        assert (claims["sub"], claims["name"]) == ("user-7", "Ada")
        assert claims["video"]["room"] == answer["session"]["id"]
        assert claims["video"]["roomJoin"] is True
        assert claims["nbf"] <= emulator.clock.now() < claims["exp"]
        expected = hmac.digest(LiveKit().secret.encode(), ".".join(signed).encode(), hashlib.sha256)
        assert decode(signature) == expected

    async def test_v1_is_the_same(self, caller: Caller, emulator: EquosEmulator) -> None:
        """The same operations are served under ``/v1``."""
        answer = await caller.send("POST", "/v1/session-passes", json=BODY)
        session_id = answer.json["session"]["id"]
        stopped = await caller.send("PATCH", f"/v1/session-passes/{session_id}/stop", json={})
        assert stopped.json["status"] == "ended"
        assert emulator.live_sessions == {}

    async def test_unknown_fields_are_ignored(self, caller: Caller) -> None:
        """A field that the server does not know is no reason to refuse."""
        assert (await caller.start(colour="blue")).status == 201


def decode(part: str) -> bytes:
    """A part of a JWT."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


class TestValidation:
    @pytest.mark.parametrize(
        ("changes", "messages"),
        [
            ({"name": None}, ["name must be a string"]),
            ({"name": 7}, ["name must be a string"]),
            ({"name": ""}, ["name should not be empty"]),
            ({"client": 7}, ["client must be a string"]),
            ({"additionalCtx": []}, ["additionalCtx must be a string"]),
            ({"templateVars": "x"}, ["templateVars must be an object"]),
            ({"maxDuration": 0}, ["maxDuration must be a positive number"]),
            ({"avatar": None}, ["avatar should not be null or undefined"]),
            ({"avatar": "av_1"}, ["avatar must be an object"]),
            ({"agent": {}}, ["agent.id must be a string"]),
            (
                {"consumerIdentity": {}, "name": 1},
                [
                    "name must be a string",
                    "consumerIdentity.identity must be a string",
                    "consumerIdentity.name must be a string",
                ],
            ),
        ],
    )
    async def test_each_wrong_field_is_named(
        self, caller: Caller, emulator: EquosEmulator, changes: dict[str, Any], messages: list[str]
    ) -> None:
        """A wrong start is answered with a list of messages, and nothing is started."""
        answer = await caller.start(**changes)
        assert answer.status == 400
        assert answer.json == {"message": messages, "statusCode": 400, "error": "Bad Request"}
        assert emulator.live_sessions == {}

    @pytest.mark.parametrize("number", ["true", '"60"', "1e999", "1" + "0" * 400])
    async def test_a_duration_is_a_finite_number(self, caller: Caller, number: str) -> None:
        """A number that is not finite in JavaScript is refused."""
        body = json.dumps({**BODY, "maxDuration": 12321}).replace("12321", number)
        headers = {"Content-Type": "application/json"}
        answer = await caller.send("POST", STARTS, data=body, headers=headers)
        assert answer.json["message"] == [
            "maxDuration must be a number conforming to the specified constraints"
        ]

    @pytest.mark.parametrize("body", ["null", "[]", "7", '"name"', "{}"])
    async def test_json_without_fields_lacks_them_all(self, caller: Caller, body: str) -> None:
        """The answer to JSON of another kind names all missing fields."""
        headers = {"Content-Type": "application/json"}
        answer = await caller.send("POST", STARTS, data=body, headers=headers)
        assert answer.status == 400
        assert len(answer.json["message"]) == 4


class TestStop:
    async def test_a_live_session_is_ended(self, caller: Caller, emulator: EquosEmulator) -> None:
        """The answer is the ended session, and the books say the same."""
        session_id = await caller.started_id()
        emulator.advance(30)
        answer = await caller.stop(session_id)
        assert answer.status == 200
        assert (answer.json["id"], answer.json["status"]) == (session_id, "ended")
        assert answer.json["endedAt"] == answer.json["updatedAt"] > answer.json["startedAt"]
        assert emulator.live_sessions == {}
        ended = emulator.ended_sessions[session_id]
        assert (ended.status, ended.seconds, ended.name) == ("ended", 30.0, "support call")

    @pytest.mark.parametrize("session_id", ["unknown", "a%20b", "a%2Fb", "%F0%9F%A6%8A", "x" * 300])
    async def test_null_is_an_empty_body_without_a_type(
        self, caller: Caller, session_id: str
    ) -> None:
        """A stop of a session that is not live is 200 with nothing."""
        answer = await caller.stop(session_id)
        assert (answer.status, answer.body) == (200, b"")
        assert "Content-Type" not in answer.headers

    async def test_a_second_stop_is_null(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A stop can be repeated, and ends a session once."""
        session_id = await caller.started_id()
        await caller.stop(session_id)
        assert (await caller.stop(session_id)).body == b""
        assert emulator.ended_count == 1

    async def test_it_takes_no_body_at_all(self, caller: Caller) -> None:
        """A request without body and Content-Type counts as an empty object."""
        session_id = await caller.started_id()
        answer = await caller.send(
            "PATCH", f"{STARTS}/{session_id}/stop", skip_auto_headers=["Content-Type"]
        )
        assert answer.json["status"] == "ended"


class TestRefusals:
    @pytest.mark.parametrize(
        "authorization", ["", "Bearer", "Bearer  ", "Basic a2V5", "pk_test", "Bearer other"]
    )
    async def test_a_key_is_needed(self, caller: Caller, authorization: str) -> None:
        """Without the right bearer token both operations are 401 in the words of NestJS."""
        async with EquosEmulator(client_key=KEY) as emulator:
            strict = Caller(emulator, caller.http)
            for method, path in (("POST", STARTS), ("PATCH", f"{STARTS}/some-id/stop")):
                answer = await strict.send(
                    method, path, json=BODY, headers={"Authorization": authorization}
                )
                assert answer.status == 401
                assert answer.json == {"message": "Unauthorized", "statusCode": 401}
            assert (await strict.start()).status == 201

    async def test_a_key_is_rotated(self, caller: Caller, emulator: EquosEmulator) -> None:
        """The old key gets 401 as soon as it is replaced, for stops, too."""
        emulator.client_key = KEY
        session_id = await caller.started_id()
        emulator.client_key = "pk_test_next"
        assert (await caller.start()).status == 401
        assert (await caller.stop(session_id)).status == 401
        fresh = {"Authorization": f"Bearer {emulator.client_key}"}
        assert (await caller.send("POST", STARTS, json=BODY, headers=fresh)).status == 201

    async def test_a_key_is_revoked(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A revoked key is 401, and every other key is still accepted."""
        emulator.revoke_key(KEY)
        assert (await caller.start()).status == 401
        other = {"Authorization": "Bearer other"}
        assert (await caller.send("POST", STARTS, json=BODY, headers=other)).status == 201

    async def test_any_key_will_do_by_default(self, caller: Caller) -> None:
        """A test of a bot needs no account."""
        answer = await caller.send(
            "POST", STARTS, json=BODY, headers={"Authorization": "bearer whatever"}
        )
        assert answer.status == 201

    @pytest.mark.parametrize(
        ("content_type", "body", "status", "message"),
        [
            (
                "application/octet-stream",
                b"",
                415,
                "Unsupported Media Type: application/octet-stream",
            ),
            ("text/plain", b"{}", 415, "Unsupported Media Type: text/plain"),
            ("", b"{}", 415, "Unsupported Media Type: undefined"),
            (
                "application/json",
                b"",
                400,
                "Body cannot be empty when content-type is set to 'application/json'",
            ),
            (
                "application/json; charset=utf-8",
                b"{",
                400,
                "Body is not valid JSON but content-type is set to 'application/json'",
            ),
        ],
    )
    async def test_bodies_are_held_to_their_type(
        self, caller: Caller, content_type: str, body: bytes, status: int, message: str
    ) -> None:
        """Both operations refuse what Fastify refuses, before they look at the key."""
        for method, path in (("POST", STARTS), ("PATCH", f"{STARTS}/some-id/stop")):
            headers = {"Content-Type": content_type, "Authorization": ""}
            answer = await caller.send(method, path, data=body, headers=headers)
            assert (answer.status, answer.json) == (
                status,
                {"message": message, "statusCode": status},
            )

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/x"),
            ("GET", STARTS),
            ("DELETE", f"{STARTS}/some-id/stop"),
            ("POST", "/v2/session-passes"),
            ("PATCH", f"{STARTS}//stop"),
        ],
    )
    async def test_other_routes_are_not_found(
        self, caller: Caller, emulator: EquosEmulator, method: str, path: str
    ) -> None:
        """An unknown route gets NestJS's 404, and is recorded without an operation."""
        answer = await caller.send(method, path)
        assert answer.status == 404
        assert answer.json == {
            "message": f"Cannot {method} {path}",
            "statusCode": 404,
            "error": "Not Found",
        }
        (request,) = emulator.requests
        assert (request.operation, request.status) == (None, 404)


class TestLimits:
    async def test_concurrent(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Over the limit a start is refused, until a session ends."""
        emulator.limit_concurrent = 1
        session_id = await caller.started_id()
        assert (await caller.start()).status == 429
        await caller.stop(session_id)
        assert (await caller.start()).status == 201
        assert emulator.limit_concurrent == 1

    async def test_duration(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A start may not ask for more seconds than the organisation has."""
        emulator.limit_duration = 600
        assert (await caller.start(maxDuration=601)).json["message"] == (
            "maxDuration must be less than organization limit"
        )
        assert (await caller.start(maxDuration=600)).status == 201
        assert (await caller.start(maxDuration=None)).status == 201
        assert emulator.limit_duration == 600

    async def test_suspended(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A suspended organisation starts nothing, and can still stop what runs."""
        session_id = await caller.started_id()
        emulator.suspended = True
        assert (await caller.start()).status == 403
        assert (await caller.stop(session_id)).json["status"] == "ended"
        assert emulator.suspended is True
