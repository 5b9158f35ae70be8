"""The last-moment check of a reminder: why it must not go out any more."""

from dataclasses import replace
from datetime import timedelta

import pytest

from domain.fasts import FastingSession, SessionStatus
from domain.last_check import withheld
from domain.preferences import Preferences
from tests.domain.test_reminders import ENDED, SESSION, at


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        (SESSION, None),
        (None, "session_missing"),
        (ENDED, "session_ended"),
        (replace(ENDED, status=SessionStatus.COMPLETED), "session_ended"),
        (replace(ENDED, status=SessionStatus.CANCELLED), "session_cancelled"),
        (replace(SESSION, ends_at=SESSION.ends_at + timedelta(microseconds=1)), "goal_moved"),
        (replace(SESSION, reminder_minutes=(60, 0)), "goal_moved"),  # this one was dropped
    ],
)
def test_a_reminder_is_withheld_unless_its_session_still_wants_it(
    session: FastingSession | None, reason: str | None
) -> None:
    assert withheld(session, 30, at(17, 30), Preferences()) == reason


def test_a_reminder_is_withheld_from_those_who_want_none() -> None:
    assert withheld(SESSION, 30, at(17, 30), Preferences(reminders=False)) == "reminders_off"
