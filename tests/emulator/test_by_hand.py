"""The command ``emulator``: its options, its output, and its end."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from equos_async.cli.output import discard
from equos_async.errors import ConfigurationError
from equos_async.testing import (
    Delay,
    Drop,
    EquosEmulator,
    Faults,
    ForgetVariables,
    Garbage,
    Hang,
    Lag,
    Redirect,
    RefuseVariables,
    Reset,
    Status,
    Truncate,
    Twice,
)
from equos_async.testing.server import add_arguments, run
from equos_async.testing.spec import describe, parse_fault
from tests.emulator.support import API_KEY, CONVERSATIONS, KEY, post


class TestSpec:
    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ("start:429,retry_after=2,times=3", (Status(429, retry_after="2"), 3, 1.0)),
            ("stop:503", (Status(503), None, 1.0)),
            ("both:delay=0.3,share=0.5", (Delay(0.3), None, 0.5)),
            ("start:drop=after", (Drop("after"), None, 1.0)),
            ("start:reset=before", (Reset("before"), None, 1.0)),
            ("start:truncate=9", (Truncate(9), None, 1.0)),
            ("start:redirect=/x", (Redirect("/x"), None, 1.0)),
            ("start:garbage", (Garbage(), None, 1.0)),
            ("stop:null,times=2", (Status(200, body=""), 2, 1.0)),
            ("start:hang=before", (Hang("before"), None, 1.0)),
            ("read:429", (Status(429), None, 1.0)),
            ("all:drop=before", (Drop("before"), None, 1.0)),
            ("start:lag=5,times=1", (Lag(5), 1, 1.0)),
            ("start:twice", (Twice(), None, 1.0)),
            ("start:refuse-variables=_", (RefuseVariables("_"), None, 1.0)),
            ("start:forget-variables=", (ForgetVariables(), None, 1.0)),
        ],
    )
    def test_each_fault_can_be_typed_and_is_told_the_same(
        self, spec: str, expected: tuple[Any, int | None, float]
    ) -> None:
        """Reading a fault and describing it are each other's inverse."""
        fault, times, share = expected
        parsed, faults = parse_fault(spec), Faults()
        parsed.add_to(faults)
        assert parsed == (spec.partition(":")[0], (fault,), times, share)
        assert sorted(describe(faults.planned[0]).split(",")) == sorted(spec.split(","))

    def test_when_it_hangs_need_not_be_said(self) -> None:
        """By default it hangs after the server has acted, and is told so."""
        parsed, faults = parse_fault("start:hang"), Faults()
        parsed.add_to(faults)
        assert parsed == ("start", (Hang(),), None, 1.0)
        assert describe(faults.planned[0]) == "start:hang=after"

    def test_faults_compose(self) -> None:
        """A plus joins what happens to one request."""
        assert parse_fault("start:delay=1+drop=after").faults == (Delay(1.0), Drop("after"))

    @pytest.mark.parametrize(
        "spec",
        [
            "",
            "start",
            "pause:429",
            "start:what",
            "start:99",
            "start:600",
            "start:429,size=3",
            "start:delay=x",
            "start:drop=x",
            "start:429,times=0",
            "start:429,share=2",
        ],
    )
    def test_a_misspelled_one_is_answered_with_the_syntax(self, spec: str) -> None:
        """The message says which faults there are."""
        with pytest.raises(argparse.ArgumentTypeError, match=r"OPERATION:KIND"):
            parse_fault(spec)


class Terminal(io.StringIO):
    """A standard output on which a visitor reads the first line, acts, and ends the server."""

    def __init__(self, visit: Callable[[str], None], number: signal.Signals) -> None:
        super().__init__()
        self._visit = visit
        self._number = number
        self.visitor: threading.Thread | None = None

    def flush(self) -> None:
        if self.visitor is None:
            hello = self.getvalue().splitlines()
            self.visitor = threading.Thread(target=self._act, args=(hello,))
            self.visitor.start()

    def _act(self, hello: list[str]) -> None:
        try:
            self._visit("\n".join(hello))
        finally:
            os.kill(os.getpid(), self._number)


class Closed(io.StringIO):
    """A standard output that is closed after its first line; then a visitor comes."""

    visitor: threading.Thread | None = None

    def flush(self) -> None:
        if self.visitor is not None:
            raise BrokenPipeError
        endpoint = json.loads(self.getvalue())["endpoint"]
        self.visitor = threading.Thread(target=self._visit, args=(endpoint,))
        self.visitor.start()

    def _visit(self, endpoint: str) -> None:
        with suppress(OSError):  # the server may end before it has answered
            post(endpoint)


