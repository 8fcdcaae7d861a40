"""The page in a real browser: what it shows, its buttons, and what it does not obey."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from equos_async.testing import EquosEmulator, Status
from tests.emulator.support import BODY, CONVERSATIONS, post
from tests.needs import need

FLAGS = (
    "--headless",
    "--no-sandbox",  # a container's root has no sandbox to give
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1000",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    """A headless Chromium. In CI there has to be one."""
    program, driver = need("chromium", "chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def emulator() -> Iterator[EquosEmulator]:
    """A local server in a thread of its own, since the browser is driven without a loop."""
    with EquosEmulator() as emulator:
        yield emulator


class Visit:
    """The page of an emulator, open in a browser."""

    def __init__(self, browser: Any, emulator: EquosEmulator) -> None:
        self.browser = browser  # Any: selenium's own annotations are incomplete
        self.emulator = emulator
        self.browser.get(emulator.endpoint)
        self.browser.get_log("browser")  # what an earlier page complained of

    def text(self, selector: str) -> str:
        """The text of an element."""
        return str(self.browser.find_element(By.CSS_SELECTOR, selector).text)

    def shows(self, selector: str, words: str) -> None:
        """Wait until it can be read."""
        drawn_anew = [StaleElementReferenceException]  # between finding and reading it
        waiting = WebDriverWait(self.browser, 60, 0.05, ignored_exceptions=drawn_anew)
        waiting.until(lambda _: words in self.text(selector), f"{selector} never showed {words!r}")

    def click(self, selector: str) -> None:
        """Press a button, when no refresh is replacing it."""
        self.browser.execute_script("document.querySelector(arguments[0]).click()", selector)

    def complaints(self) -> list[Any]:
        """The messages on the browser's console."""
        return list(self.browser.get_log("browser"))


@pytest.fixture
def page(browser: WebDriver, emulator: EquosEmulator) -> Visit:
    """The page, open."""
    return Visit(browser, emulator)


def test_it_shows_what_happens(page: Visit) -> None:
    """Without a reload it shows sessions, counts and requests, and that nothing was amiss."""
    page.shows("#no-sessions", "Nothing is live")
    page.shows("#endpoint", page.emulator.endpoint)
    assert post(page.emulator.endpoint, name="support call", client="tenant-42") == 201
    page.shows("#sessions", "support call")
    page.shows("#sessions", "tenant-42")
    page.shows("#live-count", "1")
    page.shows("#requests", "POST /v3/session-passes")
    page.emulator.advance(90)
    page.shows("#sessions", "running")
    page.shows("#sessions", "s of 600")
    page.shows("#billed", "9")
    assert page.complaints() == []


def test_a_session_is_stopped(page: Visit) -> None:
    """The button beside a session ends it."""
    post(page.emulator.endpoint)
    page.shows("#sessions", "stop")
    page.click("[data-stop]")
    page.shows("#live-count", "0")
    assert page.emulator.live_sessions == {}
    assert page.emulator.ended_count == 1


def test_a_conversation_is_joined(page: Visit) -> None:
    """Both kinds are on the page; a button lets a participant join."""
    assert post(page.emulator.endpoint, CONVERSATIONS, name="small talk") == 201
    page.shows("#sessions", "small talk")
    page.shows("#sessions", "conversation")
    page.click("[data-join]")
    page.shows("#sessions", "joined")
    (told,) = page.emulator.live_conversations.values()
    assert told.joined_at is not None
    assert page.complaints() == []


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_usual_is_cut_off(page: Visit, width: int) -> None:
    """Ids, long durations and the paths of stops can be read whole, on a telephone, too."""
    assert post(page.emulator.endpoint, name="support call", maxDuration=86_400) == 201
    (session_id,) = page.emulator.live_sessions
    post(page.emulator.endpoint, f"{CONVERSATIONS}/{session_id}/stop")
    page.emulator.advance(3599)
    size = page.browser.get_window_size()
    page.browser.set_window_size(width, 900)
    try:
        page.shows("#requests", f"{CONVERSATIONS}/{session_id}/stop")
        page.shows("#sessions", " s of 86,400")
        page.shows("#sessions", session_id)
        cut = page.browser.execute_script(
            "return [...document.querySelectorAll('td')]"
            ".filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent)"
        )
    finally:
        page.browser.set_window_size(size["width"], size["height"])
    assert cut == []


