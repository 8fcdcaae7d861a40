"""What the emulator's tests share: requests by hand, as any other client would send them."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp

from equos_async.testing import EquosEmulator

KEY = "pk_test_51a7c0ffee"

BODY: dict[str, Any] = {
    "name": "support call",
    "client": "tenant-42",
    "maxDuration": 600,
    "avatar": {"id": "av_1"},
    "agent": {"id": "ag_1"},
    "additionalCtx": "the caller is a regular",
    "templateVars": {"city": "Paris"},
    "consumerIdentity": {"identity": "user-7", "name": "Ada"},
}

STARTS = "/v3/session-passes"

API_KEY = "sk_test_51a7decade"

CONVERSATION: dict[str, Any] = {
    "name": "support call",
    "client": "tenant-42",
    "characterId": "ch_1",
    "maxSeconds": 600,
    "promptCtx": "the caller is a regular",
    "promptTemplateVars": {"city": "Paris"},
    "consumer": {"identity": "user-7", "name": "Ada"},
    "remoteAgent": {"identity": "bot-1", "name": "Bot"},
}

CONVERSATIONS = "/v3/conversations"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """A plain HTTP client of one emulator."""

    def __init__(self, emulator: EquosEmulator, http: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self.http = http

    async def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> Answer:
        """Send a request with both keys, and read the answer."""
        headers = {"Authorization": f"Bearer {KEY}", "x-api-key": API_KEY, **(headers or {})}
        url = self.emulator.endpoint + path
        async with self.http.request(
            method, url, headers=headers, allow_redirects=False, **options
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def start(self, **changes: Any) -> Answer:
        """Start a session; fields that are None are left out."""
        body = {name: value for name, value in {**BODY, **changes}.items() if value is not None}
        return await self.send("POST", STARTS, json=body)

    async def started_id(self, **changes: Any) -> str:
        """Start a session that works."""
        answer = await self.start(**changes)
        assert answer.status == 201, answer.body
        return str(answer.json["session"]["id"])

    async def stop(self, session_id: str) -> Answer:
        """Stop a session."""
        return await self.send("PATCH", f"{STARTS}/{session_id}/stop", json={})

    async def converse(self, **changes: Any) -> Answer:
        """Start a conversation; fields that are None are left out."""
        asked = {**CONVERSATION, **changes}
        body = {name: value for name, value in asked.items() if value is not None}
        return await self.send("POST", CONVERSATIONS, json=body)

    async def conversation_id(self, **changes: Any) -> str:
        """Start a conversation that works."""
        answer = await self.converse(**changes)
        assert answer.status == 201, answer.body
        return str(answer.json["conversation"]["id"])

    async def names(self, path: str = CONVERSATIONS, **query: str) -> list[str]:
        """The names on a page of a list."""
        answer = await self.send("GET", path, params=query)
        assert answer.status == 200, answer.body
        return [one["name"] for one in answer.json[path.rpartition("/")[2]]]


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until something is true."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - no event tells of it, and no time passes
            await asyncio.sleep(0)


def post(endpoint: str, path: str = STARTS, **changes: object) -> int:
    """Start a session, or a conversation, without a loop; the status of the answer."""
    body = CONVERSATION if path == CONVERSATIONS else BODY
    request = urllib.request.Request(
        endpoint + path,
        data=json.dumps({**body, **changes}).encode(),
        headers={
            "Authorization": f"Bearer {KEY}",
            "x-api-key": API_KEY,
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
