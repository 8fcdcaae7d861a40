"""The public surface, pinned: short, sorted, and importable piece by piece."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import equos_async

PACKAGE = Path(equos_async.__file__).parent
MODULES = sorted(
    one.name
    for one in pkgutil.walk_packages([str(PACKAGE)], "equos_async.")
    if "__main__" not in one.name
)

PUBLIC = """
APIConnectionError APIStatusError APITimeoutError AgentProvider AuthenticationError BadRequestError
ClientClosedError Clock ConfigurationError ConflictError ConversationStatus
CreateEquosConversationRequest CreateEquosConversationResponse CreateEquosSessionResponse
CreateSessionPassRequest DrainReport EquosAgent EquosAvatar EquosCharacter EquosClient
EquosConversation EquosConversationHost EquosConversationUtterance EquosError
EquosParticipantIdentity EquosResourceReference EquosSession EquosSessionServer EquosTimelineEntry
Event FleetEvent FleetFullError FleetHealth FleetStats GroupStats HealthResponse InternalServerError
KeyInUseError LedgerError LedgerRow Limits LiveSession NotFoundError OverloadedError
PermissionDeniedError Placing RateLimitError RedisLedger RetryPolicy SQLiteLedger SessionEnd
SessionFleet SessionLedger SessionStatus Settle StartOutcomeUnknownError StartUnreadableError
Timeouts UnprocessableEntityError Unresolved __version__
"""


def test_what_is_public() -> None:
    """A new name is a decision, and fits on the screen."""
    assert equos_async.__all__ == PUBLIC.split()
    assert equos_async.__all__ == sorted(equos_async.__all__)
    assert all(hasattr(equos_async, name) for name in equos_async.__all__)
    assert dir(equos_async) == equos_async.__all__


def test_an_error_does_not_load_the_client() -> None:
    """What only catches or logs does not wait for aiohttp."""
    program = (
        "import sys; from equos_async import EquosError, Limits; print('aiohttp' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


IMPORT_EACH = """
import importlib, os, sys
import aiohttp, cattrs  # they take long, and are none of ours

for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        importlib.import_module(name)
        os._exit(0)  # else its error ends it
    if os.waitpid(child, 0)[1]:
        print(name)
"""


def test_each_module_can_be_imported_alone() -> None:
    """No order of imports matters, and no import warns: each is the first of its own process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH, *MODULES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert len(MODULES) > 100


def imports(path: Path) -> set[str]:
    """The top-level names of what a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name.split(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_decisions_are_pure() -> None:
    """The retry layer's decisions know no loop, no clock and no chance."""
    for path in (PACKAGE / "_retry").glob("*.py"):
        assert not imports(path) & {"asyncio", "aiohttp", "random", "time"}, path


def test_only_what_is_around_the_wire_knows_aiohttp() -> None:
    """Beside the type of an argument of the client's, and the local server."""
    knowing = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if "aiohttp" in imports(path)
    }
    assert knowing == {"_http", "client.py", "testing"}


def test_what_only_the_declared_dependencies_bring() -> None:
    """The package imports what it declares, the standard library, and an extra's where it is."""
    tests = {"pytest", "pytest_asyncio"}  # of the plugin, which only a test run loads
    declared = {"aiohttp", "attrs", "cattrs", "multidict", "yarl", "rich", "equos_async"}
    extras = {"otel.py": {"opentelemetry"}, "redis_link.py": {"redis"}}
    extras["redis_ways.py"] = {"redis"}
    extras["values.py"] = {"typing_extensions"}  # for type checkers, which bring it along
    for path in PACKAGE.rglob("*.py"):
        known = declared | set(sys.stdlib_module_names) | tests | extras.get(path.name, set())
        assert imports(path) <= known, f"{path} imports what pyproject.toml does not declare"


def test_the_ledgers_are_modules_only() -> None:
    """A tool that freezes a program into one file leaves SQL and Lua files behind."""
    files = [path for path in (PACKAGE / "ledger").iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".py"}


def test_the_adapter_uses_public_names_only() -> None:
    """What `equos_async.otel` does, an adapter of a user's own can do as well."""
    tree = ast.walk(ast.parse((PACKAGE / "otel.py").read_text(encoding="utf-8")))
    own = [node for node in tree if isinstance(node, ast.ImportFrom) and node.level]
    assert [node.module for node in own] == [None], "import from the package itself: from . import"
    assert {name.name for node in own for name in node.names} <= set(equos_async.__all__)


def test_there_is_nothing_to_be_done_later() -> None:
    """Nothing is marked as unfinished, and no line is excluded from coverage."""
    marks = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "no " + "cover")))
    found = [p for p in PACKAGE.rglob("*.py") if marks.search(p.read_text(encoding="utf-8"))]
    assert found == []
