"""The API on HTTP: routes, and each request's way through journal, faults and service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge

from . import replies
from .clock import EmulatorClock
from .exchange import Exchange
from .faults import Fault
from .journal import Journal
from .plan import Faults
from .records import EmulatorRequest
from .replies import Reply
from .service import Incoming, Service, parse

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY = 1 << 20
"""Bytes of a request's body; Fastify's default."""


class Api:
    """The two operations, under ``/v1`` and ``/v3``, and a NestJS 404 for all else.

    Args:
        service: What answers.
        journal: Where requests are noted.
        faults: What goes wrong.
        clock: The source of time.
        on_request: Called with each request when it is over.
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
        """Add the routes; those for all else come last."""
        router.add_post("/{version:v1|v3}/session-passes", self._start)
        router.add_patch("/{version:v1|v3}/session-passes/{id}/stop", self._stop)
        router.add_route("*", "/{path:.*}", self._other)

    def abandon(self) -> None:
        """Give up whatever is being delayed."""
        for task in self._working:
            task.cancel()

    async def _start(self, request: web.Request) -> web.StreamResponse:
        incoming = await _read(request)
        record = self._journal.write(
            "start", request.method, request.path, self._clock.now(), name=incoming.name
        )
        return await self._carry_out(request, record, lambda: self._service.start(incoming))

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        incoming = await _read(request)
        session_id = request.match_info["id"]
        record = self._journal.write(
            "stop", request.method, request.path, self._clock.now(), session_id=session_id
        )
        return await self._carry_out(
            request, record, lambda: self._service.stop(incoming, session_id)
        )

    async def _other(self, request: web.Request) -> web.StreamResponse:
        record = self._journal.write(None, request.method, request.path, self._clock.now())
        reply = replies.error(404, f"Cannot {request.method} {request.path}", "Not Found")
        return self._answer(record, reply)

    async def _carry_out(
        self, request: web.Request, record: EmulatorRequest, act: Callable[[], Reply]
    ) -> web.StreamResponse:
        """Answer a request; where nothing goes wrong, without a step that could be cancelled."""
        faults = self._faults.take(record)
        if not faults:
            return self._answer(record, act())
        exchange = Exchange(request, act, record.at, self._clock)
        try:
            return self._answer(record, await self._suffer(exchange, faults))
        except asyncio.CancelledError:
            self._answer(record, None)
            exchange.gone.set()
            raise

    async def _suffer(self, exchange: Exchange, faults: Sequence[Fault]) -> Reply | None:
        """Let faults happen in a task of their own: a server works on when its caller has gone."""
        task = asyncio.create_task(exchange.run(faults))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)

    def _answer(self, record: EmulatorRequest, reply: Reply | None) -> web.StreamResponse:
        if reply is not None:
            record = self._journal.answer(record, reply.status)
        if self._on_request is not None:
            self._on_request(record)
        # Without a reply the connection is closed already, and this goes nowhere.
        return web.Response() if reply is None else to_response(reply)


async def _read(request: web.Request) -> Incoming:
    body = parse(await request.read(), request.headers.get("Content-Type"))
    return Incoming(body, request.headers.get("Authorization", ""))


def to_response(reply: Reply) -> web.Response:
    """An answer as aiohttp sends it."""
    return web.Response(status=reply.status, body=reply.body, headers=reply.headers)


@web.middleware
async def nest_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say in the words of NestJS what aiohttp found wrong with a request."""
    try:
        return await handler(request)
    except HTTPRequestEntityTooLarge:
        return to_response(replies.error(413, "Request body is too large"))
    except web.RequestPayloadError:
        return to_response(replies.error(400, "Request body cannot be read"))
