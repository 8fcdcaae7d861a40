"""A real redis-server for the tests of the ledgers, in a process of its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.conftest import scripted, still
from tests.fleet.programs import free_port
from tests.needs import need

__all__ = ["scripted", "still"]


class RedisServer:
    """A redis-server that a test may stop, pause and start again; it keeps a file."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers.

        What it has answered is in its file then, which the system keeps when it is killed.
        """
        self.process = subprocess.Popen(
            [
                "redis-server",
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "no"),
            ],
            stdout=subprocess.DEVNULL,
        )
        for _ in range(6000):
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(7) == b"+PONG\r\n":
                        return
            except OSError:
                pass
            time.sleep(0.01)
        raise RuntimeError(f"redis-server did not answer on port {self.port}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, as an operator or as a crash would."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def send(self, how: signal.Signals) -> None:
        """Let it stand still, or go on."""
        assert self.process is not None
        self.process.send_signal(how)

    def forget(self) -> None:
        """Lose all that it wrote down."""
        shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)

    def ask(self, *words: str) -> str:
        """Send one command as an operator."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout


@pytest.fixture(scope="session")
def redis_program() -> None:
    """In CI redis-server must be there; elsewhere its tests are skipped without it."""
    need("redis-server")


@pytest.fixture(scope="session")
def _shared_redis(
    redis_program: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(_shared_redis: RedisServer) -> RedisServer:
    """A server that is empty, for tests that leave it running."""
    _shared_redis.ask("FLUSHALL")
    return _shared_redis


@pytest.fixture
def own_redis(redis_program: None, tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to be stopped and started by it."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop(signal.SIGKILL)
