"""The examples as real processes, and a browser for the pages that they serve."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.needs import need

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
KEY = "pk_test_51a7c0ffee"
PATIENCE = 90.0
"""Seconds after which a test gives up on a process.

Where a second Ctrl-C ends the task of a stop, a drain (20 s) and its client's close (10 s) may
both wait to their ends.
"""


class Program:
    """A process of ours; what it prints is remembered."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.printed = ""

    async def expect(self, text: str) -> str:
        """Read on until a line holds a text, and return that line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self._process.stdout.readline()).decode():
                self.printed += line
                if text in line:
                    return line
        pytest.fail(f"{text!r} was not printed:\n{self.printed}")

    def write(self, line: str) -> None:
        """Type a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def ask(self, line: str, expected: str) -> str:
        """Type a line, and read until its answer."""
        self.write(line)
        return await self.expect(expected)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended meanwhile."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def end(self, number: signal.Signals | None = None) -> int:
        """End it, with a signal or by closing its input, and return its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if number is None:
            self._process.stdin.close()
        else:
            self.kill(number)
        async with asyncio.timeout(PATIENCE):
            self.printed += (await self._process.stdout.read()).decode()
            return await self._process.wait()

    async def end_at_once(self, number: signal.Signals) -> int:
        """End it with a further signal.

        What a second Ctrl-C raises may hit asyncio itself, which then never wakes a task, and
        waits for it: it takes one more.
        """
        again = asyncio.get_running_loop().call_later(PATIENCE / 2, self.kill, signal.SIGINT)
        try:
            return await self.end(number)
        finally:
            again.cancel()


@asynccontextmanager
async def program(
    endpoint: str | None, *arguments: str, **env: str
) -> AsyncGenerator[Program, None]:
    """Run Python with some arguments as a process that talks to the emulator, if there is one."""
    own = {**os.environ, "EQUOS_CLIENT_KEY": KEY, **env}
    own.pop("EQUOS_ENDPOINT", None)
    if endpoint is not None:
        own["EQUOS_ENDPOINT"] = endpoint
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
        env=own,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def free_port() -> int:
    """A free port.

    It lies below those that a system gives to whoever asks for any: until a program listens on it,
    neither a connection of this process nor a server of another one takes it.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


async def call(method: str, url: str, **options: Any) -> tuple[int, str]:
    """One request: its answer's status and text."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, **options) as reply,
    ):
        return reply.status, await reply.text()


def chromium() -> tuple[str, str]:
    """Where Chromium and its driver are; a page that no browser has seen is not tested."""
    browser, driver = need("chromium", "chromedriver")
    return browser, driver
