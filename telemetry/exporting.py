"""Spans on their way out: OTLP over HTTP, in batches, from a thread of its own."""

import os

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from telemetry.tracing import given_span_id

_MOST_UNSENT = 50_000  # spans; thousands of reminders are due at one instant, with some ten spans each


def provider_of(service_name: str, endpoint: str) -> TracerProvider:
    """Make what samples spans, keeps them and sends them to this address."""
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: service_name}), id_generator=_GivenIds(), shutdown_on_exit=False
    )
    most_unsent = None if os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else _MOST_UNSENT
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint), max_queue_size=most_unsent))
    return provider


class _GivenIds(RandomIdGenerator):
    def generate_span_id(self) -> int:
        return given_span_id.get() or super().generate_span_id()