def serve(
    monkeypatch: pytest.MonkeyPatch,
    visit: Callable[[str], None],
    *options: str,
    number: signal.Signals = signal.SIGTERM,
) -> list[str]:
    """Run the command until its visitor is done; the lines that it printed."""
    terminal = Terminal(visit, number)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--port=0", *options])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        assert run(args) == 0
    assert terminal.visitor is not None
    terminal.visitor.join()
    return terminal.getvalue().splitlines()


class TestServing:
    def test_for_programs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In JSON: the endpoint, a line for each request, the counts."""
        seen: list[int] = []

        def visit(hello: str) -> None:
            endpoint = json.loads(hello)["endpoint"]
            seen.extend(post(endpoint) for _ in range(3))

        lines = serve(
            monkeypatch,
            visit,
            "--log=json",
            "--fault=start:429,times=1",
            "--limit-concurrent=1",
            "--limit-duration=600",
        )
        assert seen == [429, 201, 429]
        told = [json.loads(line) for line in lines[1:-1]]
        assert [one["status"] for one in told] == seen
        last = json.loads(lines[-1])
        assert (last["requests"], last["ended"]) == (3, 0)
        assert [one["name"] for one in last["live"]] == ["support call"]
        assert KEY not in "".join(lines)

    def test_for_people(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In words: its address, a curl line, a line for each request without escape sequences."""

        def visit(hello: str) -> None:
            first, second = hello.splitlines()
            assert first.startswith("Local Equos server for tests: http://127.0.0.1:")
            assert second.startswith("Try: curl -s http://127.0.0.1:")
            endpoint = first.split()[5]
            assert post(endpoint, "/%1b%5B31m") == 404
            with pytest.raises(OSError, match=r"closed|reset"):
                post(endpoint)

        lines = serve(monkeypatch, visit, "--fault=start:drop=before,times=1", number=signal.SIGINT)
        assert lines[2:] == [
            r"POST /\x1b[31m 404",
            "POST /v3/session-passes no answer",
            "2 requests, 0 live, 0 ended, 0 s billed",
        ]

    def test_lists_in_an_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The option chooses the order, such as oldest first."""
        seen: list[str] = []

        def visit(hello: str) -> None:
            endpoint = json.loads(hello)["endpoint"]
            for name in ("first", "second"):
                post(endpoint, name=name)
            request = urllib.request.Request(
                f"{endpoint}/v3/sessions", headers={"x-api-key": API_KEY}
            )
            with urllib.request.urlopen(request) as answer:
                seen.extend(one["name"] for one in json.load(answer)["sessions"])

        serve(monkeypatch, visit, "--log=json", "--page-order=oldest")
        assert seen == ["first", "second"]

    def test_with_a_livekit_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is named by LiveKit's own variables, and by all of them."""
        monkeypatch.setenv("LIVEKIT_URL", "wss://kit.example.test")
        monkeypatch.setenv("LIVEKIT_API_KEY", "devkey")
        monkeypatch.setenv("LIVEKIT_API_SECRET", "")
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        with pytest.raises(ConfigurationError, match="not set: LIVEKIT_API_SECRET"):
            run(parser.parse_args(["--port=0", "--livekit"]))
        monkeypatch.setenv("LIVEKIT_API_SECRET", "devsecret")
        seen: list[int] = []

        def visit(hello: str) -> None:
            seen.append(post(json.loads(hello)["endpoint"], CONVERSATIONS))

        options = ("--log=json", "--livekit", "--cors-origin=*")
        lines = serve(monkeypatch, visit, *options)
        assert seen == [201]
        assert [one["resource"] for one in json.loads(lines[-1])["live"]] == ["conversation"]
        assert "devsecret" not in "".join(lines)

    def test_a_scenario(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A bad day is asked for by its name."""
        seen: list[int] = []
        serve(
            monkeypatch,
            lambda hello: seen.append(post(json.loads(hello)["endpoint"])),
            "--log=json",
            "--scenario=over-limit",
        )
        assert seen == [429]

    def test_nobody_reads_any_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A closed output ends it at its next line; the command reports the error."""
        reader, writer = os.pipe()
        os.close(reader)
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        with os.fdopen(writer, "w") as output, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", output)
            with pytest.raises(BrokenPipeError):
                run(parser.parse_args(["--port=0"]))
            discard(output)

    def test_nobody_reads_its_log(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its output is closed after the first line: it ends with the next request."""
        terminal = Closed()
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            with pytest.raises(BrokenPipeError):
                run(parser.parse_args(["--port=0", "--log=json"]))
        assert terminal.visitor is not None
        terminal.visitor.join()

    def test_a_port_that_is_taken(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It prints the address on stderr, and exits with 1."""
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        with EquosEmulator() as first:
            assert run(parser.parse_args([f"--port={first.port}"])) == 1
        assert f"cannot listen on 127.0.0.1:{first.port}: " in capsys.readouterr().err
