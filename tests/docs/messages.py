"""Lists every message that a user can meet: ``python -m tests.docs.messages``, to be read whole.

Those are the texts of exceptions, warnings and log records, of reasons in events, and of the
command line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import equos_async

PACKAGE: Final = Path(equos_async.__file__).parent

SPEAKING: Final = re.compile(
    r".*(Error|warn|print|add|add_argument|add_parser|debug|info|warning|fail|reason|exit)$"
)
"""Names of what a message is passed to."""


def messages(source: str) -> Iterator[tuple[int, str]]:
    """The lines of a module that speak, each with its text; values in it are braces."""
    told: dict[int, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and SPEAKING.match(ast.unparse(node.func)):
            for value in (*node.args, *(keyword.value for keyword in node.keywords)):
                if " " in (text := _text(value)).strip():
                    told[value.lineno] = text
    yield from sorted(told.items())


def _text(value: ast.expr) -> str:
    """What an expression says, as far as it can be seen there."""
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case ast.FormattedValue(value=inside):
            return f"{{{ast.unparse(inside)}}}"
        case ast.IfExp(body=body, orelse=otherwise):
            return f"{_text(body)} / {_text(otherwise)}"
        case _:
            return ""


def main() -> None:
    """Print them, by module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in messages(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(PACKAGE.parent)}:{line}: {text}")


if __name__ == "__main__":
    main()
