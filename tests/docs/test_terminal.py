"""The picture of a terminal shows what a command prints."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from equos_async import __version__
from tests.docs.blocks import PACKAGE, ROOT
from tests.docs.terminal import COLUMNS, drawn, picture

TEXT = "{http://www.w3.org/2000/svg}text"


def lines(svg: str) -> list[str]:
    """The lines of the terminal."""
    return [one.text or "" for one in ET.fromstring(svg).iter(TEXT)]


def test_the_picture_shows_the_command_and_its_output() -> None:
    """Both are text in it, so that a search finds them."""
    assert lines(picture(["--version"])) == ["$ equos-async --version", __version__]


def test_of_its_progress_only_the_last_is_shown() -> None:
    """The others were written over on a terminal; what is no progress is kept as it is."""
    output = "0/2  started 0\n1/2  started 1\n2/2  started 2\nleft    0, <&> none\n"
    assert lines(drawn("demo", output)) == ["$ demo", "2/2  started 2", "left    0, <&> none"]


def test_the_picture_of_the_readme_is_of_today() -> None:
    """It shows the demo's table as the program prints it, within its columns."""
    demo = lines((ROOT / ".github" / "assets" / "demo.svg").read_text(encoding="utf-8"))
    assert demo[0] == "$ equos-async demo"
    assert max(map(len, demo)) <= COLUMNS
    source = (PACKAGE / "cli" / "tally.py").read_text(encoding="utf-8")
    names = [line[:18].rstrip() for line in demo[2:]]
    assert len(names) == 11
    assert [name for name in names if f'"{name}"' not in source] == []
