"""An independent client agrees: the simulator answers `@parse/node-apn` as Apple documents."""

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from simulator import Simulator
from simulator.http.exchange import SimulatedEnvironment, SimulatedProvider
from simulator.phones import PhoneState
from simulator.settings import private_pem
from tests.simulator.node_apn import installed, pushed
from tests.simulator.raw_http2 import TOKEN

pytestmark = pytest.mark.timeout(180)  # the first time npm installs


@pytest.fixture(scope="session")
async def node_apn() -> Path:
    """Where the client is installed."""
    return await asyncio.to_thread(installed)


def send(token: str = TOKEN, **fields: Any) -> dict[str, Any]:
    """Address a notification, as node-apn names its fields."""
    return {"token": token, "topic": "app.fastbell.demo", "alert": {"title": "Title", "body": "Body"}, **fields}


async def test_a_push_is_accepted_and_shown(sim: Simulator, node_apn: Path) -> None:
    message_id = str(uuid.uuid4())
    expiry = int(time.time()) + 60

    [result] = await pushed(
        sim,
        node_apn,
        [
            send(
                id=message_id,
                collapseId="reminder",
                expiry=expiry,
                priority=10,
                pushType="alert",
                payload={"kind": "x"},
            )
        ],
    )

    assert result == {"sent": [{"device": TOKEN, "apns-id": message_id}], "failed": []}
    [receipt] = await sim.phones.received(TOKEN)
    assert receipt.request.message_id == message_id
    headers = {name: value for name, value in receipt.request.headers.items() if name.startswith("apns-")}
    assert headers == {
        "apns-id": message_id,
        "apns-topic": "app.fastbell.demo",
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-expiration": str(expiry),
        "apns-collapse-id": "reminder",
    }
    [line] = sim.phone(TOKEN).screen
    assert (line.title, line.body, line.data) == ("Title", "Body", {"kind": "x"})


async def test_each_refusal_is_understood(sim: Simulator, node_apn: Path) -> None:
    gone = sim.phones.declare("b" * 64, SimulatedProvider.APNS, SimulatedEnvironment.PRODUCTION)
    sim.phones.change(gone, PhoneState.UNINSTALLED)
    gone.uninstalled_timestamp = 1_700_000_000.5
    sim.phones.declare("c" * 64, SimulatedProvider.APNS, SimulatedEnvironment.SANDBOX)

    results = await pushed(
        sim,
        node_apn,
        [send("not-hexadecimal")],
        [send("b" * 64)],
        [send("c" * 64)],
        [send(payload={"filling": "x" * 4096})],
        [send(topic="app.other")],
        [send(topic="")],
        [send(pushType="background", priority=10)],
        [send(collapseId="x" * 65)],
    )

    assert [_refusal(result) for result in results] == [
        (400, {"reason": "BadDeviceToken"}),
        (410, {"reason": "Unregistered", "timestamp": 1_700_000_000_500}),
        (400, {"reason": "BadDeviceToken"}),
        (413, {"reason": "PayloadTooLarge"}),
        (400, {"reason": "DeviceTokenNotForTopic"}),
        (400, {"reason": "MissingTopic"}),
        (400, {"reason": "BadPriority"}),
        (400, {"reason": "BadCollapseId"}),
    ]


async def test_a_key_that_apple_does_not_know_is_refused(sim: Simulator, node_apn: Path) -> None:
    key = private_pem(ec.generate_private_key(ec.SECP256R1())).decode()

    [result] = await pushed(sim, node_apn, [send()], token={"key": key})

    assert _refusal(result) == (403, {"reason": "InvalidProviderToken"})


async def test_hundreds_at_once_keep_to_a_limit_that_starts_at_one(sim: Simulator, node_apn: Path) -> None:
    tokens = [f"{number:064x}" for number in range(300)]

    results = await pushed(sim, node_apn, [send(token) for token in tokens])

    accepted = {sent["device"] for result in results for sent in result["sent"]}
    refused = [request for request in sim.requests if request.reason == "REFUSED_STREAM"]
    assert len(accepted) + len(refused) == len(tokens)
    assert {phone.token for phone in sim.phones if len(phone.screen) == 1} == accepted
    assert len(accepted) > 200


def _refusal(result: dict[str, Any]) -> tuple[Any, Any]:
    [failure] = result["failed"]
    return failure.get("status"), failure.get("response") or failure.get("error")
