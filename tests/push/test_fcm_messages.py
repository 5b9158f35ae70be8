"""What Google is sent is byte for byte what firebase-admin's types write, for all looks and kinds."""

import json
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import PurePath
from typing import Any

import pytest
from firebase_admin import messaging  # type: ignore[import-untyped]  # ships no types

from domain.kinds import Kind
from domain.presentation import DeliveryPriority, Look
from domain.push import Push
from push.fcm import sender as to_google
from push.payload_limit import encoded
from tests.push.conftest import FCM_TOKEN, make_push

LOOKS = [
    Look(sound=sound, channel=channel, quiet_channel=quiet, icon=icon, color=color, priority=priority)
    for (sound, channel, quiet), (icon, color), priority in product(
        [("default", None, "quiet"), ("steep.caf", "steeping", "hush"), ("", None, "quiet")],
        [(None, None), ("ic_tea", "#00bb66")],
        DeliveryPriority,
    )
]
PUSHES: dict[str, dict[str, Any]] = {
    "sounds": {},
    "is silent": {"sounds": False},
    "has a badge": {"badge": 3},
    "clears the badge": {"badge": 0},
    "replaces nothing": {"collapse_key": None},
    "replaces nothing in silence": {"collapse_key": None, "sounds": False, "badge": 1},
    "is checked only": {"validate_only": True},
    "has odd letters": {"title": "Tee \u2615 \U0001f375", "body": '"\\ \n\x01 \xe9 \u2068\u05e9\u05dc\u2069 </a>'},
    "is empty": {"title": "", "body": ""},
    "is late": {"useful_for": timedelta(hours=-1)},
}


def by_firebase(push: Push) -> dict[str, Any]:
    """Write a message with firebase-admin's types, as text and back."""
    noise: dict[str, str | None] = {"channel_id": push.look.quiet_channel, "priority": "low"}
    if push.sounds:
        noise = {"channel_id": push.look.channel, "sound": PurePath(push.look.sound).stem or None}
    shown = messaging.AndroidNotification(
        tag=push.collapse_key, icon=push.look.icon, color=push.look.color, notification_count=push.badge, **noise
    )
    left = push.useful_for.total_seconds()
    built = messaging.Message(
        notification=messaging.Notification(title=push.title, body=push.body),
        android=messaging.AndroidConfig(
            priority=push.look.priority.value, ttl=timedelta(seconds=max(left, 0)), notification=shown
        ),
        data={"task_id": str(push.task_id), "kind": push.kind.value, "url": push.url},
    )
    built.token = push.token
    content: dict[str, Any] = json.loads(str(built))
    return content


@pytest.mark.parametrize("what", PUSHES)
def test_google_is_sent_what_firebase_admin_would_send(what: str) -> None:
    for look, kind in product(LOOKS, Kind):
        push = replace(make_push(FCM_TOKEN), look=look, kind=kind, **PUSHES[what])
        apns = to_google.payload(push)["apns"]
        more = {"validate_only": True} if push.validate_only else {}

        expected = encoded({"message": by_firebase(push) | {"apns": apns}, **more})

        assert to_google.request(push) == expected


def test_a_colour_that_firebase_admin_refuses_is_not_sent() -> None:
    with pytest.raises(ValueError, match="color"):
        to_google.payload(replace(make_push(FCM_TOKEN), look=Look(color="green")))
