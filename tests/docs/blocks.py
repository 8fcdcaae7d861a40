"""The code blocks of the README and the pages; ``python -m tests.docs.blocks FOLDER`` writes them.

Each program becomes a file, so that a type checker can read it; errors have the lines of the page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

import equos_async

ROOT = Path(__file__).parent.parent.parent
PACKAGE = Path(equos_async.__file__).parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / ".docs").rglob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}

NOT_RUN: dict[tuple[str, str], str] = {}
"""Blocks that cannot run here, by their page and first line, each with the reason."""


@attrs.frozen
class Block:
    """A block of code on a page."""

    page: Path
    line: int
    language: str
    code: str


def blocks(page: Path) -> Iterator[Block]:
    """All code blocks of a page, except those that Sphinx runs and those in ``NOT_RUN``."""
    for found in re.finditer(r"^( *)```(.*)\n([\s\S]*?)^\1```$", TEXT[page], re.MULTILINE):
        indent, language, code = found.groups()
        code = re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)
        marked = (page.name, code.partition("\n")[0]) in NOT_RUN
        if not language.startswith("{") and not marked:
            yield Block(page, TEXT[page][: found.start(3)].count("\n"), language, code)


BLOCKS = [block for page in PAGES for block in blocks(page)]


def programs() -> Iterator[tuple[str, str]]:
    """The programs with their names: one for each page, and one for each block of the README."""
    for page in PAGES:
        program = ""
        for block in BLOCKS:
            if block.page == page and block.language == "python":
                # An error is told with the line of the page.
                program += "\n" * (block.line - program.count("\n")) + block.code
                if page == README:
                    yield f"{page.name}:{block.line}", program
                    program = ""
        if program:
            yield page.name, program


def main() -> None:
    """Write the programs."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for name, program in programs():
        (folder / f"{re.sub(r'[^a-z0-9]+', '_', name.lower())}.py").write_text(program, "utf-8")


if __name__ == "__main__":
    main()
