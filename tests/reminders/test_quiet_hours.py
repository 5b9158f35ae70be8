"""Quiet hours on the phones' screens: silent or withheld, by the clock where each phone is at the due instant."""

import struct
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain import preferences as time_zones
from simulator import Simulator
from tests.busy import in_time, lead
from tests.reminders.wishes import PREFERENCES, Change, phones_after
from tests.stack import Phone, Stack, User, android, iphone, start_held
from tests.talk import conversation_of, handed_off, posted

NIGHT: dict[str, Any] = {"starts": "22:00", "ends": "07:00", "time_zone": None}
LOUD, SILENT = (True, "active"), (False, "passive")


def where_it_is(hour: int) -> str:
    """Name a time zone where it is this hour now, or the next before this test ends."""
    east = (hour - datetime.now(UTC).hour + 12) % 24 - 12
    return f"Etc/GMT{-east:+d}" if east else "Etc/GMT"


async def change(user: User, **wishes: object) -> None:
    """Change some preferences."""
    answer = await user.call("PATCH", PREFERENCES, wishes)
    assert answer.status_code == 200, answer.text


def shown(simulator: Simulator, phone: Phone) -> list[tuple[bool, str]]:
    """Say of each push that a phone was sent whether it rang, and its level."""
    log = simulator.phone(phone.token).log
    return [(each.sounded_timestamp is not None, each.notification.level) for each in log]


def _payload(simulator: Simulator, phone: Phone) -> dict[str, Any]:
    [receipt] = simulator.phone(phone.token).log
    assert isinstance(receipt.request.payload, dict)
    return receipt.request.payload


async def test_in_quiet_hours_a_reminder_is_shown_without_sound_or_light(stack: Stack, simulator: Simulator) -> None:
    user, phones = stack.user(), (iphone(), android())
    await user.register(*phones, time_zone=where_it_is(3))
    await change(user, quiet_hours=NIGHT)

    assert await stack.finished(await user.start_fast(due_in=1.0)) == "accepted"
    told = await stack.user("carol", "support").call("GET", f"/v1/support/users/{user.user_id}/timeline")

    asked = [each["text"].partition("(call 1). ")[2] for each in told.json()["items"] if each["event"] == "attempted"]
    assert [("ithout a sound" in each, "quiet hours" in each) for each in asked] == [(True, True)] * 2
    assert [shown(simulator, phone) for phone in phones] == [[SILENT], [SILENT]]
    assert [len(simulator.phone(phone.token).screen) for phone in phones] == [1, 1]
    on_iphone, on_android = (_payload(simulator, phone) for phone in phones)
    assert (on_iphone["aps"]["interruption-level"], "sound" in on_iphone["aps"]) == ("passive", False)
    message = on_android["message"]
    line = message["android"]["notification"]
    assert (line["channel_id"], line["notification_priority"], "sound" in line) == ("quiet", "PRIORITY_LOW", False)
    assert message["apns"]["payload"]["aps"] == {
        "interruption-level": "passive",
        "thread-id": on_iphone["aps"]["thread-id"],
    }


async def test_a_message_in_quiet_hours_makes_no_sound_that_counts(stack: Stack, simulator: Simulator) -> None:
    alice, bob, phone = stack.user(), stack.user(), iphone()
    await bob.register(phone, time_zone=where_it_is(3))
    await change(bob, quiet_hours=NIGHT)
    conversation_id = await conversation_of(alice, bob)
    await handed_off(stack, await posted(alice, conversation_id))

    await change(bob, quiet_hours=None)
    await handed_off(stack, await posted(alice, conversation_id))

    assert shown(simulator, phone) == [SILENT, LOUD]


async def test_each_phone_has_the_night_of_the_place_where_it_is(stack: Stack, simulator: Simulator) -> None:
    user, here, there, unknown = stack.user(), iphone(), android(), iphone()
    await user.register(unknown)
    await user.register(here, time_zone=where_it_is(3))
    await user.register(there, time_zone=where_it_is(14))  # seen last, so `unknown` counts as there
    await change(user, quiet_hours=NIGHT | {"mode": "withhold"})

    session_id = await user.start_fast(due_in=1.0)
    assert await stack.finished(session_id) == "accepted"

    assert [shown(simulator, phone) for phone in (there, unknown)] == [[LOUD], [LOUD]]
    assert not simulator.requests.for_token(here.token)
    withdrawn = [(each.installation_id, each.last_reason) for each in await stack.tasks(session_id) if each.last_reason]
    assert withdrawn == [(here.installation_id, "quiet_hours")]


async def test_phones_that_a_message_finds_in_the_night_are_told_of_one_by_one(
    stack: Stack, simulator: Simulator
) -> None:
    alice, bob, here, there = stack.user(), stack.user(), iphone(), android()
    await bob.register(here, time_zone=where_it_is(3))
    await bob.register(there, time_zone=where_it_is(14))
    await change(bob, quiet_hours=NIGHT | {"mode": "withhold"})

    message_id = await posted(alice, await conversation_of(alice, bob))
    assert await handed_off(stack, message_id) == "accepted"

    assert shown(simulator, there) == [LOUD]
    assert not simulator.requests.for_token(here.token)
    query = "SELECT installation_id, reason FROM withheld_pushes WHERE message_id = :id"
    assert await stack.rows(query, id=message_id) == [(here.installation_id, "quiet_hours")]


