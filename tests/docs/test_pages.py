"""The README and the pages are true: their code runs, and the names on them exist."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path

import attrs
import pytest

import equos_async
import equos_async.testing
from equos_async import (
    EquosClient,
    EquosError,
    Limits,
    RetryPolicy,
    SessionFleet,
    Settle,
    Timeouts,
)
from equos_async.cli import _parser
from equos_async.errors import status_error_class
from equos_async.fleet._ends import PATIENCE as HOOK_PATIENCE
from equos_async.fleet._engine import PATIENCE as ENGINE_PATIENCE
from equos_async.testing import EquosEmulator, Faults, faults
from equos_async.testing.spec import describe
from tests import faults as faults_met
from tests.docs.blocks import BLOCKS, PACKAGE, PAGES, README, ROOT, TEXT, programs
from tests.emulator.test_plugin import PLUGINS, run

pytest_plugins = ["pytester"]

SETTINGS = ROOT / ".docs" / "settings.md"
ERRORS = ROOT / ".docs" / "errors.md"
FLEET = ROOT / ".docs" / "fleet.md"
NOT_TYPED = {"index.md", "contributing.md"}
"""Pages that are only a table of contents, or another file's text."""


def commands() -> Iterator[list[str]]:
    """All commands in shell blocks, as words."""
    for block in BLOCKS:
        if block.language == "sh":
            for command in re.split(r"\n|&&", block.code.strip()):
                yield shlex.split(command)


def sessions() -> set[str]:
    """The names of the nox sessions."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {one.name for one in functions if "nox.session" in map(_called, one.decorator_list)}


def _called(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


import_module("cattrs")  # pytester forgets what is first loaded while it runs


@pytest.mark.parametrize(("name", "program"), list(programs()))
def test_each_program_runs(
    name: str, program: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page can be pasted and run from first to last; tests pass."""
    if "def test_" in program:
        result = run(pytester, monkeypatch, program, *PLUGINS["auto"])
        result.assert_outcomes(passed=len(re.findall(r"def test_", program)))
    else:
        exec(compile(program, name, "exec"), {"__name__": "__main__"})


def test_each_block_is_of_a_kind_that_is_checked() -> None:
    """Add a check here for a new language, or a reason to ``NOT_RUN``."""
    unknown = [block for block in BLOCKS if block.language not in {"python", "sh", "text", "yaml"}]
    assert unknown == []


@pytest.mark.parametrize("command", list(commands()), ids=shlex.join)
def test_each_command_is_one(command: list[str]) -> None:
    """Its options and names are those of the real command line, nox sessions, extras and files."""
    match [Path(command[0]).name, *command[1:]]:
        case ["python", "-m", "equos_async", *rest] | ["equos-async", *rest]:
            assert _parser().parse_args(rest)
        case ["python" | "pytest", program]:
            assert (ROOT / program).is_file()
        case ["pytest", "-o", "asyncio_mode=auto", "test_my_bot.py"]:
            pass  # what is above it there; each block of tests runs in that mode
        case ["uvicorn", "--app-dir", folder, app]:
            assert (ROOT / folder / app.replace(":app", ".py")).is_file()
        case ["nox", *rest]:
            assert rest == [] or (rest[0] == "-s" and set(rest[1:]) <= sessions())
        case ["pip", "install", *what]:
            extras = {one for name in what for one in re.findall(r"\[(\w+)\]", name)}
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
            assert extras <= {*project["project"]["optional-dependencies"], "uv"}  # nox's own
        case ["python3", "-c", program]:
            compile(program, "README.md", "exec")
        case ["python3", "-m", "venv", ".venv"] | ["", ".venv/bin/activate"]:
            pass
        case ["export", "EQUOS_CLIENT_KEY=any-key"]:
            pass
        case _:
            pytest.fail(f"{shlex.join(command)}: say here how it is checked, or in NOT_RUN why not")


HARD = re.findall(r"\| `([^`]+)` \| `(--[^`]+)` \|\n", TEXT[ROOT / ".docs" / "testing.md"])


