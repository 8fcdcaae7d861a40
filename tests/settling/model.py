"""The settling model: one client that looks for what it lost, and servers that make that hard.

A discrete-event simulation. The objects of ``equos_async._retry`` and ``equos_async._marker``
decide here as they do in the client; only time and chance are the model's. Callers start
sessions and hold what they get until the end. Two rules can be switched off:

* *ended means confirmed*: a session counts as ended once the server shows it so. Without it, any
  answer to a stop does, and one find settles an attempt.
* *one state for each attempt*: a late answer and the looker take one state before they act.
  Without it, a late answer is handed over to whoever waits, and a look ends what it began for.

What is counted: sessions that a caller held, or was handed, and that the client ended; and strays,
which carry the marker of a lost start, were listed in its time, and live on in nobody's hands.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial

from attrs import define, field, frozen

from equos_async._marker import MarkerUse, marker_of, new_marker, with_marker
from equos_async._retry.pages import ListMemory, read
from equos_async._retry.search import Fate, Look, LostAttempt, Search, ending_wait
from tests.bench.outage import Process, Signal, World
from tests.settling.server import LOOK_FOR, Kind, Server, Session

CALLERS = 6
ATTEMPTS = 3
READ_ATTEMPTS = 3
ATTEMPT = 10.0
DEADLINE = 60.0
LISTEN = 60.0


@frozen(kw_only=True)
class Rules:
    """Which of the two rules hold."""

    confirmed: bool = True
    one_state: bool = True


@define(eq=False)
class Caller:
    """One caller of a start, while it waits."""

    client: str
    gone_at: float
    changed: Signal | None = None
    given: str | None = None
    waits: bool = True


@define(eq=False)
class Sent:
    """One attempt as the model sees it, beside the library's own state."""

    caller: Caller
    marker: str | None
    sent_at: float
    lost: LostAttempt | None = None
    reply: Session | None = None
    is_refused: bool = False
    handed: bool = False


@define
class Counts:
    """The result of one run."""

    lost: int = 0
    sessions: int = 0
    unknown: int = 0
    again: int = 0
    held_ended: int = 0
    strays: int = 0
    unasked: int = 0
    pages: int = 0
    waits: list[float] = field(factory=list[float])


