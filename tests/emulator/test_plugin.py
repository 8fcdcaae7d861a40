"""The pytest plugin: its fixtures in each framework, and what a leak looks like."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from equos_async.testing import pytest_plugin

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "test_my_bot.py"

ASYNCIO = ["-p", "pytest_asyncio.plugin", "-oasyncio_default_fixture_loop_scope=function"]
PLUGINS = {
    "strict": [*ASYNCIO, "--asyncio-mode=strict"],
    "auto": [*ASYNCIO, "--asyncio-mode=auto"],
    "aiohttp": [
        *ASYNCIO,
        "-p",
        "pytest_aiohttp.plugin",
        "--asyncio-mode=auto",
    ],
}

REQUEST = """
import asyncio
import pytest
from equos_async import CreateSessionPassRequest, EquosClient, EquosParticipantIdentity

ADA = EquosParticipantIdentity(identity="user-7", name="Ada")
CALL = CreateSessionPassRequest(name="a call", avatar="av", agent="ag", consumer_identity=ADA)
"""

TESTS = """
pytestmark = pytest.mark.asyncio

async def test_clean(equos_client, equos_emulator):
    async with equos_client.session(CALL):
        assert len(equos_emulator.live_sessions) == 1

async def test_leak(equos_client):
    await equos_client.start_session(CALL)  # the line

@pytest.fixture
def bot(equos_emulator):
    return EquosClient("key", endpoint=equos_emulator.endpoint)

async def test_two_leaks_of_a_bot_with_a_client_of_its_own(bot):
    calls = [bot.start_session(request=CALL) for _ in range(2)]
    await asyncio.gather(*calls)
    await bot.aclose()

@pytest.mark.equos_allow_live
async def test_allowed(equos_client):
    await equos_client.start_session(CALL)
"""


def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str, *options: str
) -> pytest.RunResult:
    """Run a test file with just these plugins, warnings being errors."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(source)
    return pytester.runpytest_inprocess(
        "--strict-markers", "-Werror", *options, plugins=[pytest_plugin]
    )


