"""Trouble with one push: retried or not as its answer says, shown once, and nobody beside it is disturbed.

Nearly all of the table runs at one instant in one service.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.faults.service import Pushed, Service, healthy, in_time, undisturbed
from tests.stack import Phone, android, eventually, iphone

NOW = time.time()
PHONES = {"apns": iphone, "fcm": android}


@dataclass(frozen=True)
class Trouble:
    """A fault, and what must come of the push: outcome and reason of each attempt, and how often a phone gets it."""

    provider: str
    fault: Mapping[str, Any]
    attempts: tuple[tuple[str, str | None], ...]
    times_received: tuple[int, ...] = (1,)
    token_active: bool = True


def _retried(provider: str, outcome: str, reason: str, /, *, received: int = 1, **fault: Any) -> Trouble:
    return Trouble(provider, {"count": 1, **fault}, ((outcome, reason), ("accepted", None)), (received,))


def _accepted(provider: str, **fault: Any) -> Trouble:
    return Trouble(provider, {"count": 1, **fault}, (("accepted", None),))


def _unregistered(provider: str, reason: str, /, *, active: bool = False, **fault: Any) -> Trouble:
    return Trouble(provider, {"fault": "answer", **fault}, (("unregistered", reason),), (), active)


TABLE = {
    "apns late answer": _retried("apns", "unknown", "answer_timeout", received=2, fault="slow", delay=6.0),
    "apns silence": _retried("apns", "unknown", "answer_timeout", fault="silent", processed=False),
    "apns silence after delivery": _retried("apns", "unknown", "answer_timeout", received=2, fault="silent"),
    "apns refused stream": _retried("apns", "unavailable", "stream_reset", fault="reset", code=7),
    "apns reset stream": _retried("apns", "unknown", "stream_reset", fault="reset"),
    "apns reset after delivery": _retried("apns", "unknown", "stream_reset", received=2, fault="reset", processed=True),
    "apns reset mid error": _retried("apns", "unknown", "stream_reset", fault="cut_answer", status=503),
    "apns empty 500": _retried("apns", "unknown", "http_500", fault="empty_body", status=500),
    "apns truncated reset": _retried("apns", "unknown", "malformed_answer", fault="broken_frame", type=3, size=3),
    "apns id with a NUL": _accepted("apns", fault="other_id", id="a\0b"),
    "apns sign-in page": _retried("apns", "unknown", "answered_by_another", fault="html", status=200),
    "apns html 502": _retried("apns", "unknown", "http_502", fault="html"),
    "apns split 503": _retried(
        "apns", "unavailable", "ServiceUnavailable", fault="split_body", status=503, reason="ServiceUnavailable"
    ),
    "apns 503 of a delivered push": _retried(
        "apns", "unavailable", "ServiceUnavailable", received=2, fault="accept_then_fail"
    ),
    "apns 429 for a token": _retried(
        "apns", "throttled", "TooManyRequests", fault="answer", status=429, reason="TooManyRequests"
    ),
    "apns 410 after registration": _unregistered(
        "apns", "Unregistered", status=410, reason="Unregistered", timestamp=int((NOW + 3600) * 1000)
    ),
    "apns 410 before registration": _unregistered(
        "apns", "Unregistered", active=True, status=410, reason="Unregistered", timestamp=int((NOW - 3600) * 1000)
    ),
    "fcm late answer": _retried("fcm", "unknown", "answer_timeout", received=2, fault="slow", delay=6.0),
    "fcm silence": _retried("fcm", "unknown", "answer_timeout", fault="silent", processed=False),
    "fcm reset stream": _retried("fcm", "unknown", "stream_reset", fault="reset"),
    "fcm empty 503": _retried("fcm", "unavailable", "http_503", fault="empty_body"),
    "fcm html 502": _retried("fcm", "unknown", "http_502", fault="html"),
    "fcm split 500": _retried("fcm", "unknown", "INTERNAL", fault="split_body", errorCode="INTERNAL"),
    "fcm 503 of a delivered push": _retried("fcm", "unavailable", "UNAVAILABLE", received=2, fault="accept_then_fail"),
    "fcm truncated reset": _retried("fcm", "unknown", "malformed_answer", fault="broken_frame", type=3, size=3),
    "fcm name with a NUL": _accepted("fcm", fault="other_id", id="projects/tea/messages/a\0b"),
    "fcm sign-in page": _retried("fcm", "unknown", "answered_by_another", fault="html", status=200),
    "fcm 429 for a device, in seconds": _retried(
        "fcm", "throttled", "QUOTA_EXCEEDED_DEVICE", fault="answer", errorCode="QUOTA_EXCEEDED", quota="device",
        retry_after=2,
    ),
    "fcm 429 for a device, as a date": _retried(
        "fcm", "throttled", "QUOTA_EXCEEDED_DEVICE", fault="answer", errorCode="QUOTA_EXCEEDED", quota="device",
        retry_after=3, retry_after_form="http_date",
    ),
    "fcm unregistered": _unregistered("fcm", "UNREGISTERED", errorCode="UNREGISTERED"),
    "fcm token that is none": _unregistered(
        "fcm", "INVALID_ARGUMENT_TOKEN", errorCode="INVALID_ARGUMENT",
        message="The registration token is not a valid FCM registration token",
    ),
}  # fmt: skip


DOUBTED = "fcm token that is none"  # until its route has taken others' pushes, long enough afterwards
# Each of these drops Apple's limit to one stream: what is on its way at that moment is refused unread, and sent again.
DROPS_THE_LIMIT = {
    name: row for name, row in TABLE.items() if row.provider == "apns" and 400 <= row.fault.get("status", 0) < 500
}
THE_OTHERS = {name: row for name, row in TABLE.items() if name not in DROPS_THE_LIMIT}


@pytest.mark.timeout(90)
@pytest.mark.alone
async def test_each_fault_ends_as_it_must_and_nobody_beside_them_loses_or_doubles_a_call(service: Service) -> None:
    troubled = {name: _phone(service, row) for name, row in THE_OTHERS.items()}

    pushed = await service.remind([*troubled.values(), *healthy()])

    came_to = dict(zip(troubled, pushed, strict=False))
    await eventually(lambda: _is_given_up(service, troubled[DOUBTED]), within=30)
    came_to[DOUBTED] = replace(came_to[DOUBTED], token_active=False)
    assert {name: _ending(each) for name, each in came_to.items()} == {
        name: _wanted(row) for name, row in THE_OTHERS.items()
    }
    beside = pushed[len(troubled) :]
    assert [each for each in beside if not (undisturbed(each) and in_time(each))] == []


async def test_a_fault_that_drops_the_limit_ends_as_it_must(service: Service) -> None:
    came_to = {}
    for name, row in DROPS_THE_LIMIT.items():
        [came_to[name]] = await service.came_to(await service.fasts([_phone(service, row)], due_in=1.0))

    assert {name: _ending(each) for name, each in came_to.items()} == {
        name: _wanted(row) for name, row in DROPS_THE_LIMIT.items()
    }


async def _is_given_up(service: Service, phone: Phone) -> bool:
    """Have others' pushes accepted, and see whether a doubted token is dead by then."""
    await service.warm_up()
    [row] = await service.stack.rows("SELECT active FROM device_tokens WHERE token = :token", token=phone.token)
    return not row.active


def _phone(service: Service, trouble: Trouble) -> Phone:
    """A phone whose provider is in trouble with it."""
    phone = PHONES[trouble.provider]()
    service.simulator.faults.add(provider=trouble.provider, token=phone.token, **trouble.fault)
    return phone


def _ending(pushed: Pushed) -> tuple[object, ...]:
    return tuple(pushed.attempts), pushed.calls, tuple(pushed.times_received), pushed.token_active


def _wanted(trouble: Trouble) -> tuple[object, ...]:
    return trouble.attempts, len(trouble.attempts), trouble.times_received, trouble.token_active
