"""A client that answers when the test lets it, and other helpers of the fleet's tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from typing import Any

from equos_async import (
    Clock,
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    EquosClient,
    EquosConversation,
    EquosParticipantIdentity,
    EquosSession,
    FleetEvent,
    LedgerRow,
    Limits,
    Placing,
)
from equos_async._api.codec import Structured
from equos_async._api.operations import START_SESSION

REQUEST = CreateSessionPassRequest(
    name="support call",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="user-7", name="Ada"),
    max_duration=600,
)
TOKEN = "eyJsecret.eyJsecret.secret"
_AT = "2025-12-10T09:11:47.123Z"


def answer(
    session_id: str, max_duration: float | None, status: str = "starting"
) -> CreateEquosSessionResponse:
    """A server's answer to a start."""
    avatar = {
        "id": "av_1",
        "organizationId": "org_1",
        "identity": "ada",
        "name": "Ada",
        "thumbnailUrl": "https://cdn.example.test/ada.png",
        "createdAt": _AT,
        "updatedAt": _AT,
    }
    session = {
        "id": session_id,
        "organizationId": "org_1",
        "freemium": False,
        "name": "support call",
        "provider": "livekit",
        "status": status,
        "maxDuration": max_duration,
        "host": {"serverUrl": "wss://rtc.example.test"},
        "avatar": avatar,
        "startedAt": _AT,
        "createdAt": _AT,
        "updatedAt": _AT,
    }
    answer = json.dumps({"session": session, "consumerAccessToken": TOKEN}).encode()
    decoded = START_SESSION.decode(answer)
    assert isinstance(decoded, Structured)
    return decoded.value


class ScriptedClient(EquosClient):
    """Starts and stops take a few turns of the loop, or as long as a test holds them.

    As the real client it stops a session whose starter was cancelled, and carries a stop through
    whose caller was.

    Attributes:
        live: What runs on its server.
        asked: What it was asked to stop.
        most: The most that ever ran there at once.
        start_errors: Raised by the next starts, one each; None starts.
        stop_errors: Raised by the next stops, one each; None stops.
        statuses: What the next answers say of their sessions, one each.
        grant: The max_duration that answers tell instead of the one that was asked for.
    """

    def __init__(self, clock: Clock | None = None, limits: Limits | None = None) -> None:
        super().__init__("pk_test_scripted", clock=clock, limits=limits or Limits())
        self.live: dict[str, CreateSessionPassRequest] = {}
        self.most = 0
        self.requests: list[CreateSessionPassRequest] = []
        self.asked: list[str] = []
        self.stopped: list[str] = []
        self.start_errors: list[BaseException | None] = []
        self.stop_errors: list[BaseException | None] = []
        self.grant: float | None = None
        self.statuses: list[str] = []
        self.starts_go = asyncio.Event()
        self.stops_go = asyncio.Event()
        self.starts_go.set()
        self.stops_go.set()

    async def start_session(
        self, request: CreateSessionPassRequest, *, deadline: float | None = None
    ) -> CreateEquosSessionResponse:
        self.requests.append(request)
        session_id = f"s{len(self.requests)}"
        await asyncio.sleep(0)
        await self.starts_go.wait()
        if self.start_errors and (error := self.start_errors.pop(0)) is not None:
            raise error
        self.live[session_id] = request
        self.most = max(self.most, len(self.live))
        status = self.statuses.pop(0) if self.statuses else "starting"
        granted = request.max_duration if self.grant is None else self.grant
        return answer(session_id, granted, status)

    async def stop_session(
        self, session_id: str, *, deadline: float | None = None
    ) -> EquosSession | None:
        self.asked.append(session_id)
        await asyncio.sleep(0)
        await self.stops_go.wait()
        if self.stop_errors and (error := self.stop_errors.pop(0)) is not None:
            raise error
        self.stopped.append(session_id)
        request = self.live.pop(session_id, None)
        return None if request is None else answer(session_id, None).session

    async def stop_conversation(
        self, conversation_id: str, *, deadline: float | None = None
    ) -> EquosConversation | None:
        await self.stop_session(f"conversation {conversation_id}", deadline=deadline)
        return None


class MemoryLedger:
    """A ledger of one worker in this loop: each step takes two turns of it, and nothing fails."""

    def __init__(self) -> None:
        self.held: dict[str, LedgerRow] = {}
        self._line: list[str] = []
        self._freed = asyncio.Event()

    async def place(
        self, row: LedgerRow, *, seconds: float, limit: int, wait: bool, lease: float
    ) -> Placing:
        await asyncio.sleep(0)
        if row.id not in self.held:
            is_first = self._line[:1] in ([], [row.id])
            if not is_first or len(self.held) >= limit:
                if wait and row.id not in self._line:
                    self._line.append(row.id)
                return Placing(placed=False)
            self._forget_turn(row.id)
            self.held[row.id] = row
        await asyncio.sleep(0)
        return Placing(placed=True)

    async def record(self, row: LedgerRow, *, seconds: float) -> str:
        await asyncio.sleep(0)
        self.held[row.id] = row
        await asyncio.sleep(0)
        return row.owner

    async def remove(self, row_id: str) -> None:
        await asyncio.sleep(0)
        self.held.pop(row_id, None)
        self._forget_turn(row_id)
        self._freed.set()
        await asyncio.sleep(0)

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, str | None]:
        await asyncio.sleep(0)
        return {row.id: row.session_id for row in self.held.values()}

    async def claim(
        self, worker: str, *, endpoint: str, lease: float, at_once: bool = False
    ) -> Sequence[LedgerRow]:
        await asyncio.sleep(0)
        return []

    async def rows(self) -> Sequence[LedgerRow]:
        return list(self.held.values())

    async def turns(self, worker: str) -> AsyncIterator[str]:
        while True:
            await self._freed.wait()
            self._freed.clear()
            for row_id in self._line[:1]:
                yield row_id

    def _forget_turn(self, row_id: str) -> None:
        if row_id in self._line:
            self._line.remove(row_id)
            self._freed.set()


class Events:
    """An ``on_event`` that remembers."""

    def __init__(self) -> None:
        self.all: list[FleetEvent] = []

    def __call__(self, event: FleetEvent) -> None:
        self.all.append(event)

    @property
    def kinds(self) -> list[tuple[str, Hashable]]:
        """The kinds of the events, with their keys."""
        return [(event.kind, event.key) for event in self.all]


def others() -> set[asyncio.Task[Any]]:
    """The tasks that are there besides the one that asks."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
