"""What the providers receive, whole."""

from typing import Any

import pytest

from simulator import Simulator
from simulator.phones import Receipt
from tests.stack import Phone, Stack, android, iphone


async def test_apns_receives_just_this(stack: Stack, simulator: Simulator) -> None:
    phone = iphone()
    receipt, task = await _received(stack, simulator, phone)

    headers = {name: value for name, value in receipt.request.headers.items() if not name.startswith(":")}
    assert receipt.request.raw_headers[b"authorization"].startswith(b"bearer ey")
    assert headers.pop("authorization") == "-"  # kept out of the simulator's log, too
    assert headers.pop("apns-id") == await _attempt_id(stack, task)
    assert headers == {
        "apns-topic": "app.fastbell.demo",
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-collapse-id": f"fasting-session/{task.conversation_id}",
        "apns-expiration": str(int(task.expires_at.timestamp())),
    }
    assert receipt.request.payload == {
        "aps": {
            "alert": {"title": "Your fast is almost over", "body": "1 minute to go."},
            "sound": "default",
            "thread-id": f"fasting-session/{task.conversation_id}",
        },
        "task_id": str(task.task_id),
        "kind": "reminder",
        "url": f"fastbell://fasting-sessions/{task.conversation_id}",
    }


async def test_fcm_receives_just_this(stack: Stack, simulator: Simulator) -> None:
    phone = android()
    receipt, task = await _received(stack, simulator, phone)

    payload = _payload(receipt)
    seconds_left = (task.expires_at - task.due_at).total_seconds()
    assert 0 < float(payload["message"]["android"].pop("ttl").removesuffix("s")) <= seconds_left
    assert payload == {
        "message": {
            "token": phone.token,
            "notification": {"title": "Your fast is almost over", "body": "1 minute to go."},
            "android": {
                "priority": "high",
                "notification": {
                    "tag": f"fasting-session/{task.conversation_id}",
                    "channel_id": "reminders",
                    "sound": "default",
                },
            },
            "apns": {
                "headers": {
                    "apns-priority": "10",
                    "apns-expiration": str(int(task.expires_at.timestamp())),
                    "apns-collapse-id": f"fasting-session/{task.conversation_id}",
                },
                "payload": {"aps": {"sound": "default", "thread-id": f"fasting-session/{task.conversation_id}"}},
            },
            "data": {
                "task_id": str(task.task_id),
                "kind": "reminder",
                "url": f"fastbell://fasting-sessions/{task.conversation_id}",
            },
        }
    }


async def test_the_wording_is_in_the_phones_language(stack: Stack, simulator: Simulator) -> None:
    receipt, _ = await _received(stack, simulator, iphone(), locale="de-AT")

    assert _payload(receipt)["aps"]["alert"] == {"title": "Dein Fasten ist fast geschafft", "body": "Noch 1 Minute."}


@pytest.mark.parametrize("new_phone", [iphone, android], ids=["apns", "fcm"])
async def test_a_generic_preview_says_nothing_of_fasting(stack: Stack, simulator: Simulator, new_phone: Any) -> None:
    receipt, _ = await _received(stack, simulator, new_phone(), preview="generic")

    body = _payload(receipt)
    shown = body["aps"]["alert"] if "aps" in body else body["message"]["notification"]
    assert shown == {"title": "Reminder", "body": "Open the app to see it."}


async def test_a_sandbox_token_goes_to_the_sandbox(stack: Stack, simulator: Simulator) -> None:
    receipt, _ = await _received(stack, simulator, iphone(), environment="sandbox")

    assert receipt.request.environment == "sandbox"


async def test_no_payload_names_the_user(stack: Stack, simulator: Simulator) -> None:
    for phone in (iphone(), android()):
        receipt, task = await _received(stack, simulator, phone)
        assert task.user_id not in str(receipt.request.payload)
        assert task.user_id not in str(receipt.request.headers)


async def _received(
    stack: Stack, simulator: Simulator, phone: Phone, *, preview: str = "full", **more: str
) -> tuple[Receipt, Any]:
    user = stack.user()
    await user.register(phone, **more)
    await user.call("PUT", "/v1/notification-preferences", {"reminder_preview": preview})
    session_id = await user.start_fast(due_in=1.0)
    await stack.finished(session_id)
    [receipt] = await simulator.phones.received(phone.token)
    [task] = await stack.tasks(session_id)
    return receipt, task


def _payload(receipt: Receipt) -> dict[str, Any]:
    payload = receipt.request.payload
    assert isinstance(payload, dict)
    return payload


async def _attempt_id(stack: Stack, task: Any) -> str:
    [attempt] = await stack.rows("SELECT attempt_id FROM push_attempts WHERE task_id = :id", id=task.task_id)
    return str(attempt.attempt_id)
