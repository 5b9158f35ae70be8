"""Traces, from the request to the provider's answer. They are on where the standard variables name a collector.

Every span is made here from our own names, ids and counts. No span holds an exception's text: it may quote a token.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Kind = SpanKind
Attributes = Mapping[str, str | int]

_span_id: ContextVar[int | None] = ContextVar("span_id", default=None)

_FLUSH_TIMEOUT = 3.0  # seconds

_tracer = trace.get_tracer("fastbell")
_w3c = TraceContextTextMapPropagator()


def start(service_name: str, endpoint: str) -> None:
    """Start tracing. Spans go to this address; the standard variables decide the rest."""
    from telemetry.exporting import make_provider  # noqa: PLC0415 -- these libraries are loaded only where traces are on

    trace.set_tracer_provider(make_provider(service_name, endpoint, _span_id.get))


def stop() -> None:
    """Send the remaining spans, for a few seconds at most; the last thing a process does."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:  # in a thread, since a collector that does not answer blocks it for longer
        sending = threading.Thread(target=shutdown, daemon=True)
        sending.start()
        sending.join(_FLUSH_TIMEOUT)


def is_on() -> bool:
    """Tell whether spans are sent."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def traceparent() -> str | None:
    """Give the current span in the form of W3C Trace Context; None where there is none."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier.get("traceparent")


def context_of(traceparent: str | None) -> Context:
    """Read the parent that a caller named. Without one, or with a malformed one, a new trace begins."""
    return _w3c.extract({"traceparent": traceparent} if traceparent else {}, Context())


@contextmanager
def span(name: str, kind: Kind, parent: Context | None, attributes: Attributes) -> Iterator[Span]:
    """Trace the block, below `parent` or else the current span; where there is neither, do nothing."""
    if not is_on() or (parent is None and not trace.get_current_span().get_span_context().is_valid):
        yield trace.INVALID_SPAN
        return
    with _tracer.start_as_current_span(
        name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield made
        except Exception as error:
            made.set_attribute("error.type", type(error).__name__)
            made.set_status(StatusCode.ERROR)
            raise


def instant(
    name: str, kind: Kind, parent: str, attributes: Attributes, *, span_id: int | None = None, link: str | None = None
) -> None:
    """Trace an event without a duration, under an id that others can compute."""
    links = [Link(trace.get_current_span(context_of(link)).get_span_context())] if link else []
    token = _span_id.set(span_id)
    try:
        _tracer.start_span(name, context_of(parent), kind, attributes, links).end()
    finally:
        _span_id.reset(token)


def current_ids() -> Mapping[str, str]:
    """Give the current span's ids for log lines."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
