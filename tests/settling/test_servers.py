"""Servers with a script: null during creation, endless lists, and mistakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from equos_async import (
    EquosClient,
    Event,
    Settle,
    StartOutcomeUnknownError,
    Timeouts,
)
from equos_async._api.answers import Looked, Unreadable
from equos_async._api.operations import CONVERSATION, MAX_LIST, SESSION
from equos_async._calls import looker as module
from equos_async._marker import VARIABLE
from tests import wires
from tests.clocks import until
from tests.conftest import API_KEY, KEY, REQUEST
from tests.faults.server import Connection, RawServer, good
from tests.settling.clock import FastClock
from tests.unit.test_wire import SESSION as ANSWER
from tests.unit.test_wire import dump


@pytest.fixture(params=wires.WIRES, autouse=True)
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which wire the test takes."""
    wire: str = request.param
    wires.take(wire, monkeypatch)
    return wire


HANGS = 0
"""The status of a stop that is not answered."""


class Script:
    """A server that loses its first answer, and lists what it began.

    Args:
        stops: What the first stops are answered: a status and a body.
        found: What a look-up by id is answered.
        large: How many looks are answered with more than is read.
        is_late: Whether the first answer comes after all, once its session is being stopped.
        status: That of the late answer.
    """

    def __init__(
        self,
        *,
        stops: Sequence[tuple[int, object]] = (),
        found: tuple[int, object] = (200, None),
        large: int = 0,
        is_late: bool = False,
        status: int = 201,
    ) -> None:
        self.stops = list(stops)
        self.found = found
        self.large = large
        self.is_late = is_late
        self.stopping = asyncio.Event()
        self.status = status
        self.marker: str | None = None
        self.order: list[str] = []

    async def __call__(self, connection: Connection) -> None:
        path, _, query = connection.path.partition("?")
        if connection.is_start:
            await self.start(connection)
        elif path == "/v3/sessions":
            self.order.append(f"look {query}")
            await self.look(connection)
        elif connection.method == "GET":
            self.order.append("read")
            await connection.reply(self.found[0], dump(self.found[1]))
        else:
            self.order.append("stop")
            self.stopping.set()
            if self.stops:
                status, body = self.stops.pop(0)
                if status == HANGS:
                    await connection.gone()
                else:
                    await connection.reply(status, dump(body))
            else:
                await good(connection)

    async def start(self, connection: Connection) -> None:
        self.order.append("start")
        if self.marker is not None:
            await good(connection)
            return
        self.marker = json.loads(connection.body)["templateVars"][VARIABLE]
        body = connection.act()
        if not self.is_late:
            connection.close()
            return
        await self.stopping.wait()
        self.order.append("late")
        await connection.reply(self.status, body)

    async def look(self, connection: Connection) -> None:
        if self.large:
            self.large -= 1
            await connection.reply(200, b" " * (MAX_LIST + 1))
            return
        mine = {"id": "s-0", "templateVars": {VARIABLE: self.marker}, "createdAt": "?"}
        page = {"sessions": [mine, {"id": "x"}, 7], "total": 3}
        await connection.reply(200, dump(page))


def make(server: RawServer, **settings: Any) -> EquosClient:
    """A client of it that looks."""
    settings = {"clock": FastClock(), "settle": Settle(patience=1000), **settings}
    return EquosClient(KEY, api_key=API_KEY, endpoint=server.endpoint, **settings)


async def test_null_is_no_proof() -> None:
    """The server may still be creating: stopped and looked up until one of them shows the end."""
    script = Script(stops=((200, None), (200, None)))
    async with RawServer(always=script) as server, make(server) as client:
        started = await client.start_session(REQUEST)
        assert server.live == {started.session.id}
        await client.stop_session(started.session.id)
    stops = ["stop", "read", "stop", "read", "stop", "start"]
    assert [one for one in script.order if not one.startswith("look")][1:7] == stops


@pytest.mark.parametrize("status", ["ended", "error", "blocked"])
async def test_a_look_up_is_proof(status: str) -> None:
    """However often the stop is answered null."""
    found = (200, {**ANSWER, "id": "s-0", "status": status})
    script = Script(stops=((200, None),) * 9, found=found)
    async with RawServer(always=script) as server, make(server) as client:
        started = await client.start_session(REQUEST)
        assert started.session.id == "s-1"
        assert len(script.stops) == 8


async def test_a_look_up_that_fails_is_none() -> None:
    """It is stopped again."""
    script = Script(stops=((200, None),), found=(404, None))
    async with RawServer(always=script) as server, make(server) as client:
        started = await client.start_session(REQUEST)
        assert server.live == {started.session.id}


