"""The servers of the settling model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

from attrs import define, frozen

from equos_async._retry.pages import Part, since

LOOK_FOR = 60.0
BUSY = 120.0
LONG_AGO = 86_400.0


class Time(Protocol):
    """The time that a server lives in."""

    @property
    def now(self) -> float:
        """Seconds."""
        ...

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        ...


@frozen(kw_only=True)
class Kind:
    """How a server makes it hard.

    Attributes:
        name: In the table.
        lag: Seconds, at most, until a session is listed.
        creating: Seconds, at most, for which the server knows a new session by no id.
        doubled: Share of starts that a proxy sends twice.
        reset: Share of starts whose answer is lost for good.
        late: Share of starts whose answer comes after the attempt's time.
        refused: Share of the late ones that are refused.
        limited: Share of looks that are answered 429.
        cut: Share of the stops whose answer is lost.
        order: Of the lists: 1 oldest first, -1 newest first, 0 none.
        history: Sessions of others that are listed.
        busy: Sessions that others start, each second.
        takes_marker: Whether a start with the variable is accepted.
        shows_marker: Whether answers show it.
        tells_total: Whether a list says how many there are.
        skew: Seconds that its clock differs by.
    """

    name: str
    lag: float = 2.0
    creating: float = 2.0
    doubled: float = 0.1
    reset: float = 0.3
    late: float = 0.3
    refused: float = 0.1
    limited: float = 0.05
    cut: float = 0.1
    order: int = -1
    history: int = 0
    busy: float = 0.0
    takes_marker: bool = True
    shows_marker: bool = True
    tells_total: bool = True
    skew: float = 0.0


KINDS = (
    Kind(name="plain, newest first"),
    Kind(name="plain, oldest first", order=1, skew=-7200.0),
    Kind(name="a list that lags", lag=40.0, order=1),
    Kind(name="null while creating", creating=15.0),
    Kind(name="doubled POSTs", doubled=0.7, lag=15.0, creating=5.0),
    Kind(name="late answers", late=0.8, reset=0.1, creating=5.0, lag=10.0),
    Kind(name="1,500 others, newest first", history=1500, busy=4.0, skew=10_800.0),
    Kind(name="1,500 others, oldest first", history=1500, busy=4.0, order=1),
    Kind(name="1,500 others in no order", history=1500, busy=0.5, order=0),
    Kind(name="a list without a total", history=120, order=1, tells_total=False),
    Kind(name="429 on looks", limited=0.6),
    Kind(name="the variable refused", takes_marker=False),
    Kind(name="the variable not shown", shows_marker=False),
)


@define(eq=False)
class Session:
    """One session on the server."""

    id: str
    variables: dict[str, str] | None
    client: str
    place: float
    created: float
    known_from: float = 0.0
    listed_from: float = 0.0
    ended: bool = False
    held: bool = False


class Server:
    """The open and the listed sessions, and the answers."""

    def __init__(self, world: Time, kind: Kind, chance: random.Random) -> None:
        self.world = world
        self.kind = kind
        self.chance = chance
        self.sessions: dict[str, Session] = {}
        self._listed: list[Session] = []
        for number in range(kind.history):
            self._begin("others", None, created=-LONG_AGO + number)
        for number in range(int(kind.busy * BUSY)):
            world.at(number / kind.busy, self._other)

    def clock(self) -> float:
        """Its own time, in whole seconds as in ``Date``."""
        return math.floor(self.world.now + self.kind.skew)

    def start(self, client: str, variables: dict[str, str] | None) -> Session | None:
        """Begin one session, or two; None: refused."""
        if variables and not self.kind.takes_marker:
            return None
        if self.chance.random() < self.kind.doubled:
            delay = self.chance.uniform(0.0, 3.0)
            self.world.at(self.world.now + delay, partial(self._again, client, variables))
        return self._mine(client, variables)

    def stop(self, session_id: str) -> bool:
        """Stop a session; whether the answer shows it as ended. Else it is null."""
        session = self.sessions[session_id]
        if session.ended or self.world.now < session.known_from:
            return False
        session.ended = True
        return True

    def shows_ended(self, session_id: str) -> bool:
        """Whether a look-up by id shows it as ended."""
        return self.sessions[session_id].ended

    def part(
        self, client: str | None, skip: int, take: int, ago: float
    ) -> tuple[Part, list[Session]]:
        """A part of the list."""
        found = [
            one
            for one in self._listed
            if one.listed_from <= self.world.now and client in {None, one.client}
        ]
        if self.kind.order:
            found.sort(key=lambda one: one.created, reverse=self.kind.order < 0)
        items = found[skip : skip + take]
        total = len(found) if self.kind.tells_total else None
        created = [one.created + self.kind.skew for one in items]
        return Part(len(items), total, created, since(self.clock(), ago)), items

    def _other(self) -> None:
        self._begin("others", None, created=self.world.now)

    def _again(self, client: str, variables: dict[str, str] | None) -> None:
        self._mine(client, variables)

    def _mine(self, client: str, variables: dict[str, str] | None) -> Session:
        now = self.world.now
        one = self._begin(client, variables, created=now)
        one.known_from = now + self.chance.uniform(0.0, self.kind.creating)
        one.listed_from = now + self.chance.uniform(0.0, self.kind.lag)
        return one

    def _begin(self, client: str, variables: dict[str, str] | None, *, created: float) -> Session:
        shown = variables if self.kind.shows_marker else None
        one = Session(f"s{len(self.sessions)}", shown, client, self.chance.random(), created)
        self.sessions[one.id] = one
        if self.kind.order:
            self._listed.append(one)
        else:
            self._listed.insert(self.chance.randint(0, len(self._listed)), one)
        return one