class Client:
    """The client: calls, the looker, and what ends sessions."""

    def __init__(
        self, world: World, server: Server, rules: Rules, chance: random.Random, patience: float
    ) -> None:
        self.server = server
        self.world = world
        self.rules = rules
        self.chance = chance
        self.patience = patience
        self.use = MarkerUse()
        self.search = Search(LOOK_FOR)
        self.memories: dict[str | None, ListMemory] = {}
        self.sent: list[Sent] = []
        self.counts = Counts()
        self._ending: set[str] = set()
        self._idle: Signal | None = None

    # Callers.

    def call(self, caller: Caller) -> Process[None]:
        """One start, until its caller has a session, an error, or no wish for one."""
        began = self.world.now
        marked = True
        for _ in range(ATTEMPTS + 1):
            sent = self._send(caller, marked=marked and self.use.is_on)
            yield from self._wait(caller, partial(self._is_known, sent), math.inf)
            if sent.is_refused and sent.marker and self.use.may_be_why(400, "bad request"):
                marked = False
                continue
            if sent.reply is not None:
                self._accept(sent, sent.reply)
            if sent.lost is None:
                break
            if not (yield from self._settle(caller, sent.lost, began)):
                break
            self.counts.again += 1
        caller.waits = False
        if caller.given is not None:
            self.counts.waits.append(self.world.now - began)

    def _accept(self, sent: Sent, session: Session) -> None:
        if sent.marker is None:
            self.use.accept_without(400, "bad request")
        else:
            self.use.accept(shown=marker_of(session.variables) == sent.marker)
        if self._wants(sent.caller):
            self._hand_over(sent, session.id)
        else:
            self.world.spawn(self._end(session.id, None))

    def _settle(self, caller: Caller, lost: LostAttempt, began: float) -> Process[bool]:
        """Wait for what the looker finds; whether to send again."""
        patience = self.patience if self.use.is_on and self.use.is_shown else 0.0
        told_at = min(self.world.now + patience, began + DEADLINE)
        deadline = began + DEADLINE
        while caller.given is None and lost.fate is not Fate.ANSWERED and self._wants(caller):
            if lost.fate is Fate.ENDED:
                return self.world.now < deadline
            until = told_at if lost.fate is Fate.LOST else deadline
            if self.world.now >= until:
                self.counts.unknown += 1
                return False
            yield from self._wait(caller, None, until)
        return False

    def _wants(self, caller: Caller) -> bool:
        return caller.waits and self.world.now < caller.gone_at

    def _wait(
        self, caller: Caller, is_over: Callable[[], bool] | None, until: float
    ) -> Process[None]:
        """Wait until something changed, or is over, or a time."""
        while True:
            caller.changed = Signal(self.world)
            if until < math.inf:
                self.world.at(until, partial(caller.changed.fire, value=True))
            yield caller.changed
            if is_over is None or is_over():
                return

    def _tell(self, caller: Caller) -> None:
        if caller.changed is not None:
            caller.changed.fire(value=True)

    # Attempts.

    def _send(self, caller: Caller, *, marked: bool) -> Sent:
        marker = new_marker() if marked else None
        sent = Sent(caller, marker, self.world.now)
        self.sent.append(sent)
        travel = self.chance.uniform(0.02, 0.5)
        self.world.at(self.world.now + travel, partial(self._arrive, sent))
        return sent

    def _arrive(self, sent: Sent) -> None:
        """The server acts, and answers in time, late or not at all."""
        kind, now = self.server.kind, self.world.now
        how = self.chance.random()
        refused = kind.reset < how < kind.reset + kind.late * kind.refused
        variables = None if sent.marker is None else with_marker(None, sent.marker)
        session = None if refused else self.server.start(sent.caller.client, variables)
        if how < kind.reset:
            self.world.at(now + self.chance.uniform(0.0, 2.0), partial(self._lose, sent))
        elif how < kind.reset + kind.late:
            # Around the time at which the looker is at work.
            self.world.at(sent.sent_at + ATTEMPT, partial(self._lose, sent))
            late = sent.sent_at + ATTEMPT + self.chance.expovariate(1 / 6)
            self.world.at(min(late, sent.sent_at + LISTEN), partial(self._answer, sent, session))
        else:
            self.world.at(
                now + self.chance.uniform(0.02, 2.0), partial(self._answer, sent, session)
            )

    def _is_known(self, sent: Sent) -> bool:
        return sent.lost is not None or sent.reply is not None or sent.is_refused

    def _lose(self, sent: Sent) -> None:
        """Give the answer up, although it may still arrive."""
        self.counts.lost += 1
        sent.lost = LostAttempt(
            marker=sent.marker or "",
            client=sent.caller.client,
            sent_at=sent.sent_at,
            lost_at=self.world.now,
        )
        if sent.marker is not None and self.use.is_on:
            self.search.add(sent.lost)
            if self._idle is not None:
                self._idle.fire(value=True)
        self._tell(sent.caller)

    def _answer(self, sent: Sent, session: Session | None) -> None:
        """An answer came, in time or late."""
        if sent.lost is None:
            sent.reply, sent.is_refused = session, session is None
        elif session is None:
            sent.lost.take()
        else:
            wanted = self._wants(sent.caller)
            if wanted and (sent.lost.take() if self.rules.one_state else True):
                self._hand_over(sent, session.id)
            elif sent.lost.find(session.id):
                self.world.spawn(self._end(session.id, sent))
        self._tell(sent.caller)

    def _hand_over(self, sent: Sent, session_id: str) -> None:
        session = self.server.sessions[session_id]
        sent.handed, sent.caller.given, sent.caller.waits = True, session_id, False
        self.counts.sessions += 1
        self.counts.held_ended += session.ended
        session.held = not session.ended

    # The looker.

    def look(self) -> Process[None]:
        """One looker for all that is lost."""
        while True:
            at = self.search.next_at()
            self._idle = Signal(self.world)
            if at > self.world.now:
                if at < math.inf:
                    self.world.at(at, partial(self._idle.fire, value=True))
                yield self._idle
                continue
            look = self.search.begin(self.world.now)
            before = self.counts.pages
            went = yield from self._read_all(look)
            pages = self.counts.pages - before
            if went:
                self.search.finish(look, self.world.now, pages=pages)
            else:
                asked = self.chance.choice([None, 1.0, 5.0])
                self.search.fail(self.world.now, pages=pages, retry_after=asked)

    def _read_all(self, look: Look) -> Process[bool]:
        for client in look.clients:
            if not (yield from self._read(client, look.since)):
                return False
        return True

    def _read(self, client: str | None, sent_at: float) -> Process[bool]:
        reading = read(self.memories.setdefault(client, ListMemory()))
        known = dict(self.search.lost)
        span = next(reading)
        while True:
            if not (yield from self._ask()):
                return False
            part, items = self.server.part(client, span.skip, span.take, self.world.now - sent_at)
            shown = [(marker_of(one.variables), one.id) for one in items]
            yield self.chance.uniform(0.02, 1.0)  # what is read is old by then
            for marker, session_id in shown:
                self._found(marker, session_id, known)
            try:
                span = reading.send(part)
            except StopIteration:
                return True

    def _ask(self) -> Process[bool]:
        """Send for a part of the list, as often as one that only reads is tried."""
        for _ in range(READ_ATTEMPTS):
            self.counts.pages += 1
            yield self.chance.uniform(0.02, 0.5)
            if self.chance.random() >= self.server.kind.limited:
                return True
            yield self.chance.uniform(0.0, 1.0)
        return False

    def _found(self, marker: str | None, session_id: str, known: dict[str, LostAttempt]) -> None:
        if self.rules.one_state:
            attempt = self.search.find(marker, session_id)
        else:  # as if what was lost when the look began still were
            attempt = known.get(marker or "")
            if attempt is not None and session_id not in self._ending:
                attempt.fate = Fate.ENDING
                attempt.sessions.setdefault(session_id, False)
            else:
                attempt = None
        if attempt is not None:
            sent = next(one for one in self.sent if one.lost is attempt)
            self.world.spawn(self._end(session_id, sent))

    def _end(self, session_id: str, sent: Sent | None) -> Process[None]:
        """Stop a session until the server shows that it ended."""
        self._ending.add(session_id)
        stops = 0
        while True:
            stops += 1
            yield self.chance.uniform(0.02, 0.5)
            session = self.server.sessions[session_id]
            self.counts.held_ended += session.held and not session.ended
            is_over = self.server.stop(session_id)
            yield self.chance.uniform(0.02, 0.5)
            if self.chance.random() < self.server.kind.cut:
                is_over = False
            elif not self.rules.confirmed:
                is_over = True
            if is_over or self.server.shows_ended(session_id):
                break
            yield ending_wait(stops)
        if sent is not None and sent.lost is not None:
            sent.lost.confirm(session_id)
            if not self.rules.confirmed:
                self.search.lost.pop(sent.lost.marker, None)
            self._tell(sent.caller)


