"""Settings around the API: other origins, LiveKit servers, and sessions left live."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import aiohttp
import pytest

from equos_async.testing import EmulatorClock, EquosEmulator
from tests.emulator.support import API_KEY, CONVERSATIONS, KEY, STARTS, Answer, Caller, post

ORIGIN = "http://localhost:5173"


async def preflight(caller: Caller, path: str, origin: str = ORIGIN) -> Answer:
    """A browser's preflight request."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return await caller.send("OPTIONS", path, headers=headers)


class TestBrowsers:
    async def test_none_by_default(self, caller: Caller) -> None:
        """A page of another origin can neither call the API nor read answers."""
        assert (await preflight(caller, STARTS)).status == 404
        answer = await caller.send("GET", "/v3/health", headers={"Origin": ORIGIN})
        assert "Access-Control-Allow-Origin" not in answer.headers

    async def test_those_that_are_named(self, caller: Caller) -> None:
        """They may, with the headers that they ask for; refusals can be read as well."""
        async with EquosEmulator(cors_origins=[ORIGIN]) as emulator:
            own = Caller(emulator, caller.http)
            allowed = await preflight(own, STARTS)
            assert (allowed.status, allowed.body) == (204, b"")
            assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert "PATCH" in allowed.headers["Access-Control-Allow-Methods"]
            names = allowed.headers["Access-Control-Allow-Headers"]
            assert names == "authorization,content-type"
            assert emulator.requests == ()
            refused = await own.send(
                "POST", STARTS, json={}, headers={"Origin": ORIGIN, "Authorization": ""}
            )
            assert refused.status == 401
            assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert refused.headers["Vary"] == "Origin"
            assert (await preflight(own, STARTS, "http://other.example.test")).status == 404

    async def test_all_of_them(self, caller: Caller) -> None:
        """A star allows all origins to use the API, but none to use the page and its actions."""
        async with EquosEmulator(cors_origins="*") as emulator:
            own = Caller(emulator, caller.http)
            answer = await own.send("GET", CONVERSATIONS, headers={"Origin": ORIGIN})
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            state = await own.send("GET", "/emulator/state", headers={"Origin": ORIGIN})
            assert "Access-Control-Allow-Origin" not in state.headers
            assert (await preflight(own, "/emulator/stop")).status == 404
            assert (await own.send("OPTIONS", STARTS, headers={"Origin": ORIGIN})).status == 404


class TestLiveKit:
    async def test_tokens_of_a_real_server(self, caller: Caller) -> None:
        """They are signed with its secret and count from now; answers name its address."""
        emulator = EquosEmulator(
            clock=EmulatorClock(ticking=False),
            livekit_url="wss://kit.example.test",
            livekit_key="devkey",
            livekit_secret="devsecret",
        )
        emulator.client_key, emulator.api_key = KEY, API_KEY
        parts: list[Any] = [getattr(one, "__dict__", None) for one in vars(emulator).values()]
        told = repr(parts)
        assert not any(secret in told for secret in ("devsecret", KEY, API_KEY))
        async with emulator:
            own = Caller(emulator, caller.http)
            session, conversation = (await own.start()).json, (await own.converse()).json
        assert session["session"]["host"]["serverUrl"] == "wss://kit.example.test"
        assert conversation["conversation"]["serverUrl"] == "wss://kit.example.test"
        for answer in (session, conversation):
            head, claims, signature = answer["consumerAccessToken"].split(".")
            digest = hmac.digest(b"devsecret", f"{head}.{claims}".encode(), hashlib.sha256)
            assert signature == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            said = json.loads(base64.urlsafe_b64decode(claims + "=="))
            assert said["iss"] == "devkey"
            assert abs(said["nbf"] - time.time()) < 60

    @pytest.mark.parametrize(
        "some", [{"livekit_url": "wss://x"}, {"livekit_key": "k", "livekit_secret": "s"}]
    )
    def test_all_or_nothing(self, some: dict[str, Any]) -> None:
        """A part of it is a mistake."""
        with pytest.raises(ValueError, match="pass livekit_url"):
            EquosEmulator(**some)


class TestWhatIsLeft:
    async def test_it_may_be_forbidden(self, caller: Caller) -> None:
        """Without pytest, too: what is live at the end is named, with its start."""

        async def leave_two() -> None:
            async with EquosEmulator(allow_live=False) as emulator:
                own = Caller(emulator, caller.http)
                await own.converse(name="talk")
                await own.start(name="pass", client=None)

        with pytest.raises(AssertionError) as told:
            await leave_two()
        first, second, third, _ = str(told.value).splitlines()
        assert first == "2 sessions and conversations were left live:"
        assert second.startswith("  'talk' (id ")
        assert second.endswith(
            "started by request 1 to the emulator, from a line that is not known"
        )
        assert "by request 2" in third
        assert "allow_live=True" in str(told.value)

    def test_in_a_thread_of_its_own(self) -> None:
        """A plain ``with`` does so, too."""
        emulator = EquosEmulator(allow_live=False)
        with pytest.raises(AssertionError, match="1 session was left live"), emulator:
            assert post(emulator.endpoint) == 201
        with pytest.raises(aiohttp.ClientError), emulator:
            raise aiohttp.ClientError  # the other error goes first
        emulator.end_session(next(iter(emulator.live)))
        with emulator:
            pass


async def test_what_was_said(caller: Caller, emulator: EquosEmulator) -> None:
    """It is in the transcripts of either kind, and a conversation's timeline has all in order."""
    session_id, conversation_id = await caller.started_id(), await caller.conversation_id()
    for one in (session_id, conversation_id):
        assert emulator.say(one, "Hello")
    emulator.advance(1)
    emulator.join(conversation_id)
    emulator.advance(1)
    for one in (session_id, conversation_id):
        assert emulator.say(one, "Good morning", author="character")
    told = (await caller.stop(session_id)).json["transcript"]["transcription"]
    assert [(one["text"], one["identity"]) for one in told] == [
        ("Hello", "user-7"),
        ("Good morning", "ada"),
    ]
    ended = (await caller.send("POST", f"{CONVERSATIONS}/{conversation_id}/stop", json={})).json
    assert [one["author"] for one in ended["transcript"]] == ["user", "character"]
    assert [one["type"] for one in ended["timeline"]] == ["utterance", "joined", "utterance"]
    assert emulator.say(session_id, "too late") is False
