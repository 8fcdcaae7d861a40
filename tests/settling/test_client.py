"""Starts whose answers are lost, with a client and the emulator, on both wires."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from equos_async import (
    APIConnectionError,
    BadRequestError,
    ClientClosedError,
    RetryPolicy,
    Settle,
    StartOutcomeUnknownError,
    StartUnreadableError,
    Timeouts,
)
from equos_async._marker import VARIABLE
from equos_async.testing import EquosEmulator
from equos_async.testing.faults import (
    Delay,
    Drop,
    ForgetVariables,
    Garbage,
    Hang,
    Lag,
    RefuseVariables,
    Reset,
    Status,
    Truncate,
    Twice,
)
from tests import wires
from tests.clocks import eventually, until
from tests.conftest import API_KEY, KEY
from tests.kinds import KINDS, Kind
from tests.settling.clock import SPEED, FastClock
from tests.settling.world import SETTLED, world

LOST: dict[str, tuple[Any, ...]] = {
    "dropped": (Drop("after"),),
    "reset": (Reset("after"),),
    "a proxy's 502": (Status(502, when="after"),),
    "garbage": (Garbage(),),
    "no answer in time": (Hang("after"),),
    "an id that cannot be read": (Truncate(keep=1),),
    "made twice": (Twice(), Drop("after")),
    "listed late": (Lag(3.5 / SPEED), Drop("after")),
}


@pytest.fixture(params=wires.WIRES, autouse=True)
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which wire the test takes."""
    wire: str = request.param
    wires.take(wire, monkeypatch)
    return wire


@pytest.fixture(params=list(SETTLED.values()), ids=list(SETTLED))
def kind(request: pytest.FixtureRequest) -> Kind:
    """The kind of session, with a client that can search."""
    kind: Kind = request.param
    return kind


# Found, ended, and made again.


@pytest.mark.parametrize("lost", LOST)
async def test_a_lost_start_is_made_again(lost: str, kind: Kind) -> None:
    """The caller gets one, and one is all there is."""
    async with world(kind) as here:
        here.emulator.faults.start.add(*LOST[lost], times=1)
        session_id = await here.start()
        assert list(here.emulator.live) == [session_id]
        await here.kind.stop(here.client, session_id)
        assert here.starts == 2
        assert here.told("settled", "start_unknown") == ["settled"]
        assert here.client.unresolved == ()
    assert here.emulator.live == {}
    ended = [one for one in here.events if one.kind == "ended" and one.operation == "start"]
    assert [(one.attempts, one.error) for one in ended] == [(2, None)]


async def test_each_attempt_may_be_lost(kind: Kind) -> None:
    """Up to as many as a start has."""
    async with world(kind) as here:
        here.emulator.faults.start.add(Drop("after"), times=2)
        session_id = await here.start()
        assert list(here.emulator.live) == [session_id]
        assert here.starts == 3
        assert here.told("settled") == ["settled"] * 2


async def test_an_empty_answer_to_a_stop_proves_nothing(kind: Kind) -> None:
    """The server may still be creating it: it is stopped until it is shown as over."""
    async with world(kind) as here:
        here.emulator.faults.start.add(Drop("after"), times=1)
        here.emulator.faults.stop.add(Status(200, body=""), times=2)
        session_id = await here.start()
        assert list(here.emulator.live) == [session_id]
        assert sum(one.operation == "stop" for one in here.emulator.requests) == 3


async def test_without_attempts_left_nothing_exists(kind: Kind) -> None:
    """The error says that nothing exists."""
    async with world(kind, retry=RetryPolicy(start_attempts=1)) as here:
        here.emulator.faults.start.add(Drop("after"), times=1)
        with pytest.raises(APIConnectionError, match="found and ended; nothing exists") as caught:
            await here.start()
        assert caught.value.attempts == 1
        assert here.emulator.live == {}
        assert here.client.unresolved == ()
        assert here.told("start_unknown") == []


async def test_nobody_sees_a_marker(kind: Kind) -> None:
    """In what the client gives; the server has one for each attempt."""
    request = {"session": "template_vars", "conversation": "prompt_template_vars"}[kind.word]
    kind = evolve(kind, request=evolve(kind.request, **{request: {"name": "Ada"}}))
    async with world(kind) as here:
        started = getattr(await kind.start(here.client, kind.request), kind.word)
        assert getattr(started, request) == {"name": "Ada"}
        read = getattr(here.client, f"{kind.word}s")()
        assert [getattr(one, request) async for one in read] == [{"name": "Ada"}]
        ended = await kind.stop(here.client, started.id)
        assert getattr(ended, request) == {"name": "Ada"}
        assert VARIABLE not in repr(started)


