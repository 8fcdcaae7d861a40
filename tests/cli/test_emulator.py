"""The command ``emulator``, and faults as they are typed for it."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

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
from tests.cli.support import START, command
from tests.conftest import KEY
from tests.needs import need


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
