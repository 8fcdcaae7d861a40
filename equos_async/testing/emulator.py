"""The emulator: the session-passes API on a real socket, by the documented contract."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import heapq
import hmac
import json
import socket
import struct
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any, Self, cast

from aiohttp import web
from attrs import evolve, field, frozen

from .faults import (
    Delay,
    Drop,
    Fault,
    Faults,
    Garbage,
    Operation,
    Redirect,
    Reset,
    Status,
    Truncate,
)

KEPT = 10_000
"""How many ended sessions and requests are remembered; the counts go on."""


@frozen
class EmulatedSession:
    """A session in the emulator's books. Times are seconds on the emulator's clock."""

    id: str
    name: str
    client: str | None
    started_at: float
    max_duration: float | None
    ended_at: float | None = None
    wire: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)

    def seconds(self, now: float) -> float:
        """How long it has been running, which is what is billed."""
        return (now if self.ended_at is None else self.ended_at) - self.started_at


@frozen
class EmulatorRequest:
    """A request that the emulator read; without its headers and body."""

    operation: Operation | None
    method: str
    path: str
    at: float
    name: str | None = None
    session_id: str | None = None


class EmulatorClock:
    """A clock that runs by itself and can be moved on."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Move on without waiting."""
        self._ahead += seconds


class EquosEmulator:
    """A local Equos: ``async with EquosEmulator() as emulator: emulator.endpoint``.

    Args:
        host: Where to listen.
        port: Which port; 0 takes any free one.
        client_key: The only key that is accepted; by default any.
        limit_concurrent: How many sessions may be live at once.
        limit_duration: Seconds that a session may ask for.
        suspended: Whether the organisation is suspended.
        clock: The source of time.
        seed: Of the faults that happen to a share of requests.
        on_request: Called with each request and the status of its answer, None: no answer.

    Attributes:
        faults: What goes wrong: ``faults.start.add(Status(429, retry_after=2), times=3)``.
        requests: The newest requests.
        request_count: How many were read in all.
        ended_count: How many sessions ended in all.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        client_key: str | None = None,
        limit_concurrent: int | None = None,
        limit_duration: float | None = None,
        suspended: bool = False,
        clock: EmulatorClock | None = None,
        seed: int = 0,
        on_request: Callable[[EmulatorRequest, int | None], object] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.client_key = client_key
        self.limit_concurrent = limit_concurrent
        self.limit_duration = limit_duration
        self.suspended = suspended
        self.clock = clock or EmulatorClock()
        self._on_request = on_request
        self.faults = Faults(seed)
        self.requests: deque[EmulatorRequest] = deque(maxlen=KEPT)
        self.request_count = 0
        self.ended_count = 0
        self._billed = 0.0
        self._live: dict[str, EmulatedSession] = {}
        self._ends: list[tuple[float, str]] = []
        self._ended: OrderedDict[str, EmulatedSession] = OrderedDict()
        self._runner: web.AppRunner | None = None

    @property
    def endpoint(self) -> str:
        """The base URL for a client."""
        return f"http://{self.host}:{self.port}"

    @property
    def live_sessions(self) -> Mapping[str, EmulatedSession]:
        """The sessions that are running, by id."""
        self._expire()
        return MappingProxyType(dict(self._live))

    @property
    def ended_sessions(self) -> Mapping[str, EmulatedSession]:
        """The newest sessions that ended, by id."""
        self._expire()
        return MappingProxyType(dict(self._ended))

    @property
    def billed_seconds(self) -> float:
        """What all sessions cost so far."""
        self._expire()
        now = self.clock.now()
        return self._billed + sum(one.seconds(now) for one in self._live.values())

    def advance(self, seconds: float) -> None:
        """Let time pass without waiting: sessions reach their ``max_duration``."""
        self.clock.advance(seconds)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/{version:v1|v3}/session-passes", self._on_start)
        app.router.add_patch("/{version:v1|v3}/session-passes/{id}/stop", self._on_stop)
        app.router.add_route("*", "/{path:.*}", self._on_other)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        listener = socket.create_server((self.host, self.port), backlog=4096)
        self.port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        """Close all connections and stop listening; the books stay."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # The operations.

    async def _on_start(self, request: web.Request) -> web.Response:
        body = await _json_body(request)
        name = None if body is None else body.get("name")
        record = self._record(request, "start", name=name if isinstance(name, str) else None)
        return await self._misbehave(request, record, lambda: self._start(request, body))

    async def _on_stop(self, request: web.Request) -> web.Response:
        await request.read()
        session_id = request.match_info["id"]
        record = self._record(request, "stop", session_id=session_id)
        return await self._misbehave(request, record, lambda: self._stop(request, session_id))

    async def _on_other(self, request: web.Request) -> web.Response:
        answer = _error(404, f"Cannot {request.method} {request.path}", "Not Found")
        self._tell(self._record(request, None), answer)
        return answer

    def _start(self, request: web.Request, body: dict[str, Any] | None) -> web.Response:
        if (refusal := self._authenticate(request)) is not None:
            return refusal
        if body is None:
            return _error(400, "Unexpected end of JSON input or not a JSON object", "Bad Request")
        if problems := _validate(body):
            return _error(400, problems, "Bad Request")
        if (refusal := self._limits(body)) is not None:
            return refusal
        session = self._make(body)
        self._live[session.id] = session
        if session.max_duration is not None:
            heapq.heappush(self._ends, (session.started_at + session.max_duration, session.id))
        answer = {
            "session": session.wire,
            "consumerAccessToken": _token(session.id, body["consumerIdentity"]["identity"]),
        }
        return web.Response(
            status=201,
            body=json.dumps(answer).encode(),
            content_type="application/json",
            charset="utf-8",
        )

    def _stop(self, request: web.Request, session_id: str) -> web.Response:
        if (refusal := self._authenticate(request)) is not None:
            return refusal
        self._expire()
        session = self._live.pop(session_id, None)
        if session is None:
            # NestJS sends a handler's null as an empty body without a Content-Type.
            return web.Response()
        ended = self._end(session, self.clock.now())
        return web.Response(
            body=json.dumps(ended.wire).encode(), content_type="application/json", charset="utf-8"
        )

    def _authenticate(self, request: web.Request) -> web.Response | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and key and self.client_key in {None, key}:
            return None
        return _error(401, "Unauthorized")

    def _limits(self, body: dict[str, Any]) -> web.Response | None:
        self._expire()
        if self.suspended:
            # Assumption: 403. The limits endpoint knows a suspension with a reason; the status
            # of a start then is not documented.
            return _error(403, "Organization is suspended", "Forbidden")
        duration = body.get("maxDuration")
        if self.limit_duration is not None and (duration or 0) > self.limit_duration:
            # Assumption: 400. "maxDuration must be less than organization limit" is documented.
            return _error(400, "maxDuration must be less than organization limit", "Bad Request")
        if self.limit_concurrent is not None and len(self._live) >= self.limit_concurrent:
            # Assumption: 429, as NestJS's throttler would answer, without Retry-After.
            return _error(429, "Concurrent sessions limit reached")
        return None

    # The books.

    def _record(
        self,
        request: web.Request,
        operation: Operation | None,
        *,
        name: str | None = None,
        session_id: str | None = None,
    ) -> EmulatorRequest:
        record = EmulatorRequest(
            operation, request.method, request.path, self.clock.now(), name, session_id
        )
        self.requests.append(record)
        self.request_count += 1
        return record

    def _make(self, body: dict[str, Any]) -> EmulatedSession:
        now = self.clock.now()
        session_id, at = str(uuid.uuid4()), _date(now)
        wire = {
            "id": session_id,
            "organizationId": "org_1",
            "freemium": False,
            "name": body["name"],
            "provider": "livekit",
            "status": "starting",
            "host": {"serverUrl": "wss://rtc.example.test"},
            "avatarId": body["avatar"]["id"],
            "avatar": {
                "id": body["avatar"]["id"],
                "organizationId": "org_1",
                "identity": "ada",
                "name": "Ada",
                "description": "Support avatar",
                "thumbnailUrl": "https://cdn.example.test/ada.png",
                "createdAt": at,
                "updatedAt": at,
            },
            "agentId": body["agent"]["id"],
            "agent": {
                "id": body["agent"]["id"],
                "organizationId": "org_1",
                "name": "Support",
                "provider": "gemini",
                "model": "gemini-2.5-flash-native-audio-preview-09-2025",
                "voice": "Puck",
                "instructions": "You help.",
                "search": True,
                "emotions": False,
                "memory": True,
                "createdAt": at,
                "updatedAt": at,
            },
            "transcript": None,
            "startedAt": at,
            "createdAt": at,
            "updatedAt": at,
        }
        for optional in ("client", "maxDuration", "additionalCtx", "templateVars"):
            if body.get(optional) is not None:
                wire[optional] = body[optional]
        return EmulatedSession(
            session_id, body["name"], body.get("client"), now, body.get("maxDuration"), wire=wire
        )

    def _expire(self) -> None:
        """End the sessions whose ``max_duration`` is over."""
        now = self.clock.now()
        while self._ends and self._ends[0][0] <= now:
            at, session_id = heapq.heappop(self._ends)
            session = self._live.pop(session_id, None)
            if session is not None:
                self._end(session, at)

    def _end(self, session: EmulatedSession, at: float) -> EmulatedSession:
        changed = {"status": "ended", "endedAt": _date(at), "updatedAt": _date(at)}
        ended = evolve(session, ended_at=at, wire={**session.wire, **changed})
        self._ended[ended.id] = ended
        self.ended_count += 1
        self._billed += ended.seconds(at)
        if len(self._ended) > KEPT:
            self._ended.popitem(last=False)
        return ended

    # What goes wrong.

    async def _misbehave(
        self, request: web.Request, record: EmulatorRequest, act: Callable[[], web.Response]
    ) -> web.Response:
        """Apply the faults that a request drew, and answer it where they let it."""
        answer: web.Response | None = None
        for fault in self.faults.of(record.operation or "start").take(record):
            if not isinstance(fault, Delay):
                answer = await self._apply(fault, request, act)
                break
            await asyncio.sleep(fault.seconds)
        else:
            answer = act()
        self._tell(record, answer)
        return answer or web.Response()  # which goes nowhere: the connection is closed

    def _tell(self, record: EmulatorRequest, answer: web.Response | None) -> None:
        if self._on_request is not None:
            self._on_request(record, None if answer is None else answer.status)

    async def _apply(
        self, fault: Fault, request: web.Request, act: Callable[[], web.Response]
    ) -> web.Response | None:
        """The answer, or None where the connection is closed without one."""
        match fault:
            case Status():
                return _status_answer(fault)
            case Redirect():
                return web.Response(status=fault.status, headers={"Location": fault.location})
            case Drop(when=when) | Reset(when=when):
                if when == "after":
                    act()
                _close(request, reset=isinstance(fault, Reset))
            case Truncate():
                answer = act()
                body = answer.body if isinstance(answer.body, bytes) else b""
                _write(request, _head(answer.status, len(body)) + body[: fault.keep])
                _close(request)
            case Garbage():
                act()
                _write(request, fault.data)
                _close(request)
            case _:
                act()
                await asyncio.Event().wait()  # cancelled when the client closes the connection
        return None


