"""A server of the settling model, as a client meets it: HTTP, and answers that are lost.

What becomes of each attempt of a start is written down before: its fates, by the start's name.
"""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime
from email.utils import formatdate
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

from attrs import define, evolve, field

from equos_async._marker import VARIABLE
from tests.clocks import WALL
from tests.settling.server import Kind, Server, Session
from tests.settling.virtual import Answer, Asked, VirtualLoop
from tests.unit.test_wire import CONVERSATION, SESSION, dump

ATTEMPT: Final = 10.0
"""Seconds that a client waits for an answer."""

FATES: Final = (
    *("good", "dropped", "unread", "late", "late", "late", "later", "late refusal", "refused"),
    *("502", "no id", "half", "late half", "twice", "twice, dropped", "made later", "429"),
)
"""What may become of an attempt."""

DOUBLED: Final = frozenset({"twice", "twice, dropped"})
REFUSED: Final = Answer(400, b'{"statusCode":400,"message":"no such avatar"}')


@define(eq=False)
class Attempt:
    """One attempt of a start.

    Attributes:
        name: The start's.
        fate: What becomes of it.
        sent_at: When it was read.
        marker: What it carried.
        sessions: What it began.
    """

    name: str
    fate: str
    sent_at: float
    marker: str | None
    sessions: list[Session] = field(factory=list[Session])


class Face:
    """A server as a client sees it, with the records of its requests.

    Attributes:
        server: What is open, and what is listed.
        fates: Of the attempts that are to come, by the start's name.
        attempts: Those that came.
        held: Ids that a caller holds: they may not be stopped.
        crimes: Stops of what a caller held.
        named: Ids that an answer to a start told the client.
        down_until: Until then no request is answered, and nothing is done.
        limited_until: Until then looks are answered 429.
        forbids: Whether looks are answered 403.
        looked_at: When it was looked.
    """

    def __init__(self, loop: VirtualLoop, kind: Kind, word: str, seed: int) -> None:
        self._loop = loop
        self._kind = kind
        self._word = word
        self._chance = random.Random(seed)
        self.server = Server(loop, evolve(kind, doubled=0.0), self._chance)
        self.fates: dict[str, list[str]] = {}
        self.attempts: list[Attempt] = []
        self.held: set[str] = set()
        self.crimes: list[str] = []
        self.named: set[str] = set()
        self.down_until = 0.0
        self.limited_until = 0.0
        self.forbids = False
        self.looked_at: list[float] = []

    async def serve(self, asked: Asked) -> Answer | None:
        """Answer a request."""
        await asyncio.sleep(self._chance.uniform(0.02, 0.3))
        if self._loop.now < self.down_until:
            return None
        *_, last = asked.path.split("/")
        if asked.method == "POST" and last != "stop":
            return await self._start(json.loads(asked.body))
        if last == "stop":
            return await self._stop(asked.path.split("/")[-2])
        if last in {"sessions", "conversations"}:
            return await self._list(parse_qs(asked.query))
        session = self.server.sessions.get(last)
        return Answer(200, dump(None if session is None else self._shown(session)))

    # Starts.

    async def _start(self, request: Any) -> Answer | None:
        variables: dict[str, str] = request.get(self._variables) or {}
        left = self.fates.get(request["name"], [])
        fate = left.pop(0) if left else "good"
        attempt = Attempt(request["name"], fate, self._loop.now, variables.get(VARIABLE))
        self.attempts.append(attempt)
        if fate == "unread":
            return None
        if fate == "429":
            return Answer(429, b"{}", "Retry-After: 1\r\n")
        if fate == "refused":
            return REFUSED
        if fate == "late refusal":
            await asyncio.sleep(ATTEMPT + self._chance.uniform(-1.0, 8.0))
            return REFUSED
        act = partial(self._act, attempt, request.get("client"), variables or None)
        if fate == "made later":
            self._loop.at(self._loop.now + self._chance.uniform(1.0, 20.0), act)
            return None
        if not act():
            return REFUSED
        if fate in DOUBLED:
            self._loop.at(self._loop.now + self._chance.uniform(0.0, 3.0), act)
        return await self._answer(fate, attempt)

    def _act(self, attempt: Attempt, client: str, variables: dict[str, str] | None) -> bool:
        """Start a session; False if the variable is refused."""
        session = self.server.start(client, variables)
        if session is not None:
            attempt.sessions.append(session)
        return session is not None

    async def _answer(self, fate: str, attempt: Attempt) -> Answer | None:
        if fate in {"dropped", "twice, dropped"}:
            return None
        if fate == "502":
            return Answer(502, b"<html>")
        if fate in {"late", "later", "late half"}:
            # In the very moment at which a look finds it, or at any time.
            span = (0.7, 2.3) if fate == "late" else (-0.5, 45.0)
            wait = self._chance.uniform(*span)
            await asyncio.sleep(ATTEMPT + wait)
        session = attempt.sessions[0]
        session.known_from = min(session.known_from, self._loop.now)  # what is named can be stopped
        body = dump({self._word: self._shown(session), "consumerAccessToken": "e.y.J"})
        keep = {"no id": 1, "half": 120, "late half": 120}.get(fate)
        heard = None if fate == "no id" else partial(self.named.add, session.id)
        return Answer(201, body[:keep], heard=heard)

    # Everything else.

    async def _stop(self, session_id: str) -> Answer | None:
        if session_id in self.held:
            self.crimes.append(session_id)
        is_over = self.server.stop(session_id)
        await asyncio.sleep(self._chance.uniform(0.02, 0.3))
        if self._chance.random() < self._kind.cut:
            return None
        status = 201 if self._word == "conversation" else 200
        shown = self._shown(self.server.sessions[session_id]) if is_over else None
        return Answer(status, dump(shown))

    async def _list(self, query: dict[str, list[str]]) -> Answer:
        self.looked_at.append(self._loop.now)
        if self.forbids:
            return Answer(403, b"{}")
        limited = self._chance.random() < self._kind.limited
        if limited or self._loop.now < self.limited_until:
            return Answer(429, b"{}")
        (client,) = query.get("client", [None])
        skip, take = int(query["skip"][0]), int(query["take"][0])
        part, found = self.server.part(client, skip, take, 0.0)
        date = formatdate(WALL + self.server.clock(), usegmt=True)
        page: dict[str, Any] = {f"{self._word}s": [self._shown(one) for one in found]}
        if part.total is not None:
            page["total"] = part.total
        await asyncio.sleep(self._chance.uniform(0.02, 1.0))  # what is read is old by then
        return Answer(200, dump(page), f"Date: {date}\r\n")

    @property
    def _variables(self) -> str:
        return "promptTemplateVars" if self._word == "conversation" else "templateVars"

    def _shown(self, session: Session) -> dict[str, Any]:
        thing = CONVERSATION if self._word == "conversation" else SESSION
        created = WALL + session.created + self._kind.skew
        changes = {
            "id": session.id,
            "createdAt": datetime.fromtimestamp(created, UTC).isoformat(),
            self._variables: session.variables,
        }
        if session.ended:
            changes["status"] = "ended"
        return {**thing, **changes}
