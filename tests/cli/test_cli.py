"""The commands ``start`` and ``stop``."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from equos_async.cli import main
from equos_async.testing import Delay, Drop, EquosEmulator, Status
from tests.cli.support import JSON, START, command
from tests.conftest import API_KEY, KEY
from tests.faults.server import Connection, RawServer


class TestStartAndStop:
    async def test_they_print_json_and_exit_0(
        self, emulator: EquosEmulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A session is started, shown without its token, and stopped; a second stop is null."""
        assert await command(*JSON, "--endpoint", emulator.endpoint, "--template-var=a=b") == 0
        shown = json.loads(capsys.readouterr().out)
        session_id = shown["session"]["id"]
        assert list(emulator.live_sessions) == [session_id]
        assert shown["session"]["template_vars"] == {"a": "b"}
        assert "consumer_access_token" not in shown

        assert await command("stop", session_id, "--json", "--endpoint", emulator.endpoint) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "ended"
        assert emulator.live_sessions == {}
        assert await command("stop", session_id, "--json", "--endpoint", emulator.endpoint) == 0
        assert json.loads(capsys.readouterr().out) is None

    async def test_a_conversation(
        self,
        emulator: EquosEmulator,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The options say which of the two it is, and it needs the other key."""
        monkeypatch.delenv("EQUOS_CLIENT_KEY")
        monkeypatch.setenv("EQUOS_API_KEY", API_KEY)
        argv = ["start", "--character=ch_1", "--identity=user-7", "--context=more", "--json"]
        assert await command(*argv, "--endpoint", emulator.endpoint) == 0
        shown = capsys.readouterr()
        assert shown.err == "no --max-duration: the conversation ends after 600 s\n"
        conversation_id = json.loads(shown.out)["conversation"]["id"]
        assert list(emulator.live_conversations) == [conversation_id]
        assert "consumer_access_token" not in json.loads(shown.out)
        where = ("--json", "--conversation", "--endpoint", emulator.endpoint)
        assert await command("stop", conversation_id, *where) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "ended"
        assert emulator.live == {}

    @pytest.mark.parametrize(
        "options",
        [
            [],
            ["--avatar=av_1"],
            ["--agent=ag_1"],
            ["--character=ch_1", "--avatar=av_1"],
            ["--character=ch_1", "--avatar=av_1", "--agent=ag_1"],
        ],
    )
    async def test_neither_or_both(
        self, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A start of both kinds, or of none, is wrong usage."""
        assert await command("start", "--identity=user-7", *options) == 2
        assert "--character" in capsys.readouterr().err

    async def test_the_token_is_shown_on_request(
        self, emulator: EquosEmulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """``--show-token`` prints what lets a person join."""
        assert await command(*JSON, "--endpoint", emulator.endpoint, "--show-token") == 0
        assert json.loads(capsys.readouterr().out)["consumer_access_token"].startswith("eyJ")

    @pytest.mark.parametrize(
        ("fault", "code", "words"),
        [
            (Status(403, message="suspended"), 3, "PermissionDeniedError: 403: suspended"),
            (Drop("after"), 5, "StartOutcomeUnknownError: "),
        ],
    )
    async def test_errors_are_for_people(
        self,
        emulator: EquosEmulator,
        capsys: pytest.CaptureFixture[str],
        fault: Status | Drop,
        code: int,
        words: str,
    ) -> None:
        """An error is one line on stderr, and its kind is the exit code."""
        emulator.faults.start.add(fault)
        assert await command(*START, "--endpoint", emulator.endpoint) == code
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith(words)
        assert KEY not in shown.err

    async def test_nothing_was_sent(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A refused connection is exit code 4."""
        argv = [*START, "--endpoint", "http://127.0.0.1:1", "--deadline=0.2"]
        assert await command(*argv) == 4
        assert "nothing was sent" in capsys.readouterr().err

    async def test_bad_settings(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A missing key is exit code 2, before any I/O."""
        monkeypatch.delenv("EQUOS_CLIENT_KEY")
        assert await command("stop", "some-id") == 2
        assert "EQUOS_CLIENT_KEY" in capsys.readouterr().err

    @pytest.mark.parametrize("option", ["foo", "=bar"])
    async def test_a_template_variable_without_a_value(
        self, option: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Anything but NAME=VALUE is wrong usage, and nothing is sent."""
        assert await command(*START, "--template-var", option) == 2
        assert "--template-var must be NAME=VALUE" in capsys.readouterr().err

    async def test_an_answer_nested_deeper_than_can_be_printed(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The deepest levels are left out, and the rest is shown."""

        async def nested(connection: Connection) -> None:
            body = json.loads(connection.act())
            body["session"]["transcript"] = 1
            for _ in range(450):
                body["session"]["transcript"] = [{"a": body["session"]["transcript"]}]
            await connection.reply(201, json.dumps(body).encode())

        async with RawServer(always=nested) as server:
            assert await command(*JSON, "--endpoint", server.endpoint) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["session"]["id"] == "s-0"
        assert str(shown["session"]["transcript"]).count("[") == 24
        assert server.live == {"s-0"}

    async def test_what_a_terminal_would_obey(
        self, emulator: EquosEmulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A server's words are printed escaped, and on one line."""
        emulator.faults.start.add(Status(422, message="\x1b[2J\u202etxet\nmore"))
        assert await command(*START, "--endpoint", emulator.endpoint) == 3
        assert capsys.readouterr().err == (
            "UnprocessableEntityError: 422: \\x1b[2J\\u202etxet more\n"
        )

    def test_a_failure_is_told_once(self) -> None:
        """The library's warning says nothing beyond the error, and is not shown."""
        argv = [sys.executable, "-m", "equos_async", *START]
        with EquosEmulator() as emulator:
            emulator.faults.start.add(Drop("after"))
            done = subprocess.run(
                [*argv, "--endpoint", emulator.endpoint],
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 5
        assert len(done.stderr.splitlines()) == 1

    def test_ctrl_c_exits_130(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An interrupted command says so by its exit code."""

        def interrupt(work: Any) -> None:
            work.close()
            raise KeyboardInterrupt

        monkeypatch.setattr(asyncio, "run", interrupt)
        assert main(["stop", "some-id"]) == 130


async def test_what_was_done_is_told_in_words(
    emulator: EquosEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --json; a stop says whether anything was running."""
    where = ("--endpoint", emulator.endpoint)
    assert await command(*START, *where, "--show-token") == 0
    (session_id,) = emulator.live_sessions
    first, server, *tokens = capsys.readouterr().out.splitlines()
    assert first == f"session {session_id} is started"
    assert server == "server: wss://rtc.example.test"
    assert tokens[0].startswith("consumer_access_token: eyJ")
    assert await command("stop", session_id, *where) == 0
    assert capsys.readouterr().out == f"session {session_id} is stopped\n"
    assert await command("stop", session_id, *where) == 0
    assert capsys.readouterr().out == f"session {session_id} was not running\n"


async def test_a_conversation_in_words(
    emulator: EquosEmulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with its own word."""
    monkeypatch.setenv("EQUOS_API_KEY", API_KEY)
    argv = ("--character=ch_1", "--identity=user-7", "--endpoint", emulator.endpoint)
    assert await command("start", *argv) == 0
    (conversation_id,) = emulator.live_conversations
    assert capsys.readouterr().out.splitlines() == [
        f"conversation {conversation_id} is started",
        "server: wss://rtc.example.test",
    ]


async def test_a_proxy_that_is_set_and_not_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line says how it would be used."""
    argv = (*START, "--endpoint=http://127.0.0.1:1", "--deadline=0.2")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert await command(*argv) == 4
    assert "--trust-env" not in capsys.readouterr().err
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:2")
    assert await command(*argv) == 4
    assert "used only with --trust-env" in capsys.readouterr().err
    assert await command(*argv, "--trust-env") == 4
    assert "used only with --trust-env" not in capsys.readouterr().err


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_nobody_reads_the_output(json_option: tuple[str, ...]) -> None:
    """As of `| head -1`: one line, the code that shells have for it, and no session."""
    with EquosEmulator() as emulator:
        argv = [sys.executable, "-m", "equos_async", *START, *json_option]
        own = {**os.environ, "EQUOS_ENDPOINT": emulator.endpoint}
        process = subprocess.Popen(
            argv, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 141
        assert told == "the output was closed before all of it was written\n"
        assert emulator.live_sessions == {}


def test_the_package_is_the_command() -> None:
    """``python -m equos_async`` calls what the tests here call."""
    assert vars(importlib.import_module("equos_async.__main__"))["main"] is main


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_leaves_no_session(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is on the wire when the signal comes: its session is ended first."""

    def interrupt(_: object) -> bool:
        os.kill(os.getpid(), number)
        return True

    with EquosEmulator() as emulator:
        monkeypatch.setenv("EQUOS_ENDPOINT", emulator.endpoint)
        emulator.faults.start.add(Delay(0.3), when=interrupt)
        assert main(START) == code
        assert emulator.live_sessions == {}


async def test_a_session_without_an_end_gets_one(
    emulator: EquosEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says so, and the server ends the session after ten minutes."""
    endless = [option for option in START if "max-duration" not in option]
    assert await command(*endless, "--endpoint", emulator.endpoint) == 0
    assert "no --max-duration: the session ends after 600 s" in capsys.readouterr().err
    (session,) = emulator.live_sessions.values()
    assert session.max_duration == 600


async def test_a_session_that_cannot_be_shown_is_ended(
    emulator: EquosEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its id no one could stop it."""

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("equos_async.cli.calls.print", closed, raising=False)
    monkeypatch.setattr("equos_async.cli.output.discard", list)  # it is pytest's
    assert await command(*START, "--endpoint", emulator.endpoint) == 141
    assert emulator.live_sessions == {}