def _write(request: web.Request, data: bytes) -> None:
    if request.transport is not None:
        request.transport.write(data)


def _close(request: web.Request, *, reset: bool = False) -> None:
    transport = request.transport
    if transport is None:
        return
    if reset:
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


def _head(status: int, length: int) -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _status_answer(fault: Status) -> web.Response:
    response = _error(fault.status, fault.message)
    if fault.body is not None:
        response.body = fault.body
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    response.headers.update(fault.headers)
    return response


# The wire, spelled by hand.


async def _json_body(request: web.Request) -> dict[str, Any] | None:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", body) if isinstance(body, dict) else None


def _error(status: int, message: str | list[str], error: str | None = None) -> web.Response:
    """NestJS: ``{"statusCode", "message", "error"?}``."""
    body: dict[str, object] = {"statusCode": status, "message": message}
    if error is not None:
        body["error"] = error
    return web.json_response(body, status=status)


def _validate(body: dict[str, Any]) -> list[str]:
    """The messages that a NestJS validation pipe gives."""
    problems: list[str] = []
    if not isinstance(body.get("name"), str):
        problems.append("name must be a string")
    elif not body["name"]:
        problems.append("name should not be empty")
    for part, keys in (
        ("avatar", ("id",)),
        ("agent", ("id",)),
        ("consumerIdentity", ("identity", "name")),
    ):
        if not isinstance(body.get(part), dict):
            problems.append(f"{part} should not be null or undefined")
            continue
        problems += [
            f"{part}.{key} must be a string"
            for key in keys
            if not isinstance(body[part].get(key), str)
        ]
    duration = body.get("maxDuration")
    if duration is not None and (
        isinstance(duration, bool) or not isinstance(duration, (int, float))
    ):
        problems.append("maxDuration must be a number conforming to the specified constraints")
    elif duration is not None and duration <= 0:
        problems.append("maxDuration must be a positive number")
    problems += [
        f"{key} must be a string"
        for key in ("client", "additionalCtx")
        if not isinstance(body.get(key, ""), str | None)
    ]
    if not isinstance(body.get("templateVars"), dict | None):
        problems.append("templateVars must be an object")
    return problems


def _date(at: float) -> str:
    """RFC 3339 with milliseconds and ``Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _token(room: str, identity: str) -> str:
    """A well-formed LiveKit access token, signed with a secret that opens nothing."""
    grant = {"room": room, "roomJoin": True, "canPublish": True, "canSubscribe": True}
    claims = {"iss": "emulator", "sub": identity, "nbf": 0, "exp": 4_102_444_800, "video": grant}
    parts = [_b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signature = hmac.digest(b"emulator", ".".join(parts).encode(), hashlib.sha256)
    return ".".join([*parts, _b64(signature)])


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
