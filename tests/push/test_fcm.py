"""What Google is sent, and what each of its answers comes to."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.kinds import Kind
from domain.presentation_file import SHIPPED
from domain.push import Environment
from push.apns.sender import ApnsSender
from push.fcm.errors import BAD_REQUEST, FCM_ERROR, QUOTA_FAILURE, refusal
from push.fcm.sender import FcmSender
from push.http2.streams import Response
from push.sender import (
    Accepted,
    Delivery,
    Misconfigured,
    MismatchedToken,
    Rejected,
    SuspectToken,
    Throttled,
    ThrottleExtent,
    TokenMisconfigured,
    Unavailable,
    Unregistered,
)
from simulator import Simulator
from tests.logs import own_logs
from tests.push.conftest import APNS_TOKEN, FCM_TOKEN, PATIENT, TASK_ID, fcm_account, made_of, make_push, outcome
from tests.push.peer import Peer

TEN_SECONDS = timedelta(seconds=10)
INVALID_TOKEN = "The registration token is not a valid FCM registration token"
MINUTE = timedelta(seconds=60)


async def test_a_push_reaches_google_whole(sim: Simulator, fcm: FcmSender) -> None:
    push = make_push(FCM_TOKEN)
    answer = await outcome(fcm, push)

    (request,) = sim.requests.for_token(FCM_TOKEN)
    assert answer == Accepted(str(request.message_id))
    payload = json.loads(request.body)
    assert payload == {
        "message": {
            "token": FCM_TOKEN,
            "notification": {"title": "Almost there", "body": "Fifteen minutes to go."},
            "android": {
                "priority": "high",
                "ttl": "3600s",
                "notification": {"tag": "reminder-5", "channel_id": "reminders", "sound": "default"},
            },
            "apns": {
                "headers": {
                    "apns-priority": "10",
                    "apns-expiration": str(int(push.expires_at.timestamp())),
                    "apns-collapse-id": "reminder-5",
                },
                "payload": {"aps": {"sound": "default", "thread-id": "thread-5"}},
            },
            "data": {"task_id": str(TASK_ID), "kind": "reminder", "url": "fastbell://fasting-sessions/5"},
        }
    }


@pytest.mark.parametrize(
    ("kind", "channel"), [(Kind.REMINDER, "reminders"), (Kind.MESSAGE, "messages"), (Kind.TEST, None)]
)
async def test_a_push_that_sounds_goes_to_the_channel_of_its_kind(
    sim: Simulator, fcm: FcmSender, kind: Kind, channel: str | None
) -> None:
    await outcome(fcm, replace(make_push(FCM_TOKEN), kind=kind, look=SHIPPED.looks[kind]))

    (request,) = sim.requests.for_token(FCM_TOKEN)
    (line,) = sim.phone(FCM_TOKEN).screen
    sent = {"tag": "reminder-5", "sound": "default"} | ({"channel_id": channel} if channel else {})
    assert json.loads(request.body)["message"]["android"]["notification"] == sent
    assert (line.notification.channel, line.notification.has_sound) == (channel, True)


async def test_a_push_without_a_sound_goes_to_the_quiet_channel(sim: Simulator, fcm: FcmSender) -> None:
    await outcome(fcm, replace(make_push(FCM_TOKEN), sounds=False))

    (request,) = sim.requests.for_token(FCM_TOKEN)
    message = json.loads(request.body)["message"]
    android, aps = message["android"], message["apns"]["payload"]["aps"]
    quiet = {"tag": "reminder-5", "channel_id": "quiet", "notification_priority": "PRIORITY_LOW"}
    assert (android["priority"], android["notification"]) == ("high", quiet)
    assert aps == {"thread-id": "thread-5", "interruption-level": "passive"}
    assert [receipt.sounded_timestamp for receipt in sim.phone(FCM_TOKEN).log] == [None]


async def test_a_dry_run_is_checked_and_shown_to_nobody(sim: Simulator, fcm: FcmSender) -> None:
    answer = await outcome(fcm, replace(make_push(FCM_TOKEN), validate_only=True))

    (request,) = sim.requests.for_token(FCM_TOKEN)
    assert isinstance(answer, Accepted)
    assert json.loads(request.body).keys() == {"message", "validate_only"}
    assert json.loads(request.body)["validate_only"] is True
    assert sim.phones.get(FCM_TOKEN) is None


async def test_a_push_past_its_expiry_asks_for_no_storage(sim: Simulator, fcm: FcmSender) -> None:
    await outcome(fcm, make_push(FCM_TOKEN, ttl=timedelta(seconds=-30)))

    assert json.loads(sim.requests[0].body)["message"]["android"]["ttl"] == "0s"


async def test_google_stores_a_push_for_as_long_as_it_is_useful_whatever_this_machines_clock_says(
    sim: Simulator, fcm: FcmSender
) -> None:
    await outcome(fcm, replace(make_push(FCM_TOKEN), expires_at=datetime(2001, 1, 1, tzinfo=UTC)))

    assert json.loads(sim.requests[0].body)["message"]["android"]["ttl"] == "3600s"


async def test_a_thousand_cyrillic_letters_reach_both_providers_whole(
    sim: Simulator, fcm: FcmSender, apns: ApnsSender
) -> None:
    text = "Ж" * 1000
    for sender, token in ((fcm, FCM_TOKEN), (apns, APNS_TOKEN)):
        assert isinstance(await outcome(sender, make_push(token, body=text)), Accepted)

    [to_google], [to_apple] = (sim.requests.for_token(token) for token in (FCM_TOKEN, APNS_TOKEN))
    assert json.loads(to_google.body)["message"]["notification"]["body"] == text
    assert json.loads(to_apple.body)["aps"]["alert"]["body"] == text
    assert text.encode() in to_google.body


async def test_half_a_surrogate_pair_stops_no_push(sim: Simulator, fcm: FcmSender, apns: ApnsSender) -> None:
    for sender, token in ((fcm, FCM_TOKEN), (apns, APNS_TOKEN)):
        assert isinstance(await outcome(sender, make_push(token, body="half \ud83d")), Accepted)

    assert [b"half ?" in request.body for request in sim.requests] == [True, True]


@pytest.mark.parametrize(
    "text", ["long " * 2000, "断食" * 2000, "🎉" * 2000, '"\\\n' * 2000, "👩‍👩‍👧‍👦" * 500, "Ж" * 3000]
)
async def test_a_text_that_is_too_long_is_cut_between_characters(sim: Simulator, fcm: FcmSender, text: str) -> None:
    assert isinstance(await outcome(fcm, make_push(FCM_TOKEN, body=text)), Accepted)

    (request,) = sim.requests.for_token(FCM_TOKEN)
    sent = json.loads(request.body)["message"]["notification"]["body"]
    assert 4096 - len("👩‍👩‍👧‍👦".encode()) < len(request.body) <= 4096
    assert b"\\u" not in request.body, "UTF-8, where a letter takes no six bytes"
    assert sent.endswith("…")
    assert text.startswith(sent[:-1])
    assert "👩" not in text or len(sent[:-1]) % len("👩‍👩‍👧‍👦") == 0


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"errorCode": "UNREGISTERED"}, Unregistered("UNREGISTERED", None)),
        ({"errorCode": "INVALID_ARGUMENT"}, Rejected("INVALID_ARGUMENT")),
        ({"errorCode": "INVALID_ARGUMENT", "message": INVALID_TOKEN}, SuspectToken("INVALID_ARGUMENT_TOKEN")),
        ({"status": 400, "message": INVALID_TOKEN}, SuspectToken("INVALID_ARGUMENT_TOKEN")),
        (
            {"errorCode": "INVALID_ARGUMENT", "message": "Invalid registration token provided."},
            SuspectToken("INVALID_ARGUMENT_TOKEN"),
        ),
        (
            {"errorCode": "INVALID_ARGUMENT", "message": INVALID_TOKEN, "field": "message.data"},
            Rejected("INVALID_ARGUMENT"),
        ),
        ({"errorCode": "INTERNAL", "message": INVALID_TOKEN}, (Unavailable, "INTERNAL", Delivery.UNKNOWN, TEN_SECONDS)),
        (
            {"errorCode": "INVALID_ARGUMENT", "field": "message.token"},
            SuspectToken("INVALID_ARGUMENT_TOKEN"),
        ),
        ({"errorCode": "INVALID_ARGUMENT", "field": "message.data"}, Rejected("INVALID_ARGUMENT")),
        ({"status": 400}, Rejected("INVALID_ARGUMENT")),
        ({"status": 400, "field": "message.token"}, Rejected("INVALID_ARGUMENT")),
        ({"errorCode": "SENDER_ID_MISMATCH"}, MismatchedToken("SENDER_ID_MISMATCH")),
        ({"errorCode": "THIRD_PARTY_AUTH_ERROR"}, (TokenMisconfigured, "THIRD_PARTY_AUTH_ERROR", None)),
        (
            {"status": 401, "message": "Auth error from APNS or Web Push Service"},
            (TokenMisconfigured, "THIRD_PARTY_AUTH_ERROR", None),
        ),
        ({"status": 403}, (Misconfigured, "PERMISSION_DENIED", None)),
        ({"status": 404}, (Misconfigured, "NOT_FOUND", None)),
        ({"errorCode": "QUOTA_EXCEEDED"}, (Throttled, ThrottleExtent.TOKEN, "QUOTA_EXCEEDED", MINUTE)),
        (
            {"errorCode": "QUOTA_EXCEEDED", "quota": "device"},
            (Throttled, ThrottleExtent.TOKEN, "QUOTA_EXCEEDED_DEVICE", MINUTE),
        ),
        (
            {"errorCode": "QUOTA_EXCEEDED", "quota": "project"},
            (Throttled, ThrottleExtent.ROUTE, "QUOTA_EXCEEDED_PROJECT", MINUTE),
        ),
        (
            {"errorCode": "QUOTA_EXCEEDED", "retry_after": 7},
            (Throttled, ThrottleExtent.TOKEN, "QUOTA_EXCEEDED", timedelta(seconds=7)),
        ),
        ({"status": 429}, (Throttled, ThrottleExtent.UNNAMED, "RESOURCE_EXHAUSTED", MINUTE)),
        ({"status": 429, "quota": "project"}, (Throttled, ThrottleExtent.ROUTE, "RESOURCE_EXHAUSTED_PROJECT", MINUTE)),
        ({"status": 429, "quota": "device"}, (Throttled, ThrottleExtent.TOKEN, "RESOURCE_EXHAUSTED_DEVICE", MINUTE)),
        ({"errorCode": "INTERNAL"}, (Unavailable, "INTERNAL", Delivery.UNKNOWN, TEN_SECONDS)),
        ({"errorCode": "UNAVAILABLE"}, (Unavailable, "UNAVAILABLE", Delivery.DECLINED, TEN_SECONDS)),
        (
            {"errorCode": "UNAVAILABLE", "retry_after": 30},
            (Unavailable, "UNAVAILABLE", Delivery.DECLINED, timedelta(seconds=30)),
        ),
        ({"status": 504}, (Unavailable, "DEADLINE_EXCEEDED", Delivery.UNKNOWN, TEN_SECONDS)),
        ({"status": 400, "errorCode": "NEW_AND_STRANGE"}, Rejected("NEW_AND_STRANGE")),
        ({"status": 404, "errorCode": "NEW_AND_STRANGE"}, (Misconfigured, "NEW_AND_STRANGE", None)),
        ({"status": 500, "errorCode": "NEW"}, (Unavailable, "NEW", Delivery.UNKNOWN, TEN_SECONDS)),
    ],
    ids=str,
)
async def test_verdict(sim: Simulator, fcm: FcmSender, fault: dict[str, object], expected: object) -> None:
    sim.faults.add(fault="answer", provider="fcm", **fault)

    answer = await outcome(fcm, make_push(FCM_TOKEN))

    assert (made_of(answer) if isinstance(answer, Exception) else answer) == expected


@pytest.mark.parametrize(
    ("fault", "reason", "alarm"),
    [
        ({"errorCode": "SENDER_ID_MISMATCH"}, "SENDER_ID_MISMATCH", "token of another topic or project"),
        ({"errorCode": "INVALID_ARGUMENT"}, "INVALID_ARGUMENT", "provider rejected our push"),
        ({"status": 403}, "PERMISSION_DENIED", "provider misconfigured"),
    ],
)
async def test_a_refusal_that_is_our_fault_is_reported_as_an_error(
    sim: Simulator, fcm: FcmSender, fault: dict[str, object], reason: str, alarm: str
) -> None:
    sim.faults.add(fault="answer", provider="fcm", **fault)

    with own_logs() as logs:
        await outcome(fcm, make_push(FCM_TOKEN))

    told = [(entry["event"], entry["reason"]) for entry in logs if entry["log_level"] == "error"]
    assert told == [(alarm, reason)]


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ("86401", timedelta(days=1)),
        ("9" * 40, timedelta(days=1)),
        ("9" * 5000, None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", timedelta(days=1)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", timedelta(0)),
        ("Fri, 31 Dec 9999 23:59:59 -99999999999999", timedelta(days=1)),
        ("soon", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_retry_after_is_believed_for_a_day_in_either_form(said: str, believed: timedelta | None) -> None:
    assert refusal(Response(503, {b"retry-after": said.encode()}, b"")).retry_after == believed


@pytest.fixture
async def to_peer(sim: Simulator, peer: Peer) -> AsyncIterator[FcmSender]:
    """A sender whose FCM is the scripted server."""
    sender = FcmSender(replace(fcm_account(sim), url=peer.url), timeouts=PATIENT)
    yield sender
    await sender.close()


@pytest.mark.parametrize(
    ("body", "provider_id"),
    [
        (
            b'{"name":"projects/tea/messages/0:1500415314455276%31bd1c96"}',
            "projects/tea/messages/0:1500415314455276%31bd1c96",
        ),
        (b'{"name":"projects/tea/messages/a\\u0000b"}', None),
        (b'{"name":"a name of a form that nobody knows yet"}', None),
        (b'{"name":"projects/tea/messages/%b"}' % (b"x" * 5000), None),
        (b'{\n  "name": "projects/tea/mess', None),  # cut off behind the words that say it
    ],
)
async def test_a_name_says_accepted_and_is_kept_if_it_has_the_form_of_one(
    peer: Peer, to_peer: FcmSender, body: bytes, provider_id: str | None
) -> None:
    peer.script = lambda request: request.answer(200, body)

    assert await outcome(to_peer, make_push(FCM_TOKEN)) == Accepted(provider_id)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Sign in to the guest network</body></html>",
        b"{}",
        b"[]",
        b'"projects/tea/messages/1"',
        b'{"name":null}',
        b'{"name":""}',
        b'{"name":["projects/tea/messages/1"]}',
        b'{"error":{"code":503}}',
        b"\xff\xfe",
        b"[" * 60_000,
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_a_200_without_a_name_is_somebody_elses(
    peer: Peer, to_peer: FcmSender, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    peer.script = lambda request: request.answer(200, *(body[at : at + 9000] for at in range(0, len(body), 9000)))

    answer = await outcome(to_peer, make_push(FCM_TOKEN))

    assert made_of(answer) == (Unavailable, "answered_by_another", Delivery.UNKNOWN, TEN_SECONDS)
    assert "answer is not the provider's" in capsys.readouterr().out


@pytest.mark.parametrize(
    "details",
    [
        [{"@type": FCM_ERROR, "errorCode": {"a": 1}}],
        [{"@type": FCM_ERROR, "errorCode": None}],
        [{"@type": FCM_ERROR, "errorCode": "a\0b" * 5000}],
        [{"@type": BAD_REQUEST, "fieldViolations": [{"field": {"a": []}}, {"field": ["x"]}, None]}],
        [{"@type": QUOTA_FAILURE, "violations": {"subject": "device"}}],
        {"@type": FCM_ERROR},
        [None, 1, "x"],
    ],
    ids=lambda details: str(details)[:40],
)
def test_details_of_any_shape_leave_a_short_reason(details: object) -> None:
    body = json.dumps({"error": {"status": "x\0" * 99, "message": ["y"], "details": details}}).encode()

    assert refusal(Response(400, {}, body)).reason == "http_400"


def test_json_without_a_bottom_is_no_reason() -> None:
    assert refusal(Response(503, {}, b"[" * 60_000)).reason == "http_503"


async def test_a_retry_after_can_be_a_date(sim: Simulator, fcm: FcmSender) -> None:
    sim.faults.add(
        fault="answer", provider="fcm", errorCode="UNAVAILABLE", retry_after=90, retry_after_form="http_date"
    )

    answer = await outcome(fcm, make_push(FCM_TOKEN))

    assert isinstance(answer, Unavailable)
    assert answer.retry_after is not None
    assert timedelta(seconds=85) < answer.retry_after <= timedelta(seconds=90)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"fault": "empty_body", "status": 503}, (Unavailable, "http_503", Delivery.DECLINED, TEN_SECONDS)),
        ({"fault": "html", "status": 502}, (Unavailable, "http_502", Delivery.UNKNOWN, TEN_SECONDS)),
        ({"fault": "accept_then_fail"}, (Unavailable, "UNAVAILABLE", Delivery.DECLINED, TEN_SECONDS)),
        ({"fault": "split_body", "errorCode": "INTERNAL"}, (Unavailable, "INTERNAL", Delivery.UNKNOWN, TEN_SECONDS)),
        ({"fault": "silent"}, (Unavailable, "answer_timeout", Delivery.UNKNOWN, None)),
        ({"fault": "close"}, (Unavailable, "connection_lost", Delivery.UNKNOWN, None)),
        ({"fault": "reset", "code": 7}, (Unavailable, "stream_reset", Delivery.NOT_PROCESSED, None)),
        ({"fault": "goaway"}, (Unavailable, "goaway", Delivery.NOT_PROCESSED, None)),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else "",
)
async def test_trouble_on_the_way(
    sim: Simulator, fcm: FcmSender, fault: dict[str, object], expected: tuple[object, ...]
) -> None:
    sim.faults.add(provider="fcm", **fault)

    assert made_of(await outcome(fcm, make_push(FCM_TOKEN))) == expected
    first_sights = [request for request in sim.requests if request.reason != "AFTER_GOAWAY"]
    assert len(first_sights) == 1, "one attempt"


@pytest.mark.parametrize("fault", ["refuse_connections", "stall_connections"])
async def test_a_closed_port_is_reported_before_any_call(sim: Simulator, fcm: FcmSender, fault: str) -> None:
    async with fcm.lease(Environment.PRODUCTION):
        pass  # an access token is in hand
    sim.faults.add(provider="fcm", fault=fault)
    await asyncio.sleep(0.05)  # the open connection is seen to go

    answer = await outcome(fcm, make_push(FCM_TOKEN))

    assert isinstance(answer, Unavailable)
    assert answer.delivery is Delivery.NOT_PROCESSED
    assert len(sim.requests) == 0


async def test_a_foreign_project_is_misconfigured(sim: Simulator, tmp_path: Path) -> None:
    account = fcm_account(sim)
    content = json.loads(account.service_account_file.read_text()) | {"project_id": "somebody-elses"}
    file = tmp_path / "account.json"
    file.write_text(json.dumps(content))
    sender = FcmSender(replace(account, service_account_file=file), timeouts=PATIENT)

    answer = await outcome(sender, make_push(FCM_TOKEN))

    assert isinstance(answer, Misconfigured)
    await sender.close()


async def test_no_secret_shows(sim: Simulator, fcm: FcmSender, capsys: pytest.CaptureFixture[str]) -> None:
    sim.faults.add(fault="answer", provider="fcm", errorCode="INVALID_ARGUMENT", message=f"bad {FCM_TOKEN}")

    shown = repr(await outcome(fcm, make_push(FCM_TOKEN))) + capsys.readouterr().out

    assert FCM_TOKEN not in shown
    assert "ya29" not in shown
    assert "Almost there" not in shown
