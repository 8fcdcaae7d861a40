"""Settling against servers that make it hard, in virtual time."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests.settling import simulate
from tests.settling.model import Rules, run
from tests.settling.server import KINDS, Kind

NAIVE = Rules(confirmed=False, one_state=False)
HARD = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_nothing_that_is_held_is_ended_and_nothing_is_left(kind: Kind) -> None:
    """The property of settling, for each kind of server."""
    runs = [run(kind, seed, Rules()) for seed in range(15)]
    assert sum(one.held_ended for one in runs) == 0
    assert sum(one.strays for one in runs) == 0
    assert sum(one.lost for one in runs) > 15


@pytest.mark.parametrize("name", ["null while creating", "doubled POSTs"])
def test_without_confirmed_ends_strays_are_left(name: str) -> None:
    """An answer to a stop is no proof, and one find need not be the only one."""
    runs = [run(HARD[name], seed, Rules(confirmed=False)) for seed in range(10)]
    assert sum(one.strays > 0 for one in runs) >= 5


@pytest.mark.parametrize("name", ["late answers", "plain, newest first"])
def test_without_one_state_sessions_are_ended_that_callers_hold(name: str) -> None:
    """A late answer and a look act at the same time without a common state."""
    runs = [run(HARD[name], seed, Rules(one_state=False)) for seed in range(10)]
    assert sum(one.held_ended > 0 for one in runs) >= 5


def test_a_lost_start_becomes_a_session() -> None:
    """On a plain server nearly all callers get one, though every second answer is lost."""
    kind = evolve(KINDS[0], reset=0.5, late=0.0)
    runs = [run(kind, seed, Rules()) for seed in range(15)]
    sessions = sum(one.sessions for one in runs)
    assert sum(one.again for one in runs) > sessions / 3
    assert sum(one.unknown for one in runs) < sessions / 10


@pytest.mark.parametrize("name", ["the variable refused", "the variable not shown"])
def test_where_markers_are_of_no_use_callers_are_told_at_once(name: str) -> None:
    """They do not wait for a search that cannot succeed."""
    runs = [run(HARD[name], seed, Rules()) for seed in range(15)]
    assert sum(one.again for one in runs) == 0
    assert sum(one.unknown for one in runs) > 15


def test_it_prints_and_judges(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row a kind and choice of rules; a broken rule is an exit code."""
    assert simulate.main(["--seeds", "2"]) == 0
    assert capsys.readouterr().out.count("| all rules | 2 | 0 | 0 |") == len(KINDS)
    monkeypatch.setitem(simulate.VARIANTS, "all rules", NAIVE)
    assert simulate.main(["--seeds", "2"]) == 1
    assert "BROKEN: null while creating" in capsys.readouterr().out
