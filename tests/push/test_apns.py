"""What Apple is sent, and what each of its answers comes to."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from domain.push import Environment
from push.apns.errors import VERDICTS
from push.apns.sender import ApnsSender
from push.apns.transport import GRID, HALF_GRID, SKEW, ProviderToken, provider_token
from push.sender import (
    Accepted,
    Delivery,
    Misconfigured,
    MismatchedToken,
    Rejected,
    StaleCredential,
    SuspectToken,
    Throttled,
    ThrottleExtent,
    Unavailable,
    Unregistered,
    Unsendable,
)
from push.verdict import Verdict, unknown_refusals
from simulator import Simulator
from tests.logs import own_logs
from tests.push.conftest import (
    APNS_TOKEN,
    ATTEMPT_ID,
    PATIENT,
    TASK_ID,
    Outcome,
    apns_account,
    made_of,
    make_push,
    outcome,
)
from tests.push.peer import Peer, Request

DIED_AT = datetime(2026, 5, 1, 12, 0, 0, 250_000, UTC)


@pytest.fixture
async def to_peer(sim: Simulator, peer: Peer) -> AsyncIterator[ApnsSender]:
    """A sender whose Apple is the scripted server."""
    sender = ApnsSender(replace(apns_account(sim), url=peer.url), timeouts=PATIENT)
    yield sender
    await sender.close()


async def test_a_push_reaches_apple_whole(sim: Simulator, apns: ApnsSender) -> None:
    push = make_push(APNS_TOKEN)

    answer = await outcome(apns, push)

    (request,) = sim.requests.for_token(APNS_TOKEN)
    assert answer == Accepted(str(ATTEMPT_ID))
    assert request.payload == {
        "aps": {
            "alert": {"title": "Almost there", "body": "Fifteen minutes to go."},
            "sound": "default",
            "thread-id": "thread-5",
        },
        "task_id": str(TASK_ID),
        "kind": "reminder",
        "url": "fastbell://fasting-sessions/5",
    }
    headers = {name: value for name, value in request.headers.items() if not name.startswith(":")}
    assert headers == {
        "authorization": "-",
        "apns-topic": sim.environment["APNS_TOPIC"],
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-id": str(ATTEMPT_ID),
        "apns-expiration": str(int(push.expires_at.timestamp())),
        "apns-collapse-id": "reminder-5",
    }


async def test_a_push_without_a_sound_replaces_its_line_without_lighting_the_screen(
    sim: Simulator, apns: ApnsSender
) -> None:
    await outcome(apns, replace(make_push(APNS_TOKEN), sounds=False))

    (request,) = sim.requests.for_token(APNS_TOKEN)
    assert json.loads(request.body)["aps"] == {
        "alert": {"title": "Almost there", "body": "Fifteen minutes to go."},
        "interruption-level": "passive",
        "thread-id": "thread-5",
    }
    assert request.headers["apns-priority"] == "10"
    assert [receipt.sounded_timestamp for receipt in sim.phone(APNS_TOKEN).log] == [None]


async def test_a_sandbox_push_goes_to_the_sandbox(sim: Simulator, apns: ApnsSender) -> None:
    await outcome(apns, make_push(APNS_TOKEN), Environment.SANDBOX)

    assert [str(request.environment) for request in sim.requests] == ["sandbox"]


@pytest.mark.parametrize("text", ["long " * 2000, "断食" * 2000, "🎉" * 2000, '"\\\n' * 2000])
async def test_a_text_that_is_too_long_is_cut_between_characters(sim: Simulator, apns: ApnsSender, text: str) -> None:
    assert isinstance(await outcome(apns, make_push(APNS_TOKEN, body=text)), Accepted)

    (request,) = sim.requests.for_token(APNS_TOKEN)
    sent = json.loads(request.body)["aps"]["alert"]["body"]
    assert 4080 < len(request.body) <= 4096
    assert sent.endswith("…")
    assert text.startswith(sent[:-1])


async def test_a_malformed_token_is_rejected_without_a_call(sim: Simulator, apns: ApnsSender) -> None:
    assert await outcome(apns, make_push("../../secrets")) == Unsendable("MalformedDeviceToken")
    assert len(sim.requests) == 0


CONCERNED = {
    Verdict.TOKEN_THROTTLED: ThrottleExtent.TOKEN,
    Verdict.ROUTE_THROTTLED: ThrottleExtent.ROUTE,
    Verdict.THROTTLED_UNNAMED: ThrottleExtent.UNNAMED,
}


def _expected(status: int, reason: str, verdict: Verdict) -> object:
    match verdict:
        case Verdict.DEAD_TOKEN:
            return Unregistered(reason, DIED_AT if status == 410 else None)
        case Verdict.SUSPECT_TOKEN:
            return SuspectToken(reason)
        case Verdict.MISMATCHED_TOKEN:
            return MismatchedToken(reason)
        case Verdict.OUR_BUG:
            return Rejected(reason)
        case Verdict.MISCONFIGURED | Verdict.TOKEN_MISCONFIGURED:
            return Misconfigured, reason, None
        case Verdict.TOKEN_THROTTLED | Verdict.ROUTE_THROTTLED | Verdict.THROTTLED_UNNAMED:
            return Throttled, CONCERNED[verdict], reason, None
        case Verdict.RECONNECT | Verdict.TRANSIENT:
            refused_unread = verdict is Verdict.RECONNECT and status < 500
            came_to = Delivery.DECLINED if status == 503 else Delivery.UNKNOWN
            return Unavailable, reason, Delivery.NOT_PROCESSED if refused_unread else came_to, None
        case Verdict.STALE_CREDENTIAL:
            raise AssertionError("depends on the clock: has tests of its own")


UNKNOWN = {
    (302, "NewAndStrange"): Verdict.MISCONFIGURED,
    (400, "NewAndStrange"): Verdict.OUR_BUG,
    (401, "NewAndStrange"): Verdict.MISCONFIGURED,
    (403, "NewAndStrange"): Verdict.MISCONFIGURED,
    (404, "NewAndStrange"): Verdict.MISCONFIGURED,
    (408, "NewAndStrange"): Verdict.TRANSIENT,
    (410, "NewAndStrange"): Verdict.MISCONFIGURED,
    (429, "NewAndStrange"): Verdict.TOKEN_THROTTLED,
    (500, "NewAndStrange"): Verdict.TRANSIENT,
    (504, "NewAndStrange"): Verdict.TRANSIENT,
}
TABLE = [(*key, verdict) for key, verdict in (VERDICTS | UNKNOWN).items() if verdict is not Verdict.STALE_CREDENTIAL]


@pytest.mark.parametrize(("status", "reason", "verdict"), TABLE)
async def test_verdict(sim: Simulator, apns: ApnsSender, status: int, reason: str, verdict: Verdict) -> None:
    timestamp = int(DIED_AT.timestamp() * 1000) if status == 410 else None
    sim.faults.add(fault="answer", provider="apns", status=status, reason=reason, timestamp=timestamp)

    answer = await outcome(apns, make_push(APNS_TOKEN))

    assert (made_of(answer) if isinstance(answer, Exception) else answer) == _expected(status, reason, verdict)


@pytest.mark.parametrize(
    ("status", "reason"), [(400, "IdleTimeout"), (403, "UnrelatedKeyIdInToken"), (503, "Shutdown")]
)
async def test_after_a_refusal_for_its_connection_calls_go_over_another(
    peer: Peer, to_peer: ApnsSender, status: int, reason: str
) -> None:
    peer.script = lambda request: request.answer(status, json.dumps({"reason": reason}).encode())
    assert isinstance(await outcome(to_peer, make_push(APNS_TOKEN)), Unavailable)
    peer.script = Request.answer

    assert isinstance(await outcome(to_peer, make_push(APNS_TOKEN)), Accepted)
    assert [request.connection for request in peer.requests] == peer.connections
    assert len(peer.connections) == 2


@pytest.mark.parametrize(
    ("status", "reason", "alarm"),
    [
        (400, "DeviceTokenNotForTopic", "token of another topic or project"),
        (413, "PayloadTooLarge", "provider rejected our push"),
        (403, "InvalidProviderToken", "provider misconfigured"),
    ],
)
async def test_a_refusal_that_is_our_fault_is_reported_as_an_error(
    sim: Simulator, apns: ApnsSender, status: int, reason: str, alarm: str
) -> None:
    sim.faults.add(fault="answer", provider="apns", status=status, reason=reason)

    with own_logs() as logs:
        await outcome(apns, make_push(APNS_TOKEN))

    told = [(entry["event"], entry["reason"]) for entry in logs if entry["log_level"] == "error"]
    assert told == [(alarm, reason)]


@pytest.mark.parametrize("timestamp", [10**15, 10**30, -(10**30)])
async def test_a_death_at_no_date_that_there_is_has_no_date(peer: Peer, to_peer: ApnsSender, timestamp: int) -> None:
    body = json.dumps({"reason": "Unregistered", "timestamp": timestamp}).encode()
    peer.script = lambda request: request.answer(410, body)

    assert await outcome(to_peer, make_push(APNS_TOKEN)) == Unregistered("Unregistered", None)


@pytest.mark.parametrize(
    ("apns_id", "provider_id"),
    [
        (str(ATTEMPT_ID), str(ATTEMPT_ID)),
        (str(ATTEMPT_ID).upper(), str(ATTEMPT_ID)),
        ("a\0b", None),
        ("\0", None),
        ("", None),
        (str(ATTEMPT_ID) + "\n", None),
        ("x" * 10_000, None),
        (None, str(ATTEMPT_ID)),  # ours, which Apple was sent
    ],
)
async def test_a_200_is_accepted_whatever_its_id_and_the_id_is_kept_if_it_is_one(
    peer: Peer, to_peer: ApnsSender, apns_id: str | None, provider_id: str | None
) -> None:
    peer.validates = False  # a NUL is no header by the book
    peer.script = lambda request: request.answer(200, headers={} if apns_id is None else {"apns-id": apns_id})

    assert await outcome(to_peer, make_push(APNS_TOKEN)) == Accepted(provider_id)


@pytest.mark.parametrize("apns_id", [None, "a\0b"])
async def test_a_200_with_words_and_no_id_of_apples_is_somebody_elses(
    peer: Peer, to_peer: ApnsSender, apns_id: str | None
) -> None:
    peer.validates = False
    headers = {} if apns_id is None else {"apns-id": apns_id}
    peer.script = lambda request: request.answer(200, b"<html>Sign in</html>", headers=headers)

    answer = await outcome(to_peer, make_push(APNS_TOKEN))

    assert made_of(answer) == (Unavailable, "answered_by_another", Delivery.UNKNOWN, None)


async def test_json_without_a_bottom_is_no_reason(peer: Peer, to_peer: ApnsSender) -> None:
    peer.script = lambda request: request.answer(503, *[b"[" * 10_000] * 6)

    assert made_of(await outcome(to_peer, make_push(APNS_TOKEN))) == (Unavailable, "http_503", Delivery.DECLINED, None)


async def test_a_refusal_that_the_table_does_not_know_is_counted(sim: Simulator, apns: ApnsSender) -> None:
    sim.faults.add(fault="answer", provider="apns", status=400, reason="NeverSeenBefore")
    before = unknown_refusals["apns", 400, "NeverSeenBefore"]

    for _ in range(2):
        await outcome(apns, make_push(APNS_TOKEN))

    assert unknown_refusals["apns", 400, "NeverSeenBefore"] - before == 2


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"fault": "empty_body", "status": 503}, (Unavailable, "http_503", Delivery.DECLINED, None)),
        ({"fault": "html", "status": 502}, (Unavailable, "http_502", Delivery.UNKNOWN, None)),
        ({"fault": "html", "status": 404}, (Misconfigured, "http_404", None)),
        ({"fault": "html", "status": 410}, (Misconfigured, "http_410", None)),
        ({"fault": "accept_then_fail"}, (Unavailable, "ServiceUnavailable", Delivery.DECLINED, None)),
        (
            {"fault": "split_body", "status": 503, "reason": "ServiceUnavailable"},
            (Unavailable, "ServiceUnavailable", Delivery.DECLINED, None),
        ),
        ({"fault": "silent"}, (Unavailable, "answer_timeout", Delivery.UNKNOWN, None)),
        ({"fault": "close"}, (Unavailable, "connection_lost", Delivery.UNKNOWN, None)),
        ({"fault": "reset", "code": 7}, (Unavailable, "stream_reset", Delivery.NOT_PROCESSED, None)),
        ({"fault": "goaway"}, (Unavailable, "goaway", Delivery.NOT_PROCESSED, None)),
        ({"fault": "refuse_connections"}, (Unavailable, "connect_failed", Delivery.NOT_PROCESSED, None)),
        ({"fault": "stall_connections"}, (Unavailable, "connect_failed", Delivery.NOT_PROCESSED, None)),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else "",
)
async def test_trouble_on_the_way(
    sim: Simulator, apns: ApnsSender, fault: dict[str, object], expected: tuple[object, ...]
) -> None:
    sim.faults.add(provider="apns", **fault)

    assert made_of(await outcome(apns, make_push(APNS_TOKEN))) == expected
    first_sights = [request for request in sim.requests if request.reason != "AFTER_GOAWAY"]
    assert len(first_sights) <= 1, "one attempt"


async def test_a_burst_with_bad_tokens_is_sent_once_each(sim: Simulator, apns: ApnsSender) -> None:
    bad = {f"{number:064x}" for number in range(0, 400, 20)}
    for token in bad:
        sim.faults.add(fault="answer", provider="apns", token=token, status=400, reason="BadDeviceToken")
    tokens = [f"{number:064x}" for number in range(400)]

    outcomes = dict(zip(tokens, await _sent_again_while_never_processed(apns, tokens), strict=True))

    assert {token for token, answer in outcomes.items() if isinstance(answer, SuspectToken)} == bad
    assert sum(isinstance(answer, Accepted) for answer in outcomes.values()) == 380
    assert all(len(phone.log) == 1 for phone in sim.phones)


async def _sent_again_while_never_processed(apns: ApnsSender, tokens: list[str]) -> list[Outcome]:
    async def sent(token: str) -> Outcome:
        while True:
            answer = await outcome(apns, make_push(token))
            if not (isinstance(answer, Unavailable) and answer.delivery is Delivery.NOT_PROCESSED):
                return answer

    return await asyncio.gather(*(sent(token) for token in tokens))


async def test_one_provider_token_serves_every_connection(sim: Simulator, apns: ApnsSender) -> None:
    for environment in (Environment.PRODUCTION, Environment.SANDBOX):
        await outcome(apns, make_push(APNS_TOKEN), environment)
        await outcome(apns, make_push("cd" * 32), environment)

    assert len({request.raw_headers[b"authorization"] for request in sim.requests}) == 1


async def test_apps_with_the_same_key_share_its_token(sim: Simulator, apns: ApnsSender) -> None:
    other = ApnsSender(apns_account(sim), timeouts=PATIENT)
    for sender in (apns, other):
        await outcome(sender, make_push(APNS_TOKEN))
    await other.close()

    assert len({request.raw_headers[b"authorization"] for request in sim.requests}) == 1
    account = apns_account(sim)
    key = account.key_file.read_text()
    assert provider_token(key, account.key_id, account.team_id) is provider_token(key, account.key_id, account.team_id)


async def test_every_process_makes_the_same_provider_token(sim: Simulator) -> None:
    assert _provider_token(sim).get_header() == _provider_token(sim).get_header()


async def test_the_provider_token_lies_on_the_grid(sim: Simulator) -> None:
    header = _provider_token(sim).get_header()

    claims = jwt.decode(header.removeprefix("bearer "), options={"verify_signature": False})
    assert claims["iss"] == sim.environment["APNS_TEAM_ID"]
    assert claims["iat"] == (int(time.time()) - SKEW) // GRID * GRID


@pytest.mark.parametrize("since", [0, 1, SKEW - 1, SKEW, HALF_GRID, GRID - 1])
async def test_a_provider_token_is_a_minute_old_when_it_is_first_shown_and_never_an_hour(
    sim: Simulator, since: int
) -> None:
    """No clock that is a minute behind ours, and refuses what is not born yet, can refuse a whole fleet."""
    now = int(time.time()) // GRID * GRID + since
    token = _provider_token(sim, clock=lambda: now)

    header = token.get_header()
    token.refused(header)

    assert 60 <= now - _issued_at(header) < 50 * 60
    assert 60 <= now - _issued_at(token.get_header()) < 50 * 60


@pytest.mark.parametrize(("age", "is_old"), [(0, False), (HALF_GRID - 1, False), (HALF_GRID, True), (GRID - 1, True)])
async def test_an_expired_provider_token_is_renewed_only_where_it_is_old(
    sim: Simulator, age: int, is_old: bool
) -> None:
    now = int(time.time()) // GRID * GRID + SKEW + age
    token = _provider_token(sim, clock=lambda: now)
    header = token.get_header()

    assert token.refused(header) is is_old
    assert (token.get_header() != header) is is_old
    assert token.refused(token.get_header()) is False


async def test_a_renewed_provider_token_is_twenty_minutes_younger_and_lives_as_long(sim: Simulator) -> None:
    shown = [int(time.time()) // GRID * GRID + SKEW + HALF_GRID]
    token = _provider_token(sim, clock=lambda: shown[0])
    old = token.get_header()
    token.refused(old)
    issued = [_issued_at(old), _issued_at(token.get_header())]

    shown[0] += HALF_GRID - 1
    issued.append(_issued_at(token.get_header()))
    shown[0] += 1
    issued.append(_issued_at(token.get_header()))

    assert [later - issued[0] for later in issued] == [0, HALF_GRID, HALF_GRID, GRID]


async def test_a_clock_that_was_ahead_for_a_while_leaves_no_token_of_the_future(sim: Simulator) -> None:
    now = time.time()
    shown = [now + 10 * GRID]
    token = _provider_token(sim, clock=lambda: shown[0])
    ahead = token.get_header()
    shown[0] = now
    back = token.get_header()

    assert ahead != back == token.get_header()
    claims = jwt.decode(back.removeprefix("bearer "), options={"verify_signature": False})
    assert claims["iat"] == (int(now) - SKEW) // GRID * GRID


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (HALF_GRID - 1, (Misconfigured, "ExpiredProviderToken", None)),  # it is young, so some clock is wrong
        (HALF_GRID, (Unavailable, "ExpiredProviderToken", Delivery.NOT_PROCESSED, None)),
    ],
)
async def test_a_provider_token_that_apple_calls_expired_is_renewed_once_and_only_where_it_is_old(
    sim: Simulator, tmp_path: Path, age: int, expected: object
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "key.p8"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    account = replace(apns_account(sim), key_file=file)
    now = int(time.time()) // GRID * GRID + SKEW + age
    provider_token(file.read_text(), account.key_id, account.team_id)._clock = lambda: now
    sim.faults.add(fault="answer", provider="apns", status=403, reason="ExpiredProviderToken")
    sender = ApnsSender(account, timeouts=PATIENT)

    answers = [await outcome(sender, make_push(APNS_TOKEN)) for _ in range(2)]
    await sender.close()

    assert [made_of(answer) for answer in answers] == [expected, (Misconfigured, "ExpiredProviderToken", None)]
    assert isinstance(answers[0], StaleCredential) is (age == HALF_GRID)


async def test_a_wrong_key_is_misconfigured(sim: Simulator) -> None:
    sender = ApnsSender(replace(apns_account(sim), key_id="WRONGKEY01"), timeouts=PATIENT)

    answer = await outcome(sender, make_push(APNS_TOKEN))

    assert made_of(answer) == (Misconfigured, "InvalidProviderToken", None)
    await sender.close()


async def test_no_secret_shows(sim: Simulator, apns: ApnsSender, capsys: pytest.CaptureFixture[str]) -> None:
    sim.faults.add(fault="goaway", provider="apns", token=APNS_TOKEN)
    sim.faults.add(fault="answer", provider="apns", token="cd" * 32, status=400, reason="DeviceTokenNotForTopic")
    troubles = [await outcome(apns, make_push(token)) for token in (APNS_TOKEN, "cd" * 32)]

    shown = repr(troubles) + capsys.readouterr().out
    assert APNS_TOKEN not in shown
    assert "cd" * 32 not in shown
    assert "bearer" not in shown.lower()
    assert "Almost there" not in shown


def _provider_token(sim: Simulator, clock: Callable[[], float] = time.time) -> ProviderToken:
    account = apns_account(sim)
    key = account.key_file.read_text()
    return ProviderToken(key=key, key_id=account.key_id, team_id=account.team_id, clock=clock)


def _issued_at(header: str) -> int:
    return int(jwt.decode(header.removeprefix("bearer "), options={"verify_signature": False})["iat"])


async def test_an_expiry_is_an_instant_however_late_it_is_sent(sim: Simulator, apns: ApnsSender) -> None:
    push = make_push(APNS_TOKEN, ttl=timedelta(seconds=-30))

    await outcome(apns, push)

    assert sim.requests[0].headers["apns-expiration"] == str(int(push.expires_at.timestamp()))
