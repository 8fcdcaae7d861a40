"""Every fault is met on both ways through aiohttp: the express way, and its session's."""

from __future__ import annotations

import aiohttp
import pytest

from equos_async._http import direct


@pytest.fixture(params=["express", "session"], autouse=True)
def through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of them the test takes; where all pass with a new release, that may be trusted."""
    through: str = request.param
    tested = {aiohttp.__version__} if through == "express" else set[str]()
    monkeypatch.setattr(direct, "TESTED", tested)
    return through
