"""Searches for secrets in all output."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from equos_async import (
    ConfigurationError,
    CreateEquosConversationRequest,
    CreateSessionPassRequest,
    EquosClient,
    EquosConversationHost,
    EquosError,
    EquosParticipantIdentity,
    Event,
    PermissionDeniedError,
    StartUnreadableError,
    Timeouts,
)
from tests.clocks import SkippingClock, until
from tests.faults.server import Connection, RawServer, error_body
from tests.faults.test_matrix import ROWS
from tests.unit.test_wire import SESSION, dump

KEY = "pk_secret_key"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzZWNyZXQiOjF9.secret"
SECRETS = (KEY, TOKEN, "secret-context", "secret-variable", "secret-identity", "secret-name")

REQUEST = CreateSessionPassRequest(
    name="a call",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="secret-identity", name="secret-name"),
    additional_ctx="secret-context",
    template_vars={"who": "secret-variable"},
)


def clean(text: object) -> None:
    """Whether a text contains none of the secrets."""
    found = [secret for secret in SECRETS if secret in str(text)]
    assert found == []


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception with all that it was raised from or while."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def clean_error(error: BaseException) -> None:
    """Nothing shows in its text, its attributes, its pickle or a traceback with locals."""
    for one in chain(error):
        clean(repr(one))
        clean(one)
        clean(vars(one))
        shown = traceback.TracebackException.from_exception(one, capture_locals=True)
        # The frames of the tests hold the secrets by their own will.
        shown.stack = traceback.StackSummary.from_list(
            [frame for frame in shown.stack if "/tests/" not in frame.filename]
        )
        clean("".join(shown.format()))
    if isinstance(error, EquosError):
        for secret in SECRETS:
            assert secret.encode() not in pickle.dumps(error)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that anybody logs."""
    caplog.set_level(logging.DEBUG)
    return caplog


async def session_reply(connection: Connection) -> None:
    """A start's answer with tokens and with what was said."""
    session_id = json.loads(connection.act())["session"]["id"]
    session = {
        **SESSION,
        "id": session_id,
        "additionalCtx": "secret-context",
        "templateVars": {"who": "secret-variable"},
        "remoteAgentIdentity": "secret-identity",
        "transcript": {"transcription": [{"text": "secret-context"}]},
    }
    body = {"session": session, "consumerAccessToken": TOKEN, "remoteAgentAccessToken": TOKEN}
    await connection.reply(201, dump(body))


async def test_values_and_logs(logs: pytest.LogCaptureFixture) -> None:
    """The client, its request and its results show none of them, nor do the logs at DEBUG."""
    asyncio.get_running_loop().set_debug(True)
    async with RawServer([session_reply]) as server:
        async with EquosClient(KEY, endpoint=server.endpoint) as client:
            started = await client.start_session(REQUEST)
            assert started.consumer_access_token == TOKEN
            for value in (client, vars(client), REQUEST, started, started.session):
                clean(value)
                clean(repr(value))
            for part in vars(client).values():
                clean(part)
                clean(repr(getattr(part, "__dict__", None)))
            await client.stop_session(started.session.id)
    clean(logs.text)


@pytest.mark.parametrize("behave", [row[1] for row in ROWS], ids=[row[0] for row in ROWS])
async def test_errors_events_and_logs(behave: Any, logs: pytest.LogCaptureFixture) -> None:
    """After any fault, errors, events and logs contain none of them."""
    events: list[Event] = []
    timeouts = Timeouts(start_attempt=0.05, stop_attempt=0.05, deadline=60)
    async with RawServer([behave]) as server:
        client = EquosClient(
            KEY,
            endpoint=server.endpoint,
            clock=SkippingClock(),
            timeouts=timeouts,
            on_event=events.append,
        )
        try:
            await client.start_session(REQUEST)
        except EquosError as error:
            clean_error(error)
        await client.aclose(deadline=0.1)
    clean(events)
    clean(client.unresolved)
    clean(logs.text)


@pytest.mark.parametrize("echo", [KEY, json.dumps(KEY), quote(KEY, safe=""), TOKEN])
@pytest.mark.parametrize("status", [400, 401, 403, 429, 502])
async def test_a_server_that_echoes(echo: str, status: int, logs: pytest.LogCaptureFixture) -> None:
    """A key or a token in an error's body is masked, in the message, the body and the reason."""

    async def behave(connection: Connection) -> None:
        await connection.reply(status, error_body(status, f"what is {echo}?"))

    async with RawServer(always=behave) as server:
        async with EquosClient(KEY, endpoint=server.endpoint, clock=SkippingClock()) as client:
            for work in (client.start_session(REQUEST), client.stop_session("g-1")):
                with pytest.raises(EquosError) as caught:
                    await work
                clean_error(caught.value)
            await client.aclose(deadline=0)
    clean(client.unresolved)
    clean(logs.text)


@pytest.mark.parametrize("body", [f'{{"session":{{"id":7}},"t":"{TOKEN}"}}', f'{{"t":"{TOKEN}"'])
async def test_an_unusable_answer(body: str) -> None:
    """The tokens of a session that cannot be made out are in no frame of its error."""

    async def reply(connection: Connection) -> None:
        await connection.reply(201, body.encode())

    async with RawServer([reply]) as server, EquosClient(KEY, endpoint=server.endpoint) as client:
        with pytest.raises(StartUnreadableError) as caught:
            await client.start_session(REQUEST)
    clean_error(caught.value)


