"""Look-ups: lists and their pages, one by its id, keys, and what can be wrong with them."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any, cast

import aiohttp
import pytest

from equos_async.testing import (
    Delay,
    Drop,
    EmulatorClock,
    EquosEmulator,
    ForgetVariables,
    Lag,
    RefuseVariables,
    Status,
    Twice,
)
from tests.emulator.support import API_KEY, CONVERSATIONS, KEY, STARTS, Caller

SESSIONS = "/v3/sessions"


class TestLists:
    async def test_a_page(self, caller: Caller) -> None:
        """It has the requested range, the number of all items, and the items of the page."""
        for number in range(3):
            await caller.converse(name=f"{number}")
        answer = await caller.send("GET", f"{CONVERSATIONS}?take=2&skip=1")
        assert {k: v for k, v in answer.json.items() if k != "conversations"} == {
            "skip": 1,
            "take": 2,
            "total": 3,
        }
        assert [one["name"] for one in answer.json["conversations"]] == ["1", "0"]

    async def test_twenty_by_default(self, caller: Caller) -> None:
        """Without take a page has 20, and one beyond the end none."""
        for _ in range(21):
            await caller.start()
        assert len(await caller.names(SESSIONS)) == 20
        assert len(await caller.names(SESSIONS, take="50")) == 21
        assert await caller.names(SESSIONS, skip="21") == []
        # The vendor's Python SDK says so.
        assert len(await caller.names(SESSIONS, take="20.0", skip="1.0")) == 20

    async def test_each_kind_has_a_list(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Live and ended ones are on it, there is no filter for that; sessions of passes, too."""
        session_id = await caller.started_id(name="pass")
        await caller.converse(name="talk")
        emulator.advance(2)
        emulator.end_session(session_id)
        assert await caller.names() == ["talk"]
        (told,) = (await caller.send("GET", SESSIONS)).json["sessions"]
        assert (told["id"], told["status"]) == (session_id, "ended")

    async def test_the_filter_is_exact(self, caller: Caller) -> None:
        """Only those of that client, and total counts them only."""
        for client in ("a", "ab", None):
            await caller.converse(name=str(client), client=client)
        assert await caller.names(client="a") == ["a"]
        assert await caller.names(client="") == []
        answer = await caller.send("GET", CONVERSATIONS, params={"client": "ab"})
        assert answer.json["total"] == 1

    async def test_the_order_can_be_chosen(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Newest or oldest first, or shuffled for each page."""
        names = [f"{number:02}" for number in range(20)]
        for name in names:
            await caller.converse(name=name)
        emulator.end_session(list(emulator.live)[7])
        assert await caller.names() == names[::-1]
        emulator.page_order = "oldest"
        assert await caller.names() == names
        emulator.page_order = "shuffled"
        first, second = await caller.names(), await caller.names()
        assert sorted(first) == sorted(second) == names
        assert first != second

    def test_the_order_is_an_argument_too(self) -> None:
        """There are three, and no others."""
        assert EquosEmulator(page_order="oldest").page_order == "oldest"
        with pytest.raises(ValueError, match="not 'random'"):
            EquosEmulator(page_order=cast("Any", "random"))

    @pytest.mark.parametrize(
        ("query", "messages"),
        [
            ("take=51", ["take must not be greater than 50"]),
            ("take=0&skip=-1", ["take must not be less than 1", "skip must not be less than 0"]),
            (
                "take=x&skip=1.5",
                ["take must be an integer number", "skip must be an integer number"],
            ),
            ("take=1&take=2", ["take must be an integer number"]),
            ("take=", ["take must be an integer number"]),
            ("take=%FF&skip=%D9%A3", [f"{n} must be an integer number" for n in ("take", "skip")]),
            (f"skip={2**53}", [f"skip must not be greater than {2**53 - 1}"]),
            ("client=a&client=b", ["client must be a string"]),
        ],
    )
    async def test_bad_queries(self, caller: Caller, query: str, messages: list[str]) -> None:
        """They are refused as bad bodies are."""
        answer = await caller.send("GET", f"{SESSIONS}?{query}")
        assert answer.json == {"message": messages, "statusCode": 400, "error": "Bad Request"}

    async def test_a_large_start_is_cut_once_it_is_history(
        self, caller: Caller, emulator: EquosEmulator
    ) -> None:
        """The kept texts are bounded, and can still be looked up."""
        variables: dict[str, Any] = {f"v{n}": "x" * 999 for n in range(99)} | {"v1": [], "v2": {}}
        conversation_id = await caller.conversation_id(promptTemplateVars=variables)
        path = f"{CONVERSATIONS}/{conversation_id}"
        assert len((await caller.send("GET", path)).json["promptTemplateVars"]["v0"]) == 999
        emulator.end_session(conversation_id)
        kept = (await caller.send("GET", path)).json["promptTemplateVars"]
        assert len(kept) == 20
        assert (len(kept["v0"]), kept["v1"], kept["v2"]) == (256, None, None)


class TestById:
    @pytest.mark.parametrize("path", [CONVERSATIONS, SESSIONS])
    async def test_what_is_not_known_is_null(self, caller: Caller, path: str) -> None:
        """Null is an empty body without a Content-Type; the other kind is not known."""
        strangers = {
            SESSIONS: await caller.conversation_id(),
            CONVERSATIONS: await caller.started_id(),
        }
        for unknown in ("nothing", strangers[path]):
            answer = await caller.send("GET", f"{path}/{unknown}")
            assert (answer.status, answer.body) == (200, b"")
            assert "Content-Type" not in answer.headers

    async def test_live_and_ended(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A session reaches its states as in the books, and holds no token."""
        session_id = await caller.started_id()
        seen: list[str] = []
        for _ in range(2):
            answer = await caller.send("GET", f"{SESSIONS}/{session_id}")
            seen.append(answer.json["status"])
            assert b"eyJ" not in answer.body
            emulator.advance(2)
        emulator.end_session(session_id)
        seen.append((await caller.send("GET", f"{SESSIONS}/{session_id}")).json["status"])
        assert seen == ["starting", "running", "ended"]
        assert emulator.requests[-1].session_id == session_id

    async def test_dates_are_of_the_same_clock(self, caller: Caller) -> None:
        """The Date of an answer and the times in it can be compared."""
        answer = await caller.converse()
        dated = parsedate_to_datetime(answer.headers["Date"])
        assert answer.json["conversation"]["createdAt"].startswith(dated.strftime("%Y-%m-%dT%H:%M"))
        async with EquosEmulator(clock=EmulatorClock(ticking=False)) as emulator:
            emulator.advance(3600)
            refused = await Caller(emulator, caller.http).send("GET", "/nothing")
            assert refused.headers["Date"] == "Thu, 01 Jan 2026 01:00:00 GMT"


class TestKeys:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", SESSIONS),
            ("GET", f"{SESSIONS}/x"),
            ("PATCH", f"{SESSIONS}/x/stop"),
            ("POST", CONVERSATIONS),
            ("POST", f"{CONVERSATIONS}/x/stop"),
            ("GET", CONVERSATIONS),
            ("GET", f"{CONVERSATIONS}/x"),
        ],
    )
    async def test_the_server_key(
        self, caller: Caller, emulator: EquosEmulator, method: str, path: str
    ) -> None:
        """All but session passes wants it, in its own header; a client key is not one."""
        emulator.client_key, emulator.api_key = KEY, API_KEY
        body: dict[str, Any] = {} if method == "GET" else {"json": {}}
        assert (await caller.send(method, path, **body)).status != 401
        for wrong in ("", " ", KEY, f"Bearer {API_KEY}"):
            answer = await caller.send(method, path, headers={"x-api-key": wrong}, **body)
            assert answer.json == {"message": "Unauthorized", "statusCode": 401}

    async def test_the_client_key(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A server key alone opens no session pass."""
        emulator.client_key, emulator.api_key = KEY, API_KEY
        for wrong in ("", f"Bearer {API_KEY}"):
            answer = await caller.send("POST", STARTS, headers={"Authorization": wrong}, json={})
            assert answer.status == 401

    async def test_rotation(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Any is accepted until there is one; it is replaced or revoked at once."""
        assert emulator.api_key is None
        assert (await caller.send("GET", SESSIONS)).status == 200
        emulator.api_key = "sk_next"
        assert (await caller.send("GET", SESSIONS)).status == 401
        emulator.api_key = API_KEY
        assert (await caller.send("GET", SESSIONS)).status == 200
        emulator.revoke_key(API_KEY)
        assert (await caller.send("GET", SESSIONS)).status == 401

    async def test_health_needs_none(self, caller: Caller, emulator: EquosEmulator) -> None:
        """It says that it is there."""
        emulator.client_key = emulator.api_key = "another"
        answer = await caller.send("GET", "/v3/health")
        assert (answer.status, set(answer.json)) == (200, {"status", "version"})
        assert emulator.requests[-1].operation == "read"


class TestFaults:
    async def test_slow_and_limited(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Look-ups have faults of their own, which starts and stops do not meet."""
        emulator.faults.read.add(Status(429, retry_after=1))
        emulator.faults.read.add(Delay(2), Status(503))
        assert (await caller.start()).status == 201
        assert (await caller.send("GET", SESSIONS)).headers["Retry-After"] == "1"
        emulator.faults.read.clear()
        assert (await caller.send("GET", SESSIONS)).status == 200

    async def test_a_list_lags(self, caller: Caller, emulator: EquosEmulator) -> None:
        """A started session is live, but look-ups show it only later."""
        emulator.faults.start.add(Lag(5), Drop("after"))
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await caller.converse()
        (conversation_id,) = emulator.live
        for expected in ([], ["support call"]):
            assert await caller.names() == expected
            answer = await caller.send("GET", f"{CONVERSATIONS}/{conversation_id}")
            assert bool(answer.body) == bool(expected)
            emulator.advance(5)

    async def test_a_doubled_start(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Two are live, and one answer came."""
        emulator.faults.start.add(Twice())
        conversation_id = await caller.conversation_id()
        assert len(emulator.live) == 2
        assert conversation_id in emulator.live

    async def test_variables_are_refused(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Those of a prefix are named in a 400; a start without them works."""
        emulator.faults.start.add(RefuseVariables("_"), times=None)
        refused = await caller.converse(promptTemplateVars={"_mark": "1", "city": "Paris"})
        assert refused.status == 400
        assert refused.json["message"] == ["promptTemplateVars.property _mark should not exist"]
        assert emulator.live == {}
        assert (await caller.converse()).status == 201
        assert (await caller.start(templateVars=None)).status == 201

    async def test_variables_are_forgotten(self, caller: Caller, emulator: EquosEmulator) -> None:
        """Those of a prefix, or all, are in no answer."""
        emulator.faults.start.add(ForgetVariables("_"))
        emulator.faults.start.add(ForgetVariables(), times=2)
        seen = [
            (await caller.start(templateVars=variables)).json["session"].get("templateVars")
            for variables in ({"_mark": "1", "city": "Paris"}, {"city": "Paris"}, None)
        ]
        assert seen == [{"city": "Paris"}, {}, None]
