"""The access token for FCM: fetched once for all, renewed ahead, and nobody waits for one that does not come."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from push.fcm.oauth import MAX_ANSWER
from push.fcm.sender import FcmSender
from push.sender import Accepted, Delivery, Misconfigured, Unavailable
from simulator import Simulator
from tests.busy import in_time, soon
from tests.push.conftest import FCM_TOKEN, PATIENT, fcm_account, made_of, make_push, outcome

Say = Callable[[asyncio.StreamWriter], Awaitable[None]]
UNREACHABLE = (Unavailable, "oauth_unreachable", Delivery.NOT_PROCESSED, None)
REFUSED = (Misconfigured, "oauth_refused", None)


@asynccontextmanager
async def asking(sim: Simulator, directory: Path, say: Say) -> AsyncIterator[FcmSender]:
    """A sender whose token endpoint says this to every request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"assertion=" not in head
            await say(writer)
        writer.close()

    account = fcm_account(sim)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        token_uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
        file = directory / "account.json"
        file.write_text(json.dumps(json.loads(account.service_account_file.read_text()) | {"token_uri": token_uri}))
        sender = FcmSender(replace(account, service_account_file=file), timeouts=PATIENT)
        try:
            yield sender
        finally:
            await sender.close()


def saying(status: int, body: bytes) -> Say:
    """Say one whole answer."""

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body))

    return say


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>", UNREACHABLE),
        (200, b"[]", UNREACHABLE),
        (200, b"", UNREACHABLE),
        (200, b"[" * 60_000, UNREACHABLE),
        (200, b'{"access_token":null,"expires_in":3600}', UNREACHABLE),
        (200, b'{"access_token":"a\\r\\nb","expires_in":3600}', UNREACHABLE),
        (200, b'{"access_token":"ya29.x","expires_in":"soon"}', UNREACHABLE),
        (200, b'{"access_token":"ya29.x","expires_in":NaN}', UNREACHABLE),
        (204, b"", UNREACHABLE),
        (302, b"<html>Sign in</html>", UNREACHABLE),
        (503, b'{"error":"backend"}', UNREACHABLE),
        (400, b'{"error":"temporarily_unavailable"}', UNREACHABLE),
        (400, b'{"error":"invalid_grant","error_description":"Invalid JWT"}', REFUSED),
        (401, b'{"error":"invalid_client"}', REFUSED),
        (403, b"<html>Forbidden</html>", REFUSED),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_the_token_endpoint_may_say(
    sim: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, body: bytes, expected: object
) -> None:
    async with asking(sim, tmp_path, saying(status, body)) as sender:
        answers = [made_of(await outcome(sender, make_push(FCM_TOKEN))) for _ in range(2)]

    assert answers == [expected] * 2
    assert "ya29" not in capsys.readouterr().out
    assert len(sim.requests) == 0


async def test_an_answer_without_end_is_cut_off_and_does_not_fill_the_memory(sim: Simulator, tmp_path: Path) -> None:
    sent = [0]

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
        while True:
            writer.write(b" " * 65536)
            await writer.drain()
            sent[0] += 65536

    async with asking(sim, tmp_path, say) as sender:
        answer = made_of(await outcome(sender, make_push(FCM_TOKEN)))

    assert answer == UNREACHABLE
    assert sent[0] < 64 * MAX_ANSWER, "what the sockets hold, and no more"


async def test_an_answer_that_drips_is_given_up_after_the_whole_time(sim: Simulator, tmp_path: Path) -> None:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.1)

    async with asking(sim, tmp_path, say) as sender:
        began = time.monotonic()
        answer = await outcome(sender, make_push(FCM_TOKEN))

    assert made_of(answer) == UNREACHABLE
    assert in_time(time.monotonic() - began, PATIENT.lease.total_seconds() + 1)


async def test_a_lifetime_that_is_none_is_not_believed(sim: Simulator, tmp_path: Path) -> None:
    for lifetime in (b"0", b"-5", b"1e300"):
        granted = b'{"access_token":"ya29.x","expires_in":%b}' % lifetime
        async with asking(sim, tmp_path, saying(200, granted)) as sender:
            access = sender._access
            await access.current()

            assert timedelta(minutes=0.9) < timedelta(seconds=access._unfit_at - access._fetched_at) < timedelta(days=1)


async def test_whoever_closes_does_not_wait_for_a_token(sim: Simulator, fcm: FcmSender) -> None:
    sim.faults.add(fault="oauth_down", provider="fcm", status=None)
    asked = asyncio.create_task(outcome(fcm, make_push(FCM_TOKEN)))
    async with soon(5):
        while not sim.access_tokens_requested or fcm._access._fetch is None:
            await asyncio.sleep(0.01)
    began = time.monotonic()
    await fcm.close()

    assert in_time(time.monotonic() - began, 1.0)
    trouble = await asked
    assert isinstance(trouble, Unavailable)
    assert (trouble.reason, trouble.delivery) == ("closing", Delivery.NOT_PROCESSED)


