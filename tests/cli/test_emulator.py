"""The command ``emulator``, as a program."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from equos_async.testing import (
    EquosEmulator,
)
from tests.cli.support import START, command
from tests.conftest import KEY
from tests.needs import need


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
