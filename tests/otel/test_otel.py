"""The spans and metrics of clients and fleets, as the real SDK exports them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from equos_async import (
    APIConnectionError,
    ConfigurationError,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    Event,
    FleetEvent,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    SessionFleet,
    Settle,
    StartOutcomeUnknownError,
)
from equos_async.otel import MAX_STARTS, Telemetry
from equos_async.testing import Delay, Drop, EquosEmulator, Status
from tests.clocks import FakeClock, SkippingClock, until
from tests.conftest import API_KEY, KEY
from tests.fleet.support import REQUEST, Events, ScriptedClient
from tests.kinds import TALK
from tests.security.test_secrets import KEY as SECRET_KEY
from tests.security.test_secrets import REQUEST as SECRET_REQUEST
from tests.security.test_secrets import SECRETS


class Sight:
    """An SDK that keeps what it exports, and a telemetry that it gets it from."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader])
        self.telemetry = Telemetry(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in that order."""
        return list(self._spans.get_finished_spans())

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str, attribute: str) -> dict[object, object]:
        """A counter's values by one of its attributes."""
        return {point.attributes.get(attribute): point.value for point in self.points(name)}

    @property
    def everything(self) -> str:
        """All that left the process, as JSON."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return data.to_json() + "".join(span.to_json() for span in self.spans)


@pytest.fixture
def sight() -> Iterator[Sight]:
    """A real SDK."""
    sight = Sight()
    yield sight
    sight.meters.shutdown()


@pytest.fixture
def observed(emulator: EquosEmulator, clock: SkippingClock, sight: Sight) -> EquosClient:
    """A client whose calls are traced."""
    return EquosClient(
        KEY, endpoint=emulator.endpoint, clock=clock, on_event=sight.telemetry.client()
    )


async def test_a_call_is_one_span_with_its_retries_as_events(
    emulator: EquosEmulator, observed: EquosClient, sight: Sight, request_: CreateSessionPassRequest
) -> None:
    """By the conventions, and a child of the span in which the call was made."""
    emulator.faults.start.add(Status(429, retry_after=3))
    emulator.faults.start.add(Status(503, retry_after=0))
    async with observed as client:
        with sight.tracers.get_tracer("test").start_as_current_span("outer") as outer:
            started = await client.start_session(request_)
    call, _ = sight.spans
    assert (call.name, call.kind) == ("POST /v3/session-passes", SpanKind.CLIENT)
    assert call.parent is not None
    assert call.parent.span_id == outer.get_span_context().span_id
    assert call.status.status_code is StatusCode.UNSET
    assert call.attributes == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": int(emulator.endpoint.rpartition(":")[2]),
        "url.template": "/v3/session-passes",
        "url.full": f"{emulator.endpoint}/v3/session-passes",
        "http.response.status_code": 201,
        "http.request.resend_count": 2,
        "equos.session.id": started.session.id,
        "equos.resource": "session",
    }
    first, second = call.events
    assert first.name == second.name == "retry"
    assert first.attributes is not None
    assert first.attributes["http.response.status_code"] == 429
    assert first.attributes["http.request.resend_count"] == 1
    assert call.start_time is not None
    assert call.end_time is not None
    assert call.start_time < first.timestamp
    # What the clock skipped is in the times.
    assert first.timestamp + 3_000_000_000 <= second.timestamp < call.end_time


async def test_a_call_that_fails(
    emulator: EquosEmulator, observed: EquosClient, sight: Sight
) -> None:
    """An error has a type and no words; a stop's template holds no id, but its full URL does."""
    emulator.faults.stop.add(Status(404, message="no such thing as user-7"))
    async with observed as client:
        with pytest.raises(NotFoundError):
            await client.stop_session("g/1")
    (call,) = sight.spans
    attributes = call.attributes or {}
    assert call.name == "PATCH /v3/session-passes/{id}/stop"
    assert attributes["url.full"] == f"{emulator.endpoint}/v3/session-passes/g%2F1/stop"
    assert (attributes["error.type"], attributes["http.response.status_code"]) == (
        "NotFoundError",
        404,
    )
    assert call.status.status_code is StatusCode.ERROR
    assert call.status.description is None
    assert "user-7" not in sight.everything


async def test_a_retry_without_an_answer(
    emulator: EquosEmulator, observed: EquosClient, sight: Sight
) -> None:
    """It has no status; if the URL names no port, the port is that of its scheme."""
    emulator.faults.stop.add(Drop("before"))
    async with observed as client:
        await client.stop_session("gone")
    (call,) = sight.spans
    (retry,) = call.events
    assert set(retry.attributes or {}) == {"http.request.resend_count", "equos.retry.delay"}


async def test_a_stop_of_the_clients_own(
    emulator: EquosEmulator, observed: EquosClient, sight: Sight, request_: CreateSessionPassRequest
) -> None:
    """A start whose caller left ends there; the stop of its session is a span beside it."""
    emulator.faults.start.add(Delay(30))
    async with observed as client:
        with sight.tracers.get_tracer("test").start_as_current_span("outer"):
            start = asyncio.create_task(client.start_session(request_))
        await until(lambda: emulator.requests)
        start.cancel()
        await asyncio.wait([start])
        emulator.advance(30)
    outer, start_span, stop_span = sight.spans
    assert (start_span.attributes or {})["error.type"] == "CancelledError"
    assert stop_span.name.startswith("PATCH ")
    assert start_span.parent == stop_span.parent == outer.context
    assert sight.values("equos.client.starts", "equos.outcome") == {"cancelled": 1}


async def test_a_start_that_was_settled(emulator: EquosEmulator, sight: Sight) -> None:
    """It is counted by its caller's result, and its settlement as an event."""
    clock = FakeClock()
    client = EquosClient(
        KEY,
        api_key=API_KEY,
        endpoint=emulator.endpoint,
        settle=Settle(patience=0),
        clock=clock,
        on_event=sight.telemetry.client(),
    )
    async with client:
        emulator.faults.start.add(Drop("after"), times=1)
        with pytest.raises(StartOutcomeUnknownError):
            await client.start_session(REQUEST)
        clock.advance(1.0)
        await until(lambda: not client.unresolved)
    assert sight.values("equos.client.starts", "equos.outcome") == {"unknown": 1}
    told = ("start_unknown", "settled", "orphan_stopped")
    assert sight.values("equos.client.events", "equos.event") == dict.fromkeys(told, 1)


async def test_both_kinds_and_what_only_reads(emulator: EquosEmulator, sight: Sight) -> None:
    """Each start and stop has its resource; a look-up counts as a request only."""
    hook = sight.telemetry.client()
    client = EquosClient(KEY, api_key=API_KEY, endpoint=emulator.endpoint, on_event=hook)
    async with client:
        async with client.session(REQUEST), client.conversation(TALK) as started:
            async for _ in client.conversations(client="tenant-42"):
                pass
            await client.ping()
    assert sight.values("equos.client.starts", "equos.resource") == {
        "session": 1,
        "conversation": 1,
    }
    stops = sight.points("equos.client.stop.duration")
    assert sorted(one.attributes["equos.resource"] for one in stops) == ["conversation", "session"]
    spans = {span.name: span.attributes or {} for span in sight.spans}
    stop = spans["POST /v3/conversations/{id}/stop"]
    assert stop["equos.session.id"] == started.conversation.id
    assert stop["http.response.status_code"] == 201
    assert spans["GET /v3/conversations"]["url.full"] == f"{emulator.endpoint}/v3/conversations"
    assert "equos.resource" not in spans["GET /v3/health"]
    assert "tenant-42" not in sight.everything


@pytest.mark.parametrize(
    ("url", "port"), [("https://api.example.test/v3/x", 443), ("http://[::1]/v3/x", 80)]
)
def test_ports(url: str, port: int, sight: Sight) -> None:
    """The port is an attribute even if the URL does not name it."""
    event = Event(kind="ended", operation="start", method="POST", url=url, seconds=0.1)
    sight.telemetry.client()(event)
    assert (sight.spans[0].attributes or {})["server.port"] == port


async def test_metrics_of_calls(
    emulator: EquosEmulator, sight: Sight, clock: SkippingClock, request_: CreateSessionPassRequest
) -> None:
    """Starts by outcome, what happened by kind, and how long calls and stops took."""
    client = EquosClient(
        KEY,
        endpoint=emulator.endpoint,
        clock=clock,
        retry=RetryPolicy(start_attempts=2),
        on_event=sight.telemetry.client(),
    )
    async with client:
        started = await client.start_session(request_)
        for fault, times, error in (
            (Status(429), 2, RateLimitError),
            (Drop("after"), 1, StartOutcomeUnknownError),
        ):
            emulator.faults.start.add(fault, times=times)
            with pytest.raises(error):
                await client.start_session(request_)
        await client.stop_session(started.session.id)
    nowhere = EquosClient(
        KEY,
        endpoint="http://127.0.0.1:9",
        retry=RetryPolicy(start_attempts=1),
        on_event=sight.telemetry.client(),
    )
    async with nowhere:
        with pytest.raises(APIConnectionError):
            await nowhere.start_session(request_)
    outcomes = {"started": 1, "refused": 1, "unknown": 1, "not_sent": 1}
    assert sight.values("equos.client.starts", "equos.outcome") == outcomes
    assert sight.values("equos.client.events", "equos.event") == {"retry": 1, "start_unknown": 1}
    (stop,) = sight.points("equos.client.stop.duration")
    assert (stop.count, stop.attributes) == (1, {"equos.resource": "session"})
    assert stop.explicit_bounds[:2] == (0.005, 0.01)
    requests = sight.points("http.client.request.duration")
    assert sum(point.count for point in requests) == 5
    assert {point.attributes.get("error.type") for point in requests} == {
        None,
        "APIConnectionError",
        "RateLimitError",
        "StartOutcomeUnknownError",
    }


async def test_a_fleet(sight: Sight, emulator: EquosEmulator, observed: EquosClient) -> None:
    """A session is a long span, linked to its start's; live sessions are counted as they are."""
    hook = sight.telemetry.fleet()
    async with observed as client, SessionFleet(client, on_event=hook) as fleet:
        live = await fleet.start(REQUEST, key="secret-guild")
        await fleet.start(REQUEST, key="other")
        (point,) = sight.points("equos.fleet.live")
        assert point.value == 2
        emulator.advance(1)
        await live.stop()
        (point,) = sight.points("equos.fleet.live")
        assert point.value == 1
    starts = [span for span in sight.spans if span.name.startswith("POST")]
    sessions = [span for span in sight.spans if span.name == "equos.session"]
    assert len(starts) == len(sessions) == 2
    for start, session in zip(starts, sessions, strict=True):
        assert session.parent is None
        assert [link.context for link in session.links] == [start.context]
        assert session.attributes == {
            "equos.session.id": (start.attributes or {})["equos.session.id"],
            "equos.resource": "session",
            "equos.outcome": "stopped",
        }
    (point,) = sight.points("equos.fleet.live")
    assert point.value == 0
    assert "secret-guild" not in sight.everything


async def test_a_renewal_that_fails(sight: Sight) -> None:
    """The session's span goes on and notes it; events are counted by kind."""
    scripted = ScriptedClient()
    hook = sight.telemetry.fleet()
    async with SessionFleet(scripted, on_event=hook) as fleet:
        live = await fleet.start(REQUEST, key=1)
        scripted.start_errors.append(EquosError("no"))
        with pytest.raises(EquosError, match="no"):
            await live.renew()
    (span,) = sight.spans
    assert [event.name for event in span.events] == ["renewal failed"]
    kinds = {point.attributes["equos.event"] for point in sight.points("equos.fleet.events")}
    assert kinds == {"started", "refused", "renewal_failed", "stopped"}


async def test_a_fleet_whose_stops_fail(sight: Sight) -> None:
    """A stop that fails before the end is an event of the span; one that fails at it, its end."""
    scripted, still = ScriptedClient(), FakeClock()
    scripted.stop_errors = [EquosError("broken"), EquosError("still broken")]
    hook = sight.telemetry.fleet()
    async with SessionFleet(scripted, max_live=1, clock=still, on_event=hook) as fleet:
        live = await fleet.start(REQUEST, key=1)
        with pytest.raises(EquosError):
            await live.stop()
        assert sight.spans == []
        still.advance(600)
        await live.ended()
    (session,) = sight.spans
    assert [event.name for event in session.events] == ["stop failed"]
    assert (session.attributes or {})["equos.outcome"] == "failed"
    assert session.status.status_code is StatusCode.ERROR
    assert session.links == ()


async def test_starts_that_wait(sight: Sight) -> None:
    """Waiting starts are counted, and those that stop waiting."""
    events = Events()
    hook = sight.telemetry.fleet(events)
    async with SessionFleet(ScriptedClient(), max_live=1, on_event=hook) as fleet:
        await fleet.start(REQUEST, key=1)
        task = asyncio.create_task(fleet.start(REQUEST, key=2))
        await until(lambda: fleet.stats().waiting)
        (point,) = sight.points("equos.fleet.waiting")
        assert point.value == 1
        await fleet.stop(1)
        await task
    (point,) = sight.points("equos.fleet.waiting")
    assert point.value == 0
    assert [kind for kind, _ in events.kinds][:2] == ["started", "waiting"]


def test_hooks_of_ones_own_come_after(sight: Sight) -> None:
    """Both kinds of hooks hand on what they got."""
    events: list[Event | FleetEvent] = []
    event = Event(kind="paused", operation="start")
    change = FleetEvent(kind="waiting", key=1, live=0, waiting=1)
    sight.telemetry.client(events.append)(event)
    sight.telemetry.fleet(events.append)(change)
    assert events == [event, change]


def test_hooks_of_ones_own_come_though_the_spans_fail(sight: Sight) -> None:
    """The user's own hook is called although OpenTelemetry fails."""
    events: list[Event | FleetEvent] = []
    live = FleetEvent(kind="waiting", key=1, live=1, waiting=0)
    unheard = FleetEvent(kind="stopped", key=1, live=0, waiting=0, session_id="never-started")
    nowhere = Event(kind="ended", operation="start", method="POST", url="http://[", seconds=0.1)
    hook = sight.telemetry.fleet(events.append)
    hook(live)
    with pytest.raises(KeyError):
        hook(unheard)
    with pytest.raises(ValueError, match="URL"):
        sight.telemetry.client(events.append)(nowhere)
    assert events == [live, unheard, nowhere]


def test_a_coroutine_function_of_ones_own(sight: Sight) -> None:
    """It would be called, and never run."""

    async def hook(_: object) -> None:
        raise AssertionError

    class Hook:
        async def __call__(self, _: object) -> None:
            raise AssertionError

    nothing: Any = "a text"
    for make in (sight.telemetry.client, sight.telemetry.fleet):
        for one in (hook, Hook()):
            with pytest.raises(ConfigurationError, match="also must be a plain function"):
                make(one)
        with pytest.raises(ConfigurationError, match="also must be callable, not str"):
            make(nothing)


def test_what_is_remembered_of_starts_is_bounded(sight: Sight) -> None:
    """A client without a fleet leaves nothing behind that grows."""
    started, watched = sight.telemetry.client(), sight.telemetry.fleet()
    for number in range(MAX_STARTS + 1):
        started(
            Event(
                kind="ended",
                operation="start",
                method="POST",
                url="https://x.test/a",
                seconds=0.1,
                session_id=str(number),
            )
        )
    for number in (0, 1):
        watched(FleetEvent(kind="started", key=number, live=1, waiting=0, session_id=str(number)))
        watched(FleetEvent(kind="expired", key=number, live=0, waiting=0, session_id=str(number)))
    assert [len(span.links) for span in sight.spans[-2:]] == [0, 1]


async def test_no_secret_is_exported(
    emulator: EquosEmulator, clock: SkippingClock, sight: Sight
) -> None:
    """Whatever a server echoes: no key, token, body, name or identity leaves the process."""
    words = " ".join(SECRETS)
    hooks = sight.telemetry.client(), sight.telemetry.fleet()
    async with EquosClient(
        SECRET_KEY, endpoint=emulator.endpoint, clock=clock, on_event=hooks[0]
    ) as client:
        emulator.faults.start.add(Status(429, message=words))
        async with SessionFleet(client, on_event=hooks[1]) as fleet:
            live = await fleet.start(SECRET_REQUEST, key="secret-name")
            secrets = [*SECRETS, str(live.consumer_access_token), SECRET_REQUEST.name]
            for status in (400, 500):
                emulator.faults.start.add(Status(status, message=words))
                with pytest.raises(EquosError):
                    await fleet.start(SECRET_REQUEST, key="secret-identity")
            emulator.faults.stop.add(Status(503, message=words))
            emulator.faults.stop.add(Status(404, message=words))
            with pytest.raises(NotFoundError):
                await live.stop()
    assert len(sight.spans) == 6
    assert [secret for secret in secrets if secret in sight.everything] == []


def test_nothing_is_imported_that_was_not_asked_for() -> None:
    """Using the package loads no part of OpenTelemetry."""
    program = (
        "import sys, equos_async, equos_async.testing\n"
        "[getattr(equos_async, name) for name in equos_async.__all__]\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
