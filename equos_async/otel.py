"""OpenTelemetry: spans and metrics, made from the events of clients and fleets.

It needs the extra ``otel``: ``pip install '.[otel]'`` in a checkout. Nothing else in this package
imports it::

    telemetry = Telemetry()
    async with EquosClient(on_event=telemetry.client()) as client:
        async with SessionFleet(client, on_event=telemetry.fleet()) as fleet:
            ...

Spans:

- For each call one span of kind ``CLIENT``, by the semantic conventions for HTTP. Its parent is the
  span in which the call was made; retries are events in it. It is recorded when the call returns to
  its caller, or when the client has stopped a session whose caller was gone.
- For each session of a fleet one span ``equos.session``, from its start until the fleet knows that
  it has ended. It lasts for minutes, so it is a trace of its own, linked to the span of its start.

Metrics:

====================================  ==============  ==========================================
name                                  unit            what, by which attributes
====================================  ==============  ==========================================
``http.client.request.duration``      s               calls, their retries included
``equos.client.starts``               ``{start}``     starts, by ``equos.outcome``: ``started``,
                                                      ``refused``, ``not_sent``, ``unknown``,
                                                      ``cancelled``; by ``equos.resource``
``equos.client.stop.duration``        s               stops, also of sessions that no caller
held; by
                                                      ``equos.resource``
``equos.client.events``               ``{event}``     ``equos.event``: ``retry``, ``paused``,
                                                      ``start_unknown``, ``settled``,
                                                      ``settling_off``, ``orphan_stopped``,
                                                      ``stop_failed``, ``stopped_late``,
                                                      ``not_live``, ``unreadable_field``; by
                                                      ``equos.operation``
``equos.fleet.live``                  ``{session}``   live sessions of all fleets
``equos.fleet.waiting``               ``{start}``     starts that wait for a slot
``equos.fleet.events``                ``{event}``     events of all fleets, by ``equos.event``, the
                                                      kind of the ``FleetEvent``, and
                                                      ``equos.resource``
====================================  ==============  ==========================================

``equos.resource`` is ``session`` or ``conversation``; the id of either is ``equos.session.id``.
``error.type`` is the name of the exception's class. Spans and metrics contain session ids, but no
keys, tokens, bodies, names, identities or texts of the server.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    get_tracer,
)

from . import ConfigurationError, Event, FleetEvent, __version__

__all__ = ["Telemetry"]

SCHEMA: Final = "https://opentelemetry.io/schemas/1.27.0"
MAX_STARTS: Final = 1000
"""How many starts are remembered, so that a fleet's session can be linked to its start's span."""

# The conventions for HTTP metrics; an SDK's own boundaries are meant for milliseconds.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

_OUTCOMES: Final[dict[str | None, str]] = {
    None: "started",
    "CancelledError": "cancelled",
    "StartOutcomeUnknownError": "unknown",
    "StartUnreadableError": "unknown",
    "APIConnectionError": "not_sent",
    "APITimeoutError": "not_sent",
    "ClientClosedError": "not_sent",
    "OverloadedError": "not_sent",
}

_NOTED: Final[dict[str, str]] = {"failed": "stop failed", "renewal_failed": "renewal failed"}
"""Events in a session's span, by the kinds that do not end it."""

E = TypeVar("E")
_Attributes = dict[str, str | int | float]


