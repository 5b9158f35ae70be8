"""Webhooks: events arrive signed, in good time and once; trouble is retried, ends, and stays the trouble of one."""

from collections import Counter
from datetime import datetime
from uuid import uuid4

import pytest
from httpx import create_ssl_context
from sqlalchemy import text

from activities.housekeeping import Sweeping
from activities.webhooks import FeedFollowing, WebhookDependencies
from dispatch.sweeper import Sweeper
from domain.events import Attempted, Outgoing, Webhook
from tests.events.feed import whole_feed
from tests.events.hooks import Hook, hooked, register_some
from tests.events.receiver import Receiver, never, receiving
from tests.stack import Stack, eventually, iphone
from tests.support.cli import run
from webhooks.sender import WebhookSender


async def test_events_arrive_signed_with_what_the_feed_says(stack: Stack, hook: Hook, receiver: Receiver) -> None:
    alice = stack.user()
    await alice.register(iphone())

    [request] = await receiver.got(1, alice.user_id)

    feed = (await hook.backend.call("GET", f"/v1/events?after={int(request.id[4:]) - 1}&limit=1")).json()
    [event] = feed["items"]
    assert request.is_signed_with(hook.secret)
    assert request.json == {
        "type": "device_token.registered",
        "timestamp": event["occurred_at"],
        "data": event["data"] | {"user_id": alice.user_id},
    }
    [delivery] = await hook.ends_as(1, state="accepted", event_id=event["id"])
    assert (delivery["type"], delivery["attempts"], delivery["status"], delivery["reason"]) == (
        "device_token.registered",
        1,
        204,
        None,
    )


async def test_a_new_webhook_starts_at_now_and_gets_its_types_alone(stack: Stack, receiver: Receiver) -> None:
    alice = stack.user()
    phone = iphone()
    await alice.register(phone)

    async with hooked(stack, receiver, "device_token.signed_out"):
        await alice.register(iphone())
        await alice.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")
        requests = await receiver.got(1, alice.user_id)

    assert [each.json["type"] for each in requests] == ["device_token.signed_out"]


async def test_the_secret_is_told_once_and_both_sign_after_a_rotation(
    stack: Stack, hook: Hook, receiver: Receiver
) -> None:
    body = {"url": receiver.url, "types": ["device_token.registered"]}
    again = await hook.call("PUT", "", body)

    lost = (await hook.call("POST", "/rotate-secret")).json()["secret"]  # its answer got lost, so it is repeated
    rotated = (await hook.call("POST", "/rotate-secret")).json()
    alice = await register_some(stack, 1)

    [request] = await receiver.got(1, alice.user_id)
    told = [again.json(), (await hook.call("GET")).json(), (await hook.backend.call("GET", "/v1/webhooks")).json()]
    assert again.status_code == 200
    assert hook.secret.startswith("whsec_")
    assert rotated["secret"] != hook.secret
    assert datetime.fromisoformat(rotated["former_secret_expires_at"])
    assert all(request.is_signed_with(secret) for secret in (rotated["secret"], lost, hook.secret))
    assert "secret" not in {name for each in told[:2] for name in each}
    assert not [each for each in told if hook.secret in str(each) or rotated["secret"] in str(each)]


async def test_a_former_secret_ends_after_a_day(stack: Stack, hook: Hook, receiver: Receiver) -> None:
    rotated = (await hook.call("POST", "/rotate-secret")).json()["secret"]
    async with stack.sessions.begin() as db:
        over = text("UPDATE webhooks SET former_expires_at = now() WHERE id = :id")
        await db.execute(over, {"id": hook.id})

    alice = await register_some(stack, 1)

    [request] = await receiver.got(1, alice.user_id)
    assert request.is_signed_with(rotated)
    assert not request.is_signed_with(hook.secret)


async def test_a_test_is_sent_like_an_event(hook: Hook, receiver: Receiver) -> None:
    answer = await hook.call("POST", "/test")

    [delivery] = await hook.ends_as(1, state="accepted", id=answer.json()["delivery_id"])
    [request] = receiver.requests
    assert (answer.status_code, delivery["event_id"], delivery["type"]) == (202, None, "webhook.test")
    assert (request.json["type"], request.id) == ("webhook.test", f"test_{delivery['id']}")
    assert request.is_signed_with(hook.secret)


async def test_what_fails_is_sent_again_under_the_same_id(stack: Stack, hook: Hook, receiver: Receiver) -> None:
    receiver.answer(500, 204)
    alice = await register_some(stack, 1)
    [failed] = await hook.ends_as(1, state="pending", reason="http_500")
    assert (await hook.shown())["state"] == "failing"

    await hook.hurry()

    one, other = await receiver.got(2, alice.user_id)
    await hook.ends_as(1, state="accepted", id=failed["id"], attempts=2)
    assert (one.id, one.body) == (other.id, other.body)
    assert (await hook.shown())["state"] == "enabled"


