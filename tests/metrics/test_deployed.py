"""What is deployed beside the code agrees with it: the table of names, the alerts, their tests and runbooks."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from db.views.gates import Answered, RefusedPushes
from db.views.signals import Backlog, DeadPushes, OutboxBacklog, Signals
from domain.kinds import Kind
from domain.push import Environment, Provider, Route
from fleet.signals import families
from push.limiter.registry import LimiterGauges, RouteLimiters
from push.limiter.settings import Limits
from push.registry import SenderRegistry
from telemetry import metrics
from telemetry.certificates import CertificateExpiry
from tests.metrics.prometheus import ALERTS, DASHBOARDS, alerts, check_rules, panels, promtool
from tests.servers import ROOT

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
RULE_TESTS = ALERTS.with_name("alerts_test.yml")
ROUTE = Route(Provider.APNS, None, Environment.PRODUCTION)

Names = dict[str, set[str]]


def test_the_table_of_metrics_names_just_those_that_there_are(simulator_ca: Path) -> None:
    limiters = RouteLimiters({Provider.APNS: Limits(1)})
    limiters.at(ROUTE)
    now = datetime.now(UTC)
    read = Signals(
        at=now,
        backlogs=(Backlog(ROUTE, Kind.REMINDER, 1, 1, 1, 1, now),),
        dead=(DeadPushes(ROUTE, Kind.REMINDER, 1, 1, 1, 1),),
        outbox=OutboxBacklog(1, now),
        handoffs=OutboxBacklog(1, now),
        rejected=1,
        brakes=(ROUTE,),
        answered=(Answered(ROUTE, 1, 1, 1, None),),
        refused=(RefusedPushes(ROUTE, "InvalidProviderToken", 1, 1),),
        workers=1,
        streams=1,
        unopened=OutboxBacklog(1, now),
        swept_at=now,
    )
    gauges = [*LimiterGauges(limiters, SenderRegistry({})).collect(), *families(read, [(Provider.APNS, None)])]
    gauges += CertificateExpiry({"apns": simulator_ca}).collect()
    held = {gauge.name: {name for sample in gauge.samples for name in sample.labels} for gauge in gauges}

    assert _in_table() == held | dict(_declared([metrics.BOTH, metrics.API, metrics.WORKER]))


def test_the_rules_hold_what_their_tests_say() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", RULE_TESTS.name)


def test_the_first_panel_tells_that_requests_are_turned_away_before_they_have_a_route(tmp_path: Path) -> None:
    [board] = [board for board in DASHBOARDS if board.stem == "on-time"]
    not_delivered = next(expression for title, expression in panels(board) if title == "Which trouble is it")
    served = 'fastbell_http_requests_total{route="/v1/sync", method="POST", status="2xx"}'
    turned_away = 'fastbell_http_requests_total{route="unmatched", method="POST", status="%s"}'

    check_rules(
        tmp_path,
        [
            {
                "interval": "5s",
                "input_series": [
                    {"series": 'up{job="fastbell-api"}', "values": "1x20"},
                    {"series": served, "values": "0+1x20"},
                    {"series": turned_away % "4xx", "values": "0+900x20"},
                    *([{"series": turned_away % "5xx", "values": "0+3x20"}] if busy else []),
                ],
                "promql_expr_test": [
                    {"expr": not_delivered, "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": int(busy)}]}
                ],
            }
            for busy in (True, False)
        ],
    )


def test_each_alert_is_tested_raised_and_not_raised() -> None:
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    cases = [case for each in tests for case in each["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}

    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def test_each_alert_is_in_the_table_and_its_runbook_is_a_section() -> None:
    anchors = {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in _headings()}
    for rule in alerts():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/operations.md"
        assert anchor in anchors, rule["alert"]
        assert f"`{rule['alert']}`" in OPERATIONS


def test_alerts_and_dashboards_use_only_metrics_that_the_table_names() -> None:
    known = {re.sub(r"_total$", "", name) for name in _in_table()}
    expressions = [rule["expr"] for rule in alerts()]
    expressions += [expression for board in DASHBOARDS for _, expression in panels(board)]
    for expression in expressions:
        for name in re.findall(r"fastbell_\w+", expression):
            assert re.sub(r"_(total|bucket|count|sum)$", "", name) in known, name


def _in_table() -> Names:
    rows = re.findall(r"^\| `(fastbell_\w+)` \| ([^|]*)\|", OPERATIONS, flags=re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def _declared(registries: Iterable[CollectorRegistry]) -> Iterator[tuple[str, set[str]]]:
    for registry in registries:
        for collector in registry._collector_to_names:
            assert isinstance(collector, MetricWrapperBase)
            suffix = "_total" if collector._type == "counter" else ""
            yield collector._name + suffix, set(collector._labelnames)


def _headings() -> list[str]:
    return re.findall(r"^## (.+)$", OPERATIONS, flags=re.MULTILINE)
