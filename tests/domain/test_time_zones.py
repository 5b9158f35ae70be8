"""Time zones, as people are told of them."""

from datetime import time

import pytest

from domain.preferences import QuietHours, in_words, known, zone
from domain.timeline_words import now_quiet


@pytest.mark.parametrize("ahead", range(-12, 15))
def test_an_offset_that_a_phone_tells_is_reported_back_with_the_same_sign(ahead: int) -> None:
    stored = known(f"GMT{ahead:+03d}:00")

    assert stored is not None
    assert in_words(stored) == (f"UTC{ahead:+d}" if ahead else "Etc/GMT")


@pytest.mark.parametrize("name", ["Europe/Vienna", "UTC", "EST5EDT", "Etc/GMT-0", "Mars/Olympus"])
def test_another_zone_is_reported_by_its_name(name: str) -> None:
    assert in_words(name) == name


@pytest.mark.parametrize("name", ["Factory", "factory", "localtime"])
def test_what_says_that_no_zone_was_set_is_none(name: str) -> None:
    assert (known(name), zone(name)) == (None, None)


def test_support_is_told_quiet_hours_by_the_offset_that_the_person_set() -> None:
    assert now_quiet(QuietHours(time(22), time(7), "Etc/GMT-2")).endswith(" from 22:00 to 07:00, UTC+2.")
