"""The servers of the page on testing, on which a lost start is hard to find, each with a client."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Final

import pytest
from attrs import evolve

from equos_async import StartOutcomeUnknownError, Timeouts
from equos_async.testing.faults import Delay, Fault, Lag
from equos_async.testing.server import add_arguments
from tests.settling.clock import SPEED
from tests.settling.world import SETTLED, World, world

PAGE: Final = Path(__file__).parent.parent.parent / ".docs" / "testing.md"
ROWS: Final = dict(
    re.findall(r"^\| ([^|]+) \| `[^`]+` \| `(--[^`]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
)
"""What a server does, and the options of the command that plays it."""

LOST: Final = ROWS["loses the answer to a start"]
REFUSES: Final = "refuses the marker"
NEVER_FOUND: Final = (
    "loses the answer, and does not show the marker",
    "does not let the key list",
)
"""Servers on which the outcome stays unknown."""


def _scaled(fault: Fault) -> Fault:
    """The emulator's clock is the real one; the client's is ``SPEED`` times as fast."""
    if isinstance(fault, Delay | Lag):
        return evolve(fault, seconds=fault.seconds / SPEED)
    return fault


def _play(here: World, row: str) -> None:
    """Let the emulator be the server of a row, with a lost answer."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ROWS[row] if "start:" in ROWS[row] else f"{ROWS[row]} {LOST}"
    args = parser.parse_args(shlex.split(options))
    here.emulator.page_order = args.page_order
    for typed in args.fault:
        typed._replace(faults=tuple(map(_scaled, typed.faults))).add_to(here.emulator.faults)


@pytest.mark.parametrize("row", [one for one in ROWS if one not in {*NEVER_FOUND, REFUSES}])
async def test_the_caller_gets_the_one_session(row: str) -> None:
    """A lost one is ended before the start is sent again; a late answer is returned."""
    async with world(SETTLED["session"], timeouts=Timeouts()) as here:
        _play(here, row)
        session_id = await here.start()
        assert list(here.emulator.live) == [session_id]
        assert here.told("start_unknown") == []
        assert len(here.told("settled")) == here.starts - 1
        # Each fault that hits a number of requests has hit them.
        assert [one for one in here.emulator.faults.planned if one.left is not None] == []


async def test_starts_go_on_without_a_marker() -> None:
    """Where the server refuses it: one request more, and one event."""
    async with world(SETTLED["session"]) as here:
        _play(here, REFUSES)
        for _ in range(2):
            await here.start()
        assert (here.starts, len(here.emulator.live)) == (3, 2)
        assert here.told("settling_off") == ["settling_off"]


@pytest.mark.parametrize("row", NEVER_FOUND)
async def test_the_outcome_stays_unknown(row: str) -> None:
    """The caller learns it, and the client keeps an entry."""
    async with world(SETTLED["session"]) as here:
        _play(here, row)
        with pytest.raises(StartOutcomeUnknownError):
            await here.start()
        assert len(here.client.unresolved) == len(here.emulator.live) == 1
