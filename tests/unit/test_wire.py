"""Between bytes and models: pure functions, spelled against literal JSON."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from equos_async import (
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    EquosParticipantIdentity,
)
from equos_async._api import answers, codec, words
from equos_async._api.codec import Structured
from equos_async._api.effects import CREATE, END
from equos_async._api.operations import START_SESSION, STOP_SESSION

AT = "2025-12-10T09:11:47.123Z"
AVATAR = {
    "id": "av_1",
    "organizationId": "org_1",
    "identity": "ada",
    "name": "Ada",
    "thumbnailUrl": "https://cdn.example.test/ada.png",
    "createdAt": AT,
    "updatedAt": AT,
}
SESSION: dict[str, Any] = {
    "id": "s-1",
    "organizationId": "org_1",
    "freemium": False,
    "name": "demo",
    "provider": "livekit",
    "status": "starting",
    "host": {"serverUrl": "wss://rtc.example.test"},
    "avatar": AVATAR,
    "startedAt": AT,
    "createdAt": AT,
    "updatedAt": AT,
}
CONVERSATION: dict[str, Any] = {
    "id": "c-1",
    "name": "demo",
    "status": "running",
    "charge": True,
    "chargeBySecond": 0.002,
    "maxSeconds": 600,
    "characterId": "ch_1",
    "character": {"id": "ch_1", "name": "Ada", "livekitIdentity": "ada", "search": False},
    "organizationId": "org_1",
    "room": "livekit",
    "serverUrl": "wss://rtc.example.test",
    "transcript": [{"id": "u_1", "author": "user", "content": "Hello", "recordedAt": AT}],
    "timeline": [{"type": "joined", "recordedAt": AT}],
    "joinedAt": AT,
    "startedAt": AT,
    "createdAt": AT,
    "updatedAt": AT,
}
STARTED: dict[str, Any] = {"session": SESSION, "consumerAccessToken": "eyJ.a.b"}


def dump(value: object) -> bytes:
    """JSON as the server writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def session(**changes: Any) -> bytes:
    """A start's answer with a changed session; ``...`` takes a field out."""
    changed = {k: v for k, v in {**SESSION, **changes}.items() if v is not ...}
    return dump({**STARTED, "session": changed})


def started_from(body: bytes) -> Structured[CreateEquosSessionResponse]:
    """A start's answer that can be used."""
    found = START_SESSION.decode(body)
    assert isinstance(found, Structured)
    return found


def unreadable(body: bytes) -> answers.Unreadable:
    """Why a start's answer cannot be used."""
    found = START_SESSION.decode(body)
    assert isinstance(found, answers.Unreadable)
    return found


class TestOperations:
    def test_start(self) -> None:
        """POST, and never sent again by itself."""
        assert (START_SESSION.method, START_SESSION.effect) == ("POST", CREATE)
        assert START_SESSION.url("https://x.test/v3") == "https://x.test/v3/session-passes"

    @pytest.mark.parametrize(
        ("session_id", "segment"),
        [("s-1", "s-1"), ("a/b", "a%2Fb"), ("a b?#", "a%20b%3F%23"), ("%", "%25"), ("ä", "%C3%A4")],
    )
    def test_stop(self, session_id: str, segment: str) -> None:
        """PATCH; the id is one segment, encoded once."""
        assert (STOP_SESSION.method, STOP_SESSION.effect) == ("PATCH", END)
        url = STOP_SESSION.url("https://x.test/v3", session_id)
        assert url == f"https://x.test/v3/session-passes/{segment}/stop"


class TestEncode:
    def test_all_fields(self) -> None:
        """Names are camelCase, the caller's own keys are left alone."""
        request = CreateSessionPassRequest(
            name="call",
            avatar="av_1",
            agent="ag_1",
            consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
            client="tenant-42",
            max_duration=600,
            additional_ctx="more",
            template_vars={"first_name": "Ada"},
        )
        assert json.loads(START_SESSION.body(request)) == {
            "name": "call",
            "client": "tenant-42",
            "maxDuration": 600,
            "avatar": {"id": "av_1"},
            "agent": {"id": "ag_1"},
            "additionalCtx": "more",
            "templateVars": {"first_name": "Ada"},
            "consumerIdentity": {"identity": "user-7", "name": "Ada"},
        }

    def test_what_is_none_is_left_out(self, request_: CreateSessionPassRequest) -> None:
        """The server's validator takes no null for an optional field."""
        assert b"additionalCtx" not in START_SESSION.body(request_)
        assert b"null" not in START_SESSION.body(request_)


