"""A web backend: a session per visitor, and visitors are strings."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from equos_async import (
    CreateSessionPassRequest,
    EquosClient,
    EquosParticipantIdentity,
    FleetFullError,
    KeyInUseError,
    LiveSession,
    SessionFleet,
)

FLEET = web.AppKey("FLEET", SessionFleet[str])
ENDPOINT = web.AppKey("ENDPOINT", str)


async def sessions(app: web.Application) -> AsyncIterator[None]:
    """One client and one fleet for the application."""
    async with (
        EquosClient("any-key", endpoint=app[ENDPOINT]) as client,
        SessionFleet[str](client, max_live=2) as fleet,
    ):
        app[FLEET] = fleet
        yield


async def start(request: web.Request) -> web.Response:
    """Start a session for a visitor."""
    visitor = request.match_info["visitor"]
    asked = CreateSessionPassRequest(
        name="visitor",
        avatar="av_1",
        agent="ag_1",
        consumer_identity=EquosParticipantIdentity(identity=visitor, name=visitor),
    )
    try:
        live = await request.app[FLEET].start(asked, key=visitor, wait=False)
    except KeyInUseError as error:
        raise web.HTTPConflict(text=f"{error.key} is talking") from error
    except FleetFullError as error:
        later = {"Retry-After": f"{error.retry_after or 1:.0f}"}
        raise web.HTTPServiceUnavailable(headers=later) from error
    return web.json_response(described(live), status=201)


async def show(request: web.Request) -> web.Response:
    """List the visitors with a session."""
    live = request.app[FLEET].live
    return web.json_response({visitor.upper(): described(one) for visitor, one in live.items()})


def described(live: LiveSession[str]) -> dict[str, str | None]:
    """The values that a browser needs."""
    return {"visitor": live.key.removeprefix("v-"), "url": live.server_url}


def build(endpoint: str) -> web.Application:
    """The application."""
    app = web.Application()
    app[ENDPOINT] = endpoint
    app.cleanup_ctx.append(sessions)
    app.router.add_post("/{visitor}", start)
    app.router.add_get("/", show)
    return app