@pytest.mark.parametrize(("program", "options"), HARD)
def test_each_hard_server_can_be_played(program: str, options: str) -> None:
    """The fault on the command line equals the one in Python."""
    emulator, typed = EquosEmulator(), Faults()
    exec(f"emulator.{program}", {**vars(faults), "emulator": emulator})
    args = _parser().parse_args(["emulator", *shlex.split(options)])
    for fault in args.fault:
        fault.add_to(typed)
    both = [
        [(describe(one), [fault.when for fault in one.faults]) for one in planned]
        for planned in (typed.planned, emulator.faults.planned)
    ]
    assert both[0] == both[1]
    assert args.page_order == emulator.page_order


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    """Each test and each nox session that a page names exists."""
    named = re.findall(r"`((?:tests|examples|equos_async|\.docs)/[\w./]+)`", TEXT[page])
    roots = ROOT, PACKAGE.parent  # the package is tested where it is installed
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []
    assert set(re.findall(r"`nox -s (\w+)", TEXT[page])) <= sessions()


def test_what_the_list_of_faults_names_is_there() -> None:
    """Each test that the list of faults names exists."""
    named = re.findall(r"[a-z]+/[\w.]*", (faults_met.__doc__ or "").partition(":\n")[2])
    assert [name for name in named if not (ROOT / "tests" / name).exists()] == []
    assert len(named) > 30


