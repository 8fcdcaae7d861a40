"""Settling as a state machine: the client itself, servers that make it hard, virtual time.

Hypothesis draws a server, and then what callers, the network and the time do, in any order. What
must hold is the property of settling: nothing that somebody holds is ever ended; of a start whose
outcome was unknown at most one session lives on, the one that its caller has; whatever else lives
on is reported. ``pytest --hypothesis-profile=long tests/settling/test_machine.py`` takes its time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
from attrs import define, evolve, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from equos_async import Clock, EquosClient, EquosError, Event, Settle, Timeouts
from equos_async._marker import VARIABLE
from tests.clocks import WALL
from tests.conftest import API_KEY, EXAMPLES_OF_A_NIGHT, KEY
from tests.kinds import KINDS as THINGS
from tests.settling.face import ATTEMPT, FATES, Attempt, Face
from tests.settling.server import KINDS, LOOK_FOR, Session
from tests.settling.virtual import Pipes, VirtualLoop, drop

IS_SHORT = settings().max_examples < EXAMPLES_OF_A_NIGHT

AT_LAST = 1500.0
"""Seconds after which everything is settled that can be."""


class SeededClock(Clock):
    """The loop's time, with chance from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def wall(self) -> float:
        return WALL + self.now()

    def chance(self) -> float:
        return self._random.random()


@define(eq=False)
class Caller:
    """A caller of a start, who may hold its session.

    Attributes:
        name: The start's.
        in_block: Whether it holds it in a block.
        held: What it has got, until it lets go.
        task: What it does.
        leave: Set when its block is over.
    """

    name: str
    in_block: bool
    held: str | None = None
    task: asyncio.Task[None] = field(init=False)
    leave: asyncio.Event = field(factory=asyncio.Event)


