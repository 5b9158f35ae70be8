"""Traces: from the request to the provider's answer, where the standard variables ask for them; else nothing.

Every span is made here, of names, ids and counts of ours. What an exception says is in none: it may quote a token.
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

given_span_id: ContextVar[int | None] = ContextVar("given_span_id", default=None)

_LAST_WORDS_WITHIN = 3.0  # seconds

_tracer = trace.get_tracer("fastbell")
_w3c = TraceContextTextMapPropagator()


def start(service_name: str, endpoint: str) -> None:
    """Trace from now on. Spans go to this address; all else is as the standard variables say."""
    from telemetry.exporting import provider_of  # noqa: PLC0415 -- only who traces pays for these libraries

    trace.set_tracer_provider(provider_of(service_name, endpoint, given_span_id.get))


def stop() -> None:
    """Send what was not sent yet, for a few seconds at most; the last thing a process does."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:  # in a thread, for a collector that does not answer holds it up for longer
        sending = threading.Thread(target=shutdown, daemon=True)
        sending.start()
        sending.join(_LAST_WORDS_WITHIN)


def is_on() -> bool:
    """Tell whether spans go anywhere."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def traceparent() -> str | None:
    """Name the current span for others, as W3C Trace Context has it; None where there is none."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier.get("traceparent")


def context_of(traceparent: str | None) -> Context:
    """Read what somebody else named; where nobody did, or wrongly, a trace begins."""
    return _w3c.extract({"traceparent": traceparent} if traceparent else {}, Context())


@contextmanager
def span(name: str, kind: Kind, parent: Context | None, attributes: Attributes) -> Iterator[Span]:
    """Trace what happens inside; without a parent below the current span, and not at all where there is none."""
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
    name: str,
    kind: Kind,
    parent: str,
    attributes: Attributes,
    *,
    span_id: int | None = None,
    link: str | None = None,
) -> None:
    """Trace something that takes no time, under an id that others know beforehand."""
    links = [Link(trace.get_current_span(context_of(link)).get_span_context())] if link else []
    token = given_span_id.set(span_id)
    try:
        _tracer.start_span(name, context_of(parent), kind, attributes, links).end()
    finally:
        given_span_id.reset(token)


def current_ids() -> Mapping[str, str]:
    """Name the current span for log lines."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
