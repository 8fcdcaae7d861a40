"""The page at ``/``: the state of the emulator, with buttons for faults and its clock."""

from __future__ import annotations

import argparse
import ipaddress
import json
from collections.abc import Callable
from importlib import resources
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web
from attrs import asdict

from .books import Books
from .clock import EmulatorClock
from .journal import Journal
from .plan import Faults
from .records import EmulatedSession, shorten
from .scenarios import SCENARIOS
from .spec import describe, parse_fault

SHOWN: Final = 50
"""The number of live sessions, and of requests, that the page shows."""

_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/emulator/page.css": ("page.css", "text/css"),
    "/emulator/page.js": ("page.js", "text/javascript"),
}

_GUARDS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Page:
    """The page, its data and its actions.

    Texts from callers are sent to the browser as JSON, and the page's script shows them as text,
    never as HTML. Actions are accepted from the page itself only: see :func:`refuse_strange_hosts`
    and :func:`refuse_other_sites`.
    """

    def __init__(
        self, *, books: Books, journal: Journal, faults: Faults, clock: EmulatorClock
    ) -> None:
        self._books = books
        self._journal = journal
        self._faults = faults
        self._clock = clock
        self._actions: dict[str, Callable[[str], object]] = {
            "stop": self._books.close,
            "join": self._books.join,
            "fault": lambda spec: parse_fault(spec).add_to(self._faults),
            "play": lambda name: SCENARIOS[name].play(self._faults),
            "clear": lambda _: self._faults.clear(),
            "advance": lambda seconds: self._clock.advance(float(seconds)),
        }

    def mount(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        for path in _FILES:
            router.add_get(path, self._file)
        router.add_get("/docs/v3-json", self._document)
        router.add_get("/emulator/state", self._state)
        router.add_post("/emulator/{action}", self._act)

    async def _file(self, request: web.Request) -> web.Response:
        refuse_strange_hosts(request)
        name, kind = _FILES[request.path]
        return web.Response(text=_read(f"page/{name}"), content_type=kind, headers=_GUARDS)

    async def _document(self, _: web.Request) -> web.Response:
        return web.Response(text=_read("openapi.json"), content_type="application/json")

    async def _state(self, request: web.Request) -> web.Response:
        refuse_strange_hosts(request)
        return web.json_response(self.state(), headers=_GUARDS)

    async def _act(self, request: web.Request) -> web.Response:
        refuse_strange_hosts(request)
        refuse_other_sites(request)
        action = self._actions.get(request.match_info["action"])
        if action is None:
            raise web.HTTPNotFound(headers=_GUARDS)
        try:
            action(_argument(await request.read()))
        except (ValueError, KeyError, argparse.ArgumentTypeError) as error:
            return web.json_response({"error": str(error)}, status=400, headers=_GUARDS)
        return web.json_response(self.state(), headers=_GUARDS)

    def state(self) -> dict[str, Any]:
        """The data that the page shows."""
        live, (live_count, ended_count) = self._books.live(), self._books.counts
        return {
            "now": self._clock.now(),
            "live": [_bounded(one) for one in list(live.values())[-SHOWN:][::-1]],
            "live_count": live_count,
            "ended_count": ended_count,
            "billed_seconds": self._books.billed_seconds,
            "request_count": self._journal.count,
            "requests": [asdict(one) for one in self._journal.requests[-SHOWN:][::-1]],
            "faults": [describe(one) for one in self._faults.planned],
            "scenarios": [{"name": one.name, "about": one.about} for one in SCENARIOS.values()],
        }


def _bounded(session: EmulatedSession) -> dict[str, Any]:
    """A session for the page, which reads it every second: long texts are cut."""
    client = None if session.client is None else shorten(session.client)
    return {**asdict(session), "name": shorten(session.name), "client": client}


def refuse_strange_hosts(request: web.Request) -> None:
    """Refuse a request of a foreign page whose host name resolves to this address (DNS rebinding).

    The Host header of such a request has that name; a person types an address, or ``localhost``.
    """
    if not _is_address(request.host):
        raise web.HTTPForbidden(text="open this page by its address\n", headers=_GUARDS)


def _is_address(host: str) -> bool:
    """Whether a Host header is an IP address or ``localhost``, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def refuse_other_sites(request: web.Request) -> None:
    """Refuse an action that did not come from the page itself (cross-site request forgery)."""
    same_origin = request.headers.get("Origin") == f"{request.scheme}://{request.host}"
    if not same_origin or request.content_type != "application/json":
        raise web.HTTPForbidden(text="actions are taken from the page only\n", headers=_GUARDS)


def _argument(body: bytes) -> str:
    """The argument of an action: a JSON string."""
    argument: object = json.loads(body)
    if not isinstance(argument, str):
        raise ValueError("the body must be a JSON string")
    return argument


def _read(name: str) -> str:
    return (resources.files("equos_async.testing") / name).read_text(encoding="utf-8")
