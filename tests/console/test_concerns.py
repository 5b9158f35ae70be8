"""What needs a person: said while it does, and no longer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from api.console import overview
from db.push_tasks import OverduePush
from db.views.gates import ShownGate, ShownGates, ShownRefusal, ShownRoute
from db.views.signals import Backlog, DeadPushes, OutboxBacklog, Signals, WebhookSignals
from domain.kinds import Kind
from domain.push import Environment, Provider, Route
from tests.calm import calm
from tests.console.visits import Visit, engage
from tests.stack import Stack

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WELL = calm(NOW)
OURS, THEIRS = Route(Provider.APNS, None, Environment.PRODUCTION), Route(Provider.APNS, "b", Environment.PRODUCTION)
PAUSED = "APNs is paused in 1 of 1 workers (outage)."


def routes(state: str) -> ShownGates:
    gate = ShownGate(uuid4(), NOW, state, "outage", None, waiting=0, in_flight=0, rate=None)
    return ShownGates([ShownRoute(OURS.provider, OURS.app_id, OURS.environment, None, [gate])], [])


def texts(now: Signals, shown: ShownGates) -> list[str]:
    return [concern.text for concern in overview.concerns_of(now, shown)]


def waiting_on(route: Route, behind_gate: int = 1) -> Signals:
    return replace(WELL, backlogs=(Backlog(route, Kind.REMINDER, 1, 1, 1, behind_gate, NOW),))


@pytest.mark.parametrize(
    ("state", "now", "told"),
    [
        ("open", waiting_on(OURS), [PAUSED]),
        ("half_open", waiting_on(THEIRS), [PAUSED]),  # it serves apps without a limiter of their own
        ("open", WELL, []),  # the next push tries the provider, so nobody knows
        ("open", waiting_on(OURS, behind_gate=0), []),
        ("open", waiting_on(Route(Provider.APNS, None, Environment.SANDBOX)), []),
        ("open", waiting_on(Route(Provider.FCM, None, Environment.PRODUCTION)), []),
        ("closed", waiting_on(OURS), []),
    ],
)
def test_a_paused_route_is_a_concern_while_pushes_wait_for_it(state: str, now: Signals, told: list[str]) -> None:
    assert texts(now, routes(state)) == told


@pytest.mark.parametrize(
    ("count", "ago", "workers", "told"),
    [
        (1, 61, 1, ["1 reminder is due and was not processed, for 61\u202fs."]),
        (2, 300, 1, ["2 reminders are due and were not processed, the oldest for 5\u202fmin."]),
        (2, 59, 1, []),
        (2, 300, 0, ["No worker is alive. Nothing is sent until one is."]),  # who looked last is gone
    ],
)
def test_reminders_that_nobody_processed_are_a_concern(count: int, ago: int, workers: int, told: list[str]) -> None:
    now = replace(WELL, unopened=OutboxBacklog(count, NOW - timedelta(seconds=ago)), workers=workers)

    assert texts(now, routes("closed")) == told


@pytest.mark.parametrize(
    ("webhooks", "told"),
    [
        (WebhookSignals(NOW - timedelta(minutes=10)), ["A webhook has been failing for 10\u202fmin."]),
        (WebhookSignals(NOW - timedelta(seconds=59)), []),
        (WebhookSignals(dead=1), ["1 delivery to a webhook was given up."]),
        (WebhookSignals(dead=3), ["3 deliveries to webhooks were given up."]),
    ],
)
def test_webhooks_that_fail_are_a_concern(webhooks: WebhookSignals, told: list[str]) -> None:
    found = overview.concerns_of(replace(WELL, webhooks=webhooks), routes("closed"))

    assert [each.text.partition(". ")[0] + "." for each in found] == told
    assert {each.href for each in found} <= {"/console/webhooks"}


async def test_a_concern_leads_to_where_it_is_mended(stack: Stack, carol: Visit) -> None:
    brake_id = await engage(stack, "app.of.the.concern")
    page = (await carol.get("/console/")).text
    await carol.post(f"/console/brakes/{brake_id}/resume")

    assert f'<a href="#cutoff-{brake_id}">APNs · app.of.the.concern · sandbox is stopped' in page
    assert f'id="cutoff-{brake_id}"' in page
    now = replace(WELL, workers=0, dead=(DeadPushes(OURS, Kind.REMINDER, 2, 2, 1, 1),), rejected=1)
    now = replace(now, handoffs=OutboxBacklog(1, NOW - timedelta(hours=1)), outbox=OutboxBacklog(1, NOW - timedelta(1)))
    late = replace(now, backlogs=waiting_on(OURS).backlogs, at=NOW + timedelta(minutes=5))
    news = ShownGates([], [ShownRefusal(Provider.FCM, 400, "NEVER_HEARD_OF", 1, NOW)])
    overdue = OverduePush("a&b", UUID(int=1))
    leads = [each.href for each in overview.concerns_of(late, news, overdue)]
    for place in [each.removeprefix("#") for each in leads if each.startswith("#")]:
        assert f'id="{place}"' in page or place == "unknown"  # which is there with unknown reasons only
    for path in [each for each in leads if not each.startswith("#")]:
        assert (await carol.get(path)).status_code == 200
    assert f"/console/person?user=a%26b&message_id={UUID(int=1)}" in leads
    assert len(leads) == 7


def test_pushes_that_were_refused_for_a_fault_of_ours_are_a_concern() -> None:
    told = texts(replace(WELL, rejected=2), routes("closed"))

    [concern] = told
    assert concern.startswith("2 pushes were rejected in the last hour")


@pytest.mark.parametrize(("ago", "is_told"), [(timedelta(minutes=59), True), (timedelta(minutes=61), False)])
def test_an_answer_that_no_table_knows_is_news_for_an_hour(ago: timedelta, is_told: bool) -> None:
    heard = ShownRefusal(Provider.FCM, 400, "NEVER_HEARD_OF", 1, NOW - ago)

    assert bool(overview.concerns_of(WELL, ShownGates([], [heard]))) is is_told
