"""The example with conversations, as a process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from equos_async import CreateEquosConversationRequest, EquosClient
from equos_async.testing import EquosEmulator, Status
from tests.fleet.programs import EXAMPLES, KEY, program

PROGRAM = str(EXAMPLES / "conversations.py")


def test_it_runs_without_a_server() -> None:
    """As it is, it says that it brings a local server, and prints what was said there."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", PROGRAM],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *middle, last = done.stdout.splitlines()
    assert first.startswith("EQUOS_ENDPOINT is not set: using a local server, http://127.0.0.1:")
    assert sorted(middle) == [
        "Ada: join wss://rtc.example.test",
        "Ada: user said 'Hello!'",
        "Grace: join wss://rtc.example.test",
        "Grace: user said 'Hello!'",
    ]
    assert last == "left on the server: 0"


async def test_it_ends_what_an_earlier_run_left(emulator: EquosEmulator) -> None:
    """It ends only those with its label; the refusal of one person affects no other."""
    async with EquosClient(api_key=KEY, endpoint=emulator.endpoint) as client:
        for label in ("front-desk", "another"):
            left = CreateEquosConversationRequest(name="left", character_id="ch_1", client=label)
            await client.start_conversation(left)
        emulator.faults.start.add(Status(403, message="not today"))
        async with program(
            emulator.endpoint, PROGRAM, "Ada", "Grace", EQUOS_API_KEY=KEY, TALK_SECONDS="0"
        ) as running:
            await running.expect("ended 'left', which an earlier run left")
            assert await running.end() == 0
        assert running.printed.count("sorry, 403: not today") == 1
        assert running.printed.count("join wss://") == 1
        assert KEY not in running.printed
    assert [one.client for one in emulator.live.values()] == ["another"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
async def test_a_signal_stops_every_conversation(
    number: signal.Signals, emulator: EquosEmulator
) -> None:
    """It ends without a traceback, and nothing runs on."""
    async with program(emulator.endpoint, PROGRAM, EQUOS_API_KEY=KEY, TALK_SECONDS="60") as running:
        for _ in range(2):
            await running.expect("join wss://")
        assert len(emulator.live) == 2
        assert await running.end(number) == 0
    assert "Traceback" not in running.printed
    assert not emulator.live
