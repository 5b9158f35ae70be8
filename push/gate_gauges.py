"""How this process's gates stand, for who scrapes it."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from domain.push import Environment, Provider, Route
from push.gate_breaker import Cause
from push.gate_terms import GateReport
from push.gates import Gates
from telemetry import labels

_ROUTE = ("provider", "app_id", "environment")
_CAUSES = (*(cause.value for cause in Cause), "brake")


class GateGauges(Collector):
    """Reads the gates when asked."""

    def __init__(self, gates: Gates) -> None:
        self._gates = gates

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
        for report in self._gates.reports():
            route = labels.of_route(_route(report))
            for cause in _CAUSES:
                shut.add_metric((*route, cause), float(report.cause == cause))
            waiting.add_metric(route, report.waiting)
            in_flight.add_metric(route, report.in_flight)
            rate.add_metric(route, float("inf") if report.rate is None else report.rate)
        yield from (shut, waiting, in_flight, rate)


def _route(report: GateReport) -> Route:
    return Route(Provider(report.provider), report.app_id, Environment(report.environment))
