"""Random lives of fleets: groups, resizes, renewals, wind-downs, cancellations, a failing server.

Keys are started again, and some sessions end if nobody uses them.

What happens, and in which order, is drawn; time passes only where that says so. Slots add up, no
group exceeds its limit, nobody starves, every session has exactly one end, and nothing is left; in
one fleet alone, and in two workers that share a ledger.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from equos_async import (
    APIConnectionError,
    CreateEquosSessionResponse,
    CreateSessionPassRequest,
    EquosError,
    LiveSession,
    PermissionDeniedError,
    RateLimitError,
    RedisLedger,
    SessionEnd,
    SessionFleet,
    SQLiteLedger,
    StartOutcomeUnknownError,
)
from equos_async.fleet._starting import IfTaken
from equos_async.ledger import sqlite
from tests.clocks import FakeClock, settle
from tests.fleet.support import REQUEST, ScriptedClient, others
from tests.ledger.conftest import RedisServer
from tests.needs import need

T = TypeVar("T")
Ledger = SQLiteLedger | RedisLedger
Steps = list[tuple[str, int, Any]]
MOST = 4
PER_GROUP = 2
SECONDS = 600
START_ERRORS: list[Callable[[], EquosError]] = [
    lambda: RateLimitError("later", status=429),
    lambda: PermissionDeniedError("no", status=403),
    lambda: StartOutcomeUnknownError("?"),
]
WORKERS = st.integers(0, 1)
NUMBERS = st.integers(0, 9)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), WORKERS, st.sampled_from("aab")),
        st.tuples(st.just("start"), WORKERS, st.sampled_from("aab")),
        st.tuples(st.sampled_from(["raise", "return", "replace"]), WORKERS, NUMBERS),
        st.tuples(st.just("cancel"), WORKERS, NUMBERS),
        st.tuples(st.just("touch"), WORKERS, NUMBERS),
        st.tuples(st.just("stop"), WORKERS, NUMBERS),
        st.tuples(st.just("mark_ended"), WORKERS, NUMBERS),
        st.tuples(st.just("renew"), WORKERS, NUMBERS),
        st.tuples(st.just("resize"), WORKERS, st.integers(1, MOST)),
        st.tuples(st.just("drain"), WORKERS, st.sampled_from([0, 5])),
        st.tuples(st.just("wind_down"), WORKERS, st.sampled_from([0, 5, SECONDS])),
        st.tuples(st.just("time"), WORKERS, st.sampled_from([1, 30, SECONDS])),
        st.tuples(st.just("refuse"), WORKERS, st.integers(0, len(START_ERRORS) - 1)),
        st.tuples(st.just("break"), WORKERS, NUMBERS),
    ),
    min_size=5,
    max_size=40,
)


def one_of(things: Sequence[T], number: int) -> T:
    """Any of some things."""
    return things[number % len(things)]


class Server(ScriptedClient):
    """Sees to the limits itself; its sessions end by themselves when their time is over."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.time = clock
        self.ceiling = MOST
        self.begun: dict[str, float] = {}

    async def start_session(
        self, request: CreateSessionPassRequest, *, deadline: float | None = None
    ) -> CreateEquosSessionResponse:
        answer = await super().start_session(request, deadline=deadline)
        self.begun[answer.session.id] = self.time.now()
        over = self.time.now() - SECONDS
        for session_id in [one for one in self.live if self.begun[one] <= over]:
            del self.live[session_id]
        groups = Counter(one.client for one in self.live.values())
        assert max(groups.values()) <= PER_GROUP, groups
        assert len(self.live) <= self.ceiling
        return answer


