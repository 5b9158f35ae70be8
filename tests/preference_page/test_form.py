"""The posted form: what people type becomes a PATCH, or is told to be wrong and shown again."""

from dataclasses import fields, replace
from datetime import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.browsers import Form
from api.preference_page import form
from api.preference_page.view import Typed
from api.preference_page.words import PageWords
from api.preferences import PreferencesPatch
from domain.preferences import Preferences, Preview, QuietHours, QuietMode

QUIET = QuietHours(time(22), time(7), "Europe/Vienna", QuietMode.WITHHOLD)
STORED = Preferences(reminder_minutes=(120, 30), quiet_hours=QUIET, rev=3)
SENT = [
    ("reminders", "on"),
    ("reminder_minutes", "120"),
    ("reminder_minutes", "30"),
    ("reminder_minutes", ""),
    ("messages", "on"),
    ("reminder_preview", "full"),
    ("message_preview", "generic"),
    ("quiet", "on"),
    ("starts", "22:00"),
    ("ends", "07:00"),
    ("time_zone", "Europe/Vienna"),
    ("mode", "withhold"),
]


def sent(**other: str | list[str] | None) -> Typed:
    """Read a form that says what is stored, but for these fields; None: not sent."""
    values = [(name, value) for name, value in SENT if name not in other]
    for name, value in other.items():
        values += [(name, each) for each in ([value] if isinstance(value, str) else value or [])]
    return form.typed(Form(values))


def body(**other: str | list[str] | None) -> dict[str, Any]:
    found, problems = form.changes(sent(**other), STORED)
    assert problems == {}
    return found


def problems(**other: str | list[str] | None) -> dict[str, str]:
    return form.changes(sent(**other), STORED)[1]


def test_what_is_stored_comes_back_as_it_is() -> None:
    assert sent() == form.stored(STORED)
    assert form.differing(sent(), STORED) == []
    assert body() == {
        "reminders": True,
        "reminder_minutes": [120, 30],
        "messages": True,
        "reminder_preview": "full",
        "message_preview": "generic",
        "quiet_hours": {"starts": "22:00", "ends": "07:00", "mode": "withhold"},
    }


def test_what_is_not_ticked_is_off_and_quiet_hours_are_removed() -> None:
    found = body(reminders=None, messages=None, quiet=None)

    assert (found["reminders"], found["messages"], found["quiet_hours"]) == (False, False, None)


@pytest.mark.parametrize(
    ("typed", "minutes"),
    [
        (["30", ""], [30]),
        (["10", "120", "30"], [120, 30, 10]),
        (["30, 10"], [30, 10]),
        (["30 10;60/5"], [60, 30, 10, 5]),
        (["30", "30"], [30]),
        (["0"], [0]),
        (["1440"], [1440]),
        (["٣٠"], [30]),
        (["", " "], []),
        ([], []),
    ],
)
def test_minutes_are_read_as_people_type_them(typed: list[str], minutes: list[int]) -> None:
    assert body(reminder_minutes=typed)["reminder_minutes"] == minutes


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        (["30", "half an hour"], "problem_minutes_not_numbers"),
        (["-5"], "problem_minutes_not_numbers"),
        (["2.5"], "problem_minutes_not_numbers"),
        (["²"], "problem_minutes_not_numbers"),
        (["1441"], "problem_minutes_too_long"),
        (["9" * 5000], "problem_minutes_not_numbers"),
        (["1", "2", "3", "4", "5", "6"], "problem_minutes_too_many"),
    ],
)
def test_other_minutes_are_told_to_be_wrong_and_kept(typed: list[str], problem: str) -> None:
    assert problems(reminder_minutes=typed) == {"reminder_minutes": problem}
    assert "".join(sent(reminder_minutes=typed).reminder_minutes)[:50] == "".join(typed).replace(" ", "")[:50]


@pytest.mark.parametrize(("typed", "clock"), [("7:30", "07:30"), ("07.30", "07:30"), ("07:30:00", "07:30")])
def test_times_are_read_as_browsers_without_a_field_for_them_let_people_type(typed: str, clock: str) -> None:
    assert body(ends=typed)["quiet_hours"]["ends"] == clock


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"starts": "25:00"}, {"starts": "problem_time"}),
        ({"starts": "", "ends": "late"}, {"starts": "problem_time", "ends": "problem_time"}),
        ({"ends": "22:00"}, {"ends": "problem_same_time"}),
        ({"ends": "22.00"}, {"ends": "problem_same_time"}),
        ({"time_zone": "Mars/Olympus"}, {"time_zone": "problem_time_zone"}),
        ({"time_zone": "Factory"}, {"time_zone": "problem_time_zone"}),
        ({"mode": "loud"}, {"mode": "problem_choose"}),
        ({"reminder_preview": None}, {"reminder_preview": "problem_choose"}),
        ({"message_preview": "half"}, {"message_preview": "problem_choose"}),
    ],
)
def test_each_field_that_is_wrong_is_named(other: dict[str, str | None], told: dict[str, str]) -> None:
    assert problems(**other) == told


def test_quiet_hours_that_are_switched_off_may_say_anything() -> None:
    assert problems(quiet=None, starts="", ends="late", time_zone="Mars/Olympus") == {}


def test_a_zone_that_stays_is_not_named_though_it_is_not_known_here() -> None:
    stored = replace(STORED, quiet_hours=replace(QUIET, time_zone="Mars/Olympus"))

    assert form.changes(sent(time_zone="Mars/Olympus"), stored)[0]["quiet_hours"] == {
        "starts": "22:00",
        "ends": "07:00",
        "mode": "withhold",
    }
    assert form.changes(sent(time_zone=""), stored)[0]["quiet_hours"]["time_zone"] is None
    assert form.changes(sent(time_zone="Asia/Tokyo"), stored)[0]["quiet_hours"]["time_zone"] == "Asia/Tokyo"


def test_somebody_without_quiet_hours_is_proposed_a_night() -> None:
    proposed = form.stored(Preferences())

    assert (proposed.quiet, proposed.starts, proposed.ends, proposed.mode) == (False, "22:00", "07:00", "silent")


texts = st.text(max_size=12) | st.sampled_from(["30", "22:00", "07:00", "Europe/Vienna", "silent", "full", "generic"])


@given(
    st.builds(
        Typed,
        reminders=st.booleans(),
        reminder_minutes=st.lists(texts | st.integers(0, 2000).map(str), max_size=7).map(tuple),
        messages=st.booleans(),
        reminder_preview=texts | st.sampled_from(Preview),
        message_preview=texts | st.sampled_from(Preview),
        quiet=st.booleans(),
        starts=texts,
        ends=texts,
        time_zone=texts,
        mode=texts | st.sampled_from(QuietMode),
    )
)
def test_whatever_is_typed_is_a_patch_that_the_api_takes_or_a_problem_with_words(typed: Typed) -> None:
    found, told = form.changes(typed, STORED)

    assert set(told) <= {each.name for each in fields(Typed)}
    assert set(told.values()) <= {each.name for each in fields(PageWords)}
    if not told:
        PreferencesPatch.model_validate(found)
