"""Quiet hours: local time, over midnight, and on the two odd nights of the year."""

from datetime import UTC, datetime, time

import pytest

from domain.quiet_hours import QuietHours

NIGHT = QuietHours(time(22), time(6), "Europe/Berlin")
NAP = QuietHours(time(13), time(14, 30), "America/New_York")
ODD_HOUR = QuietHours(time(2), time(3), "Europe/Berlin")


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
