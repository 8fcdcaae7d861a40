"""Texts in logs and on terminals are bounded, and contain no control characters."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from equos_async import DrainReport, Event, FleetEvent, SessionEnd, Unresolved

HOSTILE = "\x1b]0;mine\x07 \u202egnirts\u2066 \r\n\x9b2J\u200f"
"""A title that is set, a text that is turned around, lines, and the screen cleared."""

SAYS = [
    Event(kind="retry", operation="start", name=HOSTILE, reason=HOSTILE),
    Event(kind="orphan_stopped", operation="stop", session_id=HOSTILE, reason=HOSTILE),
    FleetEvent(kind="failed", key=HOSTILE, session_id=HOSTILE, reason=HOSTILE, live=0, waiting=0),
    SessionEnd(key=HOSTILE, session_id=HOSTILE, outcome="failed", reason=HOSTILE),
    DrainReport(failed=(SessionEnd(key=1, session_id=HOSTILE, outcome="failed", reason=HOSTILE),)),
    Unresolved(
        operation="stop", reason=HOSTILE, at=datetime.now(UTC), session_id=HOSTILE, name=HOSTILE
    ),
]


@pytest.mark.parametrize("value", SAYS, ids=lambda value: type(value).__name__)
def test_nothing_is_obeyed(value: object) -> None:
    """Neither its text nor its repr contains characters that control a terminal or a reader."""
    assert str(value).isprintable()
    assert repr(value).isprintable()
    assert "gnirts" in str(value)


@pytest.mark.parametrize(
    "value",
    [
        Event(kind="retry", operation="start", name="n" * 10_000),
        Event(kind="ended", operation="stop", session_id="s" * 10_000),
        FleetEvent(kind="started", key="k" * 10_000, session_id="s" * 10_000, live=1, waiting=0),
        SessionEnd(key="k" * 10_000, session_id="s" * 10_000, outcome="stopped"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_names_are_cut(value: object) -> None:
    """One sentence stays one line, however long a name is."""
    assert len(str(value)) < 350
    assert "\N{HORIZONTAL ELLIPSIS}" in str(value)


def test_a_plain_name_stays() -> None:
    """Printable text is unchanged, in any script."""
    event = Event(kind="retry", operation="start", name="Zoë 山", attempts=2, reason="status 503")
    assert str(event) == "retry: start of 'Zoë 山', attempt 2: status 503"
