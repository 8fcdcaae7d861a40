"""What looking costs the server."""

from __future__ import annotations

import pytest

from tests.bench.outage import Kind
from tests.settling import load
from tests.settling.test_sweep import begun


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_looks_are_few_in_an_outage(kind: Kind) -> None:
    """Their share does not depend on how many processes there are."""
    assert load.run(kind, callers=2_000, seed=1).share <= load.MOST


def test_it_prints_and_judges(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row a kind; too much is an exit code."""
    monkeypatch.setattr(load, "MOST", 1.0)
    assert load.main(["--callers", "500", "--seeds", "2"]) == 0
    assert "| 503 at once |" in capsys.readouterr().out
    monkeypatch.setattr(load, "MOST", 0.0)
    assert load.main(["--callers", "500", "--seeds", "2"]) == 1


def test_attempts_count_as_pages() -> None:
    """A look that was refused three times rests for three seconds, as one of three pages does."""
    one = begun("dropped", "session")
    one.face.limited_until = 20.0
    one.wait(seconds=60.0)
    first, second, third, fourth = one.face.looked_at[:4]
    assert second - first < 2.5
    assert third - second < 2.5
    assert fourth - third >= 3.0
    one.teardown()
