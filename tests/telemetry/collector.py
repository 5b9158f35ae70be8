"""A collector of traces: takes what is exported by OTLP over HTTP, and shows it as trees."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from tests.stack import eventually


@dataclass(frozen=True)
class Span:
    """One span as it arrived."""

    service: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    attributes: dict[str, str | int]
    otlp: OtlpSpan

    def __str__(self) -> str:
        shown = [f"{key}={self.attributes[f'fastbell.{key}']}" for key in SHOWN if f"fastbell.{key}" in self.attributes]
        return " ".join([f"{self.service.removeprefix('fastbell-')}: {self.name}", *shown])


SHOWN = ("attempt", "outcome", "reason", "again_because")


@dataclass
class Collector:
    """What arrived so far."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Give the settings of a process that sends its spans here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}", "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def about(self, *ids: object) -> list[Span]:
        """Find the spans that name one of these ids."""
        return [
            span
            for span in self.spans
            if any(str(one) in str(value) for one in ids for value in span.attributes.values())
        ]

    async def tree(self, *ids: object, spans: int) -> list[str]:
        """Wait until the one trace that is about these ids has so many spans; gives it line by line, indented."""

        async def whole() -> list[Span]:
            traces = {span.trace_id for span in self.about(*ids)}
            found = [span for span in self.spans if span.trace_id in traces]
            return found if len(found) >= spans else []

        found: list[Span] = await eventually(whole)
        assert len({span.trace_id for span in found}) == 1, [
            (str(x), x.trace_id[:4], x.span_id[:4], x.parent_id[:4]) for x in found
        ]
        return _lines(found, "")

    def take(self, body: bytes) -> None:
        """Take one export."""
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            )
            self.spans += [_span(service, span) for scope in resource.scope_spans for span in scope.spans]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen until the block is left."""
    collector = Collector()

    class Exports(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Exports) as server:
        collector.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _span(service: str, span: OtlpSpan) -> Span:
    attributes = {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in span.attributes}
    return Span(
        service, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name, attributes, span
    )


def _lines(spans: list[Span], parent_id: str, depth: int = 0) -> list[str]:
    """Write a tree; a span whose parent is missing is left out."""
    branches = sorted(
        ["  " * depth + str(span), *_lines(spans, span.span_id, depth + 1)]
        for span in spans
        if span.parent_id == parent_id
    )
    return [line for branch in branches for line in branch]
