"""The outage model: the library's own policies keep their bounds, and others break them."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from tests.bench import simulate
from tests.bench.outage import JITTER, NAIVE, OPENAI, POLICIES, START, STOP, Kind, Policy, run


@pytest.mark.parametrize("seed", [1, 2])
def test_our_policies_keep_their_bounds(seed: int) -> None:
    """Amplification, every stop done in time, new calls quick, no storm after a pause."""
    runs = simulate.simulate(1000, seed, [START, STOP])
    assert simulate.broken_bounds(runs) == []


@pytest.mark.parametrize("policy", [NAIVE, OPENAI, JITTER])
def test_other_policies_would_break_them(policy: Policy) -> None:
    """The bounds are no matter of course."""
    runs = [
        evolve(run(policy, kind, callers=1000, seed=1), policy=START)
        for kind in (Kind.REFUSE, Kind.HANG, Kind.ANNOUNCED)
    ]
    assert len(simulate.broken_bounds(runs)) >= 3


def test_it_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for each kind of outage, and one picture with a line for each policy."""
    assert simulate.main(["--callers", "500", "--out", str(tmp_path)]) in {0, 1}
    out = capsys.readouterr().out
    assert out.count("| equos_async start |") == len(Kind)
    drawn = (tmp_path / "outage.svg").read_text(encoding="utf-8")
    assert drawn.count("<polyline") == len(POLICIES)


def test_a_broken_bound_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CI sees it."""
    monkeypatch.setattr(simulate, "MAX_STOP_AMPLIFICATION", 1.0)
    assert simulate.main(["--callers", "500"]) == 1
    assert "BOUND EXCEEDED: equos_async stop, 503 at once: amplification" in capsys.readouterr().out