class Life:
    """Some fleets, and all that was ever done with them."""

    def __init__(self, ledgers: Sequence[Ledger | None]) -> None:
        self.clock = FakeClock()
        self.server = Server(self.clock)
        self.ends: list[SessionEnd] = []
        self.limits = [MOST] * len(ledgers)
        self.ledgers = [ledger for ledger in ledgers if ledger is not None]
        self.fleets: list[SessionFleet[int]] = [
            SessionFleet(
                self.server,
                max_live=MOST,
                group=lambda request: request.client,
                max_per_group=PER_GROUP,
                on_end=self.ends.append,
                clock=self.clock,
                ledger=ledger,
            )
            for ledger in ledgers
        ]
        self.starts: list[asyncio.Task[LiveSession[int]]] = []
        self.groups: dict[int, str] = {}
        self.others: list[asyncio.Task[object]] = []

    async def quiet(self) -> None:
        """Let everything happen that can without time passing."""
        for _ in range(6 if self.ledgers else 1):
            for ledger in self.ledgers:
                await ledger.rows()  # after all that stands in its thread's queue
            await settle()

    async def step(self, what: str, worker: int, how: Any) -> None:
        """One thing that happens."""
        fleet = self.fleets[worker % len(self.fleets)]
        waiting = [one for one in self.starts if not one.done()]
        lives: list[LiveSession[int]] = list(fleet.live.values())
        match what:
            case "start":
                key = len(self.groups)
                self.groups[key] = how
                self.start(fleet, key)
            case "raise" | "return" | "replace" if self.groups:
                self.start(fleet, one_of(list(self.groups), how), if_taken=what)
            case "touch" if lives:
                one_of(lives, how).touch()
            case "cancel" if waiting:
                one_of(waiting, how).cancel()
            case "stop" if lives:
                # On any worker: with a ledger that is as good.
                where = fleet if not self.ledgers else one_of(self.fleets, how)
                self.do(where.stop(one_of(lives, how).key))
            case "mark_ended" if lives:
                session_id = one_of(lives, how).session_id
                self.server.live.pop(session_id, None)
                self.do(fleet.mark_ended(session_id))
            case "renew" if lives:
                self.do(one_of(lives, how).renew())
            case "resize":
                self.limits[worker % len(self.fleets)] = how
                self.server.ceiling = max(self.server.ceiling, how)
                fleet.resize(how)
            case "drain" | "wind_down":
                self.do(fleet.drain(how) if what == "drain" else fleet.wind_down(how))
            case "time":
                self.clock.advance(how)
            case "refuse":
                self.server.start_errors.append(one_of(START_ERRORS, how)())
            case _:
                self.server.stop_errors.append(APIConnectionError("down"))

    def start(self, fleet: SessionFleet[int], key: int, if_taken: IfTaken = "raise") -> None:
        """Let a caller start a session; each third is renewed, each fourth is ended if unused."""
        start = fleet.start(
            evolve(REQUEST, client=self.groups[key], max_duration=SECONDS),
            key=key,
            if_taken=if_taken,
            renew=key % 3 == 0,
            on_renewed=_moved if key % 3 == 0 else None,
            idle_after=SECONDS / 2 if key % 4 == 1 else None,
        )
        self.starts.append(asyncio.create_task(start))

    def do(self, work: Coroutine[Any, Any, object]) -> None:
        """Let a caller wait for something."""
        self.others.append(asyncio.create_task(work))

    def check(self) -> None:
        """Slots add up, and there are no more sessions than there may be."""
        taken = 0
        for fleet, limit in zip(self.fleets, self.limits, strict=True):
            stats = fleet.stats()
            mine = sum(group.taken for group in stats.groups.values())
            assert stats.free == max(0, limit - mine)
            assert all(group.taken <= PER_GROUP for group in stats.groups.values())
            assert stats.waiting == sum(group.waiting for group in stats.groups.values())
            taken += mine
        # Those that were there before a resize stay.
        self.server.ceiling = max(*self.limits, min(self.server.ceiling, taken))
        assert taken <= self.server.ceiling

    async def serve_all(self) -> None:
        """The server works again: waiting starts are served as other sessions end."""
        self.server.start_errors, self.server.stop_errors = [], []
        for _ in range(3 * len(self.starts) + 3):
            self.clock.advance(1)
            await self.quiet()
            self.check()
            lives = [live for fleet in self.fleets for live in fleet.live.values()]
            if all(one.done() for one in self.starts):
                break
            if lives:
                self.do(min(lives, key=lambda live: live.expires_at).stop())
            else:  # one that was renewed, and could not be stopped, has its slot to its end
                self.clock.advance(SECONDS)
        await self.quiet()
        assert all(one.done() for one in self.starts), "somebody starves"

    async def close(self) -> None:
        """Leave all fleets, and see what is left."""
        closing = asyncio.gather(*(fleet.aclose() for fleet in self.fleets))
        while not closing.done():
            await self.quiet()
            self.clock.advance(1)
        work: list[asyncio.Task[Any]] = [*self.starts, *self.others]
        done: list[object] = await asyncio.gather(*work, return_exceptions=True)
        errors = [one for one in done if isinstance(one, BaseException)]
        assert all(isinstance(one, EquosError | asyncio.CancelledError) for one in errors), errors

    async def nothing_is_left(self) -> None:
        """Each session had its end, or is left in the ledger; rows of unknown starts may stay."""
        rows = [row for ledger in self.ledgers[:1] for row in await ledger.rows()]
        left = [row.session_id for row in rows if row.session_id is not None]
        ended = [end.session_id for end in self.ends]
        assert Counter([*ended, *left]) == Counter(list(self.server.begun))
        assert all(end.group in {"a", "b"} for end in self.ends)
        failed = {end.session_id for end in self.ends if end.outcome in {"failed", "unresolved"}}
        assert self.server.live.keys() <= failed.union(left)
        assert len(rows) - len(left) <= sum(fleet.stats().unknown for fleet in self.fleets)
        for ledger in self.ledgers:
            await ledger.aclose()
        await settle()
        assert not others()


def _moved(old: LiveSession[Any], new: LiveSession[Any]) -> None:
    """Hand a session over to its replacement."""


async def live_through(steps: Steps, ledgers: Sequence[Ledger | None]) -> None:
    """Do all steps, then let all waiting starts be served, and close."""
    life = Life(ledgers)
    async with AsyncExitStack() as stack:
        for fleet in life.fleets:
            await stack.enter_async_context(fleet)
        for what, worker, how in steps:
            await life.step(what, worker, how)
            await life.quiet()
            life.check()
        await life.serve_all()
        await life.close()
    await life.nothing_is_left()


@pytest.fixture(scope="module", autouse=True)
def _quick_looks() -> Generator[None, None, None]:
    """Look at the queue often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "LOOK", 0)
        yield


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer, None, None]:
    """A server for all lives."""
    need("redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(STEPS)
async def test_a_fleet(steps: Steps) -> None:
    """One fleet alone."""
    await live_through(steps, [None])


@settings(derandomize=True, max_examples=12, deadline=None, database=None)
@given(STEPS)
async def test_two_workers_with_sqlite(steps: Steps) -> None:
    """Two that share a file."""
    with TemporaryDirectory() as folder:
        await live_through(steps, [SQLiteLedger(Path(folder) / "ledger.db") for _ in range(2)])


@settings(derandomize=True, max_examples=12, deadline=None, database=None)
@given(STEPS)
async def test_two_workers_with_redis(redis: RedisServer, steps: Steps) -> None:
    """Two that share a server."""
    redis.ask("FLUSHALL")
    await live_through(steps, [RedisLedger(redis.url) for _ in range(2)])