def test_it_is_dark_where_the_system_is(page: Visit) -> None:
    """Its colours follow the setting of the system, and buttons have one height."""
    grounds = set[str]()
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        ground = "return getComputedStyle(document.body).backgroundColor"
        grounds.add(page.browser.execute_script(ground))
    assert len(grounds) == 2
    post(page.emulator.endpoint)
    page.shows("#sessions", "stop")
    heights = "return [...document.querySelectorAll('.buttons button')].map((b) => b.offsetHeight)"
    assert len(set(page.browser.execute_script(heights))) == 1


def test_faults_are_added(page: Visit) -> None:
    """By a button, by typing, by a bad day; each is shown, and cleared by one button."""
    page.shows("#no-faults", "All works.")
    page.click("#presets button")
    page.shows("#faults", "start:429,retry_after=2,times=1")
    assert post(page.emulator.endpoint) == 429
    page.browser.find_element(By.NAME, "spec").send_keys("stop:503,times=3\n")
    page.shows("#faults", "stop:503,times=3")
    assert page.emulator.faults.planned[-1].faults == (Status(503),)
    page.click("[data-play='deploy']")
    page.shows("#faults", "all:reset=after")
    page.browser.find_element(By.NAME, "spec").send_keys("nonsense\n")
    page.shows("#error", "'nonsense' is not OPERATION:KIND")
    page.click("#clear")
    page.shows("#no-faults", "All works.")
    assert page.emulator.faults.planned == ()


def test_time_is_moved_on(page: Visit) -> None:
    """Ten minutes pass at the press of a button, and sessions reach their end."""
    post(page.emulator.endpoint)
    page.shows("#live-count", "1")
    page.click("[data-advance='600']")
    page.shows("#live-count", "0")
    page.shows("#billed", "600")


HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_nothing_that_a_caller_sends_is_obeyed(page: Visit) -> None:
    """Markup in a name, a client, a path and a fault is text, and breaks nothing."""
    endpoint = page.emulator.endpoint
    post(endpoint, name=HOSTILE, client=HOSTILE)
    post(endpoint, name="\u0007\u202e" + "x" * 5000)
    post(endpoint, "/%3Cimg%20src=x%20onerror=alert(1)%3E")
    page.shows("#live-count", "2")
    page.shows("#sessions", "<script>document.title='owned'</script>")
    page.shows("#requests", "<img src=x onerror=alert(1)>")
    assert page.browser.title == "Equos emulator"
    assert page.browser.find_elements(By.TAG_NAME, "img") == []
    assert page.complaints() == []
    wide = "return document.documentElement.scrollWidth - innerWidth"
    assert page.browser.execute_script(wide) <= 0


def test_it_says_when_the_server_has_gone(browser: WebDriver) -> None:
    """The page shows that its emulator has ended."""
    with EquosEmulator() as emulator:
        page = Visit(browser, emulator)
        page.shows("#pulse", "live")
    page.shows("#pulse", "gone")


def test_another_site_cannot_press_a_button(page: Visit) -> None:
    """A page of another origin can neither read the state nor act."""
    post(page.emulator.endpoint)
    with EquosEmulator() as other:
        page.browser.get(other.endpoint.replace("127.0.0.1", "localhost"))
        act = """
            const [url, id, done] = arguments;
            Promise.allSettled([
              fetch(url + "/emulator/state").then((r) => r.text()),
              fetch(url + "/emulator/stop", {method: "POST", mode: "no-cors", body: id}),
            ]).then(([read]) => done(read.status));
        """
        session_id = next(iter(page.emulator.live_sessions))
        read = page.browser.execute_async_script(act, page.emulator.endpoint, session_id)
    assert read == "rejected"
    assert session_id in page.emulator.live_sessions


@pytest.mark.parametrize("read", ["fulfilled", "rejected"])
def test_web_apps_call_it_where_they_may(browser: Any, read: str) -> None:
    """A page of an allowed origin starts a session; the emulator's own data it never sees."""
    with EquosEmulator() as app:
        origins = [app.endpoint] if read == "fulfilled" else []
        with EquosEmulator(cors_origins=origins) as emulator:
            browser.get(f"{app.endpoint}/docs/v3-json")  # a page without a policy of its own
            call = """
                const [url, body, done] = arguments;
                const headers = {Authorization: "Bearer key", "Content-Type": "application/json"};
                const start = fetch(url + "/v3/session-passes", {method: "POST", headers, body});
                Promise.allSettled([
                  start.then((answer) => answer.json()),
                  fetch(url + "/emulator/state").then((answer) => answer.text()),
                ]).then((both) => done(both.map((one) => one.status)));
            """
            seen = browser.execute_async_script(call, emulator.endpoint, json.dumps(BODY))
            assert seen == [read, "rejected"]
            assert len(emulator.live_sessions) == len(origins)
