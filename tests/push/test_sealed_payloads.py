"""What the providers receive for an app whose texts are sealed, whole."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from domain.kinds import Kind
from domain.presentation_file import SHIPPED
from domain.push import Push
from push.apns.sender import ApnsSender
from push.fcm.sender import FcmSender
from push.payload_limit import SUITE, binding
from push.sender import Accepted
from simulator import Simulator
from tests.push.conftest import APNS_TOKEN, FCM_TOKEN, PATIENT, TASK_ID, apns_account, fcm_account, make_push, outcome

KEY = X25519PrivateKey.generate()
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
TEXT = {"title": "Almost there", "body": "Fifteen minutes to go."}
GENERIC = {"title": "Reminder", "body": "Open the app to see it."}
SHOWN_BY_EXPO = {"message": GENERIC["body"]}
OURS = {"task_id": str(TASK_ID), "kind": "reminder", "url": "fastbell://fasting-sessions/5"}


@pytest.fixture
async def sealing_apns(sim: Simulator) -> AsyncIterator[ApnsSender]:
    """The sender for Apple of an app whose texts are sealed."""
    sender = ApnsSender(replace(apns_account(sim), encrypted=True), timeouts=PATIENT)
    yield sender
    await sender.close()


@pytest.fixture
async def sealing_fcm(sim: Simulator) -> AsyncIterator[FcmSender]:
    """The sender for Google of the same app."""
    sender = FcmSender(replace(fcm_account(sim), encrypted=True), timeouts=PATIENT)
    yield sender
    await sender.close()


def opened(text: str, push: Push) -> dict[str, str]:
    plaintext = SUITE.decrypt(base64.b64decode(text), KEY, binding(push.task_id, push.kind))
    found: dict[str, str] = json.loads(plaintext)
    return found


def sent(sim: Simulator, token: str) -> dict[str, Any]:
    (request,) = sim.requests.for_token(token)
    assert isinstance(request.payload, dict)
    assert not any(word in request.body.decode() for word in TEXT.values())
    return request.payload


def apns_headers(push: Push) -> dict[str, str]:
    """What Google is to tell Apple, for an iPhone behind it."""
    expiration = str(int(push.expires_at.timestamp()))
    return {"apns-priority": "10", "apns-expiration": expiration, "apns-collapse-id": "reminder-5"}


async def test_apple_carries_a_sealed_text_under_a_generic_one(sim: Simulator, sealing_apns: ApnsSender) -> None:
    push = make_push(APNS_TOKEN, public_key=PUBLIC_KEY)

    assert isinstance(await outcome(sealing_apns, push), Accepted)

    payload = sent(sim, APNS_TOKEN)
    assert opened(payload.pop("sealed"), push) == TEXT
    assert payload == {
        "aps": {"alert": GENERIC, "sound": "default", "thread-id": "thread-5", "mutable-content": 1},
        **OURS,
    }


async def test_google_carries_data_alone_which_the_app_shows_and_opens(sim: Simulator, sealing_fcm: FcmSender) -> None:
    push = make_push(FCM_TOKEN, public_key=PUBLIC_KEY)

    assert isinstance(await outcome(sealing_fcm, push), Accepted)

    payload = sent(sim, FCM_TOKEN)
    assert opened(payload["message"]["data"].pop("sealed"), push) == TEXT
    assert payload == {
        "message": {
            "token": FCM_TOKEN,
            "android": {"priority": "high", "ttl": "3600s"},
            "apns": {
                "headers": apns_headers(push),
                "payload": {
                    "aps": {"alert": GENERIC, "sound": "default", "thread-id": "thread-5", "mutable-content": 1}
                },
            },
            "data": {**OURS, **GENERIC, **SHOWN_BY_EXPO, "tag": "reminder-5", "channelId": "reminders"},
        }
    }


async def test_whoever_shows_a_sealed_text_is_told_that_it_has_no_sound(sim: Simulator, sealing_fcm: FcmSender) -> None:
    """The app's own service by `silent`, and expo-notifications, where the app has no service, by the channel."""
    await outcome(sealing_fcm, replace(make_push(FCM_TOKEN, public_key=PUBLIC_KEY), sounds=False))

    data = sent(sim, FCM_TOKEN)["message"]["data"]
    del data["sealed"]
    quiet = {"silent": "true", "channelId": "quiet"}
    assert data == {**OURS, **GENERIC, **SHOWN_BY_EXPO, "tag": "reminder-5", **quiet}
    assert [receipt.notification.channel for receipt in sim.phone(FCM_TOKEN).log] == ["quiet"]
    assert [receipt.sounded_timestamp for receipt in sim.phone(FCM_TOKEN).log] == [None]


