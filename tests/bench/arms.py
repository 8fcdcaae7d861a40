"""The candidates of the benchmark, and the process that measures one of them.

Each arm does the same pair with the same bodies: start a session, check the answer, stop it,
check the answer. Each is written as its users would write it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

Pair: TypeAlias = Callable[[], Awaitable[None]]
Arm: TypeAlias = Callable[[str], AbstractAsyncContextManager[Pair]]

KEY: Final = "pk_bench_51a7c0ffee"


def body() -> dict[str, Any]:
    """The body of a start, as written by hand without a library."""
    return {
        "name": "support call",
        "client": "tenant-42",
        "maxDuration": 600,
        "avatar": {"id": "av_1"},
        "agent": {"id": "ag_1"},
        "consumerIdentity": {"identity": "user-7", "name": "Ada"},
    }


def check(session_id: str, stopped_id: str, status: str) -> None:
    """An arm that got a wrong answer has not been measured."""
    if stopped_id != session_id or status != "ended":
        raise ValueError(f"{session_id} was answered with {stopped_id}, {status}")


@asynccontextmanager
async def ours(url: str, session: Any = None) -> AsyncGenerator[Pair, None]:
    """This library, as a user writes it."""
    from equos_async import (  # noqa: PLC0415 - a process imports the arm that it measures
        CreateSessionPassRequest,
        EquosClient,
        EquosParticipantIdentity,
    )

    async with EquosClient(KEY, endpoint=url, http_session=session) as client:

        async def pair() -> None:
            request = CreateSessionPassRequest(
                name="support call",
                client="tenant-42",
                max_duration=600,
                avatar="av_1",
                agent="ag_1",
                consumer_identity=EquosParticipantIdentity("user-7", "Ada"),
            )
            started = await client.start_session(request)
            ended = await client.stop_session(started.session.id)
            assert ended is not None
            check(started.session.id, ended.id, ended.status or "")

        yield pair


@asynccontextmanager
async def injected(url: str) -> AsyncGenerator[Pair, None]:
    """This library over a session that its user made."""
    import aiohttp  # noqa: PLC0415

    async with aiohttp.ClientSession() as session, ours(url, session) as pair:
        yield pair


@asynccontextmanager
async def slow_way(url: str) -> AsyncGenerator[Pair, None]:
    """This library through a session that has to look at each request: it has a trace."""
    import aiohttp  # noqa: PLC0415

    traces = [aiohttp.TraceConfig()]
    async with aiohttp.ClientSession(trace_configs=traces) as session, ours(url, session) as pair:
        yield pair


@asynccontextmanager
async def pyreqwest(url: str) -> AsyncGenerator[Pair, None]:
    """pyreqwest, in Rust: dicts, and no retry."""
    builder = import_module("pyreqwest.client").ClientBuilder()
    headers = {"Authorization": f"Bearer {KEY}"}
    async with builder.base_url(f"{url}/").default_headers(headers).build() as client:

        async def pair() -> None:
            response = await client.post("v3/session-passes").body_json(body()).build().send()
            started = await response.json()
            session_id = started["session"]["id"]
            stop = client.patch(f"v3/session-passes/{session_id}/stop").body_json({})
            ended = await (await stop.build().send()).json()
            check(session_id, ended["id"], ended["status"])

        yield pair


@asynccontextmanager
async def httpx(url: str) -> AsyncGenerator[Pair, None]:
    """httpx: dicts, and no retry.

    Its pool looks at each of its connections for each request, at both ends of it, which takes
    most of the time where there are many.
    """
    library = import_module("httpx")
    headers = {"Authorization": f"Bearer {KEY}"}
    limits = library.Limits(max_connections=None)
    async with library.AsyncClient(base_url=url, headers=headers, limits=limits) as client:

        async def pair() -> None:
            started = (await client.post("/v3/session-passes", json=body())).json()
            session_id = started["session"]["id"]
            stop = await client.patch(f"/v3/session-passes/{session_id}/stop", json={})
            ended = stop.json()
            check(session_id, ended["id"], ended["status"])

        yield pair


@asynccontextmanager
async def raw(url: str) -> AsyncGenerator[Pair, None]:
    """The aiohttp of a README: dicts, and no retry."""
    import aiohttp  # noqa: PLC0415

    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(url, headers=headers) as session:
        yield _pair_of(session.post, session.patch)


@asynccontextmanager
async def traced(url: str) -> AsyncGenerator[Pair, None]:
    """The same with a trace, as "slow way" has one."""
    import aiohttp  # noqa: PLC0415

    headers = {"Authorization": f"Bearer {KEY}"}
    traces = [aiohttp.TraceConfig()]
    async with aiohttp.ClientSession(url, headers=headers, trace_configs=traces) as session:
        yield _pair_of(session.post, session.patch)


@asynccontextmanager
async def retrying(url: str) -> AsyncGenerator[Pair, None]:
    """The same through aiohttp-retry."""
    import aiohttp  # noqa: PLC0415

    library = import_module("aiohttp_retry")
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(url, headers=headers) as session:
        options = library.ExponentialRetry(attempts=3)
        client = library.RetryClient(session, retry_options=options)
        yield _pair_of(client.post, client.patch)


def _pair_of(post: Callable[..., Any], patch: Callable[..., Any]) -> Pair:
    async def pair() -> None:
        async with post("/v3/session-passes", json=body()) as response:
            started = await response.json()
        session_id = started["session"]["id"]
        async with patch(f"/v3/session-passes/{session_id}/stop", json={}) as response:
            ended = await response.json()
        check(session_id, ended["id"], ended["status"])

    return pair


@asynccontextmanager
async def vendor(url: str) -> AsyncGenerator[Pair, None]:
    """The vendor's SDK. Its path differs; the server does not care."""
    sdk = import_module("equos")
    models = import_module("equos.models.session_models")
    options = import_module("equos.equos").EquosOptions(endpoint=url, version="v3")
    sessions = sdk.Equos(KEY, options).async_sessions

    async def pair() -> None:
        request = models.CreateEquosSessionRequest(
            name="support call",
            client="tenant-42",
            maxDuration=600,
            avatar=models.EquosResourceId(id="av_1"),
            agent=models.EquosResourceId(id="ag_1"),
            consumerIdentity=models.EquosParticipantIdentity(identity="user-7", name="Ada"),
        )
        started = await sessions.create(data=request)
        ended = await sessions.stop(id=started.session.id)
        check(started.session.id, ended.id, ended.status or "")

    yield pair


