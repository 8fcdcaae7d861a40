"""The aiohttp backend as a process, and its page in a real browser."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from equos_async.testing import EquosEmulator, Status
from tests.fleet.programs import (
    EXAMPLES,
    KEY,
    PATIENCE,
    Program,
    call,
    chromium,
    free_port,
    program,
)


@pytest.fixture
async def backend(emulator: EquosEmulator, tmp_path: Path) -> AsyncIterator[tuple[str, Program]]:
    """The backend's address and its process."""
    async with serving(emulator, tmp_path) as (url, running):
        yield url, running


@asynccontextmanager
async def serving(
    emulator: EquosEmulator, folder: Path
) -> AsyncGenerator[tuple[str, Program], None]:
    """One process of the backend, whose ledger is in a folder."""
    port, ledger = str(free_port()), f"sqlite:{folder / 'ledger.db'}"
    arguments = ("-X", "dev", "-W", "error", str(EXAMPLES / "web_backend.py"))
    async with program(emulator.endpoint, *arguments, PORT=port, EQUOS_LEDGER=ledger) as running:
        await running.expect("Running on")
        yield f"http://127.0.0.1:{port}", running


async def test_two_processes(
    emulator: EquosEmulator, backend: tuple[str, Program], tmp_path: Path
) -> None:
    """A hang-up ends its session, whichever process it reaches, and both list what there is."""
    url, _ = backend
    async with serving(emulator, tmp_path) as (other, running):
        keys: list[str] = []
        for name in ("Grace", "Edsger", "Barbara"):
            _, text = await call("POST", f"{url}/sessions", json={"name": name})
            keys.append(json.loads(text)["key"])
        _, listed = await call("GET", f"{other}/sessions")
        names = {one["name"] for one in json.loads(listed)["sessions"]}
        assert names == {"Grace", "Edsger", "Barbara"}
        for key in keys:
            assert await call("DELETE", f"{other}/sessions/{key}") == (204, "")
        assert not emulator.live_sessions
        assert await running.end(signal.SIGTERM) == 0


async def test_the_calls(emulator: EquosEmulator, backend: tuple[str, Program]) -> None:
    """POST starts, GET lists without secrets, DELETE stops, and SIGTERM stops what is left."""
    url, running = backend
    status, text = await call("POST", f"{url}/sessions", json={"name": " Grace "})
    joined = json.loads(text)
    assert status == 201
    assert joined["server_url"] == "wss://rtc.example.test"
    assert joined["token"].count(".") == 2
    status, listed = await call("GET", f"{url}/sessions")
    (one,) = json.loads(listed)["sessions"]
    # What all workers have is listed by the server's end; the worker that has it is earlier.
    assert one == {"id": joined["id"], "name": "Grace", "remaining": 600}
    assert joined["key"] not in listed
    for _ in range(2):
        assert await call("DELETE", f"{url}/sessions/{joined['key']}") == (204, "")
    assert not emulator.live_sessions
    await call("POST", f"{url}/sessions", json={"name": "Edsger"})
    assert await running.end(signal.SIGTERM) == 0
    assert "bye: 1 stopped, 0 had ended, 0 left" in running.printed
    assert not emulator.live_sessions
    assert KEY not in text + listed + running.printed


@pytest.mark.parametrize(
    "options",
    [
        {"json": {}},
        {"json": []},
        {"json": {"name": "  "}},
        {"json": {"name": "x" * 61}},
        {"data": "{", "headers": {"Content-Type": "application/json"}},
        {"data": {"name": "a form of another site"}},
    ],
)
async def test_bad_input(backend: tuple[str, Program], options: dict[str, object]) -> None:
    """Bad input is refused in words, and starts nothing."""
    status, text = await call("POST", f"{backend[0]}/sessions", **options)
    assert (status, json.loads(text)) == (400, {"error": "please tell your name"})


async def test_errors_in_words(emulator: EquosEmulator, backend: tuple[str, Program]) -> None:
    """A refusal and a full fleet have different answers, without further details."""
    url, _ = backend
    emulator.faults.start.add(Status(401, message="who are you"))
    status, text = await call("POST", f"{url}/sessions", json={"name": "Ada"})
    assert (status, "cannot be reached" in text, "who" in text) == (502, True, False)
    for _ in range(20):
        await call("POST", f"{url}/sessions", json={"name": "Ada"})
    status, text = await call("POST", f"{url}/sessions", json={"name": "Ada"})
    assert (status, "All lines are busy" in text) == (503, True)


async def test_the_page_in_a_browser(
    emulator: EquosEmulator, backend: tuple[str, Program], tmp_path: Path
) -> None:
    """In Chromium the page starts a session, lists it, stops it, and never holds the client key."""
    url, _ = backend
    await asyncio.to_thread(_visit, url, tmp_path, emulator)
    assert not emulator.live_sessions
    assert [one.operation for one in emulator.requests] == ["start", "stop", "start", "stop"]


def _visit(url: str, folder: Path, emulator: EquosEmulator) -> None:
    with browser(folder) as driver:
        driver.get(url)
        until_shown(driver, "nobody")
        driver.find_element(By.ID, "name").clear()
        driver.find_element(By.ID, "name").send_keys("<b>Grace</b>")
        driver.find_element(By.ID, "start").click()
        until_shown(driver, "stop")
        assert driver.find_element(By.ID, "who").text == "You are talking as <b>Grace</b>"
        until_shown(driver, "list")
        # The page may draw the rows anew between finding and reading one.
        WebDriverWait(driver, PATIENCE, ignored_exceptions=[StaleElementReferenceException]).until(
            lambda driver: driver.find_element(By.CSS_SELECTOR, "#rows td").text == "<b>Grace</b>"
        )
        assert driver.find_element(By.ID, "room").text == "rtc.example.test"
        assert len(emulator.live_sessions) == 1
        assert KEY not in driver.page_source
        driver.find_element(By.ID, "stop").click()
        until_shown(driver, "nobody")
        assert not emulator.live_sessions
        driver.find_element(By.ID, "start").click()
        until_shown(driver, "stop")
        driver.get("about:blank")  # leaving the page stops the session as well
        WebDriverWait(driver, PATIENCE).until(lambda _: not emulator.live_sessions)
        driver.get(url)
        log = cast("list[dict[str, str]]", cast("Any", driver).get_log("browser"))
        assert [line for line in log if line["level"] == "SEVERE"] == []


def until_shown(driver: WebDriver, element: str) -> None:
    """Wait until an element can be seen."""
    WebDriverWait(driver, PATIENCE).until(
        lambda driver: driver.find_element(By.ID, element).is_displayed()
    )


@contextmanager
def browser(folder: Path) -> Generator[webdriver.Chrome, None, None]:
    """A headless Chromium with a fresh profile and without background requests."""
    binary, driver = chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=900,700",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()