def test_the_oldest_of_many_keys_is_let_go() -> None:
    """A key that is replaced each minute must not fill the memory in a year."""
    mask = words.Masker(*(f"secret-key-{number:05}" for number in range(words.MAX_KEYS + 1)))
    assert mask("secret-key-00000 secret-key-00001") == "secret-key-00000 ***"


class TestDecodeStart:
    def test_a_full_answer(self) -> None:
        """Every field arrives under its Python name."""
        started = started_from(
            dump(
                {
                    "session": {
                        **SESSION,
                        "maxDuration": 600,
                        "templateVars": {"first_name": "Ada"},
                        "agent": {
                            "id": "ag_1",
                            "organizationId": "org_1",
                            "provider": "brand-new",
                            "model": "model-9",
                            "greetingMsg": "Hi",
                            "search": True,
                            "emotions": False,
                            "memory": True,
                            "createdAt": AT,
                            "updatedAt": AT,
                        },
                        "knowledgeBase": {"id": "kb_1"},
                        "remoteAgentIdentity": "bot",
                        "transcript": {"transcription": []},
                        "endedAt": AT,
                    },
                    "consumerAccessToken": "eyJ.a.b",
                    "remoteAgentAccessToken": "eyJ.c.d",
                }
            )
        )
        assert started.unreadable == ()
        found = started.value.session
        assert found.id == "s-1"
        assert found.host.server_url == "wss://rtc.example.test"
        assert found.max_duration == 600
        assert found.template_vars == {"first_name": "Ada"}
        assert found.agent is not None
        assert (found.agent.provider, found.agent.greeting_msg) == ("brand-new", "Hi")
        assert found.knowledge_base is not None
        assert found.knowledge_base.id == "kb_1"
        assert found.transcript == {"transcription": []}
        assert found.started_at == datetime(2025, 12, 10, 9, 11, 47, 123000, UTC)
        assert (started.value.consumer_access_token, started.value.remote_agent_access_token) == (
            "eyJ.a.b",
            "eyJ.c.d",
        )

    @pytest.mark.parametrize(
        "changes",
        [
            {"status": "brand-new"},
            {"provider": ""},
            {"somethingNew": {"nested": [1, 2]}},
            {"agent": None, "transcript": None, "client": None, "endedAt": None},
            {"startedAt": "2025-12-10T10:11:47+01:00"},
            {"maxDuration": 0.5},
        ],
    )
    def test_what_never_fails_a_call(self, changes: dict[str, Any]) -> None:
        """Unknown fields and values, null for absent, and other spellings of a time."""
        started = started_from(session(**changes))
        assert (started.value.session.id, started.unreadable) == ("s-1", ())

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": 7},
            {"client": 7},
            {"freemium": "no"},
            {"freemium": 0},
            {"avatar": "ada"},
            {"maxDuration": "600"},
            {"maxDuration": True},
            {"maxDuration": 1e300},
            {"maxDuration": 10**400},
            {"startedAt": AT[:-1]},
            {"startedAt": "yesterday"},
            {"startedAt": 0},
            {"agent": []},
            {"knowledgeBase": {}},
            {"templateVars": "a=b"},
        ],
    )
    def test_a_field_of_another_type_is_none(self, changes: dict[str, Any]) -> None:
        """Its path is reported, never a value; all other fields are read."""
        started = started_from(session(**changes))
        ((name, _),) = changes.items()
        assert started.unreadable == (f"$.session.{name}",)
        assert getattr(started.value.session, to_python(name)) is None
        assert started.value.session == started_from(session(**{name: ...})).value.session

    @pytest.mark.parametrize("name", sorted(set(SESSION) - {"id", "host"}))
    @pytest.mark.parametrize("value", [None, ...], ids=["null", "absent"])
    def test_a_field_that_is_not_there_is_none(self, name: str, value: object) -> None:
        """The vendor makes fields optional: a paid session is not lost because one is missing."""
        started = started_from(session(**{name: value}))
        assert getattr(started.value.session, to_python(name)) is None
        assert started.unreadable == ()

    def test_fields_of_a_field(self) -> None:
        """An avatar keeps its readable fields; the path of a bad field is reported."""
        avatar = {**AVATAR, "name": 7, "createdAt": "yesterday"}
        started = started_from(session(avatar=avatar, agent={"search": "no", "model": "m"}))
        found = started.value.session
        assert found.avatar is not None
        assert (found.avatar.id, found.avatar.name, found.avatar.created_at) == ("av_1", None, None)
        assert found.agent is not None
        assert (found.agent.search, found.agent.model) == (None, "m")
        assert set(started.unreadable) == {
            "$.session.avatar.name",
            "$.session.avatar.createdAt",
            "$.session.agent.search",
        }

    @pytest.mark.parametrize(
        "changes",
        [
            {"host": None},
            {"host": ...},
            {"host": []},
            {"host": {}},
            {"host": {"serverUrl": None}},
            {"host": {"serverUrl": ""}},
            {"host": {"serverUrl": 7}},
            {"host": "wss://rtc.example.test"},
        ],
    )
    def test_without_an_address_it_is_unreadable_and_the_id_is_kept(
        self, changes: dict[str, Any]
    ) -> None:
        """It cannot be joined; its session can still be stopped."""
        found = unreadable(session(**changes))
        assert found.session_id == "s-1"
        assert "host" in found.problem

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b"{}",
            b"7",
            b'"s-1"',
            b"<html>",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"session":' * 50_000,
            b'{"session": null}',
            b'{"session": {"id": true}}',
            b'{"session": {"id": 7.5}}',
            b'{"session": {"id": ".."}}',
            b'{"session": {"id": "\\ud800"}}',
            b'{"session": {"name": "x", "id": "s-',
            b'{"agent": {"id": "s-1"}, "session": {"agent": {"id": "s-1"}, "name": "x',
            b'{"session": {"id": "\\q", "name": ',
            b'{"session": ["id", "s-1", ',
            b'}:,{"session": [[[',
            b"[" * 100_000 + b"]" * 100_000,
            b'"\\"' * 100_000,
        ],
    )
    def test_no_id_can_be_read(self, body: bytes) -> None:
        """Whatever the bytes, they are a value, and it has no id that is none."""
        assert unreadable(body).session_id is None

    @pytest.mark.parametrize(
        "body",
        [
            dump(STARTED)[:40],
            b'{"session": {"name": "x", "id": "s-1"',
            b'{"consumerAccessToken": "t{", "session": {"agent": {"id": "a"}, "id": "s-1", "x": "',
            b"\xef\xbb\xbf" + dump(STARTED)[:40],
            dump(STARTED).decode()[:60].encode("utf-16"),
            b'{ "session" : { "id" : "s-1", "maxDuration": NaN',
            b'{"session": {"id": "s-1", "maxDuration": ' + b"1" * 5000 + b"}}",
            b'{"session":{"id":"s-1","deep":' + b"[" * 100_000,
            session(maxDuration=...).replace(b'"freemium":false', b'"freemium":Infinity'),
        ],
    )
    def test_the_id_is_read_from_what_is_left(self, body: bytes) -> None:
        """A truncated or hostile answer still tells which session to stop."""
        assert unreadable(body).session_id == "s-1"

    def test_an_id_that_is_a_number(self) -> None:
        """It cannot be returned, but it can be stopped."""
        assert unreadable(session(id=7)).session_id == "7"

    def test_an_id_that_cannot_be_stopped_is_unusable(self) -> None:
        """A session that no stop can name is not handed out as if all were well."""
        found = unreadable(session(id=".."))
        assert "session_id must not be" in found.problem
        assert found.session_id is None

    def test_no_value_is_shown(self) -> None:
        """The message contains paths and types, and no value."""
        started = started_from(session(name=["secret"], startedAt="secret", id="s-2"))
        assert "secret" not in repr(started.unreadable)
        assert "secret" not in repr(unreadable(session(name=["secret"], host="secret")))


