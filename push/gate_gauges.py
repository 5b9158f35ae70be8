"""How this process's gates stand, for who scrapes it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from math import inf

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from domain.push import Environment, Provider, Route
from push.gate_breaker import Cause
from push.gate_terms import GateReport
from push.gates import Gates
from push.senders import Apps
from telemetry import labels

_ROUTE = ("provider", "app_id", "environment")
_CAUSES = (*(cause.value for cause in Cause), "brake")


class GateGauges(Collector):
    """Reads the gates when asked; those of apps that nobody configured are told as one, the default app's."""

    def __init__(self, gates: Gates, apps: Apps) -> None:
        self._gates = gates
        self._apps = apps

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give the gauges of every route that was used."""
        shut = GaugeMetricFamily(
            "fastbell_gate_shut", "1 while this worker lets no calls through for this cause.", labels=(*_ROUTE, "cause")
        )
        waiting = GaugeMetricFamily("fastbell_gate_waiting", "Pushes in line in this worker.", labels=_ROUTE)
        in_flight = GaugeMetricFamily("fastbell_gate_calls_in_flight", "Calls under way.", labels=_ROUTE)
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

    def _by_route(self) -> Mapping[tuple[str, str, str], list[GateReport]]:
        found: dict[tuple[str, str, str], list[GateReport]] = defaultdict(list)
        configured = self._apps.keys
        for report in self._gates.reports():
            found[labels.of_route(labels.known(_route(report), configured))].append(report)
        return found


def _route(report: GateReport) -> Route:
    return Route(Provider(report.provider), report.app_id, Environment(report.environment))
