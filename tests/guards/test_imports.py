"""Each public name loads its own module, and nothing that it does not need."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import equos_async

HEAVY = {"aiohttp", "cattrs", "redis", "sqlite3"}
NEEDED = {
    "EquosClient": {"aiohttp"},
    "LiveSession": {"aiohttp"},
    "SQLiteLedger": {"sqlite3"},
    "SessionFleet": {"aiohttp"},
}
"""Which of the heavy packages a name may load; the others may load none."""

ALONE = (
    "equos_async",
    "equos_async.otel",
    "equos_async.testing",
    "equos_async.testing.pytest_plugin",
)
"""Modules that are imported by programs which may never make a client."""

PROGRAM = """
import json, sys
from importlib import import_module

def loaded():
    return sorted(name for name in sys.modules if name.startswith("equos_async."))

def measure(load):
    # Only the package: not all that is heavy can be imported again.
    before = set(sys.modules)
    for name in [name for name in sys.modules if name.partition(".")[0] == "equos_async"]:
        del sys.modules[name]
    value = load()
    heavy = (set(sys.modules) - before) & set(given["heavy"])
    return getattr(value, "__module__", ""), loaded(), sorted(heavy)

given = json.load(sys.stdin)
result = {}
for module in given["modules"]:
    result[module] = measure(lambda: import_module(module))
for name in given["names"]:
    result[name] = measure(lambda: getattr(import_module("equos_async"), name))
json.dump(result, sys.stdout)
"""

Loaded = dict[str, tuple[str, list[str], list[str]]]


def run(modules: list[str], names: list[str]) -> Loaded:
    """Import modules and names in a fresh process, one after the other.

    Returns:
        For each of them the module that it was defined in, the package's modules that it loaded,
        and the heavy packages that it loaded first.
    """
    given = {"heavy": sorted(HEAVY), "modules": modules, "names": names}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    result: Loaded = json.loads(done.stdout)
    return result


@cache
def light() -> Loaded:
    """All that has to stay light, in one process."""
    names = [name for name in equos_async.__all__ if name not in NEEDED]
    return run(list(ALONE), names)


def typed_homes() -> dict[str, str]:
    """The module of each name as type checkers know it, who verify it."""
    tree = ast.parse(Path(equos_async.__file__).read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: str(node.module)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def table() -> dict[str, str]:
    """The table that the package loads its names by."""
    tree = ast.parse(Path(equos_async.__file__).read_text(encoding="utf-8"))
    (homes,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id == "_HOMES"
        and node.value is not None
    )
    found: dict[str, str] = ast.literal_eval(homes)
    return found


def test_the_table_names_all_that_is_public() -> None:
    """The table, ``__all__`` and the imports for type checkers agree."""
    assert [*table(), "__version__"] == equos_async.__all__
    assert table() == typed_homes()


@pytest.mark.parametrize("name", sorted(set(equos_async.__all__) - {"__version__"}))
def test_a_name_is_loaded_from_where_it_is_defined(name: str) -> None:
    """A home that only hands the name on would load more than the name needs."""
    assert getattr(equos_async, name).__module__ == f"equos_async.{table()[name]}"


def test_a_name_that_does_not_exist() -> None:
    """It is an AttributeError, also for the name of a private thing of some module."""
    for name in ("logger", "Traffic", "nothing"):
        with pytest.raises(AttributeError, match=f"'equos_async' has no attribute '{name}'"):
            getattr(equos_async, name)


@pytest.mark.parametrize("module", ALONE)
def test_a_module_that_stays_light(module: str) -> None:
    """A test run or a tracer does not wait for aiohttp, sqlite3 or cattrs."""
    assert light()[module][2] == []


@pytest.mark.parametrize("name", sorted(set(equos_async.__all__) - set(NEEDED)))
def test_a_name_that_stays_light(name: str) -> None:
    """A program that only catches, logs or configures does not load them."""
    assert light()[name][2] == []


@pytest.mark.parametrize("name", NEEDED)
def test_a_name_that_needs_something(name: str) -> None:
    """It loads that, and no other heavy package: a client no ledger's engine."""
    assert set(run([], [name])[name][2]) <= NEEDED[name]


def test_a_name_loads_its_module_only() -> None:
    """Besides what that module imports itself."""
    names = sorted(table())
    homes = {f"equos_async.{home}" for home in table().values()}
    found = run(sorted(homes), names)
    for name in names:
        assert found[name][1] == found[f"equos_async.{table()[name]}"][1], name