def to_python(name: str) -> str:
    """The Python name of a field."""
    return re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), name)


class TestDecodeStop:
    def test_details(self) -> None:
        """A session that was running."""
        decoded = STOP_SESSION.decode(dump({**SESSION, "status": "ended"}))
        assert isinstance(decoded, Structured)
        ended = decoded.value
        assert ended is not None
        assert (ended.id, ended.status) == ("s-1", "ended")

    @pytest.mark.parametrize("body", [b"", b" \r\n", b"null", b" null "])
    def test_no_details(self, body: bytes) -> None:
        """Null and an empty body are None: there is nothing to tell."""
        assert STOP_SESSION.decode(body) == Structured(None)

    def test_no_address(self) -> None:
        """The answer to a stop needs none."""
        decoded = STOP_SESSION.decode(b'{"id":"s-1","host":null}')
        assert isinstance(decoded, Structured)
        assert decoded.value is not None
        assert (decoded.value.id, decoded.value.host.server_url) == ("s-1", "")
        assert decoded.unreadable == ()

    @pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b"\xff", b"[" * 99_999])
    def test_details_that_cannot_be_read(self, body: bytes) -> None:
        """What that means depends on the effect: a stop is done, a read is tried again."""
        assert isinstance(STOP_SESSION.decode(body), answers.Unreadable)

    @pytest.mark.parametrize(
        ("body", "foreign"),
        [
            (b'{"id":"s-1","name":"x"}', False),
            (b'{ "name": "x", "id": "s-1" }', False),
            (b'{"id":"s-11"}', True),
            (b'{"id": "s-2"}', True),
            (b'{"id": 7}', True),
            (b'{"id": ""}', True),
            (b'{"id": null}', False),
            (b'{"id": ["s-2"]}', False),
            (b'{"name":"x"}', False),
            (b"null", False),
            (b"", False),
            (b"[]", False),
            (b"\xff", False),
        ],
    )
    def test_another_sessions_answer(self, body: bytes, foreign: bool) -> None:
        """An answer that names another session is not an answer to this stop."""
        assert answers.is_foreign(body, "s-1") is foreign


