"""What FCM says to one message, over both HTTP versions."""

import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from simulator import Simulator
from simulator.http.exchange import SimulatedEnvironment, SimulatedProvider
from simulator.phones import PhoneState
from tests.simulator.tokens import access_token

TOKEN = "phone:APA91b-x_y"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
INVALID_TOKEN = "The registration token is not a valid FCM registration token"

TTL_RANGE = "Invalid value at 'message.android.ttl' (0s to 2419200s)"


def message(**changes: Any) -> dict[str, Any]:
    """A right message, changed; None leaves a field out."""
    right = {
        "token": TOKEN,
        "notification": {"title": "Title", "body": "Body"},
        "data": {"task_id": "task-1"},
        "android": {"priority": "high", "ttl": "60s", "notification": {"tag": "reminder"}},
    }
    return {name: value for name, value in (right | changes).items() if value is not None}


class Fcm:
    """A client with an access token."""

    def __init__(self, client: httpx.AsyncClient, authorization: str) -> None:
        self.client = client
        self.authorization = authorization

    async def send(self, content: Any, *, project: str = "fastbell-demo") -> httpx.Response:
        """Send one request."""
        return await self.client.post(
            f"/v1/projects/{project}/messages:send", json=content, headers={"authorization": self.authorization}
        )


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
async def fcm(request: pytest.FixtureRequest, sim: Simulator, tls: ssl.SSLContext) -> AsyncIterator[Fcm]:
    """Each HTTP version in turn."""
    is_http2 = request.param == "HTTP/2"
    async with httpx.AsyncClient(base_url=sim.environment["FCM_URL"], verify=tls, http2=is_http2) as client:
        yield Fcm(client, f"Bearer {await access_token(sim, client)}")


async def test_a_message_is_accepted_and_shown(sim: Simulator, fcm: Fcm, request: pytest.FixtureRequest) -> None:
    answer = await fcm.send({"message": message()})

    assert request.node.callspec.params == {"fcm": answer.http_version}
    [receipt] = await sim.phones.received(TOKEN)
    assert (answer.status_code, answer.json()) == (200, {"name": receipt.request.message_id})
    assert answer.json()["name"].startswith("projects/fastbell-demo/messages/")
    assert receipt.request.payload == {"message": message()}
    assert (receipt.fate, receipt.reason) == ("shown", None)
    [line] = sim.phone(TOKEN).screen
    assert (line.title, line.body, line.collapse_key, line.data) == ("Title", "Body", "reminder", {"task_id": "task-1"})


async def test_an_installation_id_is_an_address_too(sim: Simulator, fcm: Fcm) -> None:
    answer = await fcm.send({"message": message(token=None, fid="fid-1")})

    assert answer.status_code == 200
    assert len(sim.phone("fid-1").screen) == 1


async def test_a_dry_run_reaches_no_phone(sim: Simulator, fcm: Fcm) -> None:
    answer = await fcm.send({"message": message(), "validate_only": True})

    assert answer.json() == {"name": "projects/fastbell-demo/messages/fake_message_id"}
    assert len(sim.phones) == 0


async def test_an_uninstalled_app_is_unregistered(sim: Simulator, fcm: Fcm) -> None:
    await fcm.send({"message": message()})
    sim.phones.change(sim.phone(TOKEN), PhoneState.UNINSTALLED)

    answer = await fcm.send({"message": message()})

    assert answer.status_code == 404
    assert answer.json() == {
        "error": {
            "code": 404,
            "message": "Requested entity was not found.",
            "status": "NOT_FOUND",
            "details": [{"@type": FCM_ERROR, "errorCode": "UNREGISTERED"}],
        }
    }


