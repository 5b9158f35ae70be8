"""The admin API and the page."""

import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from simulator import Simulator
from tests.simulator.raw_http2 import PAYLOAD, TOKEN, RawHttp2


async def test_a_phones_screen_and_log_are_shown_whole(raw: RawHttp2, admin: httpx.AsyncClient) -> None:
    message_id = "2f8e2a6e-7e0c-4f7e-9f0e-2d0a1f3b4c5d"
    await raw.push({"apns-id": message_id, "apns-collapse-id": "key", "apns-priority": "10"})
    await raw.push({"apns-id": message_id, "apns-collapse-id": "key", "apns-priority": "10"})

    listed = (await admin.get("/phones")).json()
    shown = (await admin.get(f"/phones/{TOKEN}")).json()

    first_at, second_at = (entry["received_at"] for entry in shown["log"])
    row = {
        "token": TOKEN,
        "name": "iPhone 1",
        "provider": "apns",
        "environment": "production",
        "app": "app.fastbell.demo",
        "state": "installed",
        "permission": "granted",
        "uninstalled_at": None,
        "locale": None,
        "lines": 1,
        "accepted": 2,
        "last_received_at": second_at,
    }
    entry = {
        "message_id": message_id,
        "headers": {
            "authorization": "-",
            "apns-topic": "app.fastbell.demo",
            "apns-push-type": "alert",
            "apns-id": message_id,
            "apns-collapse-id": "key",
            "apns-priority": "10",
        },
        "payload": PAYLOAD,
        "fate": "shown",
        "reason": None,
        "level": "active",
        "channel": None,
        "sound": None,
    }
    line = {
        "title": "Title",
        "body": "Body",
        "data": {"task_id": "task-1"},
        "collapse_key": "key",
        "level": "active",
        "channel": None,
        "sound": None,
        "badge": None,
        "has_sounded": False,
        "shown_at": second_at,
        "times_received": 2,
    }
    assert listed == {"items": [row], "next_cursor": None}
    assert shown == row | {
        "screen": [line],
        "log": [entry | {"received_at": first_at}, entry | {"received_at": second_at}],
    }
    assert datetime.fromisoformat(second_at).utcoffset() == timedelta(0)


async def test_a_declared_phone_is_there_before_its_first_push(raw: RawHttp2, admin: httpx.AsyncClient) -> None:
    declared = await admin.put(
        f"/phones/{TOKEN.upper()}",
        json={
            "provider": "apns",
            "environment": "sandbox",
            "name": "Alice's iPhone",
            "state": "uninstalled",
            "uninstalled_at": "2026-01-01T00:00:00Z",
            "locale": "de",
        },
    )
    crossed = await raw.push()

    assert (declared.status_code, declared.json()) == (
        200,
        {
            "token": TOKEN,
            "name": "Alice's iPhone",
            "provider": "apns",
            "environment": "sandbox",
            "app": None,
            "state": "uninstalled",
            "permission": "granted",
            "uninstalled_at": "2026-01-01T00:00:00.000000+00:00",
            "locale": "de",
            "lines": 0,
            "accepted": 0,
            "last_received_at": None,
        },
    )
    assert crossed.body == {"reason": "BadDeviceToken"}


async def test_a_phone_goes_offline_comes_back_and_loses_the_app(raw: RawHttp2, admin: httpx.AsyncClient) -> None:
    await raw.push()
    states = []
    for change in ("offline", "online", "uninstall"):
        row = (await admin.post(f"/phones/{TOKEN}/{change}")).json()
        await raw.push()
        states.append((row["state"], (await admin.get(f"/phones/{TOKEN}")).json()["lines"]))

    assert states == [("offline", 1), ("installed", 3), ("uninstalled", 0)]


async def test_phones_are_forgotten(sim: Simulator, raw: RawHttp2, admin: httpx.AsyncClient) -> None:
    await raw.push()

    assert (await admin.delete("/phones")).status_code == 204
    assert len(sim.phones) == 0


