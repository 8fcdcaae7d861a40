"""The example that joins a room, as a process with the real livekit package.

No LiveKit server runs here: a loopback endpoint sees the request to join, as far as that goes, and
refuses it or does not answer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from equos_async.testing import EquosEmulator
from tests.fleet.programs import EXAMPLES, KEY, free_port, program

PROGRAM = str(EXAMPLES / "livekit_join.py")
SECRET = "secret"


class Door:
    """Where a LiveKit server would be: remembers who knocks, and answers once it may."""

    def __init__(self) -> None:
        self.url = ""
        self.tokens: list[str] = []
        self.knocked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def knock(self, request: web.Request) -> web.Response:
        """Refuse a request to join."""
        self.tokens.append(request.headers["Authorization"].removeprefix("Bearer "))
        self.knocked.set()
        await self.may_answer.wait()
        return web.Response(status=401, text="the house is full")


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A door that is listened at."""
    door = Door()
    app = web.Application()
    app.router.add_get("/rtc{version:.*}", door.knock)
    async with TestServer(app) as server:
        door.url = str(server.make_url("")).replace("http", "ws").rstrip("/")
        yield door
        door.may_answer.set()


@pytest.fixture
async def emulator(door: Door) -> AsyncIterator[EquosEmulator]:
    """An emulator whose tokens are for the LiveKit server behind that door."""
    async with EquosEmulator(
        livekit_url=door.url, livekit_key="devkey", livekit_secret=SECRET
    ) as emulator:
        yield emulator


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token, whose signature a LiveKit server would accept."""
    head, claims, signature = token.split(".")
    signed = hmac.digest(SECRET.encode(), f"{head}.{claims}".encode(), hashlib.sha256)
    assert base64.urlsafe_b64decode(f"{signature}==") == signed
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(f"{claims}=="))
    return found


async def test_it_knocks_with_its_token(emulator: EquosEmulator, door: Door) -> None:
    """The request to join carries the token of the session's room; a refusal ends the session."""
    async with program(emulator.endpoint, "-W", "error", PROGRAM) as running:
        await door.knocked.wait()
        (session,) = emulator.live_sessions.values()
        door.may_answer.set()
        await running.expect("could not join: ")
        await running.expect("stopped")
        assert await running.end() == 0
    assert "401" in running.printed
    assert "the house is full" in running.printed
    claims = claims_of(door.tokens[0])
    assert (claims["iss"], claims["sub"], claims["name"]) == ("devkey", "user-7", "Ada")
    assert claims["video"]["room"] == session.id
    assert claims["video"]["roomJoin"]
    assert not emulator.live_sessions
    assert door.tokens[0] not in running.printed
    assert KEY not in running.printed


async def test_a_room_that_does_not_answer(emulator: EquosEmulator, door: Door) -> None:
    """The wait for it has an end, and the session is stopped."""
    async with program(emulator.endpoint, PROGRAM, JOIN_SECONDS="0.5") as running:
        await running.expect("could not join: no answer within 0.5 s")
        assert await running.end() == 0
    assert running.printed.endswith("stopped\n")
    assert door.tokens
    assert not emulator.live_sessions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
async def test_a_signal_stops_the_session(
    number: signal.Signals, emulator: EquosEmulator, door: Door
) -> None:
    """While it waits to be let in, too."""
    async with program(emulator.endpoint, PROGRAM) as running:
        await door.knocked.wait()
        assert len(emulator.live_sessions) == 1
        assert await running.end(number) == 0, running.printed
    assert "Traceback" not in running.printed
    assert not emulator.live_sessions


async def test_it_runs_without_a_server() -> None:
    """As it is, it says that it brings a local server; here no LiveKit server listens."""
    where = f"ws://127.0.0.1:{free_port()}"
    async with program("", "-c", _WITHOUT_ENDPOINT, LIVEKIT_URL=where) as running:
        await running.expect("EQUOS_ENDPOINT is not set: using a local server, http://127.0.0.1:")
        await running.expect(where)
        await running.expect("could not join: ")
        assert await running.end() == 0
    assert "stopped\n" in running.printed


_WITHOUT_ENDPOINT = f"""
import os, runpy
del os.environ["EQUOS_ENDPOINT"]
runpy.run_path({PROGRAM!r}, run_name="__main__")
"""
