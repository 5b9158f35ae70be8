"""After a day with known faults, metrics, analytics, timelines, events and the providers' log tell the same counts."""

from collections import Counter
from dataclasses import fields
from datetime import datetime
from typing import Any

import pytest

from db.views import analytics
from db.views.analytics import SPANS, Step
from simulator import Simulator
from tests.events.feed import whole_feed
from tests.metrics.conftest import Troubled
from tests.metrics.pages import by, samples
from tests.support.timelines import timeline

pytestmark = [pytest.mark.long, pytest.mark.timeout(150)]

Counts = Counter[tuple[str, ...]]

# What `life.py` scripts: each provider's answers, and as what a call that they answer is told
SCRIPTED: dict[tuple[str, int | None, str], tuple[str, str, int]] = {
    ("apns", 200, ""): ("accepted", "", 2),
    ("apns", 400, "BadDeviceToken"): ("unregistered", "BadDeviceToken", 3),
    ("apns", 413, "PayloadTooLarge"): ("rejected", "PayloadTooLarge", 1),
    ("apns", 503, "ServiceUnavailable"): ("unavailable", "ServiceUnavailable", 1),
    ("apns", None, "silent"): ("unknown", "answer_timeout", 1),
    ("fcm", 200, ""): ("accepted", "", 5),
    ("fcm", 404, "UNREGISTERED"): ("unregistered", "UNREGISTERED", 2),
    ("fcm", 429, "QUOTA_EXCEEDED"): ("throttled", "QUOTA_EXCEEDED", 2),
}
CALLS: Counts = Counter({(provider, *told): n for (provider, _, _), (*told, n) in SCRIPTED.items()})
PLANNED: Counts = Counter(
    {("apns", "reminder"): 7, ("apns", "message"): 1, ("fcm", "reminder"): 3, ("fcm", "message"): 4}
)
ENDED: Counts = Counter(  # those that went on afterwards included
    {
        ("apns", "reminder", "accepted", ""): 2,
        ("apns", "reminder", "dead", "BadDeviceToken"): 3,
        ("apns", "reminder", "rejected", "PayloadTooLarge"): 1,
        ("apns", "reminder", "unregistered", "BadDeviceToken"): 2,
        ("apns", "reminder", "withdrawn", "session_ended"): 1,
        ("apns", "message", "withdrawn", "synced"): 1,
        ("fcm", "reminder", "accepted", ""): 1,
        ("fcm", "reminder", "dead", "QUOTA_EXCEEDED"): 2,
        ("fcm", "reminder", "unregistered", "UNREGISTERED"): 1,
        ("fcm", "message", "accepted", ""): 4,
        ("fcm", "message", "unregistered", "UNREGISTERED"): 1,
    }
)
REDRIVEN: Counts = Counter({("fcm", "reminder", "dead", "QUOTA_EXCEEDED"): 1})
REVIVED: Counts = Counter({("fcm", "message", "unregistered", "UNREGISTERED"): 1})
BURIED: Counts = Counter({("apns", "reminder", "unregistered", "BadDeviceToken"): 2})  # by the cutoff
STOOD: Counts = ENDED - REDRIVEN - REVIVED - BURIED
ACCEPTED: Counts = Counter({("apns", "reminder"): 2, ("fcm", "reminder"): 1, ("fcm", "message"): 4})
READ: Counts = Counter({("fcm", "message"): 3})  # and accepted, whichever came first
DEAD, TOKENS_REFUSED = 4, 5


async def test_the_providers_log_tells_what_was_scripted(troubled: Troubled, simulator: Simulator) -> None:
    requests = [each for phone in troubled.life.phones for each in simulator.requests.for_token(phone.token)]

    said = Counter((each.provider.value, each.status, each.reason or "") for each in requests)

    assert said == {key: n for key, (_, _, n) in SCRIPTED.items()}


async def test_metrics_tell_what_the_database_and_the_providers_tell(troubled: Troubled) -> None:
    stack = troubled.product.stack
    tasks = await stack.rows("SELECT provider, kind, state, coalesce(last_reason, '') AS reason FROM push_tasks")
    calls = await stack.rows(
        "SELECT provider, outcome, coalesce(reason, '') AS reason FROM push_attempts JOIN push_tasks USING (task_id)"
    )
    pages = await troubled.product.metrics_of_worker(), await troubled.product.metrics_of_api()
    of_worker, in_api, counted = samples(pages[0]), samples(pages[1]), samples(*pages)

    assert not [phone for phone in troubled.life.phones for page in pages if phone.token in page]
    assert by(counted, "fastbell_pushes_settled_total", "provider", "kind", "state", "reason") == ENDED
    assert Counter(map(tuple, tasks)) == STOOD
    assert by(of_worker, "fastbell_pushes_planned_total", "provider", "kind") == PLANNED
    assert by(of_worker, "fastbell_push_attempts_total", "provider", "outcome", "reason") == CALLS
    assert Counter(map(tuple, calls)) == CALLS
    assert by(of_worker, "fastbell_provider_answer_seconds_count", "provider", "outcome") == _outcomes(CALLS)
    assert not by(of_worker, "fastbell_push_attempts_lost_total")
    assert by(of_worker, "fastbell_push_lateness_seconds_count", "provider", "kind") == ACCEPTED
    assert by(of_worker, "fastbell_pushes_collapsed_total", "kind", "when") == {("message", "after_acceptance"): 1}
    assert by(counted, "fastbell_pushes_synced_total", "provider", "kind") == READ
    assert by(counted, "fastbell_push_to_sync_seconds_count", "provider", "kind") == READ
    assert by(of_worker, "fastbell_device_tokens_deactivated_total", "cause", "reason") == {
        ("invalidated", "UNREGISTERED"): 2
    }
    assert by(in_api, "fastbell_device_tokens_deactivated_total", "cause") == {("transferred",): 1, ("rotated",): 1}