def refusal(body: bytes, status: int = 400, key: str = "pk_test_1") -> Any:
    """The error that a refusal becomes."""
    return answers.status_error(status, body, mask=words.Masker(key), retry_after=None)


class TestWords:
    def test_a_short_key_garbles_nothing(self) -> None:
        """It may be part of any word."""
        assert refusal(b"unknown client key, bearer keys", key="key").message == (
            "unknown client key, bearer keys"
        )

    def test_a_jwt(self) -> None:
        """It is masked wherever it stands, and where it was cut."""
        assert refusal(b'{"message":"x\\neyJa.b.c d eyJ.txt keyJar"}').message == (
            "x *** d eyJ.txt keyJar"
        )
        assert refusal(b"eyJ" * 40_000).body == "***"

    def test_half_a_key_is_not_shown(self) -> None:
        """A long text is cut before it is masked: its end may be the beginning of the key."""
        jwts = b"eyJa.b." + b"c" * 16_370 + b" "
        assert "pk_te" not in refusal(jwts[: 16_384 - 6] + b" pk_test_1").body
        head = b"eyJa.b." + b"c" * (16_384 - 7 - 8) + b" pk_test_1"
        assert refusal(head).body == "*** ***"

    def test_control_characters_are_shown(self) -> None:
        """They would clear a screen, or turn a name around."""
        error = refusal(dump({"message": "no \x1b[2J\x07 \u202etxt \x9b"}))
        assert error.message == r"no \x1b[2J\x07 \u202etxt \x9b"
        assert refusal(b"a\tb\n\x1b").body == "a\tb\n\\x1b"