async def test_what_cannot_be_ended_is_reported() -> None:
    """While the client closes, a refusal will not become another answer."""
    script = Script(stops=((403, None),) * 99)
    async with RawServer(always=script) as server:
        client = make(server)
        starting = asyncio.create_task(client.start_session(REQUEST))
        await until(lambda: "stop" in script.order)
        unresolved = await client.aclose(deadline=100)
        with pytest.raises(StartOutcomeUnknownError):
            await starting
        assert {one.session_id for one in unresolved} == {None, "s-0"}
        assert script.order.count("start") == 1


async def test_a_caller_waits_until_its_deadline_for_an_end() -> None:
    """Then its outcome is unknown, and the end is confirmed later."""
    script = Script(stops=((200, None),) * 5)
    async with RawServer(always=script) as server, make(server) as client:
        with pytest.raises(StartOutcomeUnknownError):
            await client.start_session(REQUEST, deadline=4)
        assert len(client.unresolved) == 1
        await until(lambda: not client.unresolved)
        assert server.live == set()


@pytest.mark.parametrize("stop", [(HANGS, None), (200, None)])
async def test_a_client_that_gives_up_while_something_is_being_ended(
    stop: tuple[int, object],
) -> None:
    """It reports both: that it was begun, and that its end is not confirmed."""
    script = Script(stops=(stop,) * 99)
    async with RawServer(always=script) as server:
        client = make(server)
        starting = asyncio.create_task(client.start_session(REQUEST))
        await until(lambda: script.order.count("stop") > (stop[0] != HANGS))
        unresolved = await client.aclose(deadline=3)
        with pytest.raises(StartOutcomeUnknownError):
            await starting
        assert {one.session_id for one in unresolved} == {None, "s-0"}


@pytest.mark.parametrize("status", [201, 400])
async def test_a_late_answer_while_its_session_is_being_ended(status: int) -> None:
    """It says nothing new, and the caller gets another one."""
    script = Script(stops=((200, None),) * 3, is_late=True, status=status)
    timeouts = Timeouts(start_attempt=2)
    async with RawServer(always=script) as server, make(server, timeouts=timeouts) as client:
        started = await client.start_session(REQUEST)
        assert started.session.id == "s-1"
        assert script.order.index("late") < script.order.index("start", 1)
        assert server.live == {"s-1"}


async def test_lists_that_are_too_large_are_read_in_smaller_parts() -> None:
    """Their items may hold whole transcripts."""
    script = Script(large=2)
    async with RawServer(always=script) as server, make(server) as client:
        await client.start_session(REQUEST)
    looks = [one for one in script.order if one.startswith("look")]
    assert [one.split("&")[0] for one in looks[:3]] == [
        "look take=50",
        "look take=25",
        "look take=12",
    ]
    assert all("client=tenant-42" in one for one in looks)


async def test_a_mistake_in_looking_is_told_to_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting callers get ``StartOutcomeUnknownError``."""
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: problems.append(told))

    def read(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "read", read)
    events: list[Event] = []
    async with RawServer(always=Script()) as server:
        async with make(server, on_event=events.append) as client:
            with pytest.raises(StartOutcomeUnknownError):
                await client.start_session(REQUEST)
            assert [type(one["exception"]) for one in problems] == [ZeroDivisionError]
            assert [one.kind for one in events] == ["start_unknown", "ended"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"sessions": null}', b'{"sessions": 5}', b"[]"])
async def test_what_is_no_list_is_unreadable(body: bytes) -> None:
    """Then the look is repeated."""
    assert isinstance(SESSION.look.decode(body), Unreadable)


async def test_only_ids_markers_and_dates_are_read() -> None:
    """They are read from each item, whatever else it contains."""
    items = [
        {"id": "c1", "promptTemplateVars": {VARIABLE: "m1"}, "createdAt": "2026-01-01T00:00:00Z"},
        {"id": 4, "promptTemplateVars": {VARIABLE: "m4"}},
        {"id": None, "promptTemplateVars": {VARIABLE: "m5"}},
        {"id": "..", "promptTemplateVars": {VARIABLE: "m2"}, "createdAt": 7},
        {"id": "c3", "promptTemplateVars": {VARIABLE: 5}, "createdAt": None},
        {"promptTemplateVars": "no"},
        None,
    ]
    body = dump({"conversations": items, "total": "many"})
    decoded = CONVERSATION.look.decode(body)
    assert not isinstance(decoded, Unreadable)
    assert decoded.value == Looked(
        items=(("c1", "m1"), ("4", "m4")), count=7, total=None, created=(1_767_225_600.0,)
    )
