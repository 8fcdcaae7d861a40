"""A web backend with FastAPI: browsers start and stop sessions, and never see the client key.

``python examples/fastapi_backend.py`` and open http://127.0.0.1:8000. Ctrl-C and SIGTERM stop every
session. Without EQUOS_ENDPOINT it uses a local server, and says so; for the real service set
EQUOS_ENDPOINT=https://api.equos.ai and EQUOS_CLIENT_KEY, and run several workers if you like,
``uvicorn --app-dir examples fastapi_backend:app --workers 2``: they share a ledger,
EQUOS_LEDGER=redis://... or sqlite:PATH (by default sqlite:sessions.db). Put your own login in front
of it, because everyone who can start sessions spends your money.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import secrets
import signal
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import uvicorn
from attrs import evolve
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field

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

T = TypeVar("T")
PAGE = Path(__file__).with_name("page.html")
TEMPLATE = CreateSessionPassRequest(
    name="visitor",
    avatar="av_1",
    agent="ag_1",
    consumer_identity=EquosParticipantIdentity(identity="nobody", name="Nobody"),
    max_duration=600,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """One client and one fleet for the whole application."""
    with suppress(asyncio.CancelledError):  # how uvicorn ends this after a second Ctrl-C
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
            app.state.fleet, app.state.ledger = await stack.enter_async_context(fleet), ledger
            yield


def the_ledger() -> SQLiteLedger | RedisLedger:
    """The ledger of all workers, because a hang-up may reach any of them."""
    if "EQUOS_ENDPOINT" not in os.environ:
        return SQLiteLedger(":memory:")  # the local server is this worker's own
    where = os.environ.get("EQUOS_LEDGER", "sqlite:sessions.db")
    path = where.removeprefix("sqlite:")
    return RedisLedger(where) if path == where else SQLiteLedger(path)


app = FastAPI(title="Talk to Ada", lifespan=lifespan)


def the_fleet(request: Request) -> SessionFleet:
    """The application's fleet, for the endpoints to depend on."""
    return cast("SessionFleet", request.app.state.fleet)


def open_sessions(request: Request) -> SessionLedger:
    """The ledger, which knows the sessions of all workers."""
    return cast("SessionLedger", request.app.state.ledger)


Fleet = Annotated[SessionFleet, Depends(the_fleet)]
Ledger = Annotated[SessionLedger, Depends(open_sessions)]


class Visitor(BaseModel):
    """A person who wants to talk."""

    name: str = Field(min_length=1, max_length=60, pattern=r"\S")


class Listed(BaseModel):
    """The public facts about a session."""

    id: str
    name: str
    remaining: int


class Joined(Listed):
    """What the browser needs to join the room; the key is the visitor's secret."""

    key: str
    server_url: str
    token: str | None


class Listing(BaseModel):
    """The live sessions, without keys and tokens."""

    sessions: list[Listed]


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page."""
    return FileResponse(PAGE)


@app.post("/sessions", status_code=201)
async def start(request: Request, visitor: Visitor, fleet: Fleet) -> Joined:
    """Start a session for a visitor."""
    key = secrets.token_urlsafe(16)
    identity = EquosParticipantIdentity(identity=public_id(key), name=visitor.name)
    asked = evolve(TEMPLATE, name=visitor.name, consumer_identity=identity)
    live = await unless_left(request, fleet.start(asked, key=key, wait=False))
    if await request.is_disconnected():
        await live.stop()  # it started just when the visitor left
    return Joined(
        key=key,
        server_url=live.session.host.server_url,
        token=live.consumer_access_token,
        **described(key, visitor.name, live.remaining),
    )


@app.delete("/sessions/{key}", status_code=204)
async def stop(key: str, fleet: Fleet) -> None:
    """Stop a session; one that is not running is stopped already."""
    await fleet.stop(key)


@app.get("/sessions")
async def show(ledger: Ledger) -> Listing:
    """The live sessions of all workers."""
    rows = [row for row in await ledger.rows() if row.session_id is not None]
    return Listing(sessions=[Listed(**described(row.key, row.name, row.remaining)) for row in rows])


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do something for a visitor, and cancel it if that visitor leaves, as FastAPI does not."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(left(request))
    try:
        await asyncio.wait([doing, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise HTTPException(499, "the visitor has left")
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()


async def left(request: Request) -> None:
    """Return when the browser has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def described(key: str, name: str, remaining: float) -> dict[str, Any]:
    """A session's public side."""
    return {"id": public_id(key), "name": name, "remaining": round(remaining)}


def public_id(key: str) -> str:
    """A name for a session that does not let others stop it."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


@app.exception_handler(EquosError)
async def explain(_: Request, error: Exception) -> JSONResponse:
    """Turn the library's errors into answers that tell visitors what they need, and no more."""
    logging.getLogger("uvicorn.error").warning("%s: %s", type(error).__name__, error)
    status, text, wait = refusal(cast("EquosError", error))
    headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
    return JSONResponse({"error": text}, status, headers)


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


if __name__ == "__main__":
    # When uvicorn is done it raises the signals that it got once more, and SIGTERM would kill the
    # process there and then: after a second signal, before the sessions are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
