"""What support sees of a person, whatever their id looks like."""

from typing import Any

import pytest

from db import device_tokens
from db.device_tokens import DeadToken
from tests.stack import Stack, User, android, iphone
from tests.support.timelines import of, timeline


@pytest.mark.parametrize(
    "user_id",
    ["auth0|5f7c8ec7", "a/b", "/", "a/timeline", "100%2Fsure", "who?#&=+ me", "Zoë Ünal", "x" * 200],
)
async def test_any_user_id_can_be_asked_for(stack: Stack, carol: User, user_id: str) -> None:
    phone = iphone()
    await stack.user(user_id).register(phone)

    devices = (await carol.call("GET", of(user_id, "devices"))).json()["items"]

    assert [device["installation_id"] for device in devices] == [str(phone.installation_id)]
    assert [item["event"] for item in await timeline(carol, user_id)] == ["registered"]
    assert (await carol.call("GET", of(user_id, "fasting-sessions"))).json() == {"items": [], "next_cursor": None}
    assert (await carol.call("POST", of(user_id, "test-push"), {})).status_code == 202


@pytest.mark.parametrize("user_id", ["", "x" * 201, "a\ttab", "nul\0"])
async def test_what_no_user_id_can_be_is_refused(carol: User, user_id: str) -> None:
    for what in ("timeline", "devices", "fasting-sessions"):
        answer = await carol.call("GET", of(user_id, what))
        assert (answer.status_code, answer.json()["field"]) == (422, "user_id"), answer.text


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cursor=nonsense", "cursor"),
        ("limit=0", "limit"),
        ("session_id=one", "session_id"),
        ("from=yesterday", "from"),
        ("to=2026-01-31T18:00:00", "to"),
        ("since=2026-01-31T18:00:00Z", "since"),
    ],
)
async def test_a_question_that_makes_no_sense_names_its_field(carol: User, query: str, field: str) -> None:
    answer = await carol.call("GET", f"{of('anna')}?{query}")

    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


async def test_devices_are_shown_with_their_history_and_little_of_their_tokens(
    stack: Stack, alice: User, bob: User, carol: User
) -> None:
    phone, other = iphone(), android()
    await alice.register(phone, other, app_version="2.1", time_zone="Europe/Berlin", locale="de-AT")
    await bob.register(other)
    [row] = await stack.rows("SELECT * FROM device_tokens WHERE token = :token", token=phone.token)
    dead = DeadToken(row.id, phone.token, row.registered_at, "Unregistered")
    async with stack.sessions.begin() as db:
        await device_tokens.invalidate_all(db, [dead])

    answer = await carol.call("GET", of(alice.user_id, "devices"))

    devices: dict[str, dict[str, Any]] = {each["provider"]: each for each in answer.json()["items"]}
    history = {each: [(one["event"], one["reason"]) for one in devices[each]["history"]] for each in devices}
    assert history == {
        "apns": [("invalidated", "Unregistered"), ("registered", None)],
        "fcm": [("transferred", None), ("registered", None)],
    }
    apple = devices["apns"]
    assert (apple["active"], apple["inactive_reason"], apple["refresh_required"]) == (False, "invalidated", True)
    assert (apple["token"], apple["app_version"], apple["locale"]) == (phone.token[-6:], "2.1", "de-AT")
    assert phone.token not in answer.text
    assert other.token not in answer.text


async def test_fasts_are_shown_with_their_reminders(alice: User, bob: User, carol: User) -> None:
    first, second = [await alice.start_fast(due_in=3600) for _ in range(2)]
    await bob.start_fast(due_in=3600)

    path = of(alice.user_id, "fasting-sessions?limit=1")
    page = (await carol.call("GET", path)).json()
    rest = (await carol.call("GET", f"{path}&cursor={page['next_cursor']}")).json()

    assert [item["id"] for item in page["items"] + rest["items"]] == [str(second), str(first)]
    assert page["items"][0]["reminders"][0]["state"] == "scheduled"
    assert rest["next_cursor"] is None