class Settling(RuleBasedStateMachine):
    """One client, one server, and all that happens to them."""

    @initialize(
        kind=st.sampled_from(KINDS),
        word=st.sampled_from(sorted(THINGS)),
        patience=st.sampled_from([0.0, 5.0, 60.0]),
        seed=st.integers(0, 1 << 32),
    )
    def begin(self, kind: Any, word: str, patience: float, seed: int) -> None:
        """Make them."""
        self.loop = VirtualLoop()
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, problem: self.problems.append(problem))
        self.kind, self.thing = kind, THINGS[word]
        self.face = Face(self.loop, kind, word, seed)
        self.events: list[Event] = []
        self.callers: list[Caller] = []
        self.resolved: set[str] = set()
        self.is_closing = False
        self.settles = Settle(patience=patience, look_for=LOOK_FOR)
        self.clock = SeededClock(seed)
        self.do(self.connect())

    async def connect(self) -> None:
        """Make the client, in the loop that it is for."""
        connector = Pipes(self.face.serve)
        self.session = aiohttp.ClientSession(connector=connector)
        self.client = EquosClient(
            KEY,
            api_key=API_KEY,
            endpoint="http://127.0.0.1:1",
            http_session=self.session,
            settle=self.settles,
            timeouts=Timeouts(start_attempt=ATTEMPT),
            clock=self.clock,
            on_event=self.events.append,
        )

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Let time pass while something is done."""
        return self.loop.run_until_complete(work)

    # What callers do.

    @rule(
        client=st.sampled_from(["a", "a", "b", "c", "d", None]),
        fates=st.lists(st.sampled_from(FATES), max_size=3),
        in_block=st.booleans(),
        deadline=st.sampled_from([None, None, 4.0, 25.0]),
        steps=st.integers(0, 12),
    )
    def start(
        self,
        client: str | None,
        fates: list[str],
        *,
        in_block: bool,
        deadline: float | None,
        steps: int,
    ) -> None:
        """Begin one start."""
        caller = Caller(f"start {len(self.callers)}", in_block)
        self.callers.append(caller)
        self.face.fates[caller.name] = fates
        request = evolve(self.thing.request, name=caller.name, client=client)
        work = self.hold(caller, request, deadline)
        caller.task = self.loop.create_task(work)
        self.step(steps)

    async def hold(self, caller: Caller, request: Any, deadline: float | None) -> None:
        """Hold the session that a start returns."""
        with suppress(EquosError):  # what it means is what this is about
            if not caller.in_block:
                started = await self.thing.start(self.client, request, deadline=deadline)
                self.take(caller, started)
                return
            async with self.thing.block(self.client, request, deadline=deadline) as started:
                self.take(caller, started)
                try:
                    await caller.leave.wait()
                finally:
                    self.let_go(caller)

    def take(self, caller: Caller, started: Any) -> None:
        """A caller has got one, which must be live."""
        session_id = getattr(started, self.thing.word).id
        caller.held = session_id
        self.face.held.add(session_id)
        if self.face.server.sessions[session_id].ended and not self.is_closing:
            self.face.crimes.append(session_id)

    def let_go(self, caller: Caller) -> None:
        """It wants it no more."""
        self.face.held.discard(str(caller.held))
        caller.held = None

    @rule(fates=st.lists(st.sampled_from(FATES), min_size=2, max_size=6))
    def start_many(self, fates: list[str]) -> None:
        """Begin several starts at the same time, each with its own fate."""
        for number, fate in enumerate(fates):
            self.start("ab"[number % 2], [fate], in_block=False, deadline=None, steps=0)

    @rule(number=st.integers(0, 30), steps=st.integers(0, 12))
    @precondition(lambda self: self.callers)
    def cancel(self, number: int, steps: int) -> None:
        """A caller leaves."""
        self.callers[number % len(self.callers)].task.cancel()
        self.step(steps)

    @rule(number=st.integers(0, 30), steps=st.integers(0, 12))
    @precondition(lambda self: not self.is_closing and any(one.held for one in self.callers))
    def stop(self, number: int, steps: int) -> None:
        """A caller stops what it holds."""
        holders = [one for one in self.callers if one.held]
        caller = holders[number % len(holders)]
        if caller.in_block:
            caller.leave.set()
        else:
            caller.task = self.loop.create_task(self.end(caller))
        self.step(steps)

    async def end(self, caller: Caller) -> None:
        """Stop it, as long as that takes."""
        session_id = str(caller.held)
        self.let_go(caller)
        with suppress(EquosError):
            await self.thing.stop(self.client, session_id)

    @rule(number=st.integers(0, 30))
    @precondition(lambda self: self.client.unresolved)
    def resolve(self, number: int) -> None:
        """Resolve an unresolved entry."""
        unresolved = self.client.unresolved
        one = unresolved[number % len(unresolved)]

        async def resolve() -> None:
            if self.client.resolve(one):
                self.resolved |= {str(one.name), str(one.session_id)}
                assert one not in self.client.unresolved

        self.do(resolve())

    # What the world does.

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 3.0, 8.0, 12.0, 30.0, 70.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.do(asyncio.sleep(seconds))

    @rule(steps=st.integers(1, 12))
    def step(self, steps: int) -> None:
        """The loop takes some steps, and no time passes."""

        async def step() -> None:
            for _ in range(steps):
                await asyncio.sleep(0)

        self.do(step())

    @rule(seconds=st.sampled_from([1.0, 10.0, 50.0]))
    def break_down(self, seconds: float) -> None:
        """Let the server answer no request."""
        self.face.down_until = self.loop.now + seconds

    @rule(seconds=st.sampled_from([5.0, 40.0]))
    def limit(self, seconds: float) -> None:
        """The server answers no look."""
        self.face.limited_until = self.loop.now + seconds

    @rule()
    @precondition(lambda self: len(self.callers) > 3)
    def forbid(self) -> None:
        """The key may not list any more."""
        self.face.forbids = True

    # What must hold.

    @invariant()
    def nothing_is_ended_that_is_held(self) -> None:
        """Whatever a look shows."""
        assert self.face.crimes == []

    @rule(seconds=st.sampled_from([0.0, 0.7, 3.0, 20.0, 200.0]))
    @precondition(lambda self: len(self.callers) > 5 and not self.is_closing)
    def close(self, seconds: float) -> None:
        """The client closes under them: what it could not settle is reported."""
        self.is_closing = True
        for caller in self.callers:
            if caller.in_block:
                self.let_go(caller)
        self.do(self.client.aclose(deadline=seconds))

    def close_soon(self) -> None:
        """As above, in a task, and with all the time that it needs."""
        self.is_closing = True
        self.closing = self.loop.create_task(self.client.aclose(deadline=500))

    def teardown(self) -> None:
        """Let everything end, and check the result."""
        if not hasattr(self, "client"):
            return
        try:
            self.finish()
        finally:
            drop(self.loop)

    def finish(self) -> None:
        """Wait, judge, close, and look at what is left over."""
        self.do(asyncio.sleep(AT_LAST))
        self.nothing_is_ended_that_is_held()
        for caller in self.callers:
            caller.leave.set()
        self.do(asyncio.sleep(AT_LAST))
        self.judge()
        self.is_closing = True
        self.do(self.client.aclose(deadline=1000))
        self.do(self.session.close())
        self.nothing_is_ended_that_is_held()
        assert asyncio.all_tasks(self.loop) == set()
        assert self.problems == []

    def alive(self) -> list[tuple[Attempt, Session]]:
        """The live sessions without a holder."""
        held = {one.held for one in self.callers}
        return [
            (attempt, session)
            for attempt in self.face.attempts
            for session in attempt.sessions
            if not session.ended and session.id not in held
        ]

    def judge(self) -> None:
        """Nothing is left that could have been found, and nothing unreported."""
        unresolved = self.client.unresolved
        told = {one.name for one in unresolved} | {one.session_id for one in unresolved}
        told |= self.resolved
        for attempt, session in self.alive():
            is_told = {attempt.name, session.id} & told or self.is_second(attempt, session, told)
            assert is_told, session
            assert self.is_closing or not self.could_be_found(attempt, session), session
            assert self.is_closing or not self.could_be_named(session), session

    def is_second(self, attempt: Attempt, session: Session, told: set[str | None]) -> bool:
        """Whether what became of its start is known by another one that a proxy made of it."""
        held = {one.held for one in self.callers}
        others = (other for other in attempt.sessions if other is not session)
        return any(other.ended or other.id in held | told for other in others)

    def could_be_named(self, session: Session) -> bool:
        """Whether an answer contained its id, however late: then no search is needed."""
        return session.id in self.face.named and session.id not in self.resolved

    def could_be_found(self, attempt: Attempt, session: Session) -> bool:
        """Whether a live session was listed in time, and is searched for."""
        is_answered = any(one.id in self.face.named for one in attempt.sessions)
        if is_answered or {attempt.name, session.id} & self.resolved:
            return False  # nobody looks for a second one
        return (
            attempt.marker is not None
            and self.kind.shows_marker
            and session.listed_from <= attempt.sent_at + LOOK_FOR
            and all(one.kind != "settling_off" for one in self.events)
        )


Settling.TestCase.settings = settings(
    deadline=None,
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    max_examples=200 if IS_SHORT else 20_000,
    derandomize=IS_SHORT,  # the suite goes the same ways each time
)
TestSettling = Settling.TestCase


def test_the_end_of_an_earlier_attempt_says_nothing_of_the_latest() -> None:
    """The machine found it: a proxy repeats the first one when the second one is lost, too."""
    one = Settling()
    one.begin(kind=evolve(KINDS[0], limited=0.0), word="session", patience=5.0, seed=1)
    one.start(client="a", fates=["dropped", "unread"], in_block=False, deadline=None, steps=0)
    one.wait(seconds=20.0)
    first, _ = one.face.attempts
    one.face.server.start("a", {VARIABLE: str(first.marker)})
    one.wait(seconds=20.0)
    assert all(session.ended for session in one.face.server.sessions.values())
    assert [found.name for found in one.client.unresolved] == ["start 0"]
    one.wait(seconds=AT_LAST)
    assert [event.kind for event in one.events].count("start_unknown") == 1
    one.teardown()


def test_the_first_of_two_is_reported_for_both() -> None:
    """The first answer arrived, so there is no search for the second session."""
    one = Settling()
    one.begin(kind=KINDS[0], word="session", patience=0.0, seed=0)
    one.start(client="a", fates=["twice"], in_block=False, deadline=None, steps=0)
    one.wait(seconds=1.0)
    one.break_down(seconds=10.0)
    one.stop(number=0, steps=5)
    one.close(seconds=0.0)
    one.teardown()
    ((attempt,), (told,)) = one.face.attempts, one.client.unresolved
    assert told.session_id == attempt.sessions[0].id
    assert [session.ended for session in attempt.sessions] == [False, False]
