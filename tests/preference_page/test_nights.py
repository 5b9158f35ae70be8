"""What tonight will be like: spans and lengths in nights in which clocks change, in several zones."""

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.preference_page.phrases import Phrases
from api.preference_page.view import Night, nights
from api.preference_page.words import speech
from domain.preferences import QuietHours, QuietMode

ZONES = ("Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca", "UTC")
CHANGES = (
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, tzinfo=UTC),
)
MINUTE = timedelta(minutes=1)
clocks = st.times(max_value=time(23, 59)).map(lambda each: each.replace(second=0, microsecond=0))


def night(starts: time, ends: time, zone: str, now: datetime) -> Night:
    [zones_of] = nights(QuietHours(starts, ends, None), [zone], now)
    return zones_of


def said(starts: time, ends: time, zone: str, now: datetime, locale: str = "en-GB") -> str:
    return Phrases(speech(locale), now).night(night(starts, ends, zone, now), QuietMode.SILENT)


@given(
    starts=clocks,
    ends=clocks,
    zone=st.sampled_from(ZONES),
    change=st.sampled_from(CHANGES),
    away=st.integers(-2400, 2400),
)
@example(starts=time(22), ends=time(2, 30), zone="Europe/Vienna", change=CHANGES[0], away=0)
@example(starts=time(22), ends=time(2, 30), zone="Europe/Vienna", change=CHANGES[1], away=0)
def test_a_night_is_what_the_checks_before_a_push_hold_for_quiet(
    starts: time, ends: time, zone: str, change: datetime, away: int
) -> None:
    quiet, now = QuietHours(starts, ends, None), change + away * MINUTE
    if starts == ends:
        return
    first = night(starts, ends, zone, now).spans[0]
    begins, over = first.starts_at.astimezone(UTC), first.ends_at.astimezone(UTC)

    assert over > now
    assert quiet.contain(begins, zone)
    assert not quiet.contain(begins - MINUTE, zone)
    assert quiet.contain(over - MINUTE, zone)
    assert not quiet.contain(over, zone)
    hop = max((over - begins) / 20 // MINUTE, 1) * MINUTE
    assert all(quiet.contain(begins + each * hop, zone) for each in range((over - begins) // hop))
    waiting = range((begins - now) // MINUTE if begins > now else 0)
    assert not any(quiet.contain(now + each * MINUTE, zone) for each in waiting[::7])


@pytest.mark.parametrize(
    ("zone", "now", "hours"),
    [
        ("Europe/Vienna", datetime(2026, 10, 24, 15, tzinfo=UTC), 10),
        ("Europe/Vienna", datetime(2026, 3, 28, 15, tzinfo=UTC), 8),
        ("Europe/Vienna", datetime(2026, 6, 1, 15, tzinfo=UTC), 9),
        ("America/New_York", datetime(2026, 10, 31, 20, tzinfo=UTC), 10),
        ("America/New_York", datetime(2026, 3, 7, 20, tzinfo=UTC), 8),
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 8, tzinfo=UTC), 9.5),  # half an hour is put back there
        ("Australia/Lord_Howe", datetime(2026, 10, 3, 8, tzinfo=UTC), 8.5),
    ],
)
def test_a_night_lasts_as_long_as_it_does(zone: str, now: datetime, hours: float) -> None:
    zones_of = night(time(22), time(7), zone, now)

    assert zones_of.length == timedelta(hours=hours)
    assert zones_of.usual == timedelta(hours=9)


def test_it_is_reported_in_plain_words() -> None:
    autumn, spring = datetime(2026, 10, 24, 15, tzinfo=UTC), datetime(2026, 3, 28, 15, tzinfo=UTC)

    assert said(time(22), time(7), "Europe/Vienna", autumn) == (
        "Tonight from 22:00 to 07:00, notifications are shown without sound. "
        "The clocks go back, so this lasts 10 hours."
    )
    assert said(time(22), time(7), "Europe/Vienna", spring) == (
        "Tonight from 22:00 to 07:00, notifications are shown without sound. "
        "The clocks go forward, so this lasts 8 hours."
    )
    assert said(time(22), time(7), "Europe/Vienna", autumn, "de-AT") == (
        "Heute Nacht von 22:00 bis 07:00 Uhr werden Mitteilungen ohne Ton angezeigt. "
        "Die Uhren werden zurückgestellt, darum dauert das 10 Stunden."
    )
    assert said(time(22), time(2, 30), "Europe/Vienna", spring) == (
        "Tonight from 22:00 to 03:00, notifications are shown without sound. "
        "The clocks go forward, so this lasts 4 hours."
    )
    assert said(time(22), time(2, 30), "Europe/Vienna", autumn) == (
        "Tonight from 22:00 to 02:30, notifications are shown without sound. And again from 02:00 to 02:30, because "
        "that hour comes twice. The clocks go back, so this lasts 5 hours."
    )


@pytest.mark.parametrize(
    ("hour", "starts", "ends", "beginning"),
    [
        (15, time(22), time(7), "Tonight from 22:00 to 07:00, "),
        (23, time(22), time(7), "Now, and until 07:00, "),
        (3, time(22), time(7), "Now, and until 07:00, "),
        (21, time(0, 30), time(7), "Tonight from 00:30 to 07:00, "),
        (10, time(12), time(14), "Today from 12:00 to 14:00, "),
        (15, time(12), time(14), "Tomorrow from 12:00 to 14:00, "),
        (2, time(0, 30), time(1), "Tomorrow from 00:30 to 01:00, "),
    ],
)
def test_it_is_told_when_that_is(hour: int, starts: time, ends: time, beginning: str) -> None:
    assert said(starts, ends, "UTC", datetime(2026, 6, 1, hour, tzinfo=UTC)).startswith(beginning)


def test_quiet_hours_that_clocks_leave_out_are_reported_for_the_day_on_which_they_come() -> None:
    spring = datetime(2026, 3, 28, 15, tzinfo=UTC)

    assert said(time(2, 10), time(2, 40), "Europe/Vienna", spring).startswith("On Mon 30 Mar from 02:10 to 02:40, ")


def test_phones_in_several_zones_have_each_their_night_and_quiet_hours_at_home_have_one() -> None:
    now = datetime(2026, 10, 24, 15, tzinfo=UTC)
    zones = ["Europe/Vienna", "America/New_York", "Europe/Vienna", None, "Nowhere/At_All"]

    def zones_of(quiet: QuietHours | None, *zones: str | None) -> list[str]:
        return [each.time_zone for each in nights(quiet, zones, now)]

    assert zones_of(QuietHours(time(22), time(7), None), *zones) == ["Europe/Vienna", "America/New_York", "UTC"]
    assert zones_of(QuietHours(time(22), time(7), "Asia/Tokyo"), *zones) == ["Asia/Tokyo"]
    assert zones_of(QuietHours(time(22), time(7), None, fallback_zone="Asia/Tokyo")) == ["Asia/Tokyo"]
    assert zones_of(QuietHours(time(22), time(7), "Mars/Olympus"), *zones) == []
    assert zones_of(None, *zones) == []
