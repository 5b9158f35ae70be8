"""Gauges of limiters and of the fleet name apps alike, so that alerts join what waits with its limiter."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client.core import GaugeMetricFamily

from db.views.signals import Backlog, Signals
from domain.kinds import Kind, Priority
from domain.push import Environment, Provider, Route
from fleet.signals import families
from push.apns.sender import ApnsSender
from push.limiter.registry import LimiterGauges, RouteLimiters
from push.limiter.settings import Limits
from push.registry import SenderRegistry
from push.sender import NotConfigured
from simulator import Simulator
from tests.calm import calm
from tests.metrics.prometheus import check_rules
from tests.push.conftest import apns_account

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("app_ids", "told"),
    [
        (["a"], "a"),  # configured, though for the other provider only
        ([None], ""),
        (["gone", None, "dropped"], ""),  # in no file any more
    ],
)
async def test_pushes_behind_the_limiter_of_an_app_without_credentials_page_somebody(
    simulator: Simulator, tmp_path: Path, app_ids: list[str | None], told: str
) -> None:
    apple = ApnsSender(apns_account(simulator))
    apps, limiters = (
        SenderRegistry({(Provider.APNS, "a"): apple}, frozenset({"a"})),
        RouteLimiters({Provider.FCM: Limits(1)}),
    )
    limiters.share(1.0)
    routes = [apps.route(Provider.FCM, app_id, Environment.PRODUCTION) for app_id in app_ids]
    for route in routes:
        assert apps.sender(route.provider, route.app_id) is None
        with suppress(NotConfigured):
            async with limiters.at(route).enter(Priority.REMINDER, uuid4()):
                raise NotConfigured("app_not_configured")

    told_series = list(_series([*LimiterGauges(limiters, apps).collect(), *families(_waiting_on(routes), apps.keys)]))

    assert len(told_series) == len({each["series"] for each in told_series})
    check_rules(
        tmp_path,
        [
            {
                "interval": "15s",
                "input_series": told_series,
                "alert_rule_test": [
                    {
                        "eval_time": "1m",
                        "alertname": "Misconfigured",
                        "exp_alerts": [
                            {
                                "exp_labels": {
                                    "severity": "page",
                                    "provider": "fcm",
                                    "environment": "production",
                                    **({"app_id": told} if told else {}),
                                },
                                "exp_annotations": {
                                    "summary": "fcm refuses our key, topic or project. Pushes wait.",
                                    "runbook": "docs/operations.md#wrong-key-or-project",
                                },
                            }
                        ],
                    },
                    {"eval_time": "5m", "alertname": "ProviderDown"},
                ],
            }
        ],
    )
    await apple.close()


def _waiting_on(routes: Collection[Route]) -> Signals:
    backlogs = tuple(Backlog(route, Kind.MESSAGE, 1, 1, 1, behind_gate=1, oldest_due_at=NOW) for route in routes)
    return replace(calm(NOW), backlogs=backlogs)


def _series(gauges: Collection[GaugeMetricFamily]) -> Iterator[dict[str, str]]:
    for gauge in gauges:
        for name, labels, value, *_ in gauge.samples:
            inside = ", ".join(f'{label}="{each}"' for label, each in labels.items() if each)
            if isfinite(value):
                yield {"series": f"{name}{{{inside}}}", "values": f"{value:.0f}x20"}
