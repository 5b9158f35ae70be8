"""Which reminders count as unopened."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from db.views.standings import ReminderStanding, is_unopened
from domain.fasts import OnRecord, Reminder, ReminderState
from domain.push import TaskState
from domain.timeline import A_MOMENT

DUE_AT = datetime(2026, 1, 31, 17, 30, tzinfo=UTC)
NOTHING, PLANNED = OnRecord({}, withheld=0), OnRecord({TaskState.PENDING: 1}, withheld=0)


@pytest.mark.parametrize(
    ("found", "state", "late", "unopened"),
    [
        (NOTHING, ReminderState.DUE, A_MOMENT, True),
        (NOTHING, ReminderState.DUE, A_MOMENT - timedelta(milliseconds=1), False),  # workers are about to open it
        (NOTHING, ReminderState.DEAD, A_MOMENT, True),
        (NOTHING, ReminderState.WITHDRAWN, A_MOMENT, False),
        (NOTHING, ReminderState.SKIPPED, A_MOMENT, False),
        (NOTHING, ReminderState.PAST, A_MOMENT, False),
        (PLANNED, ReminderState.DUE, A_MOMENT, False),
        (PLANNED, ReminderState.DEAD, A_MOMENT, False),
    ],
)
def test_a_reminder_is_unopened_when_it_has_been_due_for_a_moment_and_nothing_was_decided(
    found: OnRecord, state: ReminderState, late: timedelta, unopened: bool
) -> None:
    reminder = Reminder(30, DUE_AT, DUE_AT + timedelta(minutes=30))

    assert is_unopened(ReminderStanding(UUID(int=1), UUID(int=2), reminder, state, found, DUE_AT + late)) is unopened
