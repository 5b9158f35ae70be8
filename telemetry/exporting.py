"""The export of spans: OTLP over HTTP, in batches, from a thread of its own."""

import os
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

_MAX_UNSENT = 50_000  # spans; thousands of reminders are due at one instant, with about ten spans each


def make_provider(service_name: str, endpoint: str, span_id: Callable[[], int | None]) -> TracerProvider:
    """Make the provider that samples spans and exports them to this address."""
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: service_name}), id_generator=_GivenIds(span_id), shutdown_on_exit=False
    )
    max_unsent = None if os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else _MAX_UNSENT
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint), max_queue_size=max_unsent))
    return provider


class _GivenIds(RandomIdGenerator):
    def __init__(self, span_id: Callable[[], int | None]) -> None:
        super().__init__()
        self._given = span_id

    def generate_span_id(self) -> int:
        return self._given() or super().generate_span_id()