@pytest.mark.parametrize("reason", ["revoked", "expired"])
async def test_a_refused_access_token_is_replaced_once_for_all(sim: Simulator, fcm: FcmSender, reason: str) -> None:
    await outcome(fcm, make_push(FCM_TOKEN))
    sim.faults.add(fault="revoke_access_tokens", provider="fcm", reason=reason)
    fetched = sim.access_tokens_requested

    refused = await asyncio.gather(*(outcome(fcm, make_push(FCM_TOKEN)) for _ in range(20)))
    accepted = await asyncio.gather(*(outcome(fcm, make_push(FCM_TOKEN)) for _ in range(20)))

    assert {made_of(answer) for answer in refused} == {(Unavailable, "UNAUTHENTICATED", Delivery.NOT_PROCESSED, None)}
    assert all(isinstance(answer, Accepted) for answer in accepted)
    assert len({request.raw_headers[b"authorization"] for request in sim.requests}) == 2
    assert sim.access_tokens_requested - fetched == 1


@pytest.mark.parametrize("status", [429, 502, 503])
async def test_an_oauth_endpoint_in_trouble_is_asked_once_for_all_who_wait(
    sim: Simulator, fcm: FcmSender, status: int
) -> None:
    sim.faults.add(fault="oauth_down", provider="fcm", status=status)
    fetched = sim.access_tokens_requested

    outcomes = await asyncio.gather(*(outcome(fcm, make_push(FCM_TOKEN)) for _ in range(20)))

    assert {made_of(each) for each in outcomes} == {(Unavailable, "oauth_unreachable", Delivery.NOT_PROCESSED, None)}
    assert sim.access_tokens_requested - fetched == 1


@pytest.mark.parametrize("times", [1, 6])
async def test_odd_refusals_of_one_user_take_the_access_token_from_nobody_though_another_cannot_be_had(
    sim: Simulator, fcm: FcmSender, times: int
) -> None:
    assert isinstance(await outcome(fcm, make_push(FCM_TOKEN)), Accepted)
    sim.faults.add(fault="oauth_down", provider="fcm", status=None)
    sim.faults.add(fault="answer", provider="fcm", status=401, count=times)

    mallorys = make_push(FCM_TOKEN, user_id="mallory")
    odd = {made_of(each) for each in await asyncio.gather(*(outcome(fcm, mallorys) for _ in range(times)))}
    began = time.monotonic()
    others = await asyncio.gather(*(outcome(fcm, make_push(FCM_TOKEN)) for _ in range(20)))

    assert odd == {(Unavailable, "UNAUTHENTICATED", Delivery.NOT_PROCESSED, None)}
    assert all(isinstance(answer, Accepted) for answer in others)
    assert in_time(time.monotonic() - began, 1.0)


async def test_a_second_refusal_in_a_row_is_a_matter_for_a_person(sim: Simulator, fcm: FcmSender) -> None:
    sim.faults.add(fault="answer", provider="fcm", status=401)

    outcomes = [made_of(await outcome(fcm, make_push(FCM_TOKEN))) for _ in range(2)]

    assert outcomes == [
        (Unavailable, "UNAUTHENTICATED", Delivery.NOT_PROCESSED, None),
        (Misconfigured, "UNAUTHENTICATED", None),
    ]


async def test_an_oauth_endpoint_that_never_answers_costs_only_the_wait(sim: Simulator, fcm: FcmSender) -> None:
    sim.faults.add(fault="oauth_down", provider="fcm", status=None)

    outcomes = await asyncio.gather(*(outcome(fcm, make_push(FCM_TOKEN)) for _ in range(20)))

    assert {(type(answer), getattr(answer, "delivery", None)) for answer in outcomes} == {
        (Unavailable, Delivery.NOT_PROCESSED)
    }
    assert len(sim.requests) == 0


async def test_an_oauth_endpoint_that_refuses_us_is_misconfigured(sim: Simulator, fcm: FcmSender) -> None:
    sim.faults.add(fault="oauth_down", provider="fcm", status=400)

    assert made_of(await outcome(fcm, make_push(FCM_TOKEN))) == (Misconfigured, "oauth_refused", None)


async def test_calls_go_on_while_the_access_token_cannot_be_renewed(sim: Simulator, fcm: FcmSender) -> None:
    await outcome(fcm, make_push(FCM_TOKEN))
    sim.faults.add(fault="oauth_down", provider="fcm", status=400)
    fcm._access._renew_at = 0.0  # renewal is due, the token is good for another while

    outcomes = [await outcome(fcm, make_push(FCM_TOKEN)) for _ in range(5)]

    assert all(isinstance(answer, Accepted) for answer in outcomes)


async def test_an_access_token_is_renewed_well_before_it_ends(sim: Simulator, fcm: FcmSender) -> None:  # noqa: ARG001
    await outcome(fcm, make_push(FCM_TOKEN))

    access, now = fcm._access, asyncio.get_running_loop().time()
    ends = now + 3600
    assert now + 60 < access._renew_at < access._unfit_at - 60 < access._unfit_at < ends - 10
