"""A web backend with aiohttp: browsers start and stop sessions, and never see the client key.

``python examples/web_backend.py`` and open http://127.0.0.1:8080. Ctrl-C and SIGTERM stop every
session. Without EQUOS_ENDPOINT it uses a local server, and says so; for the real service set
EQUOS_ENDPOINT=https://api.equos.ai and EQUOS_CLIENT_KEY, and run several if you like: they share a
ledger, EQUOS_LEDGER=redis://... or sqlite:PATH (by default sqlite:sessions.db). Put your own login
in front of it, because everyone who can start sessions spends your money.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from attrs import evolve

from equos_async import (
    APIConnectionError,
    APIStatusError,
    ClientClosedError,
    ConfigurationError,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
    FleetFullError,
    KeyInUseError,
    LedgerError,
    OverloadedError,
    RateLimitError,
    RedisLedger,
    SessionFleet,
    SessionLedger,
    SQLiteLedger,
    StartOutcomeUnknownError,
)
from equos_async.testing import EquosEmulator

PAGE = Path(__file__).with_name("page.html")
FLEET = web.AppKey("fleet", SessionFleet)
LEDGER = web.AppKey("ledger", SessionLedger)
TEMPLATE = CreateSessionPassRequest(
    name="visitor",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="nobody", name="Nobody"),
    max_duration=600,
)


async def sessions(app: web.Application) -> AsyncIterator[None]:
    """One client and one fleet for the whole application: a ``cleanup_ctx``."""
    async with AsyncExitStack() as stack:
        endpoint, key = None, None
        if "EQUOS_ENDPOINT" not in os.environ:
            emulator = await stack.enter_async_context(EquosEmulator())
            endpoint, key = emulator.endpoint, "any-key"
            print(f"EQUOS_ENDPOINT is not set: using a local server, {endpoint}", flush=True)
        ledger = the_ledger()
        stack.push_async_callback(ledger.aclose)
        client = await stack.enter_async_context(EquosClient(key, endpoint=endpoint))
        fleet = SessionFleet(client, max_live=20, budget_seconds=24 * 3600, ledger=ledger)
        stack.callback(lambda: print(f"bye: {fleet.report}", flush=True))
        app[FLEET], app[LEDGER] = await stack.enter_async_context(fleet), ledger
        yield


async def hang_up(app: web.Application) -> None:
    """Before aiohttp waits for its visitors: what they wait for now would be stopped at once."""
    await app[FLEET].aclose()


def the_ledger() -> SQLiteLedger | RedisLedger:
    """The ledger of all workers, because a hang-up may reach any of them."""
    if "EQUOS_ENDPOINT" not in os.environ:
        return SQLiteLedger(":memory:")  # the local server is this worker's own
    where = os.environ.get("EQUOS_LEDGER", "sqlite:sessions.db")
    path = where.removeprefix("sqlite:")
    return RedisLedger(where) if path == where else SQLiteLedger(path)


async def page(_: web.Request) -> web.FileResponse:
    """The page."""
    return web.FileResponse(PAGE)


async def start(request: web.Request) -> web.Response:
    """Start a session for a visitor; the answer is what the browser needs to join the room."""
    name = await read_name(request)
    # The key is the visitor's secret: anyone who knows it can stop the session.
    key = secrets.token_urlsafe(16)
    visitor = EquosParticipantIdentity(identity=public_id(key), name=name)
    asked = evolve(TEMPLATE, name=name, consumer_identity=visitor)
    live = await request.app[FLEET].start(asked, key=key, wait=False)
    joined = {
        "key": key,
        "server_url": live.session.host.server_url,
        "token": live.consumer_access_token,
    }
    return web.json_response(described(key, name, live.remaining) | joined, status=201)


async def stop(request: web.Request) -> web.Response:
    """Stop a session; one that is not running is stopped already."""
    await request.app[FLEET].stop(request.match_info["key"])
    return web.Response(status=204)


async def show(request: web.Request) -> web.Response:
    """The live sessions of all workers, without keys and tokens."""
    rows = [row for row in await request.app[LEDGER].rows() if row.session_id is not None]
    return web.json_response(
        {"sessions": [described(row.key, row.name, row.remaining) for row in rows]}
    )


async def read_name(request: web.Request) -> str:
    """The visitor's name. JSON only: no other site's form can send that in a visitor's name."""
    try:
        body: Any = await request.json() if request.content_type == "application/json" else {}
        name = str(body["name"]).strip()
    except (ValueError, TypeError, LookupError):
        name = ""
    if not 0 < len(name) <= 60:
        raise web.HTTPBadRequest(
            text=json.dumps({"error": "please tell your name"}), content_type="application/json"
        )
    return name


def described(key: str, name: str, remaining: float) -> dict[str, Any]:
    """The public facts about a session."""
    return {"id": public_id(key), "name": name, "remaining": round(remaining)}


def public_id(key: str) -> str:
    """A name for a session that does not let others stop it."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


@web.middleware
async def explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn the library's errors into answers that tell visitors what they need, and no more."""
    try:
        return await handler(request)
    except EquosError as error:
        request.app.logger.warning("%s: %s", type(error).__name__, error)
        status, text, wait = refusal(error)
        headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
        return web.json_response({"error": text}, status=status, headers=headers)


def refusal(error: EquosError) -> tuple[int, str, float | None]:
    """A status, words for the visitor, and after how many seconds to try again, if that is known.

    What the error says is for the log.
    """
    match error:
        case FleetFullError() | OverloadedError() | RateLimitError():
            return 503, "All lines are busy, please try again later.", error.retry_after
        case ClientClosedError() | LedgerError():
            return 503, "We are away for a moment, please try again.", None
        case APIConnectionError() | APIStatusError():
            return 502, "The avatar cannot be reached, please try again later.", None
        case StartOutcomeUnknownError():
            return 504, "The avatar has not answered, please try again later.", None
        case ConfigurationError():
            return 500, "This conversation cannot be started.", None
        case KeyInUseError():
            return 409, "This conversation has begun already.", None
        case _:
            return 409, "This conversation was ended before it began.", None


def build() -> web.Application:
    """The application."""
    app = web.Application(middlewares=[explain])
    app.cleanup_ctx.append(sessions)
    app.on_shutdown.append(hang_up)
    app.router.add_get("/", page)
    app.router.add_post("/sessions", start)
    app.router.add_get("/sessions", show)
    app.router.add_delete("/sessions/{key}", stop)
    return app


if __name__ == "__main__":
    # With handler_cancellation no session is left if a visitor leaves while it starts.
    web.run_app(
        build(),
        host="127.0.0.1",
        port=int(os.environ.get("PORT", "8080")),
        handler_cancellation=True,
        print=partial(print, flush=True),  # else Docker and systemd show its address late
    )
