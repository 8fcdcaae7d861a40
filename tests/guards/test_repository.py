"""The sessions and paths that the repository's files name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import equos_async

ROOT = Path(__file__).parents[2]
PACKAGE = Path(equos_async.__file__).parent  # it may be installed elsewhere
FILES = sorted(
    path for path in (ROOT / ".github").rglob("*") if path.suffix in {".md", ".yml", ".yaml"}
)
SESSIONS = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_sessions_and_paths_that_are_named_exist(path: Path) -> None:
    """A renamed folder or session would mislead a newcomer silently."""
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"nox -s ([a-z]+)", text))
    if matrix := re.search(r"session: \[(.+)\]", text):
        named |= set(matrix[1].split(", "))
    assert named <= SESSIONS
    for place in re.findall(r"\b(?:tests|equos_async)/[\w/]+(?:\.\w+)?", text):
        root = PACKAGE.parent if place.startswith("equos_async/") else ROOT
        assert (root / place).exists(), place


def test_actions_are_pinned() -> None:
    """A tag of an action can be moved to other code; a commit cannot."""
    for path in FILES:
        for action in re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), f"{path.name}: {action}"
