"""Starts that are being settled, each way by itself where the state machine draws; virtual time."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from tests.settling.face import FATES
from tests.settling.server import KINDS, Kind
from tests.settling.test_machine import AT_LAST, Settling

PLAIN = evolve(KINDS[0], limited=0.0, cut=0.0)
LOST = ("dropped", "late", "late refusal", "no id", "twice, dropped", "made later")


def begun(fate: str, word: str, *, kind: Kind = PLAIN, patience: float = 60.0) -> Settling:
    """A start whose first answer is lost, and whose second one is not, a pass after it was made."""
    one = Settling()
    one.begin(kind=kind, word=word, patience=patience, seed=7)
    one.start(client="a", fates=[fate], in_block=False, deadline=None, steps=0)
    return one


def passes_of(fate: str, word: str) -> range:
    """All passes of the loop during such a start."""
    one = begun(fate, word)
    first = one.loop.passes
    one.do(asyncio.wait([one.callers[0].task]))
    found = range(first + 1, one.loop.passes + 2)
    one.teardown()
    assert len(found) > 12
    return found


TWICE = ("dropped", "late", "twice, dropped")


@pytest.mark.parametrize(
    ("fate", "times"), [*((fate, 1) for fate in LOST), *((fate, 2) for fate in TWICE)]
)
def test_a_caller_leaves_at_each_pass(fate: str, times: int) -> None:
    """Once, or a second time in the pass after: nothing is left, nothing is unreported."""
    word = "session" if times == 1 else "conversation"
    for number in passes_of(fate, word):
        one = begun(fate, word)
        (caller,) = one.callers
        for more in range(times):
            one.loop.at_pass(number + more, caller.task.cancel)
        one.wait(seconds=AT_LAST)
        held = [] if caller.held is None else [caller.held]
        alive = [each.id for each in one.face.server.sessions.values() if not each.ended]
        assert alive == held
        assert one.client.unresolved == ()
        one.teardown()


@pytest.mark.parametrize("patience", [0.0, 60.0])
@pytest.mark.parametrize("fate", sorted(set(FATES)))
def test_each_fate_on_each_server(fate: str, patience: float) -> None:
    """Sessions that could be found or were named are stopped, and the others are reported."""
    for kind in KINDS:
        one = begun(fate, "session", kind=kind, patience=patience)
        one.start(client="b", fates=[fate, fate], in_block=True, deadline=None, steps=0)
        one.teardown()


@pytest.mark.parametrize("fate", ["dropped", "late", "no id"])
def test_the_client_closes_at_each_pass(fate: str) -> None:
    """It looks at once, and waits: nothing is left, and the caller's error says so."""
    for number in passes_of(fate, "session"):
        one = begun(fate, "session")
        one.loop.at_pass(number, one.close_soon)
        one.wait(seconds=AT_LAST)
        held = [caller.held for caller in one.callers if caller.held is not None]
        alive = [each.id for each in one.face.server.sessions.values() if not each.ended]
        assert alive == held
        assert one.client.unresolved == ()
        one.teardown()
