"""The picture of a terminal shows what a command prints."""

from __future__ import annotations

from equos_async import __version__
from tests.docs.terminal import picture


def test_the_picture_shows_the_command_and_its_output() -> None:
    """Both are text in it, so that a search finds them."""
    drawn = picture(["--version"]).replace("&#160;", " ")
    assert drawn.startswith("<svg")
    assert "equos-async --version" in drawn
    assert __version__ in drawn