@pytest.mark.parametrize(
    ("changes", "field", "description"),
    [
        ({"token": "no token!"}, "message.token", INVALID_TOKEN),
        ({"token": ""}, "message.token", INVALID_TOKEN),
        ({"token": None}, "message", "Exactly one of token, fid, topic or condition must be set."),
        ({"fid": "x"}, "message", "Exactly one of token, fid, topic or condition must be set."),
        ({"data": {"n": 1}}, "message.data[n].value", "Invalid value at 'message.data[n].value' (TYPE_STRING)"),
        ({"data": []}, "message.data", "Invalid value at 'message.data'"),
        ({"data": {"from": "x"}}, "message.data.from", "Invalid data payload key: from"),
        ({"data": {"gcm.x": "x"}}, "message.data.gcm.x", "Invalid data payload key: gcm.x"),
        ({"data": {"google.x": "x"}}, "message.data.google.x", "Invalid data payload key: google.x"),
        ({"data": {"x": "y" * 4096}}, "message", "Message is too big: at most 4096 bytes are allowed."),
        (
            {"android": {"priority": "urgent"}},
            "message.android.priority",
            "Invalid value at 'message.android.priority'",
        ),
        *(
            (
                {"android": {"ttl": ttl}},
                "message.android.ttl",
                "Invalid value at 'message.android.ttl' (0s to 2419200s)",
            )
            for ttl in ("60", 60, "-1s", "2419201s")
        ),
        (
            {"android": {"notification": {"tag": 1}}},
            "message.android.notification.tag",
            "Invalid value at 'message.android.notification.tag' (TYPE_STRING)",
        ),
        (
            {"colour": "red"},
            "message",
            "Invalid JSON payload received. Unknown name \"colour\" at 'message': Cannot find field.",
        ),
    ],
)
async def test_a_wrong_field_is_named(
    sim: Simulator, fcm: Fcm, changes: dict[str, Any], field: str, description: str
) -> None:
    answer = await fcm.send({"message": message(**changes)})

    assert answer.status_code == 400
    assert answer.json() == {
        "error": {
            "code": 400,
            "message": description,
            "status": "INVALID_ARGUMENT",
            "details": [
                {"@type": BAD_REQUEST, "fieldViolations": [{"field": field, "description": description}]},
                {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"},
            ],
        }
    }
    assert len(sim.phones) == 0


@pytest.mark.parametrize("changes", [{"data": {"x": "y" * 4000}}, {"android": {"ttl": "3.5s"}}, {"notification": None}])
async def test_a_message_at_the_edge_of_the_rules_is_accepted(fcm: Fcm, changes: dict[str, Any]) -> None:
    assert (await fcm.send({"message": message(**changes)})).status_code == 200


async def test_a_wrong_path_is_a_bare_404_and_a_wrong_project_a_bare_403(fcm: Fcm) -> None:
    lost = await fcm.client.post("/v1/projects/fastbell-demo/messages", headers={"authorization": fcm.authorization})
    foreign = await fcm.send({"message": message()}, project="other")

    assert (lost.status_code, lost.headers["content-type"]) == (404, "text/html; charset=UTF-8")
    assert (foreign.status_code, foreign.json()["error"].keys()) == (403, {"code", "message", "status"})
    assert foreign.json()["error"]["status"] == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"fault": "revoke_access_tokens"}, "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
        ({"fault": "revoke_access_tokens", "reason": "expired"}, "ACCESS_TOKEN_EXPIRED"),
    ],
)
async def test_access_tokens_end(sim: Simulator, fcm: Fcm, fault: dict[str, str], reason: str) -> None:
    sim.faults.add(provider="fcm", **fault)

    refused = await fcm.send({"message": message()})
    fcm.authorization = f"Bearer {await access_token(sim, fcm.client)}"
    accepted = await fcm.send({"message": message()})

    assert refused.status_code == 401
    error = refused.json()["error"]
    assert (error["status"], [detail.get("reason") for detail in error["details"]]) == ("UNAUTHENTICATED", [reason])
    assert "errorCode" not in refused.text
    assert accepted.status_code == 200


async def test_of_a_token_that_is_none_of_fcms_only_the_message_tells(sim: Simulator, fcm: Fcm) -> None:
    token = "ab" * 32
    sim.phones.seen(token, SimulatedProvider.APNS, SimulatedEnvironment.PRODUCTION)

    answer = await fcm.send({"message": message(token=token)})

    assert (answer.status_code, answer.json()) == (
        400,
        {
            "error": {
                "code": 400,
                "message": INVALID_TOKEN,
                "status": "INVALID_ARGUMENT",
                "details": [{"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"}],
            }
        },
    )


@pytest.mark.parametrize(
    ("apns", "field"),
    [
        ({"header": {}}, "message.apns"),
        ({"headers": {"apns-priority": 10}}, "message.apns.headers.apns-priority"),
        ({"headers": {"apns-priority": "high"}}, "message.apns.headers[apns-priority].value"),
        ({"headers": {"apns-expiration": "60s"}}, "message.apns.headers[apns-expiration].value"),
        ({"headers": {"apns-collapse-id": "x" * 65}}, "message.apns.headers[apns-collapse-id].value"),
        ({"payload": {"alert": "x"}}, "message.apns.payload.aps"),
    ],
)
async def test_what_is_for_apple_is_checked(fcm: Fcm, apns: dict[str, Any], field: str) -> None:
    answer = await fcm.send({"message": message(apns=apns)})

    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["fieldViolations"][0]["field"] == field
