"""The HTTP routes of the API; each request goes through the journal, the faults, the service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any, Final

from aiohttp import web
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge
from attrs import evolve, frozen

from . import replies
from .clock import EmulatorClock
from .conversations import CONVERSATION
from .entries import Kind
from .exchange import Exchange
from .faults import Mishap, Twist
from .journal import Journal
from .keys import Key
from .plan import Faults
from .records import EmulatorRequest, Operation
from .replies import Reply
from .service import ABSENT, Incoming, Service, parse
from .sessions import SESSION

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY = 1 << 20
"""The largest body of a request, in bytes; Fastify's default."""


@frozen
class Route:
    """An operation of the API.

    Attributes:
        method: The HTTP method.
        path: The path, in aiohttp's spelling.
        operation: Its name in faults and records.
        kind: Sessions or conversations; None: neither.
        key: The kind of key that it needs; None: no key.
        act: Carries it out.
    """

    method: str
    path: str
    operation: Operation
    kind: Kind | None
    key: Key | None
    act: Callable[[Service, Any, Incoming], Reply]


_PASSES: Final = "/{version:v1|v3}/session-passes"
_SESSIONS: Final = "/{version:v1|v3}/sessions"  # SDK: Python 1.2.7 says v1

ROUTES: Final = (
    # Reference: the client key is for session passes only.
    Route("POST", _PASSES, "start", SESSION, "client_key", Service.start),
    Route("PATCH", _PASSES + "/{id}/stop", "stop", SESSION, "client_key", Service.stop),
    # SDK: the server key is for all others.
    # Assumption: the sessions of session passes are listed here, with the same ids.
    Route("GET", _SESSIONS, "read", SESSION, "api_key", Service.page),
    Route("GET", _SESSIONS + "/{id}", "read", SESSION, "api_key", Service.get),
    Route("PATCH", _SESSIONS + "/{id}/stop", "stop", SESSION, "api_key", Service.stop),
    Route("POST", "/v3/conversations", "start", CONVERSATION, "api_key", Service.start),
    Route("POST", "/v3/conversations/{id}/stop", "stop", CONVERSATION, "api_key", Service.stop),
    Route("GET", "/v3/conversations", "read", CONVERSATION, "api_key", Service.page),
    Route("GET", "/v3/conversations/{id}", "read", CONVERSATION, "api_key", Service.get),
    # SDK: no key is needed.
    Route("GET", "/v3/health", "read", None, None, lambda service, _, __: service.health()),
)


class Api:
    """The operations of :data:`ROUTES`, and a NestJS 404 for all other paths.

    Args:
        service: Answers the requests.
        journal: Records the requests.
        faults: The faults to inject.
        clock: The source of time.
        on_request: Called with each request when it has ended.
    """

    def __init__(
        self,
        *,
        service: Service,
        journal: Journal,
        faults: Faults,
        clock: EmulatorClock,
        on_request: Callable[[EmulatorRequest], object] | None,
    ) -> None:
        self._service = service
        self._journal = journal
        self._faults = faults
        self._clock = clock
        self._on_request = on_request
        self._working: set[asyncio.Task[Reply | None]] = set()

    def mount(self, router: web.UrlDispatcher) -> None:
        """Add the routes; the one for all other paths comes last."""
        for route in ROUTES:
            router.add_route(route.method, route.path, partial(self._serve, route))
        router.add_route("*", "/{path:.*}", self._other)

    def abandon(self) -> None:
        """Cancel the requests that faults delay."""
        for task in self._working:
            task.cancel()

    async def _serve(self, route: Route, request: web.Request) -> web.StreamResponse:
        incoming = await _read(request)
        record = self._journal.write(
            route.operation,
            request.method,
            request.path,
            self._clock.now(),
            name=incoming.name if route.operation == "start" else None,
            session_id=incoming.id or None,
            resource=None if route.kind is None else route.kind.resource,
        )
        return await self._carry_out(request, record, partial(self._act, route, incoming))

    def _act(self, route: Route, incoming: Incoming, twists: Sequence[Twist]) -> Reply:
        if (refusal := self._service.refuse(route.key, incoming)) is not None:
            return refusal
        if twists:
            incoming = evolve(incoming, twists=twists)
        return route.act(self._service, route.kind, incoming)

    async def _other(self, request: web.Request) -> web.StreamResponse:
        record = self._journal.write(None, request.method, request.path, self._clock.now())
        reply = replies.error(404, f"Cannot {request.method} {request.path}", "Not Found")
        return self._answer(record, reply)

    async def _carry_out(
        self,
        request: web.Request,
        record: EmulatorRequest,
        act: Callable[[Sequence[Twist]], Reply],
    ) -> web.StreamResponse:
        """Answer a request; without faults there is no await, so it cannot be cancelled halfway."""
        faults = self._faults.take(record)
        twists = [fault for fault in faults if isinstance(fault, Twist)]
        mishaps = [fault for fault in faults if not isinstance(fault, Twist)]
        if not mishaps:
            return self._answer(record, act(twists))
        exchange = Exchange(request, partial(act, twists), record.at, self._clock)
        try:
            return self._answer(record, await self._suffer(exchange, mishaps))
        except asyncio.CancelledError:
            self._answer(record, None)
            exchange.gone.set()
            raise

    async def _suffer(self, exchange: Exchange, faults: Sequence[Mishap]) -> Reply | None:
        """Apply faults in a task of its own, because a server goes on when its caller has gone."""
        task = asyncio.create_task(exchange.run(faults))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)

    def _answer(self, record: EmulatorRequest, reply: Reply | None) -> web.StreamResponse:
        if reply is not None:
            record = self._journal.answer(record, reply.status)
        if self._on_request is not None:
            self._on_request(record)
        # Without a reply the connection is closed already, and the response is not sent.
        response = web.Response() if reply is None else _as_sent(reply)
        # By the same clock as the times in answers.
        response.headers["Date"] = _http_date(int(self._clock.now()))
        return response


async def _read(request: web.Request) -> Incoming:
    body = await request.read()
    # Fastify does not look at the body of a GET.
    bodiless = request.method == "GET"
    return Incoming(
        method=request.method,
        headers=request.headers,
        id=request.match_info.get("id", ""),
        query=request.query,
        body=ABSENT if bodiless else parse(body, request.headers.get("Content-Type")),
        size=len(body),
    )


@lru_cache(maxsize=1)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _as_sent(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers=reply.headers)


@web.middleware
async def nest_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer requests that aiohttp refuses with the messages of NestJS."""
    try:
        return await handler(request)
    except HTTPRequestEntityTooLarge:
        return _as_sent(replies.error(413, "Request body is too large"))
    except web.RequestPayloadError:
        return _as_sent(replies.error(400, "Request body cannot be read"))