# Not found.


async def test_what_is_found_after_patience_is_ended(kind: Kind) -> None:
    """The caller has got ``StartOutcomeUnknownError`` before."""
    async with world(kind, settle=Settle(patience=1.5)) as here:
        here.emulator.faults.start.add(Lag(5 / SPEED), Drop("after"), times=1)
        with pytest.raises(StartOutcomeUnknownError):
            await here.start()
        (unresolved,) = here.client.unresolved
        assert unresolved.name == kind.request.name
        assert here.told("start_unknown", "settled") == ["start_unknown"]
        assert len(here.emulator.live) == 1
        await until(lambda: not here.client.unresolved)
        assert here.emulator.live == {}
        assert here.starts == 1
        assert here.told("settled") == ["settled"]


async def test_looking_ends(kind: Kind) -> None:
    """The search ends after its time; the caller got its error long before."""
    async with world(kind, settle=Settle(patience=1, look_for=5)) as here:
        here.emulator.faults.start.add(Drop("before"), times=1)
        with pytest.raises(StartOutcomeUnknownError):
            await here.start()
        await FastClock().sleep(8)
        looks = here.looks
        assert 1 <= looks <= 4
        await FastClock().sleep(5)
        assert here.looks == looks
        assert len(here.client.unresolved) == 1


async def test_an_answer_that_cannot_be_read_is_looked_for(kind: Kind) -> None:
    """Where it is not found, its own error says what is wrong."""
    async with world(kind, settle=Settle(patience=0, look_for=1)) as here:
        here.emulator.faults.start.add(ForgetVariables(), Truncate(keep=1), times=1)
        with pytest.raises(StartUnreadableError, match="its id could not be read"):
            await here.start()
        assert here.told("start_unknown") == ["start_unknown"]


# Late answers.


async def test_a_late_answer_serves_its_caller(kind: Kind) -> None:
    """Where no look was first."""
    async with world(kind, timeouts=Timeouts(start_attempt=2.0)) as here:
        here.emulator.faults.start.add(Lag(60), Delay(4 / SPEED, "after"), times=1)
        session_id = await here.start()
        assert list(here.emulator.live) == [session_id]
        assert here.starts == 1
        assert here.told("start_unknown", "settled", "ended") == ["ended"]
        assert here.client.unresolved == ()


async def test_a_late_answer_after_a_find_says_nothing_new(kind: Kind) -> None:
    """Its session has ended already, and the caller gets another one."""
    async with world(kind, timeouts=Timeouts(start_attempt=2.0)) as here:
        here.emulator.faults.start.add(Delay(8 / SPEED, "after"), times=1)
        session_id = await here.start()
        assert here.starts == 2
        await FastClock().sleep(8)
        assert list(here.emulator.live) == [session_id]


async def test_a_late_answer_after_patience_is_ended(kind: Kind) -> None:
    """By its id, without a look."""
    settle = Settle(patience=0.5)
    async with world(kind, settle=settle, timeouts=Timeouts(start_attempt=2.0)) as here:
        here.emulator.faults.start.add(Lag(60), Delay(5 / SPEED, "after"), times=1)
        with pytest.raises(StartOutcomeUnknownError):
            await here.start()
        await until(lambda: not here.emulator.live)
        await until(lambda: not here.client.unresolved)


async def test_a_late_refusal_is_the_callers(kind: Kind) -> None:
    """Nothing exists."""
    async with world(kind, timeouts=Timeouts(start_attempt=2.0)) as here:
        await here.start()
        refusal = Status(400, "no such avatar")
        here.emulator.faults.start.add(Delay(3.5 / SPEED), refusal, times=1)
        with pytest.raises(BadRequestError, match="no such avatar"):
            await here.start()
        assert here.client.unresolved == ()
        assert here.told("start_unknown") == []


async def test_a_late_answer_without_an_id_changes_nothing(kind: Kind) -> None:
    """The look finds what it began."""
    async with world(kind, timeouts=Timeouts(start_attempt=2.0)) as here:
        late = (Lag(6 / SPEED), Delay(4 / SPEED, "after"), Truncate(keep=1))
        here.emulator.faults.start.add(*late, times=1)
        session_id = await here.start()
        assert list(here.emulator.live) == [session_id]


