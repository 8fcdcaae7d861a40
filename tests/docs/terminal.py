"""Draws what a command prints: ``python -m tests.docs.terminal --out .github/assets/demo.svg``."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

COLUMNS: Final = 80


def picture(words: Sequence[str]) -> str:
    """Run a command of the command line, and draw its terminal as an SVG."""
    argv = [sys.executable, "-m", "equos_async", *words]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    title = " ".join(("equos-async", *words))
    console.print(Text(f"$ {title}", style="bold"))
    console.print(Text(done.stdout.rstrip()))
    return console.export_svg(title=title, unique_id="terminal")


def main() -> None:
    """Draw the demo."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("words", nargs="*", default=["demo"])
    args = parser.parse_args()
    args.out.write_text(picture(args.words), encoding="utf-8")


if __name__ == "__main__":
    main()