@asynccontextmanager
async def streams(url: str) -> AsyncGenerator[Pair, None]:
    """Hand-written on asyncio streams, with dicts: the floor."""
    parts = urlsplit(url)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    constant = (
        f"Host: {parts.netloc}\r\nAuthorization: Bearer {KEY}\r\n"
        "Accept: application/json\r\nContent-Type: application/json\r\n"
    )

    async def call(method: str, path: str, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        reader, writer = (
            idle.pop()
            if idle
            else await asyncio.open_connection(
                parts.hostname, parts.port, ssl=parts.scheme == "https" or None
            )
        )
        data = json.dumps(content)
        head = f"{method} {path} HTTP/1.1\r\n{constant}Content-Length: {len(data)}\r\n\r\n"
        writer.write((head + data).encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(answer.split("Content-Length: ", 1)[1].split("\r\n", 1)[0])
        decoded: dict[str, Any] = json.loads(await reader.readexactly(length))
        idle.append((reader, writer))
        return int(answer[9:12]), decoded

    async def pair() -> None:
        _, started = await call("POST", "/v3/session-passes", body())
        session_id = started["session"]["id"]
        _, ended = await call("PATCH", f"/v3/session-passes/{session_id}/stop", {})
        check(session_id, ended["id"], ended["status"])

    try:
        yield pair
    finally:
        for _, writer in idle:
            writer.close()


@asynccontextmanager
async def floor(url: str) -> AsyncGenerator[Pair, None]:
    """This library's requests and answers on a bare protocol with aiohttp's parser."""
    from tests.bench import floor as least  # noqa: PLC0415 - as in `ours`

    async with least.floor(url, KEY, check) as pair:
        yield pair


ARMS: Final[dict[str, Arm]] = {
    "ours": ours,
    "injected": injected,
    "slow way": slow_way,
    "raw": raw,
    "traced": traced,
    "aiohttp-retry": retrying,
    "pyreqwest": pyreqwest,
    "httpx": httpx,
    "vendor-sdk": vendor,
    "streams": streams,
    "floor": floor,
}


async def drive(pair: Pair, callers: int, pairs: int) -> list[float]:
    """Let a number of callers make pairs; the seconds that each pair took."""
    tickets = iter(range(pairs))
    seconds: list[float] = []

    async def caller() -> None:
        for _ in tickets:
            begun = time.perf_counter()
            await pair()
            seconds.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(callers, pairs)):
            group.create_task(caller())
    return seconds


async def measure(arm: str, url: str, callers: int, pairs: int) -> dict[str, Any]:
    """Warm up, so that connections are open and code is compiled; then measure."""
    async with ARMS[arm](url) as pair:
        await drive(pair, callers, min(pairs, callers + 64))
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        seconds = await drive(pair, callers, pairs)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {
        "cpu_us": cpu / pairs * 1e6,
        "pairs_per_s": pairs / wall,
        "p50_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "peak_mib": peak_kib() / 1024,
    }


async def soak(url: str, callers: int, pairs: int) -> dict[str, Any]:
    """The memory in use after each tenth of many pairs."""
    async with ours(url) as pair:
        await drive(pair, callers, pairs // 20)
        in_use: list[float] = []
        for _ in range(10):
            gc.collect()
            in_use.append(_status("VmRSS") / 1024)
            await drive(pair, callers, pairs // 10)
        gc.collect()
        in_use.append(_status("VmRSS") / 1024)
    return {"rss_mib": in_use}


def peak_kib() -> int:
    """The most memory that this process ever held.

    ``ru_maxrss`` may hold the parent's, from before ``exec``; Linux knows better.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(field: str) -> int:
    """A field of ``/proc/self/status`` in KiB; 0 if there is none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def main() -> None:
    """Measure one arm in this process and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("url")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--soak", action="store_true", help="the memory in use, time and again")
    args = parser.parse_args()
    factory = import_module("uvloop").new_event_loop if args.loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        if args.soak:
            figures = runner.run(soak(args.url, args.callers, args.pairs))
        else:
            figures = runner.run(measure(args.arm, args.url, args.callers, args.pairs))
    print(json.dumps(figures), flush=True)
    # Threads of a peer can make the interpreter's end fail (pyreqwest 0.15); it is not measured.
    os._exit(0)


if __name__ == "__main__":
    main()
