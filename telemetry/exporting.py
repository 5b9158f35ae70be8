"""Spans on their way out: OTLP over HTTP, in batches, from a thread of its own."""

import os
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

_MAX_UNSENT = 50_000  # spans; thousands of reminders are due at one instant, with some ten spans each


def provider_of(service_name: str, endpoint: str, given_span_id: Callable[[], int | None]) -> TracerProvider:
    """Make what samples spans, keeps them and sends them to this address."""
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: service_name}),
        id_generator=_GivenIds(given_span_id),
        shutdown_on_exit=False,
    )
    most_unsent = None if os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else _MAX_UNSENT
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint), max_queue_size=most_unsent))
    return provider


class _GivenIds(RandomIdGenerator):
    def __init__(self, given_span_id: Callable[[], int | None]) -> None:
        super().__init__()
        self._given = given_span_id

    def generate_span_id(self) -> int:
        return self._given() or super().generate_span_id()