async def test_analytics_tell_the_same_counts(troubled: Troubled) -> None:
    support = troubled.product.stack.user(None, "support")

    told = (await support.call("GET", "/v1/support/analytics?days=2")).json()  # midnight may have passed

    tallies, unaccepted = told["items"], CALLS - _accepted(CALLS)
    assert _told(tallies, "pushes", "provider", "kind") == PLANNED
    assert _told(tallies, "accepted", "provider", "kind") == ACCEPTED
    assert _told(tallies, "synced", "provider", "kind") == READ
    assert _told(tallies, "attempts", "provider") == _summed(CALLS)
    assert _told(told["unaccepted"], "count", "provider", "outcome", "reason") == unaccepted
    assert _told(told["fates"], "count", "provider", "kind", "state", "reason") == STOOD - _accepted(STOOD)
    assert sum(each["dead"] for each in tallies) == DEAD
    assert not any(each["pending"] or each["opened"] for each in tallies)


async def test_timelines_tell_the_same_counts(troubled: Troubled) -> None:
    support = troubled.product.stack.user(None, "support")

    lines = [line for person in troubled.life.people for line in await timeline(support, person.user_id, limit=200)]

    told = ENDED - REVIVED - BURIED  # what went on without a person is told by the calls alone
    heard = Counter(
        (each["provider"], each["detail"]["outcome"], each["reason"] or "") for each in _of(lines, "answered")
    )
    ended = [line for line in lines if line["event"] in {state for _, _, state, _ in ENDED}]
    assert heard == CALLS
    assert Counter((line["provider"],) for line in _of(lines, "attempted")) == _summed(CALLS)
    assert Counter((line["provider"], _kind(line)) for line in _of(lines, "planned")) == PLANNED
    assert Counter((each["provider"], _kind(each), each["event"], each["reason"] or "") for each in ended) == told
    redriven = _of(lines, "redriven")
    assert Counter((each["provider"], _kind(each), "dead", each["reason"]) for each in redriven) == REDRIVEN
    read_uncalled = {key: n for key, n in ENDED.items() if key[2:] == ("withdrawn", "synced")}
    synced = READ + Counter({key[:2]: n for key, n in read_uncalled.items()})
    assert Counter((line["provider"], _kind(line)) for line in _of(lines, "synced")) == synced


async def test_events_tell_the_same_counts_each_once(troubled: Troubled) -> None:
    stack = troubled.product.stack

    events = await whole_feed(stack)

    pushes = [each for each in events if each["type"].startswith("push.")]
    ended = [each for each in pushes if each["type"] not in {"push.synced", "push.opened"}]
    assert Counter((*_what(each), each["type"][5:], each["data"].get("reason", "")) for each in ended) == ENDED
    assert Counter(_what(each) for each in pushes if each["type"] == "push.synced") == READ
    assert {each["type"]: each["user_id"] for each in events if each["type"] == "device_token.transferred"} == {
        "device_token.transferred": troubled.life.people[0].user_id
    }
    refused = [each["data"]["reason"] for each in events if each["type"] == "device_token.invalidated"]
    assert refused == ["UNREGISTERED", "UNREGISTERED"]
    assert [each["id"] for each in events] == list(range(1, len(events) + 1))
    told = str(events)
    assert not [phone for phone in troubled.life.phones if phone.token in told]
    rows = await stack.rows("SELECT user_id, settled_at FROM push_tasks WHERE state = 'accepted'")
    accepted = [(each["user_id"], each["occurred_at"]) for each in ended if each["type"] == "push.accepted"]
    assert sorted((user_id, datetime.fromisoformat(at)) for user_id, at in accepted) == sorted(map(tuple, rows))


async def test_the_last_hours_of_the_console_tell_the_same_counts(troubled: Troubled) -> None:
    steps = await analytics.lately(troubled.product.stack.sessions, SPANS[-1])

    names = [field.name for field in fields(Step) if field.type is int]
    assert {name: sum(getattr(step, name) for step in steps) for name in names} == {
        "pushes": PLANNED.total(),
        "accepted": ACCEPTED.total(),
        "dead": DEAD,
        "withdrawn": sum(n for (_, _, state, _), n in (ENDED - REVIVED).items() if state == "withdrawn"),
        "synced": READ.total(),
        "superseded": 0,
        "calls": CALLS.total(),
        "refused": (CALLS - _accepted(CALLS)).total(),
        "invalid_tokens": TOKENS_REFUSED,
    }


def _what(event: Any) -> tuple[str, str]:
    return event["data"]["provider"], event["data"]["kind"]


def _of(lines: list[Any], event: str) -> list[Any]:
    return [line for line in lines if line["event"] == event]


def _kind(line: Any) -> str:
    """Tell what the push of a line is about: a line of a timeline names the fast, or the conversation."""
    return "message" if line["conversation_id"] else "reminder"


def _told(items: list[Any], what: str, *keys: str) -> Counts:
    """Sum one number of analytics by these fields; what is nought is left out."""
    found: Counts = Counter()
    for item in items:
        found[tuple(item[key] or "" for key in keys)] += item[what]
    return +found


def _accepted(counts: Counts) -> Counts:
    return Counter({key: n for key, n in counts.items() if "accepted" in key})


def _summed(calls: Counts) -> Counts:
    """Count calls by provider alone."""
    return _cut(calls, 1)


def _outcomes(calls: Counts) -> Counts:
    """Count calls by provider and outcome."""
    return _cut(calls, 2)


def _cut(counts: Counts, length: int) -> Counts:
    found: Counts = Counter()
    for key, n in counts.items():
        found[key[:length]] += n
    return found
