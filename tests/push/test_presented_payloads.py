"""What both providers receive for an app with a presentation of its own, whole."""

import json
from dataclasses import replace
from typing import Any

import pytest

from domain.presentation import DeliveryPriority, InterruptionLevel, Look
from domain.presentation_file import GENERIC_BYTES, LONGEST_LINK, LONGEST_NAME
from domain.push import Push
from push.apns import sender as to_apple
from push.apns.sender import ApnsSender
from push.fcm import sender as to_google
from push.fcm.sender import FcmSender
from push.sender import Accepted
from simulator import Simulator
from tests.push.conftest import APNS_TOKEN, FCM_TOKEN, TASK_ID, make_push, outcome

LOOK = Look(
    sound="steep.caf",
    channel="steeping",
    quiet_channel="hush",
    category="FAST_REMINDER",
    level=InterruptionLevel.TIME_SENSITIVE,
    relevance=0.8,
    priority=DeliveryPriority.NORMAL,
    icon="ic_tea",
    color="#00bb66",
)
LINK = f"https://tea.example/{TASK_ID}"
DATA = {"task_id": str(TASK_ID), "kind": "reminder", "url": LINK}
ALERT = {"title": "Almost there", "body": "Fifteen minutes to go."}
SOUNDING = {
    "sound": "steep.caf",
    "interruption-level": "time-sensitive",
    "relevance-score": 0.8,
    "category": "FAST_REMINDER",
    "badge": 3,
    "thread-id": "thread-5",
}
QUIET = {name: value for name, value in SOUNDING.items() if name != "sound"} | {"interruption-level": "passive"}
TAGGED = {"tag": "reminder-5", "icon": "ic_tea", "color": "#00bb66", "notification_count": 3}


def presented(token: str, **more: Any) -> Push:
    """Make a push with a look of the app's own."""
    return replace(make_push(token), url=LINK, look=LOOK, badge=3, **more)


@pytest.mark.parametrize(("sounds", "aps"), [(True, SOUNDING), (False, QUIET)])
async def test_apple_is_sent_the_look(sim: Simulator, apns: ApnsSender, sounds: bool, aps: dict[str, object]) -> None:
    assert isinstance(await outcome(apns, presented(APNS_TOKEN, sounds=sounds)), Accepted)

    (request,) = sim.requests.for_token(APNS_TOKEN)
    assert request.payload == {"aps": {"alert": ALERT, **aps}, **DATA}
    (line,) = sim.phone(APNS_TOKEN).screen
    shown = line.notification
    assert (shown.sound, shown.level, shown.badge, shown.has_sound) == (
        ("steep.caf", "time-sensitive", 3, True) if sounds else (None, "passive", 3, False)
    )


@pytest.mark.parametrize(
    ("sounds", "android", "aps"),
    [
        (True, TAGGED | {"channel_id": "steeping", "sound": "steep"}, SOUNDING),
        (False, TAGGED | {"channel_id": "hush", "notification_priority": "PRIORITY_LOW"}, QUIET),
    ],
)
async def test_google_is_sent_the_look(
    sim: Simulator, fcm: FcmSender, sounds: bool, android: dict[str, object], aps: dict[str, object]
) -> None:
    push = presented(FCM_TOKEN, sounds=sounds)
    assert isinstance(await outcome(fcm, push), Accepted)

    (request,) = sim.requests.for_token(FCM_TOKEN)
    message = json.loads(request.body)["message"]
    del message["android"]["ttl"]
    assert message == {
        "token": FCM_TOKEN,
        "notification": ALERT,
        "android": {"priority": "normal", "notification": android},
        "apns": {
            "headers": {
                "apns-priority": "10",
                "apns-expiration": str(int(push.expires_at.timestamp())),
                "apns-collapse-id": "reminder-5",
            },
            "payload": {"aps": aps},
        },
        "data": DATA,
    }
    (line,) = sim.phone(FCM_TOKEN).screen
    shown = line.notification
    assert (shown.sound, shown.channel, shown.level, shown.has_sound) == (
        ("steep", "steeping", "active", True) if sounds else (None, "hush", "passive", False)
    )


def test_a_sound_of_none_is_not_sent() -> None:
    push = replace(make_push(APNS_TOKEN), look=Look(sound="", channel="c"))

    assert json.loads(to_apple.request(push))["aps"] == {"alert": ALERT, "thread-id": "thread-5"}
    android = json.loads(to_google.request(push))["message"]["android"]["notification"]
    assert android == {"tag": "reminder-5", "channel_id": "c"}


def test_a_sealed_push_names_the_apps_channels_and_generic_texts() -> None:
    push = presented(FCM_TOKEN, public_key=bytes(range(1, 33)))
    loud, quiet = (
        json.loads(to_google.request(replace(push, sounds=sounds), to_google.sealed_payload))["message"]["data"]
        for sounds in (True, False)
    )

    for each in (loud, quiet):
        del each["sealed"]
    generic = {"title": push.generic_title, "body": push.generic_body, "message": push.generic_body}
    assert loud == DATA | generic | {"tag": "reminder-5", "channelId": "steeping"}
    assert quiet == DATA | generic | {"tag": "reminder-5", "channelId": "hush", "silent": "true"}


@pytest.mark.parametrize("letter", ["x", '"', "é", "🍵"])
def test_the_longest_look_and_texts_leave_the_payload_within_its_limit(letter: str) -> None:
    name = "n" * LONGEST_NAME
    weight = len(json.dumps(letter, ensure_ascii=False).encode()) - 2
    look = Look(sound=name, channel=name, quiet_channel=name, category=name, level=LOOK.level, icon=name)
    push = replace(
        presented(FCM_TOKEN, public_key=bytes(range(1, 33))),
        token="t" * 200,
        look=replace(look, relevance=0.123456789, color="#00bb66"),
        title=letter * 200,
        body=letter * 1000,
        generic_title=letter * (GENERIC_BYTES["title"] // weight),
        generic_body=letter * (GENERIC_BYTES["body"] // weight),
        url="u" * (LONGEST_LINK + 60),
        thread_id=name,
        collapse_key="k" * 64,
        badge=9999,
    )

    for shape in (to_apple.payload, to_apple.sealed_payload):
        assert len(to_apple.request(push, shape)) <= 4096
    for write in (to_google.payload, to_google.sealed_payload):
        assert len(to_google.request(push, write)) <= 4096
