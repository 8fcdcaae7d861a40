"""Write output that may be closed, full, or unable to show a character."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def prepare() -> None:
    """Make both outputs fit to be written to, whatever the caller has made of them.

    A standard output that the caller has closed becomes a pipe that nobody reads, so that a
    command ends as after ``| head -1``; Python would lose the text silently. Characters that an
    output cannot show are written as escapes.
    """
    if sys.stdout is None:
        sys.stdout = _unread()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - no path, kept
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")


def tell(line: str) -> None:
    """Print a line for people on stderr; if that is not possible, the command goes on."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(output: TextIO) -> None:
    """Discard what is still buffered for an output, as Python would fail to flush it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output.fileno())
    os.close(nowhere)


def _unread() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8", closefd=False)
