"""The benchmark's server: prepared bytes from a process of its own, so that clients are measured.

It reads just enough of HTTP to be right for every client of the benchmark: the method, the path's
session id and the length of the body. Each start is answered with an id of its own, each stop
with the id that it asked for, so that clients can check what they got.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ID_LENGTH: Final = 36

_SESSION: Final = (
    '"organizationId":"org_1","freemium":false,"name":"support call","provider":"livekit",'
    '"client":"tenant-42","status":"%s","maxDuration":600,'
    '"host":{"serverUrl":"wss://rtc.example.test"},"avatarId":"av_1",'
    '"avatar":{"id":"av_1","organizationId":"org_1","identity":"ada","name":"Ada",'
    '"description":"Support avatar","thumbnailUrl":"https://cdn.example.test/ada.png",'
    '"createdAt":"2025-12-10T09:11:47.000Z","updatedAt":"2025-12-10T09:11:47.000Z"},'
    '"agentId":"ag_1","agent":{"id":"ag_1","organizationId":"org_1","name":"Support",'
    '"provider":"gemini","model":"gemini-2.5-flash-native-audio-preview-09-2025",'
    '"voice":"Puck","instructions":"You help.","search":true,"emotions":false,"memory":true,'
    '"createdAt":"2025-12-10T09:11:47.000Z","updatedAt":"2025-12-10T09:11:47.000Z"},'
    '"transcript":null,"startedAt":"2025-12-10T09:11:47.123Z",%s'
    '"createdAt":"2025-12-10T09:11:47.123Z","updatedAt":"2025-12-10T09:11:47.123Z"}'
)
_TOKEN: Final = ',"consumerAccessToken":"eyJhbGciOiJIUzI1NiJ9.' + "c" * 240 + '.sig"}'

_REQUEST: Final = re.compile(rb"(POST|PATCH) (\S+) HTTP/1\.1\r\n")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


def _answer(status: str, before: str, after: str) -> tuple[bytes, bytes]:
    """The parts of an answer before and after the session's id."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(before) + ID_LENGTH + len(after)}\r\n\r\n"
    )
    return (head + before).encode(), after.encode()


STARTED: Final = _answer(
    "201 Created", '{"session":{"id":"', '",' + _SESSION % ("starting", "") + _TOKEN
)
STOPPED: Final = _answer(
    "200 OK", '{"id":"', '",' + _SESSION % ("ended", '"endedAt":"2025-12-10T09:12:47.123Z",')
)
_REFUSED: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


class Answerer(asyncio.Protocol):
    """One connection."""

    numbers = itertools.count()

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head_end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, head_end + 2)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            request = _REQUEST.match(self._buffer)
            self._buffer = self._buffer[end:]
            assert self._transport is not None
            self._transport.write(_REFUSED if request is None else self._reply(*request.groups()))

    def _reply(self, method: bytes, path: bytes) -> bytes:
        if method == b"POST":
            before, after = STARTED
            return before + b"5e55-%031d" % next(self.numbers) + after
        before, after = STOPPED
        session_id = path.rsplit(b"/", 2)[1]
        return _REFUSED if len(session_id) != ID_LENGTH else before + session_id + after


async def serve(certificate: Path | None = None) -> None:
    """Serve until the process ends; the first line on standard output is the port."""
    context: ssl.SSLContext | None = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answerer, "127.0.0.1", 0, ssl=context, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def running(certificate: Path | None = None) -> Generator[str, None, None]:
    """The server in a process of its own; its base URL."""
    command = [sys.executable, "-m", "tests.bench.server"]
    if certificate is not None:
        command += ["--certificate", str(certificate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield f"{'http' if certificate is None else 'https'}://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)


def main() -> None:
    """Serve in the foreground."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificate", type=Path, help="PEM file with key and chain: serve TLS")
    asyncio.run(serve(parser.parse_args().certificate))


if __name__ == "__main__":
    main()
