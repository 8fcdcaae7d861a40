"""The README tells the truth: its code runs, and CI runs its command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_each_python_block_runs(block: str) -> None:
    """What the README shows can be pasted and run."""
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


def test_the_first_block_is_the_quickstart(capsys: pytest.CaptureFixture[str]) -> None:
    """The first program needs no key, handles a failure and leaves no session behind."""
    program = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")
    assert BLOCKS[0] in program
    assert len(program.splitlines()) <= 25
    exec(compile(program, "quickstart.py", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.splitlines() == [
        "joinable at wss://rtc.example.test",
        "refused: 403: Organization is suspended",
        "left on the server: 0",
    ]


def test_a_newcomer_finds_the_program_early() -> None:
    """The first program starts within the first 15 lines."""
    assert README.splitlines().index("```python") < 15


@pytest.mark.parametrize("mark", ["demo-command", "test-command"])
def test_each_of_the_two_commands_is_one_line(mark: str) -> None:
    """What a newcomer types, and what CI runs, stands between its marks."""
    found = re.search(rf"<!-- {mark} -->\n```sh\n(.+)\n```\n<!-- end -->", README)
    assert found is not None
    assert found[1].startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_files_that_the_readme_names_exist() -> None:
    """No guarantee is proved by a test that is not there."""
    named = re.findall(r"`((?:tests|examples)/[\w./]+)`", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