@pytest.mark.parametrize(("kind", "channel"), [(Kind.MESSAGE, "messages"), (Kind.TEST, None)])
async def test_a_sealed_push_that_sounds_names_the_channel_of_its_kind(
    sim: Simulator, sealing_fcm: FcmSender, kind: Kind, channel: str | None
) -> None:
    push = make_push(FCM_TOKEN, public_key=PUBLIC_KEY)
    await outcome(sealing_fcm, replace(push, kind=kind, look=SHIPPED.looks[kind]))

    data = sent(sim, FCM_TOKEN)["message"]["data"]
    assert (data.get("channelId"), data.get("silent")) == (channel, None)
    assert [receipt.notification.channel for receipt in sim.phone(FCM_TOKEN).log] == [channel]


async def test_without_a_key_the_text_is_generic_and_nothing_is_sealed(
    sim: Simulator, sealing_apns: ApnsSender, sealing_fcm: FcmSender
) -> None:
    push = make_push(FCM_TOKEN)
    await outcome(sealing_apns, make_push(APNS_TOKEN))
    await outcome(sealing_fcm, push)

    to_google = sent(sim, FCM_TOKEN)
    del to_google["message"]["android"]["ttl"]
    assert sent(sim, APNS_TOKEN) == {"aps": {"alert": GENERIC, "sound": "default", "thread-id": "thread-5"}, **OURS}
    assert to_google == {
        "message": {
            "token": FCM_TOKEN,
            "notification": GENERIC,
            "android": {
                "priority": "high",
                "notification": {"tag": "reminder-5", "channel_id": "reminders", "sound": "default"},
            },
            "apns": {
                "headers": apns_headers(push),
                "payload": {"aps": {"sound": "default", "thread-id": "thread-5"}},
            },
            "data": OURS,
        }
    }


async def test_a_key_seals_nothing_for_an_app_that_did_not_ask(
    sim: Simulator, apns: ApnsSender, fcm: FcmSender
) -> None:
    for sender, token in ((apns, APNS_TOKEN), (fcm, FCM_TOKEN)):
        await outcome(sender, make_push(token, public_key=PUBLIC_KEY))

        (request,) = sim.requests.for_token(token)
        assert b"sealed" not in request.body
        assert b"Fifteen minutes to go." in request.body


@pytest.mark.parametrize("token", [APNS_TOKEN, FCM_TOKEN], ids=["apns", "fcm"])
async def test_two_sealed_pushes_with_one_key_are_one_line(
    sim: Simulator, sealing_apns: ApnsSender, sealing_fcm: FcmSender, token: str
) -> None:
    sender = sealing_apns if token is APNS_TOKEN else sealing_fcm
    first = make_push(token, public_key=PUBLIC_KEY)
    second = replace(first, task_id=UUID(int=2), attempt_id=UUID(int=2))

    for push in (first, first, second):
        await outcome(sender, push)

    [line] = sim.phone(token).screen
    assert {"title": line.title, "body": line.body} == GENERIC
    assert line.data["task_id"] == str(second.task_id)
    assert opened(line.data["sealed"], second) == TEXT
    assert len(sim.phone(token).log) == 3