def test_the_first_block_is_the_quickstart(capsys: pytest.CaptureFixture[str]) -> None:
    """The first program needs no key, handles a failure and leaves no session behind."""
    program = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")
    assert BLOCKS[0].code in program
    assert len(program.splitlines()) <= 25
    exec(compile(program, "quickstart.py", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.splitlines() == [
        "joinable at wss://rtc.example.test",
        "refused: 403: Organization is suspended",
        "left on the server: 0",
    ]


def test_a_newcomer_finds_the_program_early() -> None:
    """The first program starts within the first 15 lines."""
    assert TEXT[README].splitlines().index("```python") < 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_first_screen_says_what_to_type(page: Path) -> None:
    """A program, a command or a call is in the first lines of each page."""
    first_screen = "\n".join(TEXT[page].splitlines()[:20])
    typed = r"^```(python|sh|text)$|`nox -s \w+`|`(async with |await )?[\w.]+\(.*\)`|\{eval-rst\}"
    assert page.name in NOT_TYPED or re.search(typed, first_screen, re.MULTILINE)


@pytest.mark.parametrize("mark", ["demo-command", "test-command"])
def test_each_of_the_two_commands_is_one_line(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two commands checks first that Python is new enough."""
    found = re.search(rf"<!-- {mark} -->\n```sh\n(.+)\n```\n<!-- end -->", TEXT[README])
    assert found is not None
    check, rest = found[1].split(" && ", 1)
    assert rest.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    program = shlex.split(check)[-1]
    with pytest.raises(SystemExit) as ended:
        exec(program, {})
    assert not ended.value.code
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(SystemExit, match=r"^needs Python 3\.11 or newer$"):
        exec(program, {})


def test_the_tree_of_errors_is_whole() -> None:
    """A new error has to be added to it."""
    (tree,) = [b.code for b in BLOCKS if b.language == "text" and b.page == ERRORS]
    public = [getattr(equos_async, name) for name in equos_async.__all__ if name[:1].isupper()]
    errors = {one.__name__ for one in public if issubclass(one, EquosError)}
    assert set(re.findall(r"\b[A-Z]\w+Error\b", tree)) - {"ValueError"} == errors
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT[ERRORS], re.MULTILINE)
    assert {name for name, _ in rows} == errors - {"EquosError"}
    for name, status in rows:
        if status[:1].isdecimal():
            assert status_error_class(int(status.replace("xx", "00"))).__name__ == name


def test_a_handler_has_an_answer_to_each_error() -> None:
    """The table of the page on fleets has a row for each error, or for one that it is a kind of."""
    (table,) = re.findall(r"^\| error of `start` .*\n((?:\|.*\n)+)", TEXT[FLEET], re.MULTILINE)
    rows = re.findall(r"^\| (.*?) \| (\d{3}) \|", table, re.MULTILINE)
    told = {name for names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    public = [getattr(equos_async, name) for name in equos_async.__all__ if name[:1].isupper()]
    kinds = {one: {kind.__name__ for kind in one.__mro__} for one in public}
    errors = {one: kinds[one] for one in public if issubclass(one, EquosError)}
    unanswered = [one for one, names in errors.items() if not names & told - {"EquosError"}]
    assert unanswered == [EquosError]
    assert "EquosError" in told


def test_the_table_of_settings_is_whole() -> None:
    """Each setting is in the table, with its default."""
    told: dict[str, float] = {}
    rows = re.findall(r"^\| `(\w+)\.(.*?) \| (.*?) \|", TEXT[SETTINGS], re.MULTILINE)
    for settings, names, defaults in rows:
        numbers = map(float, re.findall(r"[\d.]+", defaults))
        told |= zip(
            (f"{settings}.{name}" for name in re.findall(r"\w+", names)), numbers, strict=True
        )
    assert told == {
        f"{settings.__name__}.{one.name}": one.default
        for settings in (Timeouts, Settle, Limits, RetryPolicy)
        for one in attrs.fields(settings)
    }


@pytest.mark.parametrize("made", [EquosClient, SessionFleet])
def test_the_tables_of_arguments_are_whole(made: type) -> None:
    """Each argument of a client and of a fleet is in a table, in any order."""
    (table,) = re.findall(
        rf"^\| argument of `{made.__name__}` .*\n((?:\|.*\n)+)", TEXT[SETTINGS], re.MULTILINE
    )
    cells = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(cells))) == sorted(signature(made).parameters)


def test_the_readme_is_short_and_its_links_work_where_it_is_shipped() -> None:
    """Each file that it links to is in the sdist as well."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    links = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT[README])
    assert [link for link in links if not (ROOT / link).is_file()] == []
    assert [link for link in links if not f"/{link}".startswith(tuple(shipped))] == []
    assert len(TEXT[README].splitlines()) <= 200


def test_the_pod_has_time_for_the_worst_case() -> None:
    """The grace period on the page is longer than the steps beside it, with their defaults."""
    page = TEXT[ROOT / ".docs" / "deploying.md"]
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", page)
    steps = [float(one) for one in re.findall(r"^\| [^*|]+ \| (\d+) \|", page, re.MULTILINE)]
    (total,) = re.findall(r"^\| \*\*together\*\* \| \*\*(\d+)", page, re.MULTILINE)
    drain = signature(SessionFleet).parameters["drain_deadline"].default
    close = signature(EquosClient.aclose).parameters["deadline"].default
    (pre_stop,) = re.findall(r'command: \["sleep", "(\d+)"\]', page)
    # Of the ledger, the end of what is under way is awaited, and then its last answer.
    assert steps == [float(pre_stop), drain, 2 * ENGINE_PATIENCE, HOOK_PATIENCE, close]
    assert sum(steps) == float(total) < float(grace)


@pytest.mark.parametrize(
    "package", [equos_async, equos_async.testing], ids=lambda one: one.__name__
)
def test_the_reference_is_whole(package: object) -> None:
    """Each public name is documented on one page: add a new one to its group in `.docs/api/`."""
    pages = [TEXT[page] for page in PAGES if page.parent.name == "api"]
    testing = [text for text in pages if "currentmodule:: equos_async.testing" in text]
    chosen = testing if package is equos_async.testing else [t for t in pages if t not in testing]
    documented = re.findall(r"^\.\. auto\w+:: (\w+)", "".join(chosen), re.MULTILINE)
    assert sorted(documented) == sorted(set(getattr(package, "__all__", ())) - {"__version__"})
