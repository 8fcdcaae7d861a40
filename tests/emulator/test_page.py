"""The page over plain HTTP: its data, its actions, and who may use them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from equos_async.testing import SCENARIOS, Drop, EquosEmulator, Hang, Status
from tests.emulator.support import STARTS, Answer, Caller


async def act(caller: Caller, action: str, argument: Any, **headers: str) -> Answer:
    """Press a button, as the page's own script does."""
    return await caller.send(
        "POST",
        f"/emulator/{action}",
        data=json.dumps(argument),
        headers={
            "Content-Type": "application/json",
            "Origin": caller.emulator.endpoint,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
    )


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/emulator/page.css", "text/css"),
        ("/emulator/page.js", "text/javascript"),
    ],
)
async def test_its_files(caller: Caller, emulator: EquosEmulator, path: str, kind: str) -> None:
    """Each file has its type, and a policy that allows no foreign content."""
    answer = await caller.send("GET", path)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith(kind)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert emulator.requests == ()


async def test_its_data(caller: Caller, emulator: EquosEmulator) -> None:
    """The page gets the values of the emulator's properties."""
    session_id = await caller.started_id()
    await caller.stop(await caller.started_id())
    emulator.advance(5)
    emulator.faults.add(Drop(), times=2)
    state = (await caller.send("GET", "/emulator/state")).json
    assert [one["id"] for one in state["live"]] == [session_id]
    assert state["live"][0]["status"] == "running"
    counts = [state[f"{name}_count"] for name in ("live", "ended", "request")]
    assert counts == [1, 1, 3]
    assert state["billed_seconds"] == emulator.billed_seconds == 5
    assert [one["status"] for one in state["requests"]] == [200, 201, 201]
    assert state["faults"] == ["all:drop=before,times=2"]
    assert [one["name"] for one in state["scenarios"]] == list(SCENARIOS)


async def test_its_data_is_bounded(caller: Caller) -> None:
    """However much a caller sends, the page gets short texts of the newest sessions only."""
    for _ in range(60):
        await caller.start(name="x" * 10_000, client=None)
    answer = await caller.send("GET", "/emulator/state")
    assert answer.json["live_count"] == 60
    assert len(answer.json["live"]) == 50
    assert len(answer.body) < 100_000


class TestActions:
    async def test_stop(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A session can be ended, and the answer is the new state."""
        answer = await act(caller, "stop", await caller.started_id())
        assert (answer.status, answer.json["live"]) == (200, [])
        assert emulator.live_sessions == {}

    async def test_conversations(self, caller: Caller, emulator: EquosEmulator) -> None:
        """They are shown beside sessions, can be joined and ended."""
        conversation_id = await caller.conversation_id()
        (shown,) = (await act(caller, "join", conversation_id)).json["live"]
        assert shown["resource"] == "conversation"
        assert shown["joined_at"] == emulator.clock.now()
        assert (await act(caller, "stop", conversation_id)).json["live"] == []

    async def test_fault_and_clear(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Faults have the form of the command line, and can be removed."""
        answer = await act(caller, "fault", "stop:503,times=3")
        assert answer.json["faults"] == ["stop:503,times=3"]
        assert emulator.faults.planned[0].faults == (Status(503),)
        assert (await act(caller, "clear", "")).json["faults"] == []

    async def test_play_and_advance(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A bad day can be had, and time moved on."""
        before = emulator.clock.now()
        await act(caller, "play", "deploy")
        assert emulator.faults.planned == SCENARIOS["deploy"].steps
        await act(caller, "advance", "60")
        assert emulator.clock.now() == before + 60

    @pytest.mark.parametrize(
        ("action", "argument"),
        [
            ("fault", "nonsense"),
            ("fault", "start:429,times=0"),
            ("play", "nonsense"),
            ("advance", "-1"),
            ("advance", "nan"),
            ("advance", 60),
        ],
    )
    async def test_nonsense(self, caller: Caller, action: str, argument: Any) -> None:
        """An invalid action gets 400, with the reason."""
        answer = await act(caller, action, argument)
        assert answer.status == 400
        assert answer.json["error"]

    async def test_unknown(self, caller: Caller) -> None:
        """There are no other actions."""
        assert (await act(caller, "format-disk", "")).status == 404


class TestWhoMayAct:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://evil.example.test"},
            {"Origin": "null"},
            {"Origin": ""},
            {"Content_Type": "text/plain"},
            {"Content_Type": "application/x-www-form-urlencoded"},
        ],
    )
    async def test_other_sites_may_not(
        self, caller: Caller, emulator: EquosEmulator, headers: dict[str, str]
    ) -> None:
        """A page elsewhere cannot press a button (cross-site request forgery)."""
        session_id = await caller.started_id()
        assert (await act(caller, "stop", session_id, **headers)).status == 403
        assert session_id in emulator.live_sessions

    @pytest.mark.parametrize("host", ["evil.example.test", "evil.example.test:3001", "[", ""])
    async def test_other_names_may_not(
        self, caller: Caller, emulator: EquosEmulator, host: str
    ) -> None:
        """With a foreign host name there is no page, no data and no action."""
        for path in ("/", "/emulator/state"):
            assert (await caller.send("GET", path, headers={"Host": host})).status == 403
        session_id = await caller.started_id()
        answer = await act(caller, "stop", session_id, Host=host, Origin=f"http://{host}")
        assert answer.status == 403
        assert session_id in emulator.live_sessions

    @pytest.mark.parametrize("host", ["localhost:3001", "LOCALHOST", "[::1]:3001", "127.0.0.1"])
    async def test_addresses_and_localhost_may(self, caller: Caller, host: str) -> None:
        """The page can be opened by an address or as localhost."""
        assert (await caller.send("GET", "/", headers={"Host": host})).status == 200


async def test_the_api_is_reached_by_any_name(caller: Caller) -> None:
    """The API can be called by any host name, such as that of a container network."""
    answer = await caller.send("GET", STARTS, headers={"Host": "equos.internal"})
    assert answer.status == 404


async def test_the_document(caller: Caller) -> None:
    """The OpenAPI document is served where the vendor's framework serves it."""
    document = (await caller.send("GET", "/docs/v3-json")).json
    assert document["openapi"].startswith("3.1.")
    assert {"/v3/session-passes", "/v3/conversations", "/v3/sessions"} < set(document["paths"])


async def test_a_predicate_is_told_of(caller: Caller, emulator: EquosEmulator) -> None:
    """A fault with a predicate shows up without its code."""
    emulator.faults.start.add(Hang(), when=lambda request: request.name == "vip")
    state = (await caller.send("GET", "/emulator/state")).json
    assert state["faults"] == ["start:hang=after,times=1 where it fits"]
