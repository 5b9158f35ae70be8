"""What an app reported of its phone's permission is told where support looks first, and never holds up a push."""

from typing import Any
from urllib.parse import urlencode

import pytest

from simulator import Simulator
from tests.console.visits import visit, words
from tests.stack import Phone, Stack, User, android, iphone
from tests.support.test_test_push import sent, settled
from tests.support.timelines import of, timeline

SETTINGS_DECIDE = "From here the phone's own settings decide: focus, muted notifications, no network."
SHOWS = {
    "denied": (
        "Notifications are switched off on that phone, according to the app's last registration at {at}. "
        "While they are, the phone shows nothing."
    ),
    "undetermined": (
        "The person had not been asked whether the app may show notifications, according to its last registration "
        "at {at}. Until they allow it, the phone shows nothing."
    ),
    "provisional": (
        "Notifications are allowed provisionally on that phone, according to the app's last registration at {at}. "
        "While that is so, the phone lists them without a sound."
    ),
    "granted": SETTINGS_DECIDE,
}


async def registered_at(user: User, phone: Phone) -> str:
    """Say when the app on a phone registered last, as sentences write it."""
    rows = (await user.call("GET", "/v1/device-tokens")).json()["items"]
    [row] = [each for each in rows if each["installation_id"] == str(phone.installation_id) and each["active"]]
    return f"{row['registered_at'][:19].replace('T', ' ')} UTC"


async def present(carol: User, user: User) -> list[str]:
    """Read what stands on top of somebody's timeline."""
    items: list[dict[str, Any]] = (await carol.call("GET", of(user.user_id))).json()["present"]
    return [item["text"] for item in items]


async def test_a_push_that_was_accepted_is_reported_with_the_permission_and_none_is_held_up(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phones = {permission: phone() for permission, phone in zip(SHOWS, (iphone, android) * 2, strict=True)}
    for permission, phone in phones.items():
        await alice.register(phone, permission=permission)
    session_id = await alice.start_fast(due_in=0.7)
    assert await stack.finished(session_id) == "accepted"

    accepted = {
        item["installation_id"]: item
        for item in await timeline(carol, alice.user_id, session_id=str(session_id))
        if item["event"] == "accepted"
    }

    for permission, phone in phones.items():
        assert len(simulator.requests.for_token(phone.token)) == 1
        item, at = accepted[str(phone.installation_id)], await registered_at(alice, phone)
        assert item["text"].endswith(f". {SHOWS[permission].format(at=at)}")
        assert item["detail"]["permission"] == permission
        assert item["detail"]["permission_told_at"][:19].replace("T", " ") + " UTC" == at
        shown = (await carol.call("GET", f"/v1/support/push-tasks/{item['task_id']}")).json()["task"]
        assert (shown["permission"], shown["permission_told_at"][:19]) == (permission, f"{at[:10]}T{at[11:19]}")

    told_of = {each: accepted[str(phone.installation_id)]["task_id"] for each, phone in phones.items()}
    await alice.call("POST", f"/v1/push-tasks/{told_of['denied']}/opened")
    tapped = [
        item["text"]
        for item in await timeline(carol, alice.user_id, session_id=str(session_id))
        if item["event"] == "accepted" and item["task_id"] == told_of["denied"]
    ]
    assert tapped[0].endswith(SETTINGS_DECIDE)  # the phone did show it


@pytest.mark.parametrize("denied", [1, 2])
async def test_what_lies_ahead_is_reported_with_the_phones_that_show_nothing(
    stack: Stack, alice: User, carol: User, denied: int
) -> None:
    phones = iphone(), android()
    for number, phone in enumerate(phones):
        await alice.register(phone, permission="denied" if number < denied else "granted")
    await stack.started(await alice.start_fast(due_in=3600))

    [text] = await present(carol, alice)

    nothing = "None of this person's phones shows notifications, according to the last registrations of the app."
    assert text.endswith(nothing) == (denied == len(phones))


async def test_news_of_the_permission_stand_in_the_timeline_when_they_were_told(alice: User, carol: User) -> None:
    phone = iphone()
    short = str(phone.installation_id)[:8]
    rotated = Phone(phone.provider, iphone().token, phone.installation_id)
    await alice.register(phone, permission="granted")  # as usual: no news
    await alice.register(phone, permission="denied")
    await alice.register(phone, permission="denied")
    await alice.register(rotated, permission="denied")
    await alice.register(rotated)  # an older release of the app, which tells nothing
    await alice.register(rotated, permission="provisional")
    await alice.register(rotated, permission="undetermined")
    await alice.register(rotated, permission="granted")
    tablet = android()
    other = str(tablet.installation_id)[:8]
    await alice.register(tablet, permission="denied")

    items = await timeline(carol, alice.user_id)

    reported = f"The app on the iPhone {short} reported that"
    assert [(item["reason"], item["text"]) for item in items if item["event"] == "permission_told"] == [
        ("denied", f"{reported} notifications are switched off there."),
        ("provisional", f"{reported} notifications are allowed provisionally there: listed, without a sound."),
        ("undetermined", f"{reported} the person has not been asked yet whether it may show notifications."),
        ("granted", f"{reported} notifications are allowed there."),
        ("denied", f"The app on the Android phone {other} reported that notifications are switched off there."),
    ]
    devices = (await carol.call("GET", of(alice.user_id, "devices"))).json()["items"]
    assert [(each["event"], each["reason"]) for each in devices[0]["history"]] == [
        ("permission_told", "denied"),
        ("registered", None),
    ]


async def test_a_test_push_says_that_the_phone_shows_nothing(alice: User, carol: User) -> None:
    phone = iphone()
    await alice.register(phone, permission="denied")

    fate = await settled(carol, await sent(carol, alice.user_id))

    at = await registered_at(alice, phone)
    assert fate["items"][0]["text"] == f"Accepted by the provider. {SHOWS['denied'].format(at=at)}"


async def test_the_console_tells_it_beside_the_phone_and_beside_the_push(stack: Stack, alice: User) -> None:
    phone = iphone()
    await alice.register(phone, permission="denied", app_version="1.2", os_version="18.1")
    session_id = await alice.start_fast(due_in=0.7)
    assert await stack.finished(session_id) == "accepted"
    [task] = await stack.tasks(session_id)
    visitor = await visit(stack)

    person = words(await visitor.get(f"/console/person?{urlencode({'user': alice.user_id})}"))
    push = words(await visitor.get(f"/console/push/{task.task_id}"))

    assert "active switched off," in person
    assert "1.2 · system 18.1" in person
    assert "Notifications are switched off on that phone, according to the app's last registration at" in person
    assert "Notifications switched off on that phone, by the app's last registration" in push
    assert "the phone shows nothing" in push
