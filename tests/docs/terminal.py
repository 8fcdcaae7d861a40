"""Draws what a command prints: ``python -m tests.docs.terminal --out .github/assets/demo.svg``."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

COLUMNS: Final = 80
SIZE: Final = 14
"""Pixels of the font."""
WIDTH: Final = SIZE * 0.6
"""Of a character, in pixels: each line is stretched to it, whatever font the reader has."""
LINE: Final = 20
PAD: Final = 16

STYLE: Final = f"""
text {{ font: {SIZE}px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  fill: #1f2328; white-space: pre }}
rect {{ fill: #f6f8fa; stroke: #d1d9e0 }}
text:first-of-type {{ font-weight: 600; fill: #0969da }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #f0f6fc }}
  rect {{ fill: #151b23; stroke: #3d444d }}
  text:first-of-type {{ fill: #4493f8 }}
}}
"""


def picture(words: Sequence[str]) -> str:
    """Run a command of the command line, and draw its terminal as an SVG."""
    argv = [sys.executable, "-m", "equos_async", *words]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    return drawn(" ".join(("equos-async", *words)), done.stdout)


def drawn(command: str, output: str) -> str:
    """A terminal of 80 columns with a command and its output, for light and dark pages."""
    lines = [f"$ {command}", *shown(output)]
    width, height = 2 * PAD + COLUMNS * WIDTH, 2 * PAD + len(lines) * LINE
    rows = (
        f'<text x="{PAD}" y="{PAD + SIZE + number * LINE}" textLength="{len(line) * WIDTH:.1f}">'
        f"{escape(line)}</text>"
        for number, line in enumerate(lines)
        if line
    )
    size = f'width="{width:.0f}" height="{height}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>What {escape(command)} prints</title>",
            f"<style>{STYLE}</style>",
            f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1}" rx="8"/>',
            *rows,
            "</svg>\n",
        )
    )


def shown(output: str) -> list[str]:
    """The lines that a terminal shows at the end: of the lines of progress only the last."""
    *progress, _ = re.findall(r"^\d+/\d+ .*\n", output, re.MULTILINE) or [""]
    for line in progress:
        output = output.replace(line, "", 1)
    return output.rstrip().splitlines()


def main() -> None:
    """Draw the demo."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("words", nargs="*", default=["demo"])
    args = parser.parse_args()
    args.out.write_text(picture(args.words), encoding="utf-8")


if __name__ == "__main__":
    main()
