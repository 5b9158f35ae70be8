"""Scripted trouble on FCM."""

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from simulator import Simulator
from tests.simulator.test_fcm import BAD_REQUEST, FCM_ERROR, TOKEN, Fcm, message
from tests.simulator.tokens import access_token

QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
QUOTA = "Resource has been exhausted (e.g. check quota)."


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
async def fcm(request: pytest.FixtureRequest, sim: Simulator, tls: ssl.SSLContext) -> AsyncIterator[Fcm]:
    """Each HTTP version in turn."""
    is_http2 = request.param == "HTTP/2"
    async with httpx.AsyncClient(base_url=sim.environment["FCM_URL"], verify=tls, http2=is_http2) as client:
        yield Fcm(client, f"Bearer {await access_token(sim, client)}")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (
            {"errorCode": "SENDER_ID_MISMATCH"},
            {
                "code": 403,
                "message": "SenderId mismatch",
                "status": "PERMISSION_DENIED",
                "details": [{"@type": FCM_ERROR, "errorCode": "SENDER_ID_MISMATCH"}],
            },
        ),
        (
            {"errorCode": "QUOTA_EXCEEDED", "quota": "device"},
            {
                "code": 429,
                "message": QUOTA,
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {
                        "@type": QUOTA_FAILURE,
                        "violations": [{"subject": "device:simulator", "description": QUOTA}],
                    },
                    {"@type": FCM_ERROR, "errorCode": "QUOTA_EXCEEDED"},
                ],
            },
        ),
        (
            {"errorCode": "INVALID_ARGUMENT", "field": "message.token", "message": "Bad token"},
            {
                "code": 400,
                "message": "Bad token",
                "status": "INVALID_ARGUMENT",
                "details": [
                    {
                        "@type": BAD_REQUEST,
                        "fieldViolations": [{"field": "message.token", "description": "Bad token"}],
                    },
                    {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"},
                ],
            },
        ),
        (
            {"errorCode": "THIRD_PARTY_AUTH_ERROR"},
            {
                "code": 401,
                "message": "Request is missing required authentication credential.",
                "status": "UNAUTHENTICATED",
                "details": [{"@type": FCM_ERROR, "errorCode": "THIRD_PARTY_AUTH_ERROR"}],
            },
        ),
        ({"status": 404}, {"code": 404, "message": "Scripted.", "status": "NOT_FOUND"}),
        ({"status": 403}, {"code": 403, "message": "Scripted.", "status": "PERMISSION_DENIED"}),
    ],
)
async def test_errors_are_scripted_with_their_details(
    sim: Simulator, fcm: Fcm, fault: dict[str, Any], error: dict[str, Any]
) -> None:
    sim.faults.add(provider="fcm", fault="answer", **fault)

    answer = await fcm.send({"message": message()})

    assert (answer.status_code, answer.json()) == (error["code"], {"error": error})
    assert len(sim.phones) == 0


async def test_retry_after_comes_in_either_form(sim: Simulator, fcm: Fcm) -> None:
    for form in ("seconds", "http_date"):
        sim.faults.add(
            provider="fcm", fault="answer", errorCode="UNAVAILABLE", retry_after=30, retry_after_form=form, count=1
        )

    in_seconds, as_date = [(await fcm.send({"message": message()})).headers["retry-after"] for _ in range(2)]

    assert in_seconds == "30"
    wait = parsedate_to_datetime(as_date) - datetime.now(UTC)
    assert timedelta(seconds=25) < wait <= timedelta(seconds=30)


async def test_bodies_can_be_empty_split_or_html(sim: Simulator, fcm: Fcm) -> None:
    sim.faults.add(provider="fcm", fault="empty_body", count=1)
    sim.faults.add(provider="fcm", fault="split_body", errorCode="INTERNAL", count=1)
    sim.faults.add(provider="fcm", fault="html", count=1)

    empty, split, html = [await fcm.send({"message": message()}) for _ in range(3)]

    assert (empty.status_code, empty.content) == (503, b"")
    assert (split.status_code, split.json()["error"]["details"]) == (
        500,
        [{"@type": FCM_ERROR, "errorCode": "INTERNAL"}],
    )
    assert (html.status_code, html.headers["content-type"]) == (502, "text/html; charset=UTF-8")


async def test_a_503_may_hide_a_delivered_message(sim: Simulator, fcm: Fcm) -> None:
    sim.faults.add(provider="fcm", fault="accept_then_fail", count=1)

    statuses = [(await fcm.send({"message": message()})).status_code for _ in range(2)]

    assert statuses == [503, 200]
    [line] = sim.phone(TOKEN).screen
    assert line.times_received == 2


@pytest.mark.parametrize("fault", ["close", "reset"])
async def test_a_broken_connection_is_an_error_and_the_next_one_works(sim: Simulator, fcm: Fcm, fault: str) -> None:
    sim.faults.add(provider="fcm", fault=fault, count=1)

    with pytest.raises(httpx.TransportError):
        await fcm.send({"message": message()})

    assert (await fcm.send({"message": message()})).status_code == 200


async def test_silence_is_a_timeout(sim: Simulator, fcm: Fcm) -> None:
    sim.faults.add(provider="fcm", fault="silent", count=1)
    fcm.client.timeout = httpx.Timeout(0.1)

    with pytest.raises(httpx.ReadTimeout):
        await fcm.send({"message": message()})

    assert sim.phone(TOKEN).accepted_count == 1


async def test_httpx_asks_again_after_a_goaway_that_spares_its_stream(
    sim: Simulator, fcm: Fcm, request: pytest.FixtureRequest
) -> None:
    sim.faults.add(provider="fcm", fault="goaway", count=1)

    if request.node.callspec.params["fcm"] == "HTTP/2":
        assert (await fcm.send({"message": message()})).status_code == 200
    else:
        with pytest.raises(httpx.TransportError):
            await fcm.send({"message": message()})

    assert (sim.requests[0].status, sim.requests[0].reason) == (None, "goaway")
