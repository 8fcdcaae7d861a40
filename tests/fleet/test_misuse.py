"""A fleet that is copied, called from another event loop, or given odd keys and signals."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from equos_async import ConfigurationError, EquosClient, KeyInUseError, LiveSession, SessionFleet
from equos_async.testing import EquosEmulator
from tests.clocks import settle
from tests.conftest import KEY
from tests.fleet.support import REQUEST, Events, ScriptedClient

CALLS: dict[str, Callable[[SessionFleet[Any], LiveSession[Any]], Awaitable[object]]] = {
    "start": lambda fleet, live: fleet.start(REQUEST, key="other"),
    "stop": lambda fleet, live: fleet.stop("a"),
    "drain": lambda fleet, live: fleet.drain(),
    "mark_ended": lambda fleet, live: fleet.mark_ended(live.session_id),
    "wind_down": lambda fleet, live: fleet.wind_down(),
    "aclose": lambda fleet, live: fleet.aclose(),
    "stop of a session": lambda fleet, live: live.stop(),
    "renew": lambda fleet, live: live.renew(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
async def test_another_loop(
    call: Callable[[SessionFleet[Any], LiveSession[Any]], Awaitable[object]],
    emulator: EquosEmulator,
) -> None:
    """It is refused before anything changes, and told what to do."""
    async with EquosClient(KEY, endpoint=emulator.endpoint) as client:
        async with SessionFleet(client) as fleet:
            live = await fleet.start(REQUEST, key="a")

            async def elsewhere() -> None:
                await call(fleet, live)

            with pytest.raises(ConfigurationError, match="run_coroutine_threadsafe"):
                await asyncio.to_thread(asyncio.run, elsewhere())
            assert (live.state, fleet.accepting) == ("live", True)
        assert len(fleet.report.stopped) == 1


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_copies(how: Callable[[object], object], scripted: ScriptedClient) -> None:
    """A copy would stop, and report, what the other one holds."""
    async with SessionFleet(scripted) as fleet:
        live = await fleet.start(REQUEST, key="a")
        with pytest.raises(TypeError, match="a SessionFleet cannot be pickled or copied"):
            how(fleet)
        with pytest.raises(TypeError, match="a LiveSession cannot be pickled or copied"):
            how(live)


class Nameless:
    """A key without a name."""

    def __repr__(self) -> str:
        raise ValueError("it has none")


async def test_a_key_that_cannot_be_shown(
    scripted: ScriptedClient, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """Its class stands in its place: in errors, reports, events, and logs."""
    key = Nameless()
    caplog.set_level("DEBUG", "equos_async")
    async with SessionFleet(scripted, on_event=events) as fleet:
        live = await fleet.start(REQUEST, key=key)
        assert repr(live).startswith("<LiveSession <Nameless> s1 live")
        assert repr(fleet.live) == "<1 live, <Nameless>>"
        with pytest.raises(KeyInUseError, match="key <Nameless> already has a session"):
            await fleet.start(REQUEST, key=key)
    assert str(fleet.report.stopped[0]) == "<Nameless> (session s1) stopped"
    assert "session s1 of <Nameless> has ended" in caplog.text
    assert [kind for kind, _ in events.kinds] == ["started", "stopped"]


# Signals.


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("SIGTERM", "such as signal.SIGTERM, not 'SIGTERM'"),
        (999, "such as signal.SIGTERM, not 999"),
        (signal.SIGKILL, "cannot handle SIGKILL"),
    ],
)
async def test_what_is_no_signal(given: object, told: str, scripted: ScriptedClient) -> None:
    """Nothing is handled then."""
    before = signal.getsignal(signal.SIGTERM)
    async with SessionFleet(scripted) as fleet:
        with pytest.raises(ConfigurationError, match=told):
            fleet.stop_on_signals(signal.SIGTERM, cast("signal.Signals", given))
        assert signal.getsignal(signal.SIGTERM) is before


async def test_the_task_is_over(scripted: ScriptedClient, caplog: pytest.LogCaptureFixture) -> None:
    """A set-up function in a task of its own: the signal closes the fleet."""
    fleet: SessionFleet[str] = SessionFleet(scripted)

    async def set_up() -> None:
        await fleet.open()
        fleet.stop_on_signals(signal.SIGTERM)

    await asyncio.create_task(set_up())
    live = await fleet.start(REQUEST, key="a")
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await live.ended()).outcome == "stopped"
    assert "closes the fleet: the task that called stop_on_signals is over" in caplog.text
    await fleet.aclose()
    assert not scripted.live


async def test_the_block_goes_on(
    scripted: ScriptedClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Something in it has caught the cancellation: the second signal closes the fleet."""
    before = signal.getsignal(signal.SIGTERM)
    async with SessionFleet(scripted) as fleet:
        fleet.stop_on_signals(signal.SIGTERM)
        live = await fleet.start(REQUEST, key="a")
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        assert live.state == "live"
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await live.ended()).outcome == "stopped"
        await settle()
        assert signal.getsignal(signal.SIGTERM) is before
    assert "has caught the cancellation, and goes on" in caplog.text
    assert len(fleet.report.stopped) == 1
