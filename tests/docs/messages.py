"""Lists every message that a user can meet: ``python -m tests.docs.messages``, to be read whole.

That is every text with a space in it, but for docstrings, types, SQL and Lua: messages of
exceptions, warnings and log records, reasons in events, and all that the command line prints.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import equos_async

PACKAGE: Final = Path(equos_async.__file__).parent

NO_MESSAGE: Final = re.compile(r"\s*(--|[A-Z]{4,} |local |\[|.*\bAny\])")
"""How SQL, Lua, patterns and types begin."""


def messages(source: str) -> Iterator[tuple[int, str]]:
    """The texts of a module that are shown, each with its line; values in them are braces."""
    found: dict[int, str] = {}
    _collect(ast.parse(source), found)
    yield from sorted(found.items())


def _collect(node: ast.AST, found: dict[int, str]) -> None:
    if isinstance(node, ast.expr) and (text := _text(node)):
        if " " in text.strip() and not NO_MESSAGE.match(text):
            found[node.lineno] = text
        return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            _collect(child, found)


def _text(value: ast.expr) -> str:
    """The text of an expression, as far as the source shows it."""
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case ast.FormattedValue(value=inside):
            return f"{{{ast.unparse(inside)}}}"
        case ast.IfExp(body=body, orelse=otherwise):
            return f"{_text(body)} / {_text(otherwise)}" if _text(body) else ""
        case _:
            return ""


def main() -> None:
    """Print them, by module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in messages(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(PACKAGE.parent)}:{line}: {text}")


if __name__ == "__main__":
    main()
