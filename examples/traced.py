"""Spans and metrics of a fleet, on the console; needs `opentelemetry-sdk`."""

import asyncio

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from equos_async import CreateSessionPassRequest, EquosClient, SessionFleet
from equos_async import EquosParticipantIdentity as Person
from equos_async.otel import Telemetry
from equos_async.testing import EquosEmulator, Status

ADA = Person(identity="user-7", name="Ada")
CALL = CreateSessionPassRequest(name="call", avatar="av_1", agent="ag_1", consumer_identity=ADA)


async def main() -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    meters = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
    telemetry = Telemetry(tracer_provider=tracers, meter_provider=meters)
    async with EquosEmulator() as server:
        server.faults.start.add(Status(429, retry_after=0))
        async with (
            EquosClient("key", endpoint=server.endpoint, on_event=telemetry.client()) as client,
            SessionFleet(client, on_event=telemetry.fleet()) as fleet,
        ):
            await fleet.start(CALL, key="guild-1")
    meters.shutdown()


asyncio.run(main())