async def test_one_event_that_is_refused_holds_up_no_other(stack: Stack, hook: Hook, receiver: Receiver) -> None:
    receiver.answer(422, 204)

    alice = await register_some(stack, 12)

    await hook.ends_as(11, state="accepted")
    assert len(await receiver.got(12, alice.user_id)) == 12
    [refused] = await hook.deliveries(state="pending")
    assert (refused["reason"], refused["status"], refused["attempts"]) == ("http_422", 422, 1)


@pytest.mark.long
async def test_a_receiver_that_never_answers_is_tried_a_little_and_holds_up_nobody(
    stack: Stack, hook: Hook, receiver: Receiver
) -> None:
    async with receiving() as other, hooked(stack, other, "device_token.registered") as slow:
        other.answer(never)

        alice = await register_some(stack, 20)

        await receiver.got(20, alice.user_id, within=8)
        await hook.ends_as(20, state="accepted")

        async def rests() -> bool:
            return bool(await stack.rows("SELECT 1 FROM webhooks WHERE id = :id AND rests_until > now()", id=slow.id))

        await eventually(rests)
        assert len(other.requests) < 20
        other.answer(204)
        assert (await slow.call("POST", "/test")).status_code == 202  # looks again at once

        await slow.ends_as(20, state="accepted", type="device_token.registered")


async def test_410_disables_until_it_is_put_again(stack: Stack, hook: Hook, receiver: Receiver) -> None:
    receiver.answer(410)
    await register_some(stack, 3)

    async def is_disabled() -> bool:
        return bool((await hook.shown())["state"] == "disabled")

    await eventually(is_disabled)
    [event] = [each for each in await whole_feed(stack) if each["data"].get("webhook_id") == str(hook.id)]
    assert (event["type"], event["user_id"]) == ("webhook.disabled", None)
    assert event["data"] == {"webhook_id": str(hook.id), "reason": "gone"}
    assert {each["state"] for each in await hook.deliveries()} == {"dead"}
    assert [(await hook.call("POST", each)).status_code for each in ("/test",)] == [409]
    assert (await hook.call("POST", "/redrive", {})).json()["type"] == "urn:fastbell:problem:webhook-disabled"
    receiver.answer(204)
    missed = await register_some(stack, 1)

    assert (await hook.call("PUT", "", {"url": receiver.url})).status_code == 200
    alice = await register_some(stack, 1)

    await receiver.got(1, alice.user_id)
    assert receiver.of(missed.user_id) == []  # it starts at now


async def test_after_a_day_a_delivery_is_dead_and_can_be_redriven(stack: Stack, hook: Hook, receiver: Receiver) -> None:
    receiver.answer(503)
    alice = await register_some(stack, 2)
    await hook.ends_as(2, state="pending", reason="http_503")
    async with stack.sessions.begin() as db:
        late = text("UPDATE webhook_deliveries SET gives_up_at = now() WHERE webhook_id = :id")
        await db.execute(late, {"id": hook.id})
    first, second = await hook.ends_as(2, state="dead")
    assert (first["reason"], first["next_attempt_at"], (await hook.shown())["dead"]) == ("http_503", None, 2)
    receiver.answer(204)
    sent = len(receiver.of(alice.user_id))

    redriven = await hook.call("POST", "/redrive", {"delivery_ids": [first["id"]]})

    await hook.ends_as(1, state="accepted", id=first["id"])
    assert redriven.json() == {"redriven": 1}
    assert len(receiver.of(alice.user_id)) == sent + 1
    assert (await run(stack, "webhooks", "redrive", str(hook.id)))[:2] == (0, "1 deliveries are sent again.\n")
    await hook.ends_as(1, state="accepted", id=second["id"])
    assert (await hook.call("POST", "/redrive", {})).json() == {"redriven": 0}
    _, listed, _ = await run(stack, "webhooks", "list")
    [line] = [line for line in listed.splitlines() if str(hook.id) in line]
    assert line.split()[1] == "enabled"
    assert hook.secret not in listed


async def test_two_that_follow_the_feed_at_once_leave_nothing_out_and_record_each_event_once(
    stack: Stack, hook: Hook, receiver: Receiver
) -> None:
    """A worker was frozen, and another one took over."""
    other = FeedFollowing(stack.sessions, WebhookDependencies(allow_private=True))
    alice = await register_some(stack, 3)
    await hook.ends_as(3, state="accepted")
    async with stack.sessions.begin() as db:
        await db.execute(text("UPDATE webhooks SET position = position - 3 WHERE id = :id"), {"id": hook.id})

    async with WebhookSender(allow_private=True, within=1.5, verify=create_ssl_context()) as sender:
        await other._look(hook.id, sender)

    sent = Counter(each.id for each in receiver.of(alice.user_id))
    assert len(sent) == 3
    assert max(sent.values()) <= 3
    assert len(await hook.deliveries(type="device_token.registered", state="accepted")) == 3


class Counting(WebhookSender):
    """Counts what it sends."""

    sent = 0

    async def send(self, webhook: Webhook, outgoing: Outgoing) -> Attempted:
        self.sent += 1
        return await super().send(webhook, outgoing)


