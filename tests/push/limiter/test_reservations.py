"""Turns that are given away: one after the other, the important ones first. Time is passed in."""

import pytest

from domain.kinds import Priority
from push.limiter.admission_queue import Reservations


def reserve(
    bookings: Reservations, priority: Priority = Priority.REMINDER, *, user: int = 1, wait: float = 0.0
) -> float | None:
    return bookings.reserve(100.0, priority, user, wait=wait, each=0.1, at_most=2.55)


def test_turns_are_given_away_one_after_the_other_behind_those_in_line() -> None:
    bookings = Reservations()

    turns = [reserve(bookings, wait=2.0) for _ in range(6)]

    assert turns[:5] == pytest.approx([2.1, 2.2, 2.3, 2.4, 2.5])
    assert turns[5] is None


def test_a_reminder_is_booked_before_all_messages_and_later_messages_after_it() -> None:
    bookings = Reservations()
    for _ in range(10):
        reserve(bookings, Priority.MESSAGE)

    assert reserve(bookings) == pytest.approx(0.1)
    assert reserve(bookings, Priority.MESSAGE) == pytest.approx(1.2)
    assert reserve(bookings, Priority.TEST) == pytest.approx(1.3)


def test_bookings_that_lie_behind_delay_nobody() -> None:
    bookings = Reservations()
    reserve(bookings)

    assert bookings.reserve(200.0, Priority.REMINDER, 1, wait=0.0, each=0.1, at_most=1.0) == pytest.approx(0.1)


def test_a_user_who_has_booked_many_turns_puts_nobody_elses_off() -> None:
    bookings = Reservations()
    for _ in range(20):
        reserve(bookings, user=1)

    assert [reserve(bookings, user=user) for user in (2, 3, 2)] == pytest.approx([0.2, 0.3, 0.5])
    assert reserve(bookings, user=1) == pytest.approx(2.4)
