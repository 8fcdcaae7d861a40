"""The emulator under load: sessions a second, and what it remembers of them.

``python -m tests.bench.emulator_load [--seconds 5] [--connections 32] [--idle 0]``

The emulator runs in a process of its own. The load is made here with prepared bytes, so that it
is the emulator that is measured. Each session is a start and a stop; the memory is read twice, to
show that sessions that are over do not pile up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

_BODY: Final = json.dumps(
    {
        "name": "load",
        "client": "tenant-42",
        "maxDuration": 600,
        "avatar": {"id": "av_1"},
        "agent": {"id": "ag_1"},
        "consumerIdentity": {"identity": "user-7", "name": "Ada"},
    }
)
_HEAD: Final = (
    "{} HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer key\r\n"
    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}"
)
_START: Final = _HEAD.format("POST /v3/session-passes", len(_BODY), _BODY).encode()
_LENGTH: Final = re.compile(rb"Content-Length: (\d+)", re.IGNORECASE)


class Usage(NamedTuple):
    """The CPU time and memory that a process has used so far."""

    cpu_seconds: float
    mebibytes: float


def usage(pid: int) -> Usage:
    """Read it from /proc (Linux)."""
    times = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return Usage((int(times[11]) + int(times[12])) / 100, int(resident.split()[1]) / 1024)


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> bytes:
    """One request and the body of its answer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return await reader.readexactly(int(length[1])) if length else b""


async def run_sessions(port: int, until: float) -> int:
    """Start and stop sessions on one connection; how many."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done = 0
    while time.perf_counter() < until:
        started = await exchange(reader, writer, _START)
        session_id = started[20:56].decode()  # {"session": {"id": "...
        path = f"PATCH /v3/session-passes/{session_id}/stop"
        stopped = await exchange(reader, writer, _HEAD.format(path, 2, "{}").encode())
        if session_id.encode() not in stopped:
            raise SystemExit(f"a stop was not answered with its session: {stopped!r}")
        done += 1
    writer.close()
    return done


async def load(port: int, seconds: float, connections: int, idle: int) -> float:
    """Sessions a second on many connections, beside others that only stay open."""
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(idle)]
    began = time.perf_counter()
    until = began + seconds
    done = sum(await asyncio.gather(*(run_sessions(port, until) for _ in range(connections))))
    rate = done / (time.perf_counter() - began)
    for _, writer in silent:
        writer.close()
    return rate


def raise_file_limit() -> None:
    """Allow as many connections as the system lets this process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Measure, and print a line for each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--idle", type=int, default=0, help="connections that only stay open")
    args = parser.parse_args()
    command = [sys.executable, "-c", _SERVER]
    raise_file_limit()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        port = int(cast("IO[bytes]", server.stdout).readline())
        for number in range(args.rounds):
            before = usage(server.pid)
            rate = asyncio.run(load(port, args.seconds, args.connections, args.idle))
            after = usage(server.pid)
            a_cpu_second = rate * args.seconds / (after.cpu_seconds - before.cpu_seconds)
            print(
                f"round {number + 1}: {rate:,.0f} sessions/s, {a_cpu_second:,.0f} per second of "
                f"server CPU, {after.mebibytes:.0f} MiB resident",
                flush=True,
            )
        cast("IO[bytes]", server.stdin).close()


_SERVER: Final = """
import sys
from equos_async.testing import EquosEmulator
with EquosEmulator() as emulator:
    print(emulator.port, flush=True)
    sys.stdin.read()
"""


if __name__ == "__main__":
    main()