class TestStatusError:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"statusCode":400,"message":"no","error":"Bad Request"}', "no"),
            (b'{"statusCode":400,"message":["a","b"]}', "a; b"),
            (b'{"message":"two\\n  lines"}', "two lines"),
            (b'{"message":7}', '{"message":7}'),
            (b"[1]", "[1]"),
            (b"<html>\n502</html>", "<html> 502</html>"),
            (b"", "the server gave no reason"),
            (b"\xff", "\ufffd"),
        ],
    )
    def test_the_servers_words(self, body: bytes, message: str) -> None:
        """A string, a list of strings, or whatever a proxy sends."""
        assert refusal(body).message == message

    def test_words_are_bounded(self) -> None:
        """An error does not carry megabytes about."""
        error = refusal(dump({"message": ["x" * 10_000] * 1000}))
        assert len(error.message) == len(error.body) == 2048

    @pytest.mark.parametrize(
        ("key", "echo"),
        [
            ("pk_test_1", b'{"message":"bad key pk_test_1"}'),
            ('p"k\\test1', dump({"message": 'bad key p"k\\test1'})),
            ("p/k+test1", b"bad key p%2Fk%2Btest1"),
            ("pk_test_1", b"x" * 2046 + b"pk_test_1"),
            ("pk_test_1", b"eyJ" + b"x" * 16_370 + b" pk_test_1"),
            ("pk", b"Authorization: Bearer pk"),
            ("pk", b'{"message":"got \\"bearer  pk\\""}'),
        ],
    )
    def test_an_echoed_key_is_masked(self, key: str, echo: bytes) -> None:
        """Plain, JSON-escaped, percent-encoded, or on the edge of what is kept."""
        error = refusal(echo, key=key)
        for text in (error.message, error.body):
            assert key not in text
            assert key[:2] not in text

    @pytest.mark.parametrize("words", [b"eyJ", b"eyJ.", b"a.", b"bearer ", b"bearer%20", b"\\"])
    @pytest.mark.parametrize("key", ["pk", "eyJeyJeyJ.", "bearer bearer "])
    def test_no_text_takes_long(self, words: bytes, key: str) -> None:
        """It is the server's choice, and the event loop stands still meanwhile."""
        text = words * (1_000_000 // len(words))
        before = time.process_time()
        refusal(text, key=key)
        assert time.process_time() - before < 2

    def test_tokens_are_masked(self) -> None:
        """A JWT in an error's body could open a room."""
        error = refusal(b'{"message":"token eyJhbGciOi.eyJzdWIi.c2ln is bad"}')
        assert error.message == "token *** is bad"
        assert "eyJ" not in error.body


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-Id": "r-1"}, "r-1"),
        ({}, None),
        ({"X-Request-Id": ""}, None),
        ({"X-Request-Id": "x" * 201}, None),
        ({"X-Request-Id": "a\x00"}, None),
        ({"X-Request-Id": "ä"}, None),
    ],
)
def test_request_ids(headers: dict[str, str], expected: str | None) -> None:
    """The server's name for the exchange, where it is a plain one."""
    assert answers.request_id(headers) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("id", "id"), ("max_duration", "maxDuration"), ("a_b_c", "aBC"), ("server_url", "serverUrl")],
)
def test_camel(name: str, expected: str) -> None:
    """Wire names are camelCase without exception."""
    assert codec.camel(name) == expected


def test_times_are_written_as_they_are_read() -> None:
    """RFC 3339 with Z."""
    decoded = STOP_SESSION.decode(dump({**SESSION, "endedAt": "2025-12-10T10:11:47.5+01:00"}))
    assert isinstance(decoded, Structured)
    ended = decoded.value
    assert ended is not None
    assert ended.ended_at is not None
    assert ended.ended_at.utcoffset() == timedelta(hours=1)
    written = json.loads(START_SESSION.body(ended))  # it writes whatever it can read
    assert written["startedAt"] == "2025-12-10T09:11:47.123000Z"