def run(kind: Kind, seed: int, rules: Rules) -> Counts:
    """One client and one server, until nothing happens any more."""
    world, chance = World(), random.Random(f"{kind.name} {seed}")
    server = Server(world, kind, chance)
    client = Client(world, server, rules, chance, patience=chance.choice([5.0, 20.0, 60.0]))
    tenants = chance.choice([1, 2, 5])
    for number in range(CALLERS):
        at = chance.uniform(0.0, 20.0)
        gone_at = at + (chance.uniform(0.1, 30.0) if chance.random() < 0.1 else math.inf)
        caller = Caller(f"tenant {number % tenants}", gone_at)
        world.at(at, partial(world.spawn, client.call(caller)))
    world.spawn(client.look())
    world.run()
    _count_strays(client)
    return client.counts


def _count_strays(client: Client) -> None:
    lost = {one.lost.marker: one for one in client.sent if one.lost is not None and not one.handed}
    unmarked = [one for one in client.sent if one.lost is not None and one.marker is None]
    for session in client.server.sessions.values():
        if session.ended or session.held or session.client == "others":
            continue
        sent = lost.get(marker_of(session.variables) or "-")
        if sent is None or sent.lost is None:
            client.counts.unasked += bool(unmarked) or not client.server.kind.shows_marker
        elif session.listed_from <= sent.lost.lost_at + LOOK_FOR:
            client.counts.strays += 1
