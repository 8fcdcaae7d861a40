"""The picture of the house, drawn from the imports: ``python -m tests.docs.house --out FILE``.

Every module of the package is a line of the picture, in an order in which each imports only
modules above it, those of one folder together; an arc joins it to each that it imports. Where
there are two ways to a module, only the longer one is drawn: ``client`` needs ``errors``, but so
does ``_calls.tasks`` on the way there.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

import equos_async

PACKAGE = Path(equos_async.__file__).parent

Imports = Mapping[str, frozenset[str]]

ROW, TOP, NAMES, WORDS, WIDTH = 26, 20, 210, 372, 1080
"""Pixels: of a row, above the first, to the names, to the sentences, and of the whole."""

STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #333 }
.name { font-weight: 600; fill: #111 }
path { fill: none; stroke-width: 1.3; opacity: 0.75 }
circle { fill: #111 }"""

COLOURS = ("#0b6e99", "#b3541e", "#4f7a28", "#7a4b9a", "#9a6b00", "#a3324b")


def files() -> dict[str, Path]:
    """The rooms of the house by their names below the package; ``testing`` is one, with all of it.

    What a package's ``__init__`` does is a room where it does something: ``cli``.
    """
    found: dict[str, Path] = {"testing": PACKAGE / "testing" / "__init__.py"}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in {"testing", "__init__", "_version"}:
            if parts[-1] != "__init__":
                found[".".join(parts)] = path
            elif len(ast.parse(path.read_text(encoding="utf-8")).body) > 1:
                found[parts[0]] = path
    return found


def home(name: str) -> str:
    """The room in which a name lives that is imported from the package itself."""
    found = getattr(equos_async, name) if name in equos_async.__all__ else None
    module = None if found is None else getattr(found, "__module__", None)
    return name if module is None else str(module).removeprefix("equos_async.")


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, and names in them."""
    here = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = here[: len(here) - node.level + 1] if node.level else ()
        module = ".".join((*base, *([node.module] if node.module else [])))
        if module == "equos_async":
            yield from (home(one.name) for one in node.names)
        elif module.startswith("equos_async."):
            below = module.removeprefix("equos_async.")
            yield below
            yield from (f"{below}.{one.name}" for one in node.names)


def imports() -> Imports:
    """The imports between files."""
    house = files()
    below = {name: [path] for name, path in house.items()}
    below["testing"] = sorted((PACKAGE / "testing").rglob("*.py"))

    def room(name: str) -> str:
        return "testing" if name.split(".", maxsplit=1)[0] == "testing" else name

    return {
        name: frozenset(room(one) for path in below[name] for one in imported(path))
        & set(house) - {name}
        for name in house
    }


def wing(name: str) -> str:
    """The folder of a room, or the room itself."""
    return name.split(".", maxsplit=1)[0]


def ordered(house: Imports) -> list[str]:
    """The rooms, each below all that it imports, and those of one folder together."""
    wings: dict[str, frozenset[str]] = {}
    for name, found in house.items():
        others = frozenset(map(wing, found)) - {wing(name)}
        wings[wing(name)] = wings.get(wing(name), frozenset()) | others
    return [
        name
        for one in _sorted(wings)
        for name in _sorted({name: house[name] for name in house if wing(name) == one})
    ]


def _sorted(house: Imports) -> list[str]:
    found: dict[str, None] = {}

    def place(name: str) -> None:
        if name in found:
            return
        for one in sorted(house[name] & set(house), key=lambda one: (len(needed(house, one)), one)):
            place(one)
        found.setdefault(name)

    for name in sorted(house, key=lambda name: (-len(needed(house, name)), name)):
        place(name)
    return list(found)


def needed(house: Imports, name: str) -> frozenset[str]:
    """All that a room needs, directly and through others."""
    found: set[str] = set()
    left = [*house[name] & set(house)]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left.extend(house[one] & set(house))
    return frozenset(found)


def arcs(house: Imports) -> list[tuple[str, str]]:
    """The imports that no chain of other imports implies."""
    return [
        (name, one)
        for name in house
        for one in sorted(house[name])
        if not any(one in needed(house, other) for other in house[name])
    ]


def sentence(path: Path) -> str:
    """The first line of a file's docstring."""
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return words.splitlines()[0].replace("``", "").replace("`", "")


def draw() -> str:
    """The picture as SVG."""
    house, paths = imports(), files()
    order = ordered(house)
    y = {name: TOP + ROW * place for place, name in enumerate(order)}
    lines = [
        f'<text class="name" x="{NAMES}" y="{y[name] + 4}">{escape(name)}</text>'
        f'<text x="{WORDS}" y="{y[name] + 4}">{escape(sentence(paths[name]))}</text>'
        f'<circle cx="{NAMES - 10}" cy="{y[name]}" r="2.5"/>'
        for name in order
    ]
    bows = [_bow(y[one], y[name], COLOURS[order.index(one) % 6]) for name, one in arcs(house)]
    size = f"0 0 {WIDTH} {TOP + ROW * len(order)}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" role="img">',
            "<title>The files of equos_async: each imports only files above it</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="100%" fill="#fff"/>',
            *bows,
            *lines,
            "</svg>\n",
        ]
    )


def _bow(top: int, bottom: int, colour: str) -> str:
    """An arc on the left, from a file to one that it imports."""
    x, reach = NAMES - 14, min((bottom - top) * 0.26, 165) + 12
    left = f"{x - reach:.0f}"
    return f'<path d="M{x} {bottom} C{left} {bottom} {left} {top} {x} {top}" stroke="{colour}"/>'


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the SVG file to write")
    parser.parse_args().out.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