async def test_an_id_in_a_late_answer_is_enough(kind: Kind) -> None:
    """However broken the rest is."""
    async with world(kind, timeouts=Timeouts(start_attempt=2.0)) as here:
        late = (Lag(60), Delay(4 / SPEED, "after"), Truncate(keep=100))
        here.emulator.faults.start.add(*late, times=1)
        session_id = await here.start()
        assert list(here.emulator.live) == [session_id]
        assert here.starts == 2


async def test_an_answer_with_an_id_is_not_looked_for(kind: Kind) -> None:
    """Its session is stopped, and the caller gets an error."""
    async with world(kind) as here:
        here.emulator.faults.start.add(Truncate(keep=100), times=1)
        with pytest.raises(StartUnreadableError, match="has been stopped"):
            await here.start()
        assert here.emulator.live == {}
        assert here.looks == 0


# Servers that do not want it, keys that may not, clients that do not.


@pytest.mark.parametrize("before", [0, 1], ids=["at first", "later"])
async def test_a_server_that_refuses_the_variable(before: int, kind: Kind) -> None:
    """One event, and starts as before there were markers."""
    async with world(kind) as here:
        for _ in range(before):
            await here.start()
        here.emulator.faults.start.add(RefuseVariables())
        await here.start()
        await here.start()
        assert here.starts == before + 3
        assert here.told("settling_off") == ["settling_off"]
        here.emulator.faults.start.add(Drop("after"), times=1)
        with pytest.raises(StartOutcomeUnknownError):
            await here.start()
        assert here.looks == 0


async def test_a_refusal_for_another_reason(kind: Kind) -> None:
    """Is what it is; the first one is asked about twice."""
    async with world(kind) as here:
        here.emulator.faults.start.add(Status(400, "no such avatar"), times=2)
        with pytest.raises(BadRequestError, match="no such avatar"):
            await here.start()
        await here.start()
        here.emulator.faults.start.add(Status(400, "no such avatar"), times=1)
        with pytest.raises(BadRequestError):
            await here.start()
        assert here.starts == 4
        assert here.told("settling_off") == []


async def test_a_server_that_does_not_show_the_variable(kind: Kind) -> None:
    """No caller waits for a search that cannot succeed."""
    async with world(kind, settle=Settle(patience=1000)) as here:
        here.emulator.faults.start.add(ForgetVariables())
        await here.start()
        here.emulator.faults.start.add(Drop("after"), times=1)
        with pytest.raises(StartOutcomeUnknownError):
            await here.start()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_key_that_may_not_list(status: int, kind: Kind) -> None:
    """Waiting callers get their errors at once, and there is no further look."""
    async with world(kind, settle=Settle(patience=1000)) as here:
        here.emulator.faults.start.add(Drop("after"), times=2)
        here.emulator.faults.read.add(Status(status))
        for _ in range(2):
            with pytest.raises(StartOutcomeUnknownError):
                await here.start()
        assert here.looks == 1
        assert here.told("settling_off") == ["settling_off"]
        assert len(here.client.unresolved) == 2


@pytest.mark.parametrize("status", [429, 500])
async def test_looks_that_fail_are_repeated(status: int, kind: Kind) -> None:
    """By the rules for what only reads, and by the next look."""
    async with world(kind, settle=Settle(patience=60)) as here:
        here.emulator.faults.start.add(Drop("after"), times=1)
        here.emulator.faults.read.add(Status(status), times=4)
        session_id = await here.start()
        assert list(here.emulator.live) == [session_id]


@pytest.mark.parametrize("without", ["key", "wish"])
async def test_without_a_server_key_or_the_wish(without: str) -> None:
    """No marker is sent, and there is no search."""
    kind = KINDS["session"]
    settings = {"settle": None, "api_key": API_KEY} if without == "wish" else {}
    async with world(kind, **settings) as here:
        here.emulator.faults.start.add(RefuseVariables())
        await here.start()
        here.emulator.faults.start.add(Drop("after"), times=1)
        with pytest.raises(StartOutcomeUnknownError):
            await here.start()
        assert (here.starts, here.looks) == (2, 0)


# Ways out.


async def test_closing_looks_at_once(kind: Kind) -> None:
    """A session that it finds is stopped, and its start is not sent again."""
    async with world(kind, settle=Settle(patience=1000)) as here:
        here.emulator.faults.start.add(Drop("after"), times=1)
        before = asyncio.all_tasks()
        starting = asyncio.create_task(here.start())
        await until(lambda: any(_settles(task) for task in asyncio.all_tasks() - before))
        assert await here.client.aclose(deadline=100) == ()
        with pytest.raises(APIConnectionError, match="nothing exists"):
            await starting
        assert here.emulator.live == {}
        assert here.starts == 1


