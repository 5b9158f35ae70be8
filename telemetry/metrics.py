"""Every metric that is counted where something happens; docs/operations.md says what each means.

Collectors report what a process holds at the moment of a scrape: route limiters, signals, certificates.
"""

from collections.abc import Collection
from dataclasses import replace
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from domain.kinds import Kind
from domain.naming import VERSION
from domain.push import Provider, Route

OUTCOMES = ("accepted", "rejected", "unregistered", "throttled", "unavailable", "misconfigured", "unknown")

disable_created_metrics()  # type: ignore[no-untyped-call] # one more series for each counter, without a reader

BOTH, API, WORKER = CollectorRegistry(), CollectorRegistry(), CollectorRegistry()
_ROUTE = ("provider", "app_id", "environment")

pushes_planned = Counter("fastbell_pushes_planned", "Push tasks created.", ("provider", "kind"), registry=BOTH)
pushes_settled = Counter(
    "fastbell_pushes_settled",
    "Push tasks with a final state; one that ends again counts again.",
    ("provider", "kind", "state", "reason"),
    registry=BOTH,
)
pushes_collapsed = Counter(
    "fastbell_pushes_collapsed",
    "Pushes that share a notification with a newer one: never sent, or replaced unread after acceptance.",
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
    "fastbell_push_attempts", "Attempts to call a provider, as recorded.", (*_ROUTE, "outcome", "reason"), registry=BOTH
)
push_attempts_lost = Counter(
    "fastbell_push_attempts_lost",
    "Provider calls whose worker was lost before it recorded the result.",
    registry=WORKER,
)
pushes_taken_over = Counter(
    "fastbell_pushes_taken_over",
    "Pushes that this worker took over, since the worker that held them was lost.",
    ("provider", "kind"),
    registry=WORKER,
)
takeover_lateness = Histogram(
    "fastbell_takeover_lateness_seconds",
    "From the instant at which a push was due, or its next attempt was, until another worker took it over.",
    ("provider", "kind"),
    buckets=(0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 20, 60),
    registry=WORKER,
)
provider_answer = Histogram(
    "fastbell_provider_answer_seconds",
    "Duration of provider calls.",
    ("provider", "app_id", "outcome"),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=BOTH,
)
unknown_refusals = Counter(
    "fastbell_unknown_refusals",
    "Provider answers that no table knows.",
    ("provider", "status", "reason"),
    registry=BOTH,
)
pushes_synced = Counter(
    "fastbell_pushes_synced", "Accepted pushes whose message the app has read.", ("provider", "kind"), registry=BOTH
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
    "Device tokens that get no more pushes; transferred: to another user.",
    ("provider", "cause", "reason"),
    registry=BOTH,
)
dispatches = Counter(
    "fastbell_dispatches",
    "Attempts to dispatch a row of the outbox to Temporal.",
    ("subject", "outcome", "reason"),
    registry=BOTH,
)
build_info = Gauge("fastbell_build_info", "1; its label names this process's release.", ("version",), registry=BOTH)
build_info.labels(VERSION).set(1)
temporal_reachable = Gauge(
    "fastbell_temporal_reachable", "1 while Temporal answers this process, else 0.", registry=BOTH
)
heartbeat_at = Gauge(
    "fastbell_heartbeat_timestamp_seconds", "When this worker last stored its heartbeat.", registry=WORKER
)
heartbeats_missed = Counter(
    "fastbell_heartbeats_missed", "Heartbeats that did not reach the database.", registry=WORKER
)
streams_open = Gauge("fastbell_streams_open", "Streams that are open in this process.", registry=API)
webhook_deliveries = Counter(
    "fastbell_webhook_deliveries",
    "Attempts to send events to webhooks, by outcome: accepted, failed (and tried again), dead.",
    ("outcome",),
    registry=WORKER,
)
preference_links = Counter(
    "fastbell_preference_links",
    "Links to the preference page: made, opened (exchanged for a cookie), refused.",
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
for _outcome in ("accepted", "failed", "dead"):
    webhook_deliveries.labels(_outcome)

for _labels in product((provider.value for provider in Provider), (kind.value for kind in Kind)):
    for _metric in (
        *(pushes_planned, push_lateness, pushes_synced, push_to_sync),
        *(pushes_taken_over, takeover_lateness),
    ):
        _metric.labels(*_labels)  # a counter that starts at 0 shows its first increase


def expect(provider: str, app_id: str) -> None:
    """Start the histograms of an app at 0."""
    for outcome in OUTCOMES:
        provider_answer.labels(provider, app_id, outcome)


MAX_VALUES = 200  # of one label; our own reasons are about a hundred
OTHERS = "others"


class Capped:
    """The values of one label. All values after the first `most` count as one, `others`."""

    def __init__(self, most: int = MAX_VALUES) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str | None) -> str:
        """Give the label for a value; an empty one for None."""
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
    """Give the route to report: an app without credentials for any provider counts as the default one.

    Gauges of route limiters and of the fleet both use it, since alerts join them.
    """
    if any(route.app_id == app_id for _, app_id in configured):
        return route
    return replace(route, app_id=None)
