"""Make text safe for a terminal: bounded, and without control characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

MAX_NAME: Final = 100
"""Characters of a name or an id that are shown within a sentence."""

MAX_NAMED: Final = 10
"""The number of things that one text names."""


def shown(text: str, *, lines: bool = False) -> str:
    """A text whose control, escape and formatting characters are shown as escapes.

    Args:
        text: What is to be shown.
        lines: Whether line breaks and tabs stay as they are.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        one if one.isprintable() or one in kept else one.encode("unicode_escape").decode()
        for one in text
    )


def brief(text: str) -> str:
    """A name or an id within a sentence: escaped, and shortened if it is long."""
    cut = text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "\u2026"
    return shown(cut)


def keyed(key: object) -> str:
    """A fleet's key within a sentence; it is an object of the program, whose repr may raise."""
    try:
        text = repr(key)
    except Exception:  # of the program's own code; it must not replace what is being told
        text = f"<{type(key).__name__}>"
    return brief(text)


def named(things: Sequence[T], name: Callable[[T], str]) -> list[str]:
    """The names of the first things, and how many more there are."""
    names = [name(one) for one in things[:MAX_NAMED]]
    if len(things) > MAX_NAMED:
        names.append(f"and {len(things) - MAX_NAMED} more")
    return names