@pytest.mark.parametrize("framework", PLUGINS)
def test_it_works_in_each_framework(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    """Clean and allowed tests pass; a leak fails its test, and names session and line."""
    result = run(pytester, monkeypatch, REQUEST + TESTS, *PLUGINS[framework])
    result.assert_outcomes(passed=4, errors=2)
    file = "test_it_works_in_each_framework.py"
    leak = next(n for n, line in enumerate(result.outlines) if "of test_leak" in line)
    line = (
        (REQUEST + TESTS)
        .strip()
        .splitlines()
        .index("    await equos_client.start_session(CALL)  # the line")
    )
    assert result.outlines[leak + 1] == "1 session was left live:"
    assert result.outlines[leak + 2].startswith("  'a call' (id ")
    assert result.outlines[leak + 2].endswith(f"started at {file}:{line + 1}")
    result.stdout.fnmatch_lines(
        ["2 sessions were left live:", f"  'a call' (id *started at {file}:*"]
    )


@pytest.mark.parametrize("framework", PLUGINS)
def test_the_example_runs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    """The test file that users are shown passes as it is."""
    source = EXAMPLE.read_text(encoding="utf-8")
    run(pytester, monkeypatch, source, *PLUGINS[framework]).assert_outcomes(passed=4)


def test_the_example_bites(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bot that forgets to hang up fails its tests."""
    source = EXAMPLE.read_text(encoding="utf-8")
    forgetful = source.replace("await self.client.stop_session(self.session_id)", "return")
    assert forgetful != source
    result = run(pytester, monkeypatch, forgetful, *PLUGINS["strict"])
    result.assert_outcomes(passed=3, failed=1, errors=3)
    result.stdout.fnmatch_lines(["*'call of Ada' (id *started at *.py:*"])


def test_a_fleet(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet starts in its own task, but the line of its caller is named."""
    source = f"""{REQUEST}
from equos_async import SessionFleet
from equos_async.testing import Status

async def test_x(equos_client, equos_emulator):
    equos_emulator.faults.stop.add(Status(400), times=None)
    async with SessionFleet(equos_client) as fleet:
        await fleet.start(CALL, key="guild")  # the line
"""
    result = run(pytester, monkeypatch, source, *PLUGINS["auto"])
    result.assert_outcomes(passed=1, errors=1)
    line = 1 + next(n for n, text in enumerate(source.strip().splitlines()) if "# the line" in text)
    result.stdout.fnmatch_lines([f"  'a call' (id *), started at test_a_fleet.py:{line}"])


def test_a_conversation(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client has both keys, and a conversation that is left live is named as a session is."""
    source = """
from equos_async import CreateEquosConversationRequest
TALK = CreateEquosConversationRequest(name="a talk", character_id="ch_1", max_seconds=60)

async def test_x(equos_client):
    async with equos_client.conversation(TALK):
        pass
    await equos_client.start_conversation(TALK)  # the line
"""
    result = run(pytester, monkeypatch, source, *PLUGINS["auto"])
    result.assert_outcomes(passed=1, errors=1)
    lines = [
        "1 conversation was left live:",
        "  'a talk' (id *), started at test_a_conversation.py:*",
    ]
    result.stdout.fnmatch_lines(lines)


def test_any_client_in_any_kind_of_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bot in another process or language is watched too; there the request is named."""
    source = """
import json, urllib.request

def test_sync(equos_emulator):
    for name in ("one", "two"):
        body = {"name": name, "client": "c", "avatar": {"id": "a"}, "agent": {"id": "a"},
                "consumerIdentity": {"identity": "i", "name": "n"}}
        headers = {"Authorization": "Bearer k", "Content-Type": "application/json"}
        url = equos_emulator.endpoint + "/v3/session-passes"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        urllib.request.urlopen(request).close()
"""
    result = run(pytester, monkeypatch, source)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "  'one' (id *, client 'c'), started by request 1 to the emulator, *",
            "  'two' (id *, client 'c'), started by request 2 to the emulator, *",
        ]
    )


def test_a_task_of_nobody_has_no_line(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the event loop itself makes the call, no line is named."""
    source = (
        REQUEST
        + """
async def test_x(equos_client):
    starts = []
    asyncio.get_running_loop().call_soon(starts.extend, map(equos_client.start_session, [CALL]))
    await asyncio.sleep(0)
    await starts[0]
"""
    )
    result = run(pytester, monkeypatch, source, *PLUGINS["auto"])
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["  'a call' (id *), started by request 1 to the emulator, *"])


BOT = """
def call(client, request):
    return client.start_session(request)
"""
USE_OF_BOT = """
async def test_x(equos_client):
    await somebot.call(equos_client, CALL)
"""


def test_a_file_elsewhere_is_named_in_full(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A bot that is not below the test's root is named with its whole path."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "somebot.py").write_text(BOT, encoding="utf-8")
    sys.path.insert(0, str(elsewhere))  # pytester puts it back
    source = f"import somebot{REQUEST}{USE_OF_BOT}"
    result = run(pytester, monkeypatch, source, *PLUGINS["auto"])
    result.stdout.fnmatch_lines([f"*started at {elsewhere / 'somebot.py'}:3"])


@pytest.mark.parametrize("left", [None, ModuleType("pytest_asyncio")], ids=["none", "folder"])
def test_without_pytest_asyncio(left: ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's fixture is an ordinary one, also if pip has left an empty folder behind."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pytest_asyncio", left)
        assert importlib.reload(pytest_plugin).equos_client is not None
    importlib.reload(pytest_plugin)


def test_a_user_of_anyio(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixtures work under anyio's own plugin."""
    source = (
        REQUEST
        + """
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_x(equos_client):
    async with equos_client.session(CALL):
        pass
"""
    )
    run(pytester, monkeypatch, source, "-p", "anyio.pytest_plugin").assert_outcomes(passed=1)


def test_importing_it_costs_next_to_nothing() -> None:
    """Of this library's modules the plugin imports none but the packages it lies in."""
    code = (
        "import sys, types; package = types.ModuleType('equos_async');"
        "package.__path__ = [sys.argv[1]]; sys.modules['equos_async'] = package;"
        "import pytest; before = set(sys.modules);"
        "import equos_async.testing.pytest_plugin;"
        "ours = {'equos_async.testing', 'equos_async.testing.pytest_plugin'};"
        "print(sorted(n for n in set(sys.modules) - before - ours"
        " if n.partition('.')[0] in {'aiohttp', 'attrs', 'cattrs', 'equos_async'}))"
    )
    package = Path(pytest_plugin.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(package)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.stdout.strip() == "[]"


class TestExports:
    def test_each_name_is_there(self) -> None:
        """Each public name can be imported, and no other."""
        testing = importlib.import_module("equos_async.testing")
        assert all(getattr(testing, name) is not None for name in testing.__all__)
        with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
            _ = testing.Nonsense
