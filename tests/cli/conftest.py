"""The environment of the tests of the command line."""

from __future__ import annotations

import pytest

from tests.conftest import KEY


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key comes from the environment only."""
    monkeypatch.setenv("EQUOS_CLIENT_KEY", KEY)
