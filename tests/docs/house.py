"""The picture of the house, drawn from the imports: ``python -m tests.docs.house --out FILE``.

Every file of the package is a line of the picture, in an order in which each imports only files
above it; an arc joins it to each that it imports. Where there are two ways to a file, only the
longer one is drawn: ``client`` needs ``errors``, but so does ``calls`` on the way there.
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

ROW, TOP, NAMES, WORDS, WIDTH = 26, 20, 140, 252, 920
"""Pixels: of a row, above the first, to the names, to the sentences, and of the whole."""

STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #333 }
.name { font-weight: 600; fill: #111 }
path { fill: none; stroke-width: 1.3; opacity: 0.75 }
circle { fill: #111 }"""

COLOURS = ("#0b6e99", "#b3541e", "#4f7a28", "#7a4b9a", "#9a6b00", "#a3324b")


def files() -> dict[str, Path]:
    """The files of the house by what they are called; ``testing`` is one, with all below it."""
    own = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem[:1] != "_"}
    main, testing = PACKAGE / "__main__.py", PACKAGE / "testing" / "__init__.py"
    return {**own, "testing": testing, "__main__": main}


def home(name: str) -> str:
    """The file in which a name lives that is imported from the package itself."""
    found = getattr(equos_async, name) if name in equos_async.__all__ else None
    return name if found is None else str(getattr(found, "__module__", name)).rpartition(".")[2]


def imported(path: Path) -> Iterator[str]:
    """The files that one imports, by relative imports or absolute ones."""
    level = 2 if path.parent.name == "testing" else 1
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if node.level == 0 and module.split(".")[0] == "equos_async":
            module = module.removeprefix("equos_async").removeprefix(".")
        elif node.level != level:
            continue
        yield from [module.split(".")[0]] if module else [home(one.name) for one in node.names]


def imports() -> Imports:
    """Who imports whom."""
    house = files()
    below = {name: [path] for name, path in house.items()}
    below["testing"] = sorted((PACKAGE / "testing").rglob("*.py"))
    return {
        name: frozenset(one for path in below[name] for one in imported(path)) & set(house) - {name}
        for name in house
    }


def ordered(house: Imports) -> list[str]:
    """The files, each below all that it imports and as near to them as may be."""
    found: dict[str, None] = {}

    def place(name: str) -> None:
        for one in sorted(house[name], key=lambda one: (len(needed(house, one)), one)):
            place(one)
        found.setdefault(name)

    for name in sorted(house, key=lambda name: (-len(needed(house, name)), name)):
        place(name)
    return list(found)


def needed(house: Imports, name: str) -> frozenset[str]:
    """All that a file needs, directly and through others."""
    return house[name].union(*(needed(house, one) for one in house[name]))


def arcs(house: Imports) -> list[tuple[str, str]]:
    """The imports that no longer way stands for."""
    return [
        (name, one)
        for name in house
        for one in sorted(house[name])
        if not any(one in needed(house, other) for other in house[name])
    ]


def sentence(path: Path) -> str:
    """What a file says of itself in its first line."""
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
    x, reach = NAMES - 14, (bottom - top) * 0.26 + 12
    left = f"{x - reach:.0f}"
    return f'<path d="M{x} {bottom} C{left} {bottom} {left} {top} {x} {top}" stroke="{colour}"/>'


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the SVG file to write")
    parser.parse_args().out.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
