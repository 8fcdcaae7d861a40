"""The events of a call, in lines that are the same in each run.

Those of the fault matrix are pinned in ``golden_events.json``, which ``golden.py`` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from attrs import fields

from equos_async import Event

PATH = Path(__file__).with_name("golden_events.json")

VARYING = {"delay", "seconds"}
"""Numbers that differ from run to run: what is pinned is whether they are told."""

# What aiohttp and the system say differs between the ways, parsers and releases; so does which of
# two errors a lost connection is. The words of the client's own stay.
LOST = r"(?:ServerDisconnectedError|ClientOSError|ClientConnectionResetError)\b.*"
MALFORMED = r"\w+: the answer breaks the rules of HTTP.*"


def line(event: Event, endpoint: str) -> str:
    """An event in one line: its kind, then all fields that are set, by name."""
    words: list[str] = [event.kind]
    for field in fields(Event)[1:]:
        value = getattr(event, field.name)
        if value is None or value in ("", ()):
            continue
        if field.name in VARYING:
            words.append(field.name)
        elif field.name == "retries":
            words.append(f"retries={len(value)}")
        else:
            words.append(f"{field.name}={plain(str(value), endpoint)}")
    return " ".join(words)


def plain(text: str, endpoint: str) -> str:
    """A field's text without ports and without the words of others."""
    text = text.replace(endpoint, "http://server")
    text = re.sub(LOST, "[connection lost]", text, flags=re.DOTALL)
    text = re.sub(MALFORMED, "[malformed answer]", text, flags=re.DOTALL)
    return repr(text) if " " in text else text


def lines(events: Iterable[Event], endpoint: str) -> list[str]:
    """Events in their order."""
    return [line(event, endpoint) for event in events]


def as_of_a_session(line: str) -> str:
    """A line about a conversation, rewritten as one about a session: nothing else may differ."""
    for of_a_conversation, of_a_session in (
        ("method=POST url=http://server/v3/conversations/{id}/stop", STOP),
        ("http://server/v3/conversations", "http://server/v3/session-passes"),
        ("conversation.room", "session.provider"),  # what the rows of wrong types change
        ("$.room", "$.provider"),
        ("Conversation", "Session"),
        ("conversation", "session"),
    ):
        line = line.replace(of_a_conversation, of_a_session)
    stop = "operation=stop" in line
    return line.replace("status=201", "status=200") if stop else line


STOP = "method=PATCH url=http://server/v3/session-passes/{id}/stop"


@cache
def load() -> dict[str, dict[str, list[str]]]:
    """The pinned lines, by row and operation."""
    pinned: dict[str, dict[str, list[str]]] = json.loads(PATH.read_text(encoding="utf-8"))
    return pinned
