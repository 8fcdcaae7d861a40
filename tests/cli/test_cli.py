"""The command line: ``demo``, ``emulator``, ``start`` and ``stop``."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from equos_async import Settle, Unresolved
from equos_async.cli import EXAMPLES, PROGRAM, _parser, demo, main
from equos_async.testing import (
    Delay,
    Drop,
    EquosEmulator,
    Garbage,
    Hang,
    Redirect,
    Reset,
    Status,
    Truncate,
)
from equos_async.testing.spec import parse_fault
from tests.conftest import API_KEY, KEY
from tests.faults.server import Connection, RawServer
from tests.needs import need

START = ["start", "--avatar=av_1", "--agent=ag_1", "--identity=user-7", "--max-duration=60"]
JSON = (*START, "--json")


async def command(*argv: str) -> int:
    """Run a command in a thread, since it brings an event loop of its own."""
    return await asyncio.to_thread(main, argv)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The key comes from the environment only."""
    monkeypatch.setenv("EQUOS_CLIENT_KEY", KEY)


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
        argv = [sys.executable, "-m", "equos_async", "stop", "some-id", "--deadline=0.2"]
        done = subprocess.run(
            [*argv, "--endpoint=http://127.0.0.1:1"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 4
        assert len(done.stderr.splitlines()) == 1

    def test_ctrl_c_exits_130(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An interrupted command says so by its exit code."""

        def interrupt(work: Any) -> None:
            work.close()
            raise KeyboardInterrupt

        monkeypatch.setattr(asyncio, "run", interrupt)
        assert main(["stop", "some-id"]) == 130


def test_the_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """A script's author finds them without reading the source."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "5 the outcome of a start is unknown" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The examples are valid commands, and each command has one."""
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    _, told = capsys.readouterr().out.split("examples:\n")
    assert [line.strip() for line in told.splitlines()] == [
        *(f"{PROGRAM} {x}" for x in EXAMPLES[name]),
        "",
        f"exit codes: {PROGRAM} --help",
    ]
    for example in EXAMPLES[name]:
        assert _parser().parse_args(shlex.split(example)).run


def test_each_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage is one line, which names the help, and here also each command."""
    with pytest.raises(SystemExit, match="2"):
        main(["nonsense"])
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert told.endswith("(see equos-async --help)\n")
    assert set(re.findall(r"\w+", told.partition("choose from")[2])) >= EXAMPLES.keys()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--port=99999", "must be from 0 to 65535, not '99999'"),
        ("--port=x", "must be from 0 to 65535, not 'x'"),
        ("--fault=pause:429", "the operation must be one of start, stop,"),
        ("--fault=start:what", "the kind must be a status or one of delay, drop,"),
        ("--fault=start:700", "a status must be from 200 to 599"),
        (
            "--fault=start:429,size=3",
            "there is no option size: there are times, share and, for a status, retry_after",
        ),
        ("--fault=start:drop=x", "the value must be before or after"),
    ],
)
def test_a_wrong_option_is_one_line(
    option: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what would be right."""
    with pytest.raises(SystemExit, match="2"):
        main(["emulator", option])
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1


def test_a_setting_that_the_emulator_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one line and exit code 2, as with the other commands."""
    monkeypatch.delenv("LIVEKIT_URL", raising=False)
    assert main(["emulator", "--livekit"]) == 2
    assert "--livekit: not set: LIVEKIT_URL" in capsys.readouterr().err


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
    argv = ("stop", "some-id", "--endpoint=http://127.0.0.1:1", "--deadline=0.2")
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


class TestFaultSyntax:
    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ("start:429,retry_after=2,times=3", ("start", (Status(429, retry_after="2"),), 3, 1.0)),
            ("stop:503", ("stop", (Status(503),), None, 1.0)),
            ("both:delay=0.3,share=0.5", ("both", (Delay(0.3),), None, 0.5)),
            ("start:drop=after", ("start", (Drop("after"),), None, 1.0)),
            ("start:reset=before", ("start", (Reset("before"),), None, 1.0)),
            ("start:truncate=9", ("start", (Truncate(9),), None, 1.0)),
            ("start:redirect=/x", ("start", (Redirect("/x"),), None, 1.0)),
            ("start:garbage", ("start", (Garbage(),), None, 1.0)),
            ("start:hang", ("start", (Hang(),), None, 1.0)),
        ],
    )
    def test_it_spells_each_fault(self, spec: str, expected: object) -> None:
        """Each kind of fault can be asked for by hand."""
        assert parse_fault(spec) == expected

    @pytest.mark.parametrize(
        "spec",
        [
            "",
            "start",
            "pause:429",
            "start:what",
            "start:429,size=3",
            "start:delay=x",
            "start:drop=x",
        ],
    )
    def test_it_says_what_it_takes(self, spec: str) -> None:
        """A misspelled fault is answered with the syntax."""
        with pytest.raises(argparse.ArgumentTypeError, match="OPERATION:KIND"):
            parse_fault(spec)


@pytest.fixture
def serving() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the emulator by hand, in a process of its own."""
    processes: list[subprocess.Popen[str]] = []

    def serve(*options: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "equos_async", "emulator", "--port=0", *options]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield serve
    for process in processes:
        process.kill()
        process.communicate()


class TestEmulatorByHand:
    @pytest.mark.parametrize("option", ["--json", "--log=json"])
    async def test_it_serves_until_it_is_told_to_end(
        self,
        option: str,
        serving: Callable[..., subprocess.Popen[str]],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """It prints its address, a line for each request without secrets, and its counts."""
        process = serving(option, "--fault=start:429,times=1", "--limit-concurrent=1")
        assert process.stdout is not None
        endpoint = json.loads(process.stdout.readline())["endpoint"]
        assert await command(*START, "--endpoint", endpoint) == 0
        process.send_signal(signal.SIGTERM)
        lines = process.stdout.read().splitlines()
        assert process.wait() == 0
        assert [json.loads(line)["status"] for line in lines[:-1]] == [429, 201]
        last = json.loads(lines[-1])
        assert (last["requests"], len(last["live"]), last["ended"]) == (2, 1, 0)
        assert KEY not in "".join(lines)

    def test_it_talks_to_people(self, serving: Callable[..., subprocess.Popen[str]]) -> None:
        """Without ``--log json`` it prints a curl line that works, and plain lines."""
        need("curl")
        process = serving()
        assert process.stdout is not None
        hello, curl = process.stdout.readline(), process.stdout.readline()
        assert hello.startswith("Local Equos server for tests: http://127.0.0.1:")
        done = subprocess.run(
            ["bash", "-c", curl.removeprefix("Try: ")], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["session"]["name"] == "by hand"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().splitlines() == [
            "POST /v3/session-passes 201",
            "1 requests, 1 live, 0 ended, 0 s billed",
        ]
        assert process.wait() == 0

    def test_a_port_that_is_taken(self) -> None:
        """It says on stderr that it cannot listen, and exits with 1."""
        with EquosEmulator() as first:
            argv = [sys.executable, "-m", "equos_async", "emulator", f"--port={first.port}"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"cannot listen on 127.0.0.1:{first.port}: ")

    def test_nobody_reads_any_more(self) -> None:
        """Its output is closed before its first line: it ends, and one line says why."""
        argv = [sys.executable, "-m", "equos_async", "emulator", "--port=0"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == "the output was closed before all of it was written\n"
        process.stderr.close()
        assert process.wait() == 141


class TestDemo:
    def test_it_ends_with_nothing_unreported(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A small demo without a terminal: plain lines, the table, exit code 0."""
        monkeypatch.setattr(demo, "SETTLE", Settle(patience=1, look_for=1))
        assert main(["demo", "--sessions=60", "--at-once=30", "--seed=3"]) == 0
        out = capsys.readouterr().out
        assert "0/60  started 0" in out
        rows = self.table(out)
        assert rows["sessions started"] == rows["sessions stopped"] > 0
        assert rows["left on the server"] == 0

    @staticmethod
    def table(out: str) -> dict[str, int]:
        """The numbers in the table, by the words before them."""
        found = re.findall(r"^([a-z][a-z0-9 ]*?) +([0-9]+)\b", out, re.MULTILINE)
        return {name: int(number) for name, number in found}

    @pytest.mark.parametrize("options", [(), ("--no-settle",)])
    def test_it_fits_a_terminal(
        self,
        options: tuple[str, ...],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Of 80 columns."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:drop=after,times=20",))
        assert main(["demo", "--sessions=200", "--at-once=100", *options]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) < 80

    def test_lost_starts_are_made_again(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Found by the server key and ended first, so that nothing is left."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:drop=after,times=3",))
        assert main(["demo", "--sessions=5", "--at-once=5"]) == 0
        rows = self.table(capsys.readouterr().out)
        told = ("sessions started", "lost starts found", "made again", "left on the server")
        assert [rows[name] for name in told] == [5, 3, 3, 0]

    def test_with_a_terminal_it_shows_a_bar(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a terminal rich draws a live line."""
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["demo", "--sessions=2", "--at-once=2"]) == 0
        assert "2/2" in capsys.readouterr().out

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_stops_the_sessions(self, number: signal.Signals, code: int) -> None:
        """After a signal it stops its sessions, prints the table, and has its exit code."""
        argv = [sys.executable, "-m", "equos_async", "demo", "--sessions=5000"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(number)
        out = process.stdout.read()
        process.stdout.close()
        assert process.wait() == code
        assert self.table(out)["left on the server"] == 0
        assert "not reported" not in out

    def test_its_emulator_does_not_outlive_it(self) -> None:
        """Even if the demo is killed: both hold the pipe of errors, which ends with the last."""
        argv = [sys.executable, "-m", "equos_async", "demo", "--sessions=5000"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    def test_nobody_reads_what_it_tells(self) -> None:
        """As of `| head -1`: its sessions are stopped, and one line says why it ends."""
        argv = [sys.executable, "-m", "equos_async", "demo", "--sessions=5000"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == "the output was closed before all of it was written\n"
        process.stderr.close()
        assert process.wait() == 141

    @pytest.mark.parametrize("option", ["--sessions=0", "--at-once=0", "--at-once=-1"])
    def test_it_refuses_no_work(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a session or a worker there is nothing to show, and nothing is started."""
        with pytest.raises(SystemExit, match="2"):
            main(["demo", option])
        assert "must be a whole number of at least 1" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["loads", "suppress"])
    def test_the_emulator_ends_whatever_happens(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A Ctrl-C while its first line is read, or right after, leaves no process behind."""
        spawned: list[subprocess.Popen[str]] = []
        real = subprocess.Popen

        def spawn(*args: Any, **options: Any) -> subprocess.Popen[str]:
            spawned.append(real(*args, **options))
            return spawned[-1]

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(subprocess, "Popen", spawn)
        monkeypatch.setattr(json if name == "loads" else demo, name, interrupt)
        assert main(["demo"]) == 130
        assert [process.returncode is None for process in spawned] == [False]

    def test_an_interrupted_demo_still_prints_its_table(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The table is there, and the exit code is 130."""
        real = asyncio.run

        def interrupted(work: Any) -> None:
            real(work)
            raise KeyboardInterrupt

        monkeypatch.setattr(asyncio, "run", interrupted)
        assert main(["demo", "--sessions=1", "--at-once=1"]) == 130
        assert self.table(capsys.readouterr().out)["left on the server"] == 0

    def test_a_refused_start_is_counted(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing exists then, and nothing is left."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:400",))
        assert main(["demo", "--sessions=3", "--at-once=1"]) == 0
        assert self.table(capsys.readouterr().out)["failed"] == 3

    def test_what_nobody_reported_is_a_failure(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A session that is left and that the client does not know of is exit code 1."""

        def unreported(*_: object) -> list[str]:
            return ["demo-1"]

        monkeypatch.setattr(demo, "unreported", unreported)
        assert main(["demo", "--sessions=1"]) == 1
        assert "not reported: ['demo-1']" in capsys.readouterr().out

    def test_what_is_left_is_told_in_words(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without the server key a lost start leaves a session, and the table says so."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:drop=after,times=1",))
        assert main(["demo", "--sessions=3", "--at-once=1", "--no-settle"]) == 0
        out = capsys.readouterr().out
        words = "1, whose start's answer was lost; each was reported"
        assert re.search(rf"^left on the server +{words}$", out, re.MULTILINE)
        assert "made again" not in out

    def test_it_prints_json(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing but one object, with the numbers of the table and their units."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:400,times=1",))
        assert main(["demo", "--sessions=3", "--at-once=1", "--no-settle", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["unreported"] == []
        assert [told[name] for name in ("sessions_started", "failed", "left_on_the_server")] == [
            2,
            1,
            0,
        ]
        assert told["start_latency_p99_ms"] > 0
        assert "billed_s" in told

    def test_known_by_id_or_by_name(self) -> None:
        """A session counts as reported by its id or by the name of its unknown start."""
        now = datetime.now(UTC)
        known = [
            Unresolved(operation="start", reason="", at=now, name="a"),
            Unresolved(operation="stop", reason="", at=now, session_id="2"),
        ]
        live = [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}, {"id": "3", "name": "c"}]
        assert demo.unreported(live, known) == ["c"]

    def test_it_works_without_rich(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The extra ``cli`` is optional: a terminal shows plain lines then."""
        monkeypatch.setitem(sys.modules, "rich", None)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["demo", "--sessions=3", "--at-once=1"]) == 0
        assert capsys.readouterr().out.startswith("0/3  started 0")


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
