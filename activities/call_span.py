"""The span of one provider call: whom it was made to and what it came to, in the words of `push_attempts`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from activities.judging import Go
from activities.outcomes import word
from push.sender import Accepted, Answer, ProviderTrouble
from telemetry import tracing


@contextmanager
def call_span(go: Go) -> Iterator[Callable[[Answer | ProviderTrouble], None]]:
    """Trace a call; gives what is to be told its answer."""
    about = {
        "fastbell.provider": go.route.provider.value,
        "fastbell.app": go.route.app_id or "default",
        "fastbell.environment": go.route.environment.value,
        "fastbell.task_id": str(go.push.task_id),
        "fastbell.attempt": go.number,
    }
    with tracing.span(f"call {go.route.provider}", tracing.Kind.CLIENT, None, about) as span:

        def answered(came_to: Answer | ProviderTrouble) -> None:
            span.set_attribute("fastbell.outcome", word(came_to))
            if not isinstance(came_to, Accepted):
                span.set_attribute("fastbell.reason", came_to.reason)

        yield answered
