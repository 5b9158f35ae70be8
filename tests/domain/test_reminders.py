"""When each reminder is due, when it stops being useful, and what became of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from domain.fasts import (
    ARM_LEAD,
    LEAST_KEPT,
    FastingSession,
    OnRecord,
    Reminder,
    ReminderState,
    SessionStatus,
    arm_seconds,
    is_skipped,
    message_id,
    reminders,
    rescheduled,
    state_of,
    upcoming,
)
from domain.push import TaskState
from domain.timeline import CALL_LASTS

ENDS_AT = datetime(2026, 3, 1, 18, tzinfo=UTC)
SESSION = FastingSession(
    session_id=UUID("0d5f3c9e-2a5e-4f0a-9f52-6f1f3f3f9a11"),
    user_id="alice",
    started_at=ENDS_AT - timedelta(hours=16),
    ends_at=ENDS_AT,
    status=SessionStatus.ACTIVE,
    ended_at=None,
    reminder_minutes=(60, 30, 0),
    scheduled_at=ENDS_AT - timedelta(hours=16),
    rev=1,
)


def at(hour: int, minute: int) -> datetime:
    return datetime(2026, 3, 1, hour, minute, tzinfo=UTC)


def test_each_reminder_is_useful_until_the_next_or_until_the_end_and_the_last_a_little_longer() -> None:
    assert reminders(SESSION) == (
        Reminder(60, due_at=at(17, 0), expires_at=at(17, 30)),
        Reminder(30, due_at=at(17, 30), expires_at=at(18, 0)),
        Reminder(0, due_at=at(18, 0), expires_at=at(18, 15)),
    )


def test_a_reminder_before_the_end_is_of_no_use_after_it() -> None:
    session = replace(SESSION, reminder_minutes=(1,))

    assert reminders(session) == (Reminder(1, due_at=at(17, 59), expires_at=at(18, 0)),)


def test_the_order_in_which_reminders_were_chosen_means_nothing() -> None:
    assert reminders(replace(SESSION, reminder_minutes=(0, 60, 30))) == reminders(SESSION)


def test_a_session_may_have_no_reminders() -> None:
    assert reminders(replace(SESSION, reminder_minutes=())) == ()


@pytest.mark.parametrize(
    ("set_at", "ahead"),
    [(at(2, 0), [60, 30, 0]), (at(16, 59), [60, 30, 0]), (at(17, 0), [30, 0]), (at(17, 45), [0]), (at(18, 0), [])],
)
def test_a_reminder_whose_moment_was_past_when_the_goal_was_set_is_skipped(set_at: datetime, ahead: list[int]) -> None:
    session = replace(SESSION, scheduled_at=set_at)

    assert [reminder.minutes for reminder in upcoming(session)] == ahead
    assert [r.minutes for r in reminders(session) if not is_skipped(session, r)] == ahead


@pytest.mark.parametrize(
    ("minutes", "moved_by", "ahead"),
    [
        ((30,), 0, [30]),
        ((60, 30, 24, 0), 0, [60, 30, 24, 0]),  # added in time
        ((60, 30, 25, 0), 0, [60, 30, 0]),  # added in the very instant of its moment
        ((60, 40, 30, 0), 0, [60, 30, 0]),  # added too late
        ((40, 25), 0, []),
        ((60, 30, 0), 1, [0]),  # all are set again
        ((60, 30, 0), -1, [0]),
        ((60, 30, 0), 6, [30, 0]),
    ],
)
def test_only_a_moved_goal_or_being_added_too_late_makes_a_reminder_a_skipped_one(
    minutes: tuple[int, ...], moved_by: int, ahead: list[int]
) -> None:
    changed = replace(SESSION, reminder_minutes=minutes, ends_at=ENDS_AT + timedelta(minutes=moved_by))

    found = rescheduled(SESSION, changed, at(17, 35))

    assert [reminder.minutes for reminder in upcoming(found)] == ahead
    assert found.scheduled_at == (at(17, 35) if moved_by else SESSION.scheduled_at)


def test_a_reminder_that_was_added_too_late_stays_skipped_until_the_goal_moves() -> None:
    late = rescheduled(SESSION, replace(SESSION, reminder_minutes=(60, 40)), at(17, 35))
    more = rescheduled(late, replace(late, reminder_minutes=(60, 40, 5)), at(17, 36))
    moved = rescheduled(more, replace(more, ends_at=at(18, 30)), at(17, 37))

    assert [[each.minutes for each in upcoming(session)] for session in (late, more, moved)] == [[60], [60, 5], [40, 5]]


def test_a_reminder_that_was_past_when_the_fast_started_is_skipped_for_good() -> None:
    started_late = replace(SESSION, scheduled_at=at(17, 15))

    more = rescheduled(started_late, replace(started_late, reminder_minutes=(60, 40, 30)), at(17, 16))

    assert [reminder.minutes for reminder in upcoming(more)] == [40, 30]


def test_a_reminder_that_was_added_too_late_does_not_take_the_place_of_the_one_before() -> None:
    found = rescheduled(SESSION, replace(SESSION, reminder_minutes=(30, 25, 5)), at(17, 36))

    assert upcoming(found) == (
        Reminder(30, due_at=at(17, 30), expires_at=at(17, 55)),
        Reminder(5, due_at=at(17, 55), expires_at=at(18, 0)),
    )


def test_a_message_has_the_same_id_in_every_release_that_ever_plans_it() -> None:
    assert message_id(SESSION.session_id, 30, at(17, 30)) == UUID("4bff697c-c9ac-5ca5-b5a2-6e190d488751")


def test_another_reminder_or_another_goal_is_another_message() -> None:
    ids = {
        message_id(SESSION.session_id, 30, at(17, 30)),
        message_id(SESSION.session_id, 60, at(17, 30)),
        message_id(SESSION.session_id, 30, at(17, 31)),
        message_id(SESSION.session_id, 30, at(17, 30) + timedelta(microseconds=1)),
        message_id(UUID(int=1), 30, at(17, 30)),
    }

    assert len(ids) == 5


def test_arming_spreads_sessions_evenly_over_the_window_and_each_the_same_way_every_time() -> None:
    leads = [arm_seconds(UUID(int=n), 60.0) for n in range(6000)]

    assert leads == [arm_seconds(UUID(int=n), 60.0) for n in range(6000)]
    assert min(leads) >= ARM_LEAD
    assert max(leads) <= ARM_LEAD + 60
    each_second = [sum(1 for lead in leads if second <= lead - ARM_LEAD < second + 1) for second in range(60)]
    assert min(each_second) > 50  # of 100 on average
    assert max(each_second) < 150


def test_without_a_window_nothing_is_armed() -> None:
    assert arm_seconds(SESSION.session_id, 0.0) == 0.0


BEFORE, DUE_AT, AFTER, EXPIRED_AT = at(17, 29), at(17, 30), at(17, 31), at(18, 0)
HALF_AN_HOUR_BEFORE = Reminder(30, due_at=DUE_AT, expires_at=EXPIRED_AT)
LONG_AFTER = AFTER + timedelta(days=3)
ENDED = replace(SESSION, status=SessionStatus.BROKEN, ended_at=BEFORE)
ENDED_LATE = replace(ENDED, ended_at=EXPIRED_AT)
LATE = replace(SESSION, scheduled_at=at(17, 45))
PENDING, ACCEPTED, WITHDRAWN, DEAD, UNREGISTERED, EXPIRED, REJECTED = (
    TaskState.PENDING,
    TaskState.ACCEPTED,
    TaskState.WITHDRAWN,
    TaskState.DEAD,
    TaskState.UNREGISTERED,
    TaskState.EXPIRED,
    TaskState.REJECTED,
)


@pytest.mark.parametrize(
    ("session", "tasks", "now", "state"),
    [
        (SESSION, {}, BEFORE, ReminderState.SCHEDULED),
        (SESSION, {}, AFTER, ReminderState.DUE),
        (SESSION, {}, DUE_AT, ReminderState.DUE),
        (SESSION, {}, EXPIRED_AT - timedelta(seconds=1), ReminderState.DUE),
        (SESSION, {}, EXPIRED_AT, ReminderState.DEAD),
        (SESSION, {}, EXPIRED_AT + LEAST_KEPT - timedelta(seconds=1), ReminderState.DEAD),
        (SESSION, {}, EXPIRED_AT + LEAST_KEPT, ReminderState.PAST),
        (SESSION, {PENDING: 2}, BEFORE, ReminderState.SCHEDULED),  # armed
        (SESSION, {PENDING: 2}, DUE_AT, ReminderState.DUE),
        (SESSION, {PENDING: 2}, AFTER, ReminderState.DUE),
        (SESSION, {PENDING: 2}, EXPIRED_AT, ReminderState.DUE),  # a call may be under way
        (SESSION, {PENDING: 2}, EXPIRED_AT + CALL_LASTS, ReminderState.DEAD),  # though no worker has noted that
        (SESSION, {PENDING: 1, ACCEPTED: 1}, AFTER, ReminderState.SENT),
        (SESSION, {ACCEPTED: 1, DEAD: 1, WITHDRAWN: 1}, AFTER, ReminderState.SENT),
        (SESSION, {PENDING: 1, DEAD: 1}, AFTER, ReminderState.DUE),
        (SESSION, {DEAD: 1}, AFTER, ReminderState.DEAD),
        (SESSION, {UNREGISTERED: 1}, AFTER, ReminderState.UNREGISTERED),
        (SESSION, {UNREGISTERED: 1, WITHDRAWN: 1}, AFTER, ReminderState.UNREGISTERED),
        (SESSION, {UNREGISTERED: 1, PENDING: 1}, AFTER, ReminderState.DUE),
        (SESSION, {UNREGISTERED: 1, DEAD: 1}, AFTER, ReminderState.DEAD),
        (SESSION, {EXPIRED: 1}, AFTER, ReminderState.EXPIRED),
        (SESSION, {EXPIRED: 1, REJECTED: 1}, AFTER, ReminderState.REJECTED),
        (SESSION, {WITHDRAWN: 1}, AFTER, ReminderState.WITHDRAWN),
        (SESSION, {WITHDRAWN: 1, DEAD: 1}, AFTER, ReminderState.DEAD),
        (SESSION, {WITHDRAWN: 1, PENDING: 1}, AFTER, ReminderState.DUE),
        (ENDED, {}, BEFORE, ReminderState.WITHDRAWN),
        (ENDED, {}, EXPIRED_AT, ReminderState.WITHDRAWN),
        (ENDED_LATE, {}, EXPIRED_AT, ReminderState.DEAD),
        (ENDED, {PENDING: 1}, AFTER, ReminderState.WITHDRAWN),
        (ENDED, {ACCEPTED: 1}, AFTER, ReminderState.SENT),
        (ENDED, {DEAD: 1}, AFTER, ReminderState.DEAD),
        (LATE, {}, AFTER, ReminderState.SKIPPED),
        (LATE, {ACCEPTED: 1}, AFTER, ReminderState.SENT),
        (LATE, {WITHDRAWN: 1}, AFTER, ReminderState.SKIPPED),
        (replace(LATE, status=SessionStatus.CANCELLED), {}, AFTER, ReminderState.SKIPPED),
        (SESSION, {}, LONG_AFTER, ReminderState.PAST),
        (ENDED, {}, LONG_AFTER, ReminderState.PAST),
        (ENDED, {ACCEPTED: 1}, LONG_AFTER, ReminderState.SENT),
        (SESSION, {WITHDRAWN: 1}, LONG_AFTER, ReminderState.WITHDRAWN),
    ],
)
def test_a_reminders_state_follows_from_its_session_and_its_push_tasks(
    session: FastingSession, tasks: dict[TaskState, int], now: datetime, state: ReminderState
) -> None:
    assert state_of(session, HALF_AN_HOUR_BEFORE, OnRecord(tasks, withheld=0), now) is state


@pytest.mark.parametrize(
    ("session", "now", "state"),
    [
        (SESSION, DUE_AT, ReminderState.WITHDRAWN),
        (SESSION, EXPIRED_AT, ReminderState.WITHDRAWN),
        (SESSION, EXPIRED_AT + LEAST_KEPT - timedelta(seconds=1), ReminderState.WITHDRAWN),
        (SESSION, EXPIRED_AT + LEAST_KEPT, ReminderState.PAST),
        (ENDED_LATE, EXPIRED_AT, ReminderState.WITHDRAWN),
        (LATE, AFTER, ReminderState.SKIPPED),
    ],
)
def test_a_reminder_that_was_decided_against_is_withdrawn(
    session: FastingSession, now: datetime, state: ReminderState
) -> None:
    assert state_of(session, HALF_AN_HOUR_BEFORE, OnRecord({}, withheld=1), now) is state


def test_a_push_that_was_sent_after_all_counts_more_than_a_decision_against_it() -> None:
    assert state_of(SESSION, HALF_AN_HOUR_BEFORE, OnRecord({ACCEPTED: 1}, withheld=1), AFTER) is ReminderState.SENT
