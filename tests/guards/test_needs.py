"""A test that cannot run says what it needs, and CI has it."""

from __future__ import annotations

import shutil

import pytest

from tests.needs import need, summary


@pytest.fixture
def without_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without one, as it seems."""

    def which(program: str) -> str | None:
        return None if program == "redis-server" else f"/bin/{program}"

    monkeypatch.setattr(shutil, "which", which)


@pytest.mark.usefixtures("without_redis")
def test_a_newcomer_may_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test is skipped, with its reason."""
    monkeypatch.delenv("CI", raising=False)
    assert need("chromium", "curl") == ["/bin/chromium", "/bin/curl"]
    with pytest.raises(pytest.skip.Exception, match="^needs redis-server$"):
        need("curl", "redis-server")


@pytest.mark.usefixtures("without_redis")
def test_ci_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a test that would be skipped fails."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="^needs redis-server$"):
        need("redis-server")


def test_the_end_says_what_to_install() -> None:
    """Each reason is printed once, and one line has all packages."""
    reasons = ["needs redis-server", "needs chromium and chromedriver", "needs redis-server"]
    assert summary(reasons) == [
        "1 skipped: needs chromium and chromedriver",
        "2 skipped: needs redis-server",
        "to skip none: apt install chromium chromium-driver redis-server",
    ]
    assert summary([]) == []
    assert summary(["not on this system"]) == ["1 skipped: not on this system"]