async def test_closing_does_not_wait_for_ever(kind: Kind) -> None:
    """A start that is not found by then is reported."""
    async with world(kind, settle=Settle(patience=1000)) as here:
        here.emulator.faults.start.add(Lag(60), Drop("after"), times=1)
        starting = asyncio.create_task(here.start())
        await until(lambda: here.looks)
        (unresolved,) = await here.client.aclose(deadline=3)
        assert unresolved.operation == "start"
        with pytest.raises(StartOutcomeUnknownError):
            await starting
        assert here.looks >= 2


async def test_a_late_answer_while_closing_is_ended(kind: Kind) -> None:
    """No caller gets its session."""
    timeouts = Timeouts(start_attempt=1.0)
    async with world(kind, settle=Settle(patience=1000), timeouts=timeouts) as here:
        here.emulator.faults.start.add(Lag(60), Delay(4 / SPEED, "after"), times=1)
        starting = asyncio.create_task(here.start())
        await until(lambda: here.looks)
        assert await here.client.aclose(deadline=100) == ()
        with pytest.raises((APIConnectionError, ClientClosedError)):
            await starting
        assert here.emulator.live == {}


@pytest.mark.parametrize("lost", ["dropped", "no answer in time"])
async def test_a_cancelled_caller_leaves_nothing(lost: str, kind: Kind) -> None:
    """At any moment; its start is not sent again."""
    for number in range(0, 240, 24):
        timeouts = Timeouts(start_attempt=0.4, deadline=2)
        async with world(kind, timeouts=timeouts, settle=Settle(look_for=4)) as here:
            here.emulator.faults.start.add(*LOST[lost], times=1)
            starting = asyncio.create_task(here.start())
            await asyncio.sleep(number / 1000 / 2)
            starting.cancel()
            await asyncio.wait([starting])
            served = not starting.cancelled() and starting.exception() is None
            held = {starting.result()} if served else set[str]()
            assert await here.client.aclose(deadline=100) == ()
            assert set(here.emulator.live) == held


async def test_the_end_of_the_loop(kind: Kind) -> None:
    """All tasks are cancelled: starts that are searched for are reported."""
    with EquosEmulator(client_key=KEY, api_key=API_KEY) as emulator:
        emulator.faults.start.add(Drop("after"), times=1)
        before = asyncio.all_tasks()
        async with kind.client(emulator.endpoint, settle=Settle(patience=1000)) as client:
            starting = asyncio.ensure_future(kind.started_id(client))
            await eventually(lambda: any(_settles(task) for task in asyncio.all_tasks() - before))
            tasks = asyncio.all_tasks() - before
            assert starting in tasks
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            (unresolved,) = client.unresolved
            assert unresolved.reason == "the event loop shut down"


async def test_a_caller_who_leaves_as_its_time_is_over(kind: Kind) -> None:
    """The call that continues for it has not begun then, but its search does."""
    timeouts = Timeouts(start_attempt=2, deadline=4)
    async with world(kind, timeouts=timeouts, settle=Settle(look_for=4)) as here:
        here.emulator.faults.start.add(Hang("after"), times=1)
        starting = asyncio.create_task(here.start())
        before = asyncio.all_tasks()
        await until(lambda: any(_settles(task) for task in asyncio.all_tasks() - before))
        starting.cancel()
        assert await here.client.aclose(deadline=100) == ()
        assert here.emulator.live == {}


async def test_the_end_of_the_loop_as_its_time_is_over(kind: Kind) -> None:
    """The call that continues for its caller is cancelled before it has begun."""
    timeouts = Timeouts(start_attempt=2, deadline=100)
    async with world(kind, timeouts=timeouts) as here:
        here.emulator.faults.start.add(Hang("after"), times=1)
        starting = asyncio.create_task(here.start())
        before = asyncio.all_tasks()
        await until(lambda: any(_settles(task) for task in asyncio.all_tasks() - before))
        for task in asyncio.all_tasks() - before:
            task.cancel()
        with pytest.raises((StartOutcomeUnknownError, asyncio.CancelledError)):
            await starting
        (unresolved,) = here.client.unresolved
        assert unresolved.reason == "the event loop shut down"


def _settles(task: asyncio.Task[Any]) -> bool:
    """Whether it is the task of the search, which begins together with the continuing call."""
    return "_look" in repr(task.get_coro())
