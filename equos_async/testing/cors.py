"""CORS: let web pages of some origins call the API, as NestJS's ``enableCors`` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_METHODS: Final = "GET,HEAD,PUT,PATCH,POST,DELETE"
_API: Final = ("/v1/", "/v3/")


class Cors:
    """The origins that may call the API; :meth:`guard` is the middleware.

    The emulator's own page and its actions are never allowed for other origins.

    Args:
        origins: The origins; ``"*"``: all.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a preflight request, and add the CORS headers to other answers."""
        origin = request.headers.get("Origin")
        if origin is None or not self._origins & {"*", origin} or not request.path.startswith(_API):
            return await handler(request)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            response: web.StreamResponse = _preflight(request)
        else:
            response = await handler(request)
        response.headers["Access-Control-Allow-Origin"] = "*" if "*" in self._origins else origin
        response.headers["Vary"] = "Origin"
        return response


def _preflight(request: web.Request) -> web.Response:
    asked = request.headers.get("Access-Control-Request-Headers", "")
    allowed = {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Allow-Headers": asked}
    return web.Response(status=204, headers=allowed)