async def test_a_worker_that_stops_begins_no_request_and_leaves_them_to_others(
    stack: Stack, hook: Hook, receiver: Receiver
) -> None:
    stopping = FeedFollowing(stack.sessions, WebhookDependencies(allow_private=True))
    alice = await register_some(stack, 3)
    await hook.ends_as(3, state="accepted")
    async with stack.sessions.begin() as db:
        await db.execute(text("UPDATE webhooks SET position = position - 3 WHERE id = :id"), {"id": hook.id})
        await db.execute(text("DELETE FROM webhook_deliveries WHERE webhook_id = :id"), {"id": hook.id})

    async with Counting(allow_private=True, within=5, verify=create_ssl_context()) as sender:
        await stopping._look(hook.id, sender, lambda: True)

    assert sender.sent == 0
    await hook.ends_as(3, state="accepted", type="device_token.registered")
    assert len({each.id for each in receiver.of(alice.user_id)}) == 3


async def test_an_event_that_was_erased_meanwhile_is_not_sent(stack: Stack, hook: Hook, receiver: Receiver) -> None:
    receiver.answer(500)
    alice = await register_some(stack, 1)
    await hook.ends_as(1, state="pending", reason="http_500")
    async with stack.sessions.begin() as db:
        await db.execute(text("DELETE FROM events WHERE user_id = :id"), {"id": alice.user_id})
    sent = len(receiver.requests)

    await hook.hurry()

    await hook.ends_as(1, state="dead")
    assert len(receiver.requests) == sent


async def test_only_the_last_accepted_deliveries_are_kept(stack: Stack, hook: Hook, receiver: Receiver) -> None:
    many = (
        "INSERT INTO webhook_deliveries (webhook_id, event_number, type, state, gives_up_at, created_at)"
        " SELECT :id, -n, 'push.synced', 'accepted', now(), now() - n * interval '1 second'"
        " FROM generate_series(1, 1100) AS n"
    )
    async with stack.sessions.begin() as db:
        await db.execute(text(many), {"id": hook.id})

    alice = await register_some(stack, 1)
    await receiver.got(1, alice.user_id)
    await hook.ends_as(1, state="accepted", type="device_token.registered")

    [(count,)] = await stack.rows("SELECT count(*) FROM webhook_deliveries WHERE webhook_id = :id", id=hook.id)
    assert count == 1000


async def test_the_workflow_ends_with_its_webhook_and_another_begins_with_another(
    stack: Stack, receiver: Receiver
) -> None:
    async with hooked(stack, receiver) as hook:
        workflow = stack.temporal.get_workflow_handle(f"webhook/{hook.id}")
        await hook.call("POST", "/test")
        await hook.ends_as(1, state="accepted")

    assert await workflow.result() == "deleted or disabled"
    again = await hook.call("PUT", "", {"url": receiver.url})
    assert (again.status_code, again.json()["secret"] != hook.secret) == (201, True)
    await hook.call("POST", "/test")
    await hook.ends_as(1, state="accepted")
    await hook.call("DELETE")


@pytest.mark.long
async def test_a_webhook_that_lost_its_workflow_gets_another(stack: Stack, hook: Hook, receiver: Receiver) -> None:
    await hook.call("POST", "/test")
    await hook.ends_as(1, state="accepted")
    await stack.temporal.get_workflow_handle(f"webhook/{hook.id}").terminate()  # as if Temporal were emptied
    async with stack.sessions.begin() as db:
        old = "now() - interval '6 minutes'"
        columns = f"followed_at = {old}, starts_at = {old}"
        await db.execute(text(f"UPDATE webhooks SET {columns} WHERE id = :id"), {"id": hook.id})
    sweeper = Sweeper(stack.sessions, Sweeping(stack.sessions, stack.temporal))

    await sweeper._walk()

    alice = await register_some(stack, 1)
    assert len(await receiver.got(1, alice.user_id)) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "http://user:password@example.com/"}, "url"),
        ({"url": "https://example.com/" + "a" * 2000}, "url"),
        ({"url": 7}, "url"),
        ({}, "url"),
        ({"url": "https://example.com/", "types": ["push.delivered"]}, "types.0"),
        ({"url": "https://example.com/", "types": []}, "types"),
        ({"url": "https://example.com/", "secret": "mine"}, "secret"),
    ],
)
async def test_a_webhook_that_makes_no_sense_names_its_field(stack: Stack, body: object, field: str) -> None:
    answer = await stack.user("backend", "service").call("PUT", f"/v1/webhooks/{uuid4()}", body)

    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_webhooks_are_for_backends_and_unknown_ones_are_not_found(stack: Stack) -> None:
    path, backend = f"/v1/webhooks/{uuid4()}", stack.user("backend", "service")
    calls: list[tuple[str, str, object]] = [
        ("GET", path, None),
        ("POST", f"{path}/test", None),
        ("POST", f"{path}/rotate-secret", None),
        ("GET", f"{path}/deliveries", None),
        ("POST", f"{path}/redrive", {}),
    ]

    assert {(await backend.call(*call)).status_code for call in calls} == {404}
    assert {(await stack.user().call(*call)).status_code for call in calls} == {403}
    assert (await backend.call("DELETE", path)).status_code == 204