@pytest.mark.parametrize("mode", ["silent", "withhold"])
async def test_a_phone_that_travels_takes_its_night_along(stack: Stack, simulator: Simulator, mode: str) -> None:
    user, into_night, into_day = stack.user(), iphone(), android()
    await change(user, quiet_hours=NIGHT | {"mode": mode})
    await user.register(into_night, time_zone=where_it_is(14))
    await user.register(into_day, time_zone=where_it_is(3))
    [session_id] = await start_held(user, due_in=lead(1.5), sends=2)

    await user.register(into_night, time_zone=where_it_is(3))
    await user.register(into_day, time_zone=where_it_is(14))

    assert await stack.finished(session_id) == "accepted"
    assert shown(simulator, into_day) == [LOUD]
    if mode == "silent":
        assert shown(simulator, into_night) == [SILENT]
    else:
        assert not simulator.requests.for_token(into_night.token)


async def test_the_only_phone_leaves_the_night_before_the_due_instant_and_is_reminded_on_time(
    stack: Stack, simulator: Simulator
) -> None:
    user, phone = stack.user(), iphone()
    await user.register(phone, time_zone=where_it_is(3))
    await change(user, quiet_hours=NIGHT | {"mode": "withhold"})
    session_id = await user.start_fast(due_in=lead(1.5))
    await stack.started(session_id)

    await user.register(phone, time_zone=where_it_is(14))

    assert await stack.finished(session_id) == "accepted"
    assert shown(simulator, phone) == [LOUD]
    [task] = await stack.tasks(session_id)
    assert in_time((task.accepted_at - task.due_at).total_seconds(), 2.0)


async def test_what_changes_while_a_fast_is_asleep_armed_or_held_holds_at_the_due_instant(
    stack: Stack, unarmed: Stack, simulator: Simulator
) -> None:
    withhold: dict[str, Any] = NIGHT | {"mode": "withhold"}
    cases: list[tuple[Stack, int, Any, Any, list[tuple[bool, str]]]] = [
        (unarmed, 0, withhold, {"mode": "silent"}, [SILENT]),  # asleep
        (unarmed, 0, None, withhold, []),
        (stack, 0, withhold, {"mode": "silent"}, [SILENT]),  # armed: there is nothing to hold while all is withheld
        (stack, 0, withhold, None, [LOUD]),
        (stack, 1, None, NIGHT, [SILENT]),  # held
        (stack, 1, NIGHT, {"mode": "withhold"}, []),
        (stack, 1, NIGHT, {"time_zone": where_it_is(14)}, [LOUD]),  # the night of another place
    ]
    changes = [
        Change(api_stack, held, {"quiet_hours": before}, {"quiet_hours": after})
        for api_stack, held, before, after, _ in cases
    ]

    phones = await phones_after(changes, time_zone=where_it_is(3))

    in_truth = [shown(simulator, phone) if simulator.requests.for_token(phone.token) else [] for phone in phones]
    assert in_truth == [expected for *_, expected in cases]


@pytest.fixture
def odd_nights(tmp_path: Path) -> Iterator[None]:
    """Time zones whose odd night is now: ten minutes ago 02:00 became 03:00 there, or 03:00 became 02:00."""
    then = datetime.now(UTC) - timedelta(minutes=10)
    (tmp_path / "Odd").mkdir()
    for name, before, after in (("Gap", 2, 3), ("Doubled", 3, 2)):
        (tmp_path / "Odd" / name).write_bytes(_zone_file(then, timedelta(hours=before), timedelta(hours=after)))
    zoneinfo.reset_tzpath([tmp_path, *zoneinfo.TZPATH])
    time_zones._names.cache_clear()
    yield
    zoneinfo.reset_tzpath()
    time_zones._names.cache_clear()


@pytest.mark.usefixtures("odd_nights")
async def test_the_odd_nights_of_the_year_on_the_screens_of_three_places(stack: Stack, simulator: Simulator) -> None:
    user, gap, doubled, day = stack.user(), iphone(), android(), iphone()
    await user.register(gap, time_zone="Odd/Gap")  # 03:10: there was no 02:30, so the night is over
    await user.register(doubled, time_zone="Odd/Doubled")  # 02:10 for the second time, after 02:30 came once
    await user.register(day, time_zone=where_it_is(14))
    await change(user, quiet_hours=NIGHT | {"ends": "02:30"})

    assert await stack.finished(await user.start_fast(due_in=1.0)) == "accepted"

    assert [shown(simulator, phone) for phone in (gap, doubled, day)] == [[LOUD], [SILENT], [LOUD]]


def _zone_file(then: datetime, before: timedelta, after: timedelta) -> bytes:
    """Write a time zone (RFC 8536) whose clocks showed `before` at an instant, and were set to `after`."""
    instant = int(then.timestamp())
    offsets = [(int(local.total_seconds()) - instant + 43200) % 86400 - 43200 for local in (before, after)]
    head = struct.pack(">4sc15x6l", b"TZif", b"2", 0, 0, 0, 1, 2, 4)
    types = b"".join(struct.pack(">lBB", each, is_dst, 0) for is_dst, each in enumerate(offsets))
    old = head + struct.pack(">lB", min(max(instant, -(2**31)), 2**31 - 1), 1) + types + b"ODD\0"
    return old + head + struct.pack(">qB", instant, 1) + types + b"ODD\0" + b"\n\n"
