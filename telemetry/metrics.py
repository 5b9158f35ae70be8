"""Every metric that is counted where something happens; docs/operations.md says what each means.

What a process holds at the moment (gates, signals, certificates) is told by collectors when somebody asks.
"""

from collections.abc import Collection
from dataclasses import replace
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from domain.kinds import Kind
from domain.push import Provider, Route

OUTCOMES = ("accepted", "rejected", "unregistered", "throttled", "unavailable", "misconfigured", "unknown")


disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each counter, which nobody reads


BOTH, API, WORKER = CollectorRegistry(), CollectorRegistry(), CollectorRegistry()


_ROUTE = ("provider", "app_id", "environment")


pushes_planned = Counter("fastbell_pushes_planned", "Push tasks that were made.", ("provider", "kind"), registry=BOTH)

pushes_settled = Counter(
    "fastbell_pushes_settled",
    "Push tasks whose state became final; one that went on afterwards counts again.",
    ("provider", "kind", "state", "reason"),
    registry=BOTH,
)

pushes_collapsed = Counter(
    "fastbell_pushes_collapsed",
    "Pushes that gave their line on the screen to a newer one: before acceptance uncalled, after it replaced unread.",
    ("provider", "kind", "when"),
    registry=BOTH,
)

push_lateness = Histogram(
    "fastbell_push_lateness_seconds",
    "From the due instant to acceptance by the provider.",
    ("provider", "kind"),
    buckets=(0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 5, 10, 30, 60, 300, 900, 3600),
    registry=BOTH,
)

push_attempts = Counter(
    "fastbell_push_attempts",
    "Provider calls, as recorded.",
    (*_ROUTE, "outcome", "reason"),
    registry=BOTH,
)

push_attempts_lost = Counter(
    "fastbell_push_attempts_lost",
    "Provider calls whose worker was lost before it could record what they came to.",
    registry=WORKER,
)

provider_answer = Histogram(
    "fastbell_provider_answer_seconds",
    "How long provider calls took.",
    ("provider", "app_id", "outcome"),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=BOTH,
)

unknown_refusals = Counter(
    "fastbell_unknown_refusals",
    "Answers of a provider that no table knows.",
    ("provider", "status", "reason"),
    registry=BOTH,
)

pushes_synced = Counter(
    "fastbell_pushes_synced", "Accepted pushes whose message the app then read.", ("provider", "kind"), registry=BOTH
)

push_to_sync = Histogram(
    "fastbell_push_to_sync_seconds",
    "From acceptance of a push until the app read its message.",
    ("provider", "kind"),
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
    registry=BOTH,
)

device_tokens_deactivated = Counter(
    "fastbell_device_tokens_deactivated",
    "Device tokens that are not pushed to any more; transferred: somebody else owns the phone.",
    ("provider", "cause", "reason"),
    registry=BOTH,
)

dispatches = Counter(
    "fastbell_dispatches",
    "Attempts to make Temporal agree with a row of the outbox.",
    ("subject", "outcome", "reason"),
    registry=BOTH,
)

temporal_reachable = Gauge(
    "fastbell_temporal_reachable", "1 while Temporal answers this process, else 0.", registry=BOTH
)

heartbeat_at = Gauge(
    "fastbell_heartbeat_timestamp_seconds", "When this worker last told the fleet that it lives.", registry=WORKER
)

heartbeats_missed = Counter(
    "fastbell_heartbeats_missed", "Heartbeats that did not reach the database.", registry=WORKER
)

streams_open = Gauge("fastbell_streams_open", "Streams that are open in this process.", registry=API)

preference_links = Counter(
    "fastbell_preference_links",
    "Links to the preference page: made, opened, refused.",
    ("outcome",),
    registry=API,
)

http_requests = Counter("fastbell_http_requests", "Answered requests.", ("method", "route", "status"), registry=API)

http_answer = Histogram(
    "fastbell_http_answer_seconds",
    "From a request until its answer begins.",
    ("method", "route"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=API,
)


for _outcome in ("made", "opened", "refused"):
    preference_links.labels(_outcome)

for _labels in product((provider.value for provider in Provider), (kind.value for kind in Kind)):
    for _metric in (pushes_planned, push_lateness, pushes_synced, push_to_sync):
        _metric.labels(*_labels)  # what begins at nought can be seen to rise


def expect(provider: str, app_id: str) -> None:
    """Let the answers to an app begin at nought."""
    for outcome in OUTCOMES:
        provider_answer.labels(provider, app_id, outcome)


MOST = 200  # different values of one label; our own reasons are some hundred

OTHERS = "others"


class Capped:
    """The values of one label; those that come after the first two hundred are one."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str | None) -> str:
        """Give the value for the label; of nothing an empty one."""
        if not value or value in self._known:
            return value or ""
        if len(self._known) >= self._most:
            return OTHERS
        self._known.add(value)
        return value


reason = Capped()

app = Capped()


def of_route(route: Route) -> tuple[str, str, str]:
    """Give provider, app and environment; the default app has no name."""
    return route.provider.value, app(route.app_id), route.environment.value


def known(route: Route, configured: Collection[tuple[Provider, str | None]]) -> Route:
    """Give the route to tell of: an app that has credentials for no provider at all counts as the default one.

    Gauges of gates and of the fleet both go by it, for alerts join them.
    """
    if any(route.app_id == app_id for _, app_id in configured):
        return route
    return replace(route, app_id=None)
