"""Quiet hours: local time, over midnight, on the two odd nights of the year, and wherever a phone is."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from domain.preferences import QuietHours

NIGHT = QuietHours(time(22), time(6), "Europe/Berlin")
NAP = QuietHours(time(13), time(14, 30), "America/New_York")
ODD_HOUR = QuietHours(time(2), time(3), "Europe/Berlin")


EVERYWHERE = QuietHours(time(22), time(7), None)
ODD_ENDS = QuietHours(time(22), time(2, 30), None)  # within the hour that is left out, or comes twice


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "at", "quiet"),
    [
        (NIGHT, "2026-01-10T20:59:59.999999", False),  # 21:59 in Berlin
        (NIGHT, "2026-01-10T21:00", True),
        (NIGHT, "2026-01-10T23:30", True),
        (NIGHT, "2026-01-11T04:59:59.999999", True),
        (NIGHT, "2026-01-11T05:00", False),
        (NIGHT, "2026-01-11T12:00", False),
        (NIGHT, "2026-07-10T20:00", True),  # summer time
        (NIGHT, "2026-07-11T04:00", False),
        (NIGHT, "2026-03-29T03:59", True),  # the night an hour is left out: 05:59
        (NIGHT, "2026-03-29T04:00", False),
        (NIGHT, "2026-10-25T04:59", True),  # the night an hour comes twice: 05:59
        (NIGHT, "2026-10-25T05:00", False),
        (NAP, "2026-01-10T17:59", False),
        (NAP, "2026-01-10T18:00", True),
        (NAP, "2026-01-10T19:29", True),
        (NAP, "2026-01-10T19:30", False),
        (NAP, "2026-07-10T17:00", True),
        (ODD_HOUR, "2026-03-29T00:59", False),  # 01:59, and then 03:00: this night has no such hour
        (ODD_HOUR, "2026-03-29T01:00", False),
        (ODD_HOUR, "2026-10-25T00:30", True),  # 02:30 for the first time
        (ODD_HOUR, "2026-10-25T01:30", True),  # and for the second
    ],
)
def test_an_instant_is_quiet_by_the_clock_on_the_persons_wall(hours: QuietHours, at: str, quiet: bool) -> None:
    assert hours.contain(utc(at)) is quiet


@pytest.mark.parametrize(
    ("zone", "hours", "begins", "lasts"),
    [  # by the clock on the wall: (date of the odd night) how long the quiet hours are in truth
        ("Europe/Vienna", EVERYWHERE, "2026-03-28T21:00", 8),
        ("Europe/Vienna", EVERYWHERE, "2026-10-24T20:00", 10),
        ("America/New_York", EVERYWHERE, "2026-03-08T03:00", 8),
        ("America/New_York", EVERYWHERE, "2026-11-01T02:00", 10),
        ("Australia/Lord_Howe", EVERYWHERE, "2026-10-03T11:30", 8.5),  # half an hour
        ("Australia/Lord_Howe", EVERYWHERE, "2026-04-04T11:00", 9.5),
        ("Europe/Vienna", ODD_ENDS, "2026-03-28T21:00", 4),  # no 02:30: over at 03:00
        ("America/New_York", ODD_ENDS, "2026-03-08T03:00", 4),
        ("Australia/Lord_Howe", replace(ODD_ENDS, ends=time(2, 15)), "2026-10-03T11:30", 4),
    ],
)
def test_both_odd_nights_are_quiet_from_end_to_end_wherever_the_phone_is(
    zone: str, hours: QuietHours, begins: str, lasts: float
) -> None:
    start, end = utc(begins), utc(begins) + timedelta(hours=lasts)
    minutes = [start + timedelta(minutes=each) for each in range(-60, int(lasts * 60) + 60)]

    assert [at for at in minutes if hours.contain(at, zone)] == [at for at in minutes if start <= at < end]


@pytest.mark.parametrize(
    ("zone", "ends", "first", "second"),
    [
        ("Europe/Vienna", time(2, 30), "2026-10-25T00:30", "2026-10-25T01:00"),
        ("America/New_York", time(1, 30), "2026-11-01T05:30", "2026-11-01T06:00"),
        ("Australia/Lord_Howe", time(1, 45), "2026-04-04T14:45", "2026-04-04T15:00"),
    ],
)
def test_quiet_hours_that_end_within_the_doubled_hour_are_quiet_both_times(
    zone: str, ends: time, first: str, second: str
) -> None:
    hours, moment = replace(ODD_ENDS, ends=ends), timedelta(microseconds=1)

    told = [hours.contain(at, zone) for at in (utc(first) - moment, utc(first), utc(second) - moment, utc(second))]

    assert told == [True, False, False, True]


@pytest.mark.parametrize(
    ("hours", "phone", "quiet"),
    [
        (EVERYWHERE, "Asia/Tokyo", True),  # 00:00
        (EVERYWHERE, "America/New_York", False),  # 10:00
        (replace(EVERYWHERE, fallback_zone="Asia/Tokyo"), "America/New_York", False),
        (replace(EVERYWHERE, fallback_zone="Asia/Tokyo"), None, True),
        (replace(EVERYWHERE, fallback_zone="Asia/Tokyo"), "Mars/Olympus", True),
        (replace(EVERYWHERE, starts=time(14)), None, True),  # UTC
        (EVERYWHERE, None, False),
        (replace(EVERYWHERE, fallback_zone="Mars/Olympus", starts=time(14)), "Mars/Olympus", True),
        (replace(EVERYWHERE, time_zone="America/New_York"), "Asia/Tokyo", False),
        (replace(EVERYWHERE, time_zone="Mars/Olympus"), "Asia/Tokyo", False),
    ],
)
def test_quiet_hours_without_a_time_zone_are_wherever_the_phone_is(
    hours: QuietHours, phone: str | None, quiet: bool
) -> None:
    assert hours.contain(utc("2026-01-10T15:00"), phone) is quiet