async def test_a_status_line_that_echoes() -> None:
    """Of what is not even HTTP nothing is quoted."""

    async def behave(connection: Connection) -> None:
        await connection.send(f"who is {KEY}?\r\n\r\n".encode())
        await connection.gone()

    async with RawServer(always=behave) as server:
        async with EquosClient(KEY, endpoint=server.endpoint) as client:
            with pytest.raises(EquosError, match="breaks the rules of HTTP") as caught:
                await client.start_session(REQUEST)
    clean_error(caught.value)


async def test_a_cancelled_caller(logs: pytest.LogCaptureFixture) -> None:
    """A CancelledError passes through frames that hold nothing to be seen."""
    async with RawServer() as server, EquosClient(KEY, endpoint=server.endpoint) as client:
        task = asyncio.create_task(client.start_session(REQUEST))
        await until(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        clean_error(caught.value)
    clean(logs.text)


@pytest.mark.parametrize("key", [KEY + "\n", KEY + " x", "ü" + KEY])
def test_a_bad_key_is_not_quoted(key: str) -> None:
    """Neither by the message nor by the locals of a traceback."""
    with pytest.raises(ConfigurationError) as caught:
        EquosClient(key)
    clean_error(caught.value)


TALK = CreateEquosConversationRequest(
    name="a talk",
    character_id="ch_1",
    consumer=EquosParticipantIdentity(identity="secret-identity", name="secret-name"),
    remote_agent=EquosParticipantIdentity(identity="secret-identity", name="secret-name"),
    host=EquosConversationHost(server_url="wss://rtc.example.test", access_token=TOKEN),
    prompt_ctx="secret-context",
    prompt_template_vars={"who": "secret-variable"},
)


async def conversation_reply(connection: Connection) -> None:
    """A start's answer with tokens, names and what was said."""
    conversation = {
        **json.loads(connection.act())["conversation"],
        "promptCtx": "secret-context",
        "promptTemplateVars": {"who": "secret-variable"},
        "consumerName": "secret-name",
        "consumerIdentity": "secret-identity",
        "remoteAgentName": "secret-name",
        "remoteAgentIdentity": "secret-identity",
        "transcript": [{"author": "user", "content": "secret-context"}],
        "timeline": [{"type": "said", "content": "secret-context"}],
    }
    tokens = {"consumerAccessToken": TOKEN, "remoteAgentAccessToken": TOKEN}
    await connection.reply(201, dump({"conversation": conversation, **tokens}))


async def test_conversations(logs: pytest.LogCaptureFixture) -> None:
    """Nothing of one shows either, with a key that was asked for; its request sends the token."""
    asyncio.get_running_loop().set_debug(True)
    asked = asyncio.get_running_loop().create_future()
    asked.set_result(KEY)
    bodies: list[bytes] = []

    async def behave(connection: Connection) -> None:
        bodies.append(connection.body)
        await conversation_reply(connection)

    async with RawServer([behave]) as server:
        client = EquosClient(api_key=lambda: asked, endpoint=server.endpoint)
        async with client, client.conversation(TALK) as started:
            talk = started.conversation
            assert talk.transcript is not None
            assert talk.transcript[0].content == "secret-context"
            for value in (client, vars(client), TALK, TALK.host, started, talk, talk.timeline):
                clean(value)
                clean(repr(value))
            clean([repr(getattr(one, "__dict__", None)) for one in vars(client).values()])
            clean([repr(task) for task in asyncio.all_tasks()])
    assert TOKEN.encode() in bodies[0]
    clean(logs.text)


async def test_a_callable_that_fails(logs: pytest.LogCaptureFixture) -> None:
    """Its words, and what its frames hold, stay with it."""

    def ask() -> str:
        raise LookupError(f"not {KEY}")

    client = EquosClient(ask, endpoint="http://127.0.0.1:9")
    async with client:
        with pytest.raises(EquosError, match="LookupError") as caught:
            await client.start_session(REQUEST)
    clean_error(caught.value)
    clean(logs.text)


@pytest.mark.parametrize("echo", ["X-Api-Key: {}", '{{"x-api-key":"{}"}}', "x-api-key={}", "{}"])
@pytest.mark.parametrize("key", [KEY, "short"])
async def test_a_server_that_echoes_a_server_key(key: str, echo: str) -> None:
    """It is masked as a client key is: a short one in the forms of its header."""

    async def behave(connection: Connection) -> None:
        await connection.reply(403, error_body(403, echo.format(key)))

    async with RawServer(always=behave) as server:
        async with EquosClient(api_key=key, endpoint=server.endpoint) as client:
            with pytest.raises(PermissionDeniedError) as caught:
                await client.get_session("s-1")
    assert (key in caught.value.message) is (key == "short" and echo == "{}")
    assert (key in caught.value.body) is (key == "short" and echo == "{}")


def test_another_bad_setting_does_not_show_the_key() -> None:
    """The frame that refuses an endpoint knows the key, and does not show it."""
    with pytest.raises(ConfigurationError) as caught:
        EquosClient(KEY, endpoint="nowhere")
    clean_error(caught.value)
