"""Every reason that the code can write has words; so has every event of a timeline."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from domain.kinds import Kind
from domain.push import Provider, TaskState
from domain.reasons import meaning, why, why_not, why_so, why_then
from domain.timeline import Event, Happening, WaitsFor
from domain.timeline_words import in_words, standing_in_words
from push.apns import errors as apns_verdicts
from push.fcm import errors as fcm_verdicts
from tests.stack import ROOT

ROOMS = ("activities", "db", "dispatch", "domain", "fleet", "operations", "push", "sending", "workflows")
CALLS = frozenset({
    "CloseTasks", "Ended", "Hindrance", "Misconfigured", "NoRoom", "OpenedReminder", "Paused", "ProxyTrouble",
    "Final", "NotConfigured", "Throttled", "Unavailable", "Unsendable", "Update", "_again", "_drop", "_failed",
    "_not_called", "_reserved", "close", "fail", "fail_all", "refuse", "retire",
})  # fmt: skip
DECIDE = frozenset({"misaddressed", "refusal", "unneeded", "unwanted", "useless", "withheld"})  # they return reasons
REASON = re.compile(r"[a-z]+(_[a-z]+)*|[A-Z][A-Za-z]+")
OUTCOMES = {"accepted", "rejected", "unregistered", "throttled", "unavailable", "misconfigured", "unknown"}
INSTANTS = (
    "due_at", "ends_at", "expires_at", "first_ends_at", "scheduled_at", "next_attempt_at", "retry_at", "route_until",
    "owed_since", "call_since", "engaged_at",
)  # fmt: skip
IN_SQL = re.compile(
    r"(?<!inactive_)(?:last_reason|reason)[ \w]*(?:=|,|THEN|coalesce\([\w., ]*)\s*'([a-z_]+)'|NULL, '([a-z_]+)'"
)


def test_every_reason_that_the_code_writes_has_words() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "migrations" not in path.parts]
    found = {reason for path in files for reason in _reasons(path.read_text())}
    written = (found - OUTCOMES) | {f"{kind}s_off" for kind in (Kind.REMINDER, Kind.MESSAGE)}

    assert {
        "worker_lost",
        "no_active_token",
        "orphaned",
        "brake_engaged",
        "quiet_hours",
        "goaway",
        "validated",
    } <= written
    assert {reason for reason in written if meaning(reason) is None} == set()


@pytest.mark.parametrize("reason", ["http_418", "proxy_refused_407"])
def test_a_status_stands_for_itself(reason: str) -> None:
    assert reason[-3:] in (meaning(reason) or "")


def test_every_refusal_that_a_provider_is_known_for_has_words() -> None:
    words = {word for _, word in [*apns_verdicts.VERDICTS, *fcm_verdicts.VERDICTS] if word}

    assert {word for word in words if meaning(word) is None} == set()


def test_a_reason_that_nobody_has_seen_is_named() -> None:
    assert why("BrandNewRefusal") == "BrandNewRefusal."


def test_what_died_of_the_cutoff_blames_no_phone_and_what_is_over_asks_nobody_to_act() -> None:
    said = [
        why_so(TaskState.DEAD, "BadDeviceToken", Provider.APNS),
        standing_in_words(TaskState.DEAD, "BadDeviceToken", Provider.APNS),
        why_so(TaskState.ACCEPTED, "brake_engaged", Provider.APNS),
        standing_in_words(TaskState.PENDING, "brake_engaged", Provider.APNS),
        why_then("InvalidProviderToken", Provider.APNS),
        in_words(_accepted_late("InvalidProviderToken")),
    ]

    assert [text for text in said if "app was removed" in text or "has to" in text] == []
    assert "app was removed" in why_so(TaskState.UNREGISTERED, "BadDeviceToken", Provider.APNS)
    assert why_not("brake_engaged").endswith("An operator has to resume it.")
    assert "Apple refuses our credentials" in in_words(_accepted_late("InvalidProviderToken"))


def test_what_a_lost_worker_may_have_sent_on_time_is_not_told_as_plainly_late() -> None:
    said = in_words(_accepted_late("worker_lost"))

    assert "30 s late. An earlier call may have brought it before that: the worker stopped before it stored" in said
    assert "No obstacle" not in said


def _accepted_late(held_up_by: str) -> Happening:
    at = datetime(2026, 1, 31, 18, tzinfo=UTC)
    detail = {"late_seconds": 30.0, "held_up_by": held_up_by}
    return Happening(Event.ACCEPTED, Kind.REMINDER, Provider.APNS, UUID(int=1), 0, None, detail, at)


@pytest.mark.parametrize(
    ("kind", "blamed"),
    [(Kind.REMINDER, "18:00:00 UTC: the workers"), (Kind.MESSAGE, "18:00:00 UTC: an earlier push of its conversation")],
)
def test_a_message_that_waits_for_an_earlier_push_is_not_blamed_on_the_workers_alone(kind: Kind, blamed: str) -> None:
    at = datetime(2026, 1, 31, 18, tzinfo=UTC)
    detail = {"late_seconds": 8.0, "created_at": at.isoformat(), "late_from": (at - timedelta(seconds=8)).isoformat()}

    said = in_words(Happening(Event.ACCEPTED, kind, Provider.APNS, UUID(int=1), 0, None, detail, at))

    assert blamed in said


@pytest.mark.parametrize(("late", "blamed"), [(2.0, "took 1 s to answer"), (600.0, "No obstacle is on record")])
def test_a_provider_is_not_blamed_for_what_was_late_long_before_its_call(late: float, blamed: str) -> None:
    at = datetime(2026, 1, 31, 18, tzinfo=UTC)
    detail = {"late_seconds": late, "called_at": at.isoformat(), "took_ms": 1000}

    said = in_words(Happening(Event.ACCEPTED, Kind.REMINDER, Provider.APNS, UUID(int=1), 0, None, detail, at))

    assert blamed in said


@pytest.mark.parametrize(
    ("event", "waits_for"), [(each, WaitsFor.NOTHING) for each in Event] + [(Event.WAITS, each) for each in WaitsFor]
)
@pytest.mark.parametrize("unknown", ["retry_at", "next_attempt_at", "route_until", "owed_since"])
def test_every_event_has_a_sentence(event: Event, waits_for: WaitsFor, unknown: str) -> None:
    at = datetime(2026, 1, 31, 18, tzinfo=UTC)
    now = at.isoformat()
    detail = {
        **dict.fromkeys(INSTANTS, now),
        unknown: None,
        "waits_for": waits_for, "is_dead": False, "refused": None, "cutoff_reason": "BadDeviceToken",
        "token_errors": 20, "answers": 25, "brake_id": str(UUID(int=2)),
        "is_pending": True, "attempt": 1, "outcome": "unknown", "latency_ms": None, "actor": "Carol",
        "reminder_minutes": [60, 0], "first_reminder_minutes": None, "changes": 2, "late_minutes": [],
        "installations": ["one"], "validate_only": True,
    }  # fmt: skip
    what = Happening(event, Kind.REMINDER, Provider.APNS, UUID(int=1), 0, "worker_lost", detail, at)

    assert re.fullmatch(r"[A-Z][^{}]+\.", in_words(what))


def _reasons(code: str) -> Iterator[str]:
    """Find what the code may give as a reason: literals handed to, or returned by, what deals in them."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and _name(node.func) in CALLS:
            parts: list[ast.expr] = [*node.args, *(keyword.value for keyword in node.keywords)]
            yield from _literals(parts)
        elif isinstance(node, ast.FunctionDef) and node.name in DECIDE:
            yield from _literals([each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value])
        elif isinstance(node, ast.Assign) and _name(node.targets[0]) in {"CUT_OFF", "reason", "validated"}:
            yield from _literals([node.value])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            yield from (first or second for first, second in IN_SQL.findall(node.value))


def _literals(parts: list[ast.expr]) -> Iterator[str]:
    nodes = [node for part in parts for node in ast.walk(part)]
    others = (node for node in nodes if isinstance(node, ast.JoinedStr) or _is_call(node, "get"))
    not_whole = {piece for node in others for piece in ast.walk(node)}
    for node in nodes:
        text = node.value if isinstance(node, ast.Constant) and node not in not_whole else None
        if isinstance(text, str) and REASON.fullmatch(text):
            yield text


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and _name(node.func) == name


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