async def test_every_request_on_the_wire_can_be_paged_through(raw: RawHttp2, admin: httpx.AsyncClient) -> None:
    start = ((await admin.get("/requests")).json()["next_cursor"]) or 0
    assert start == 0
    await raw.push()
    await raw.push(token="bad")
    await raw.push()

    first = (await admin.get("/requests", params={"limit": 2})).json()
    second = (await admin.get("/requests", params={"limit": 2, "after": first["next_cursor"]})).json()

    assert [(row["token"], row["status"], row["reason"]) for row in first["items"]] == [
        (TOKEN, 200, None),
        ("bad", 400, "BadDeviceToken"),
    ]
    assert [(row["token"], row["status"]) for row in second["items"]] == [(TOKEN, 200)]
    assert second["next_cursor"] is None
    assert first["items"][0].keys() == {
        "number", "received_at", "provider", "environment", "app", "token", "message_id", "status", "reason", "headers",
        "payload",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/phones/nobody"),
        ("POST", "/phones/nobody/offline"),
        ("DELETE", "/faults/none"),
    ],
)
async def test_what_is_not_there_is_a_problem(admin: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await admin.request(method, path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:fastbell:simulator:not-found"


async def test_a_fault_is_added_counted_and_removed(raw: RawHttp2, admin: httpx.AsyncClient) -> None:
    added = await admin.post(
        "/faults", json={"provider": "apns", "fault": "answer", "status": 503, "reason": "ServiceUnavailable"}
    )
    failed = await raw.push()
    listed = (await admin.get("/faults")).json()
    removed = await admin.delete(f"/faults/{added.json()['id']}")

    row = {
        "id": added.json()["id"],
        "provider": "apns",
        "fault": "answer",
        "status": 503,
        "reason": "ServiceUnavailable",
        "active": True,
    }
    assert (added.status_code, added.json()) == (201, row | {"struck": 0})
    assert (failed.status, listed) == (503, {"items": [row | {"struck": 1}], "next_cursor": None})
    assert removed.status_code == 204
    assert (await raw.push()).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"provider": "apns", "fault": "slow"}, "delay"),
        ({"provider": "apns", "fault": "slow", "delay": -1}, "delay"),
        ({"provider": "apns", "fault": "slow", "delay": 1, "share": 2}, "share"),
        ({"provider": "sms", "fault": "close"}, "provider"),
        ({"provider": "apns", "fault": "close", "colour": "red"}, "colour"),
        ({"provider": "apns", "fault": "explode"}, "fault"),
        ({"provider": "apns"}, "fault"),
        ({"provider": "apns", "fault": "answer", "status": 400}, "reason"),
        ({"provider": "fcm", "fault": "answer"}, "errorCode"),
        ({"provider": "apns", "fault": "refuse_connections", "token": "x"}, "token"),
        ({"provider": "apns", "fault": "stall_connections", "app": "x"}, "app"),
        ({"provider": "apns", "fault": "stall_connections", "at": "lunch"}, "at"),
        ({"provider": "apns", "fault": "cut_answer", "by": "mistake"}, "by"),
    ],
)
async def test_a_wrong_fault_names_the_field(
    sim: Simulator, admin: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await admin.post("/faults", json=body)

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert list(sim.faults) == []


async def test_a_wrong_phone_names_the_field(admin: httpx.AsyncClient) -> None:
    answer = await admin.put("/phones/x", json={"provider": "fcm", "state": "lost"})

    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, ["state"])


async def test_health_says_whether_every_listener_is_up(sim: Simulator, admin: httpx.AsyncClient) -> None:
    up = await admin.get("/healthz")
    sim.faults.add(provider="fcm", fault="refuse_connections")
    shut = await admin.get("/healthz")

    assert (up.status_code, shut.status_code) == (200, 503)


async def test_the_page_cannot_be_broken_by_what_phones_receive(raw: RawHttp2, admin: httpx.AsyncClient) -> None:
    title = "</script><script>alert(1)</script>"
    await raw.push(body=json.dumps({"aps": {"alert": {"title": title}}}).encode())

    page = await admin.get("/")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert title not in page.text
    assert title.replace("<", "\\u003c") in page.text


async def test_the_page_hears_of_every_change(raw: RawHttp2, admin: httpx.AsyncClient) -> None:
    snapshots = []
    async with admin.stream("GET", "/events") as events:
        async for line in events.aiter_lines():
            if not line.startswith("data: "):
                continue
            snapshots.append(json.loads(line.removeprefix("data: ")))
            if len(snapshots) == 2:
                break
            await raw.push()

    assert snapshots[0] == {"hidden": 0, "phones": []}
    [phone] = snapshots[1]["phones"]
    assert [line["title"] for line in phone["screen"]] == ["Title"]
