"""A row is made from what an engine holds, if that is one."""

from __future__ import annotations

import pytest
from attrs import asdict

from equos_async.ledger.reading import row_of
from equos_async.testing.ledger_contract import row

SOUND = asdict(row("x"))


def test_what_newer_releases_add_is_left_out() -> None:
    """The row is the same, as it was read at that time."""
    found = row_of({**SOUND, "mood": "calm"}, 7.0)
    assert found is not None
    assert asdict(found) == {**SOUND, "read_at": 7.0}


@pytest.mark.parametrize("name", ["id", "key", "owner", "endpoint"])
def test_a_row_without_a_field_is_none(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names it, and nothing fails."""
    given = {**SOUND, "name": "\x1b[2J"}
    del given[name]
    assert row_of(given, 7.0) is None
    (told,) = caplog.messages
    assert told == f"a row of the ledger cannot be read: {given.get('id')!a:.40}"


def test_a_row_of_nonsense_is_none() -> None:
    """Each field has its type."""
    assert row_of({**SOUND, "expires": "soon"}, 7.0) is None
