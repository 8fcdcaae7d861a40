"""Faults: what the caller sees, what the server has done, and which request is hit."""

from __future__ import annotations

import asyncio
import json
from asyncio import all_tasks
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import attrs
import pytest
from aiohttp import web

from equos_async.testing import (
    SCENARIOS,
    Delay,
    Drop,
    EmulatorClock,
    EmulatorRequest,
    EquosEmulator,
    Fault,
    Faults,
    Garbage,
    Hang,
    Planned,
    Redirect,
    Reset,
    Scenario,
    Status,
    Truncate,
)
from equos_async.testing.exchange import Exchange
from equos_async.testing.replies import Reply
from equos_async.testing.spec import describe
from tests.emulator.support import BODY, STARTS, Caller, until


class TestAnswers:
    async def test_status(self, caller: Caller, emulator: EquosEmulator) -> None:
        """The answer has the status, a body, headers and Retry-After, and nothing is done."""
        emulator.faults.start.add(Status(429, retry_after=2, headers={"X-Request-Id": "r1"}))
        answer = await caller.start()
        assert (answer.status, answer.json) == (429, {"message": "fault", "statusCode": 429})
        assert (answer.headers["Retry-After"], answer.headers["X-Request-Id"]) == ("2", "r1")
        assert emulator.live_sessions == {}
        assert (await caller.start()).status == 201

    @pytest.mark.parametrize("body", ["<h1>502</h1>", b"<h1>502</h1>"])
    async def test_status_after_acting(
        self, caller: Caller, emulator: EquosEmulator, body: str | bytes
    ) -> None:
        """A proxy's page for a start that the server has carried out: the session is live."""
        page = {"Content-Type": "text/html"}
        emulator.faults.start.add(Status(502, body=body, headers=page, when="after"))
        answer = await caller.start()
        assert (answer.status, answer.body) == (502, b"<h1>502</h1>")
        assert answer.headers["Content-Type"] == "text/html"
        assert len(emulator.live_sessions) == 1

    async def test_redirect(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A redirect names its target and does nothing."""
        emulator.faults.add(Redirect("http://other.example.test/", status=308))
        answer = await caller.start()
        assert (answer.status, answer.headers["Location"]) == (308, "http://other.example.test/")
        assert emulator.live_sessions == {}

    @pytest.mark.parametrize("status", [200, 599])
    async def test_truncate(self, emulator: EquosEmulator, status: int) -> None:
        """The head announces the whole body, and only its first bytes are sent."""
        emulator.faults.start.add(Truncate(keep=14))
        head, body = (await raw_start(emulator)).split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 201 Created\r\n")
        assert b"\r\nContent-Type: application/json; charset=utf-8\r\n" in head
        assert body == b'{"session": {"'
        assert len(emulator.live_sessions) == 1

    async def test_garbage(self, emulator: EquosEmulator) -> None:
        """Bytes that are not HTTP, after acting."""
        emulator.faults.start.add(Garbage(b"SSH-2.0-x\r\n"))
        assert await raw_start(emulator) == b"SSH-2.0-x\r\n"
        assert len(emulator.live_sessions) == 1


async def raw_start(emulator: EquosEmulator) -> bytes:
    """All bytes that the server sends for a start until it closes the connection."""
    reader, writer = await asyncio.open_connection(emulator.host, emulator.port)
    body = json.dumps(BODY).encode()
    head = (
        f"POST {STARTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    try:
        return await reader.read()
    finally:
        writer.close()


class TestSilence:
    @pytest.mark.parametrize("kind", [Drop, Reset])
    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_a_lost_connection(
        self, caller: Caller, emulator: EquosEmulator, kind: Any, when: str
    ) -> None:
        """The caller gets no answer; whether the server has acted depends on ``when``."""
        emulator.faults.start.add(kind(when))
        with pytest.raises(aiohttp.ClientError):
            await caller.start()
        assert len(emulator.live_sessions) == (when == "after")
        assert emulator.requests[0].status is None

    async def test_a_reset_is_one(self, emulator: EquosEmulator) -> None:
        """A reset reaches the caller as a reset, not as an end."""
        emulator.faults.start.add(Reset())
        with pytest.raises(ConnectionResetError):
            await raw_start(emulator)

    async def test_a_stop_whose_answer_is_lost_is_done(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """A drop after acting still ends the session."""
        session_id = await caller.started_id()
        emulator.faults.stop.add(Drop("after"))
        with pytest.raises(aiohttp.ClientError):
            await caller.stop(session_id)
        assert emulator.live_sessions == {}

    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_hang(self, caller: Caller, when: Any) -> None:
        """A hanging start is live or not as its fault says, and ends when its caller goes."""
        over: list[EmulatorRequest] = []
        async with EquosEmulator(on_request=over.append) as emulator:
            emulator.faults.start.add(Hang(when))
            start = asyncio.create_task(Caller(emulator, caller.http).start())
            await until(lambda: emulator.requests and not emulator.faults.planned)
            await until(lambda: len(emulator.live_sessions) == (when == "after"))
            assert not start.done()
            start.cancel()
            await until(
                lambda: over and not any("Exchange.run" in repr(task) for task in all_tasks())
            )
        assert [one.status for one in over] == [None]

    @pytest.mark.parametrize("fault", [Drop(), Reset()])
    async def test_nobody_is_there_to_be_hung_up_on(self, fault: Drop | Reset) -> None:
        """A caller that has gone before its fault came makes no difference."""
        gone = cast("web.Request", SimpleNamespace(transport=None))
        exchange = Exchange(gone, lambda: Reply(201), 0.0, EmulatorClock())
        assert await exchange.run([fault]) is None

    async def test_stopping_the_emulator_ends_what_hangs(self, caller: Caller) -> None:
        """A caller that waits for a hanging answer gets an error."""
        async with EquosEmulator() as emulator:
            emulator.faults.start.add(Hang())
            emulator.faults.start.add(Delay(3600))
            starts = [asyncio.create_task(Caller(emulator, caller.http).start()) for _ in "ab"]
            await until(lambda: not emulator.faults.planned)
        ends = await asyncio.gather(*starts, return_exceptions=True)
        assert all(isinstance(end, aiohttp.ClientError) for end in ends)


class TestDelay:
    async def test_before_acting(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Until the clock has moved on, nothing is live and nothing is answered."""
        emulator.faults.start.add(Delay(30))
        start = asyncio.create_task(caller.start())
        await until(lambda: emulator.requests)
        assert emulator.live_sessions == {}
        emulator.advance(30)
        assert (await start).status == 201

    async def test_after_acting(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A session can be live long before its start is answered."""
        emulator.faults.start.add(Delay(30, when="after"))
        start = asyncio.create_task(caller.start())
        await until(lambda: emulator.live_sessions)
        assert not start.done()
        emulator.advance(30)
        assert (await start).json["session"]["id"] in emulator.live_sessions

    async def test_a_slow_server_works_on_when_its_caller_has_gone(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """A slow start whose caller has gone still makes a session."""
        emulator.faults.start.add(Delay(30))
        start = asyncio.create_task(caller.start())
        await until(lambda: emulator.requests)
        start.cancel()
        await asyncio.wait([start])
        emulator.advance(30)
        await until(lambda: emulator.live_sessions)

    async def test_faults_compose(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Several faults of one addition happen to one request, in their order."""
        emulator.faults.start.add(Delay(5, "after"), Delay(5), Drop())
        start = asyncio.create_task(caller.start())
        await until(lambda: emulator.live_sessions)
        emulator.advance(10)
        with pytest.raises(aiohttp.ClientError):
            await start
        assert len(emulator.live_sessions) == 1


def request(operation: Any = "start", name: str | None = None) -> EmulatorRequest:
    """A request as predicates and queues see it."""
    return EmulatorRequest(1, operation, "POST", STARTS, 0.0, name)


class TestPlan:
    def test_order_and_times(self) -> None:
        """The oldest matching fault is used first, as many times as it was added for."""
        faults = Faults()
        faults.start.add(Status(429), times=2)
        faults.start.add(Drop(), times=None)
        taken = [faults.take(request()) for _ in range(4)]
        assert taken == [(Status(429),), (Status(429),), (Drop(),), (Drop(),)]

    def test_by_operation(self) -> None:
        """A fault of one operation never hits the other."""
        faults = Faults()
        faults.stop.add(Drop())
        assert faults.take(request("start")) == ()
        assert faults.take(request("stop")) == (Drop(),)

    def test_what_fits_both_counts_both(self) -> None:
        """Three times are three requests, of whichever operation."""
        faults = Faults()
        faults.add(Drop(), times=3)
        taken = [faults.take(request(one)) for one in ("start", "stop", "stop", "start")]
        assert taken == [(Drop(),)] * 3 + [()]

    def test_by_predicate(self) -> None:
        """A predicate sees the recorded request."""
        faults = Faults()
        faults.start.add(Drop(), when=lambda request: request.name == "vip")
        assert faults.take(request(name="other")) == ()
        assert faults.take(request(name="vip")) == (Drop(),)

    def test_a_predicate_may_plan_more(self) -> None:
        """Adding from within a predicate is in order."""
        faults = Faults()

        def plan_more(_: EmulatorRequest) -> bool:
            faults.start.add(Hang())
            return True

        faults.start.add(Drop(), when=plan_more)
        assert faults.take(request()) == (Drop(),)
        assert faults.take(request()) == (Hang(),)

    def test_by_share_with_a_seed(self) -> None:
        """The same seed hits the same requests, about as many as the share says."""

        def hits(seed: int) -> list[bool]:
            faults = Faults(seed)
            faults.add(Drop(), times=None, share=0.3)
            return [bool(faults.take(request())) for _ in range(1000)]

        assert hits(1) == hits(1) != hits(2)
        assert 250 < sum(hits(1)) < 350

    def test_clear(self) -> None:
        """One operation can be healed, and those of the others stay."""
        faults = Faults()
        faults.start.add(Drop())
        faults.add(Hang())
        faults.start.clear()
        assert faults.take(request("start")) == ()
        assert [one.operations for one in faults.planned] == [("stop", "read")]
        assert [describe(one) for one in faults.planned] == ["stop+read:hang=after,times=1"]
        faults.clear()
        assert faults.planned == ()

    @pytest.mark.parametrize(
        ("faults", "options", "words"),
        [
            ((), {}, "no fault"),
            ((Drop(),), {"times": 0}, "times"),
            ((Drop(),), {"share": 0}, "share"),
            ((Drop(),), {"share": 1.1}, "share"),
        ],
    )
    def test_impossible_plans(
        self, faults: tuple[Fault, ...], options: dict[str, Any], words: str
    ) -> None:
        """A plan that can never happen is refused at once."""
        with pytest.raises(ValueError, match=words):
            Faults().add(*faults, **options)

    @pytest.mark.parametrize(
        "fault",
        [Status(500), Delay(1), Hang(), Drop(), Reset(), Truncate(), Garbage(), Redirect("/")],
    )
    def test_faults_are_values(self, fault: Any) -> None:
        """A fault is frozen, and equal to one that says the same."""
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            fault.when = "never"
        assert fault == attrs.evolve(fault)


class TestScenarios:
    @pytest.mark.parametrize("name", ["brown-out", "deploy", "over limit", "slow starts"])
    def test_they_are_known_by_name(self, name: str) -> None:
        """Each scenario says what happens, and plans it."""
        emulator = EquosEmulator()
        emulator.play(name)
        assert emulator.faults.planned == SCENARIOS[name].steps
        assert SCENARIOS[name].about.endswith(".")

    def test_one_of_your_own(self) -> None:
        """A scenario is a value that anyone can make."""
        emulator = EquosEmulator()
        emulator.play(Scenario("mine", "Nothing works.", (Planned(("start",), (Drop(),)),)))
        assert emulator.faults.take(request()) == (Drop(),)

    @pytest.mark.parametrize("name", ["brown-out", "deploy", "over limit"])
    def test_a_bad_day_ends(self, name: str) -> None:
        """After a while everything works again."""
        faults = Faults(seed=1)
        SCENARIOS[name].play(faults)
        for _ in range(500):
            faults.take(request("start"))
        assert faults.planned == ()


class TestThreads:
    async def test_it_runs_in_a_thread_of_its_own(self, caller: Caller) -> None:
        """With a plain ``with`` it serves while its owner's loop does other things."""
        with EquosEmulator(clock=EmulatorClock(ticking=False)) as emulator:
            other = Caller(emulator, caller.http)
            emulator.faults.start.add(Delay(30))
            start = asyncio.create_task(other.start())
            await until(lambda: emulator.requests and not emulator.faults.planned)
            emulator.advance(30)
            answer = await start
            assert list(emulator.live_sessions) == [answer.json["session"]["id"]]
        assert len(emulator.live_sessions) == 1

    def test_a_port_that_is_taken(self) -> None:
        """It raises an error, and leaves no thread behind."""
        with EquosEmulator() as first, pytest.raises(OSError, match="in use"):
            EquosEmulator(port=first.port).__enter__()

    async def test_it_can_be_stopped_twice(self) -> None:
        """Stopping what has stopped is harmless."""
        emulator = EquosEmulator()
        await emulator.start()
        await emulator.stop()
        await emulator.stop()

    async def test_it_serves_on_ipv6(self, caller: Caller) -> None:
        """An address with colons gets its brackets."""
        async with EquosEmulator(host="::1") as emulator:
            assert emulator.endpoint == f"http://[::1]:{emulator.port}"
            assert (await Caller(emulator, caller.http).start()).status == 201

    def test_everywhere_is_reached_here(self) -> None:
        """An address to listen on is not always one to connect to."""
        assert EquosEmulator(host="0.0.0.0", port=1).endpoint == "http://127.0.0.1:1"