class Telemetry:
    """Makes hooks for clients and fleets that share a tracer and instruments.

    Args:
        tracer_provider: Where spans go; by default the global one.
        meter_provider: Where metrics go; by default the global one.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer = get_tracer("equos_async", __version__, tracer_provider, SCHEMA)
        meter = get_meter("equos_async", __version__, meter_provider, SCHEMA)
        self._requests = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._starts = meter.create_counter("equos.client.starts", "{start}", "Starts, by outcome.")
        self._stops = meter.create_histogram(
            "equos.client.stop.duration",
            "s",
            "Duration of stops.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._events = meter.create_counter(
            "equos.client.events", "{event}", "Retries, pauses and warnings of clients."
        )
        self._live = meter.create_up_down_counter(
            "equos.fleet.live", "{session}", "Live sessions of fleets."
        )
        self._waiting = meter.create_up_down_counter(
            "equos.fleet.waiting", "{start}", "Starts that wait for a slot."
        )
        self._happened = meter.create_counter(
            "equos.fleet.events", "{event}", "Events of fleets, by kind."
        )
        self._started: dict[str, SpanContext] = {}

    def client(self, also: Callable[[Event], object] | None = None) -> Callable[[Event], None]:
        """Make the ``on_event`` of a client.

        Args:
            also: A hook of yours, called with each event afterwards.

        Raises:
            ConfigurationError: The hook cannot be called, or is a coroutine function.
        """
        own = _checked(also)

        def on_event(event: Event) -> None:
            try:
                self._tell(event)
            finally:
                own(event)

        return on_event

    def fleet(
        self, also: Callable[[FleetEvent[Any]], object] | None = None
    ) -> Callable[[FleetEvent], None]:
        """Make the ``on_event`` of one fleet; each needs its own.

        Args:
            also: A hook of yours, called with each event afterwards.

        Raises:
            ConfigurationError: The hook cannot be called, or is a coroutine function.
        """
        own = _checked(also)
        live = waiting = 0
        spans: dict[str, Span] = {}

        def on_event(event: FleetEvent) -> None:
            nonlocal live, waiting
            grown, live = event.live - live, event.live
            longer, waiting = event.waiting - waiting, event.waiting
            try:
                self._live.add(grown)
                self._waiting.add(longer)
                self._happened.add(1, {**_about(event), "equos.event": event.kind})
                self._follow(event, spans, over=grown < 0)
            finally:
                own(event)

        return on_event

    def _tell(self, event: Event) -> None:
        if event.kind != "ended":
            self._events.add(1, {"equos.event": event.kind, "equos.operation": event.operation})
        if event.url is None or event.method is None or event.seconds is None:
            return  # the call goes on, or another event tells of its end
        facts = _facts(event.url, event.method, event.status, event.error)
        self._requests.record(event.seconds, facts)
        about = _about(event)
        if event.operation == "stop":
            self._stops.record(event.seconds, {**about, **_error(event.error)})
        elif event.operation == "start":
            outcome = _OUTCOMES.get(event.error, "refused")
            self._starts.add(1, {**about, "equos.outcome": outcome})
        self._draw(event, event.url, event.seconds, facts)

    def _draw(self, event: Event, url: str, seconds: float, facts: _Attributes) -> None:
        """Make the span of a call that has ended, with its times."""
        end = time.time_ns()
        start = end - _nanoseconds(seconds)
        session_id = event.session_id or ""
        full = url.replace("{id}", quote(session_id, safe=""))
        attributes = {**facts, **_about(event), "url.full": full}
        if session_id:
            attributes["equos.session.id"] = session_id
        if event.attempts > 1:
            attributes["http.request.resend_count"] = event.attempts - 1
        span = self._tracer.start_span(
            f"{facts['http.request.method']} {facts['url.template']}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=start,
        )
        for retry in event.retries:
            when = start + _nanoseconds(retry.seconds or 0)
            span.add_event("retry", _retry(retry), when)
        if event.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)
        if event.operation == "start" and event.error is None:
            self._started[session_id] = span.get_span_context()
            if len(self._started) > MAX_STARTS:
                del self._started[next(iter(self._started))]

    def _follow(self, event: FleetEvent, spans: dict[str, Span], *, over: bool) -> None:
        """Begin or end the span of a session."""
        session_id = event.session_id or ""
        if event.kind == "started":
            start = self._started.pop(session_id, None)
            spans[session_id] = self._tracer.start_span(
                "equos.session",
                Context(),  # empty: the caller's span ends long before this one
                attributes={"equos.session.id": session_id, **_about(event)},
                links=() if start is None else [Link(start)],
            )
        elif over:
            span = spans.pop(session_id)
            span.set_attribute("equos.outcome", event.kind)
            if event.kind == "failed":
                span.set_status(Status(StatusCode.ERROR))
            span.end()
        elif event.kind in _NOTED and session_id in spans:
            spans[session_id].add_event(_NOTED[event.kind])


def _checked(also: Callable[[E], object] | None) -> Callable[[E], object]:
    """The hook; without one, a function that does nothing."""
    if also is None:
        return _nothing
    if not callable(also):
        raise ConfigurationError(f"also must be callable, not {type(also).__name__}")
    if any(map(inspect.iscoroutinefunction, (also, type(also).__call__))):
        raise ConfigurationError("also must be a plain function, not a coroutine function")
    return also


def _nothing(_: object) -> None:
    """Do nothing, in place of a hook that was not given."""


def _facts(url: str, method: str, status: int | None, error: str | None) -> _Attributes:
    """The attributes that the conventions for HTTP ask for in spans and metrics."""
    parts = urlsplit(url)
    facts: _Attributes = {
        "http.request.method": method,
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        "url.template": parts.path,
        **_error(error),
    }
    if status is not None:
        facts["http.response.status_code"] = status
    return facts


def _about(event: Event | FleetEvent) -> _Attributes:
    return {} if event.resource is None else {"equos.resource": event.resource}


def _error(error: str | None) -> _Attributes:
    return {} if error is None else {"error.type": error}


def _retry(retry: Event) -> _Attributes:
    attributes: _Attributes = {
        "http.request.resend_count": retry.attempts,
        "equos.retry.delay": retry.delay or 0.0,
    }
    if retry.status is not None:
        attributes["http.response.status_code"] = retry.status
    return attributes


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
