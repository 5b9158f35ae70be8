"""The limiters of all routes in this process, and their gauges."""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from math import inf
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from domain.push import Environment, Provider, Route
from push.limiter.breaker import Cause
from push.limiter.route_limiter import RouteLimiter
from push.limiter.settings import LimiterReport, Limits, Timings
from push.registry import SenderRegistry
from push.verdict import last_seen, unknown_refusals
from telemetry import metrics as labels

DEFAULT_TIMINGS = Timings()
_ROUTE = ("provider", "app_id", "environment")
_CAUSES = (*(cause.value for cause in Cause), "brake")


class RouteLimiters:
    """Makes the limiter of a route at its first use. Nothing passes before `share` is set."""

    def __init__(
        self,
        limits: Mapping[Provider, Limits],
        timings: Timings = DEFAULT_TIMINGS,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._limits = limits
        self._timings = timings
        self._clock = clock
        self._chance = chance
        self._limiters: dict[Route, RouteLimiter] = {}
        self._credentials: dict[Route, object] = {}
        self._share: float | None = None

    def at(self, route: Route) -> RouteLimiter:
        """Find the limiter of a route."""
        limiter = self._limiters.get(route)
        if limiter is None:
            limits = self._limits[route.provider]
            limiter = self._limiters[route] = RouteLimiter(
                route, limits, self._timings, clock=self._clock, chance=self._chance
            )
            limiter.share(self._share)
        return limiter

    def serving(self, route: Route, credentials: object) -> RouteLimiter:
        """Find the limiter of a route; it forgets what it learned where the credentials are new."""
        limiter = self.at(route)
        if self._credentials.get(route, credentials) is not credentials:
            limiter.reset()
        self._credentials[route] = credentials
        return limiter

    def serves(self, route: Route, credentials: object) -> bool:
        """Whether calls on a route are made with these credentials at present; true before the first call."""
        return self._credentials.get(route, credentials) is credentials

    def cut_off(self) -> set[Route]:
        """Find the routes that the token-error cutoff has stopped."""
        return {route for route, limiter in self._limiters.items() if limiter.is_cut_off}

    def share(self, share: float | None) -> None:
        """Set this process's part of the fleet's rate; None: the fleet does not know it yet, so nothing passes."""
        self._share = share
        for limiter in self._limiters.values():
            limiter.share(share)

    def reports(self) -> list[LimiterReport]:
        """Report all limiters; another thread may call this."""
        return [limiter.report() for limiter in list(self._limiters.values())]

    def report(self) -> dict[str, Any]:
        """Report all limiters, and the refusals that no table knows, as JSON."""
        rows = [asdict(report) for report in self.reports()]
        return {
            "gates": [row | {"until": row["until"] and row["until"].isoformat()} for row in rows],
            "unknown_refusals": [
                {"provider": key[0], "status": key[1], "reason": key[2], "count": count}
                | {"last_at": last_seen[key].isoformat()}
                for key, count in unknown_refusals.items()
            ],
        }


class LimiterGauges(Collector):
    """Reads the limiters at each scrape; those of apps without credentials count as the default app's."""

    def __init__(self, limiters: RouteLimiters, apps: SenderRegistry) -> None:
        self._limiters = limiters
        self._apps = apps

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give the gauges of every route that was used."""
        shut = GaugeMetricFamily(
            "fastbell_gate_shut",
            "1 while this worker's route is paused or stopped for this cause.",
            labels=(*_ROUTE, "cause"),
        )
        waiting = GaugeMetricFamily(
            "fastbell_gate_waiting", "Pushes that wait for the route in this worker.", labels=_ROUTE
        )
        in_flight = GaugeMetricFamily("fastbell_gate_calls_in_flight", "Calls in flight.", labels=_ROUTE)
        rate = GaugeMetricFamily(
            "fastbell_gate_rate", "Calls per second that this worker may start; +Inf: no limit.", labels=_ROUTE
        )
        for route, reports in self._by_route().items():
            for cause in _CAUSES:
                shut.add_metric((*route, cause), float(any(report.cause == cause for report in reports)))
            waiting.add_metric(route, sum(report.waiting for report in reports))
            in_flight.add_metric(route, sum(report.in_flight for report in reports))
            rate.add_metric(route, sum(inf if report.rate is None else report.rate for report in reports))
        yield from (shut, waiting, in_flight, rate)

    def _by_route(self) -> Mapping[tuple[str, str, str], list[LimiterReport]]:
        by_route: dict[tuple[str, str, str], list[LimiterReport]] = defaultdict(list)
        configured = self._apps.keys
        for report in self._limiters.reports():
            by_route[labels.of_route(labels.known(_route(report), configured))].append(report)
        return by_route


def _route(report: LimiterReport) -> Route:
    return Route(Provider(report.provider), report.app_id, Environment(report.environment))
