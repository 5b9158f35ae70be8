"""What APNs says to one push."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsBaseClientProtocol, APNsTLSClientProtocol
from cryptography.hazmat.primitives.asymmetric import ec

from simulator import Simulator
from simulator.phones import PhoneState
from simulator.settings import private_pem
from tests.simulator.raw_http2 import PAYLOAD, TOKEN, RawHttp2
from tests.simulator.tokens import provider_token, trusting


def apns_client(sim: Simulator, url: str) -> APNs:
    """Plain aioapns, pointed at the simulator."""

    class Protocol(APNsTLSClientProtocol):
        APNS_SERVER = "127.0.0.1"
        APNS_PORT = urlsplit(url).port or 443

    context = trusting(sim)
    context.set_alpn_protocols(["h2"])
    client = APNs(
        key=Path(sim.environment["APNS_KEY_FILE"]).read_text(),
        key_id=sim.environment["APNS_KEY_ID"],
        team_id=sim.environment["APNS_TEAM_ID"],
        topic=sim.environment["APNS_TOPIC"],
        max_connection_attempts=1,
        ssl_context=context,
    )
    client.pool.protocol_class = Protocol
    return client


@pytest.fixture
async def client(sim: Simulator) -> AsyncIterator[APNs]:
    """Plain aioapns to production."""
    client = apns_client(sim, sim.environment["APNS_URL"])
    yield client
    close(client)


def close(client: APNs) -> None:
    """Aioapns closes nothing by itself."""
    connections: list[APNsBaseClientProtocol] = list(client.pool.connections)
    for connection in connections:
        connection.close()


async def test_a_push_sent_with_plain_aioapns_is_accepted_and_shown(sim: Simulator, client: APNs) -> None:
    message_id = str(uuid.uuid4())

    result = await client.send_notification(
        NotificationRequest(
            device_token=TOKEN,
            message=PAYLOAD,
            notification_id=message_id,
            time_to_live=60,
            priority=10,
            collapse_key="reminder",
            push_type=PushType.ALERT,
        )
    )

    assert (result.is_successful, result.notification_id) == (True, message_id)
    [receipt] = await sim.phones.received(TOKEN)
    assert receipt.fate == "shown"
    assert receipt.request.message_id == message_id
    assert receipt.request.payload == PAYLOAD
    assert receipt.request.headers == {
        "host": "127.0.0.1",
        "apns-id": message_id,
        "apns-topic": "app.fastbell.demo",
        "apns-expiration": str(int(receipt.expires_timestamp or 0)),
        "apns-priority": "10",
        "apns-collapse-id": "reminder",
        "apns-push-type": "alert",
        "authorization": "-",
    }
    [line] = sim.phone(TOKEN).screen
    assert (line.title, line.body, line.collapse_key, line.times_received) == ("Title", "Body", "reminder", 1)
    assert line.data == {"task_id": "task-1"}


async def test_an_uninstalled_app_answers_410_with_milliseconds(sim: Simulator, raw: RawHttp2) -> None:
    await raw.push()
    sim.phones.change(sim.phone(TOKEN), PhoneState.UNINSTALLED)
    before = time.time() * 1000

    heard = await raw.push()

    assert heard.status == 410
    timestamp = heard.body["timestamp"]
    assert heard.body == {"reason": "Unregistered", "timestamp": timestamp}
    assert before - 1000 < timestamp < before + 1000
    assert sim.phone(TOKEN).screen == []


async def test_a_token_of_the_other_environment_is_a_bad_device_token(sim: Simulator, raw: RawHttp2) -> None:
    await raw.push()
    async with RawHttp2.to(sim, sim.ports.apns_sandbox) as sandbox:
        crossed = await sandbox.push()
        own = await sandbox.push(token="b" * 64)

    assert (crossed.status, crossed.body) == (400, {"reason": "BadDeviceToken"})
    assert own.status == 200
    assert sim.phone("b" * 64).environment == "sandbox"


@pytest.mark.parametrize(
    ("changed", "body", "status", "reason"),
    [
        ({":path": "/3/devices/x"}, None, 404, "BadPath"),
        ({":method": "PUT"}, None, 405, "MethodNotAllowed"),
        ({":path": "/3/device/"}, None, 400, "MissingDeviceToken"),
        ({":path": "/3/device/nothex"}, None, 400, "BadDeviceToken"),
        ({":path": f"/3/device/{'a' * 63}"}, None, 400, "BadDeviceToken"),
        ({"apns-topic": ""}, None, 400, "MissingTopic"),
        ({"apns-topic": "no topic!"}, None, 400, "BadTopic"),
        ({"apns-topic": "app.other"}, None, 400, "DeviceTokenNotForTopic"),
        ({"apns-push-type": "liveactivity"}, None, 400, "DeviceTokenNotForTopic"),
        ({"apns-push-type": "shout"}, None, 400, "InvalidPushType"),
        ({"apns-priority": "7"}, None, 400, "BadPriority"),
        ({"apns-push-type": "background", "apns-priority": "10"}, None, 400, "BadPriority"),
        ({"apns-push-type": "background"}, None, 400, "BadPriority"),
        ({"apns-expiration": "soon"}, None, 400, "BadExpirationDate"),
        ({"apns-expiration": "-1"}, None, 400, "BadExpirationDate"),
        ({"apns-id": "1"}, None, 400, "BadMessageId"),
        ({"apns-id": str(uuid.uuid4()).upper()}, None, 400, "BadMessageId"),
        ({"apns-collapse-id": "x" * 65}, None, 400, "BadCollapseId"),
        ({}, b"", 400, "PayloadEmpty"),
        ({}, b"not json", 400, "PayloadEmpty"),
        ({}, b"[]", 400, "PayloadEmpty"),
        ({}, b'{"task_id": "1"}', 400, "PayloadEmpty"),
        ({}, b'{"aps":{}}' + b" " * 4087, 413, "PayloadTooLarge"),
        ({"authorization": ""}, None, 403, "MissingProviderToken"),
        ({"authorization": "bearer nonsense"}, None, 403, "InvalidProviderToken"),
    ],
)
async def test_a_wrong_push_is_refused_with_apples_reason(
    sim: Simulator, raw: RawHttp2, changed: dict[str, str], body: bytes | None, status: int, reason: str
) -> None:
    heard = await raw.push(changed, body)

    assert (heard.status, heard.body) == (status, {"reason": reason})
    assert len(sim.phones) == 0
    [request] = sim.requests
    assert (request.status, request.reason) == (status, reason)


@pytest.mark.parametrize(
    ("changed", "body"),
    [
        ({"apns-push-type": "background", "apns-priority": "5"}, b'{"aps":{"content-available":1}}'),
        ({"apns-topic": "app.fastbell.demo.push-type.liveactivity", "apns-push-type": "liveactivity"}, None),
        ({"apns-collapse-id": "x" * 64}, None),
        ({"apns-push-type": ""}, None),
        ({}, b'{"aps":{}}' + b" " * 4086),
    ],
)
async def test_a_push_at_the_edge_of_the_rules_is_accepted(
    raw: RawHttp2, changed: dict[str, str], body: bytes | None
) -> None:
    heard = await raw.push(changed, body)

    assert (heard.status, heard.frames) == (200, [])


async def test_the_apns_id_is_echoed_or_made(raw: RawHttp2) -> None:
    message_id = str(uuid.uuid4())

    echoed = await raw.push({"apns-id": message_id})
    made = await raw.push()
    on_refusal = await raw.push({"apns-id": message_id, "apns-topic": ""})

    assert echoed.headers == {"apns-id": message_id}
    assert str(uuid.UUID(made.headers["apns-id"])) == made.headers["apns-id"]
    assert on_refusal.headers == {"apns-id": message_id}


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"age": 3590}, 200, None),
        ({"age": 3700}, 403, "ExpiredProviderToken"),
        ({"age": -3600}, 403, "InvalidProviderToken"),
        ({"key_id": "OTHERKEY01"}, 403, "InvalidProviderToken"),
        ({"team": "OTHERTEAM1"}, 403, "InvalidProviderToken"),
        ({"key": private_pem(ec.generate_private_key(ec.SECP256R1())).decode()}, 403, "InvalidProviderToken"),
    ],
)
async def test_a_provider_token_is_judged_by_signature_key_team_and_age(
    sim: Simulator, raw: RawHttp2, changes: dict[str, Any], status: int, reason: str | None
) -> None:
    token = provider_token(sim, **changes)

    heard = await raw.push({"authorization": f"bearer {token}"})

    assert heard.status == status
    assert (heard.body["reason"] if heard.frames else None) == reason


async def test_provider_tokens_may_change_every_twenty_minutes(sim: Simulator, raw: RawHttp2) -> None:
    statuses = []
    for age in (3000, 2000, 1700, 2000):
        heard = await raw.push({"authorization": f"bearer {provider_token(sim, age=age)}"})
        statuses.append((heard.status, heard.body["reason"] if heard.frames else None))

    assert statuses == [
        (200, None),
        (429, "TooManyProviderTokenUpdates"),
        (200, None),
        (429, "TooManyProviderTokenUpdates"),
    ]


async def test_the_payload_is_logged_as_it_came(sim: Simulator, raw: RawHttp2) -> None:
    body = json.dumps({"aps": {"alert": "Grüße"}, "x": [1, {"y": None}]}, ensure_ascii=False).encode()

    await raw.push(body=body)

    assert sim.requests[0].body == body
    [line] = sim.phone(TOKEN).screen
    assert (line.title, line.body, line.data) == (None, "Grüße", {"x": [1, {"y": None}]})
