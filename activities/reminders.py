"""Open a reminder: check it in the database, not in the workflow's memory, and plan its pushes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from temporalio import activity

from db import device_tokens, fasting_sessions, messages, push_tasks, withheld_pushes
from db.engine import Sessions, present_instant
from db.models.people import DeviceToken
from db.withheld_pushes import About, Whom
from domain.kinds import RULES, Kind
from domain.last_check import unwanted, withheld
from domain.preferences import Preferences
from domain.push import PlannedSend, SentPush, TaskState
from domain.reminders import Reminder, message_id, reminders
from domain.sessions import FastingSession, SessionStatus


@dataclass(frozen=True, slots=True)
class SessionState:
    """A fasting session's whole state: the input of `FastingReminder` and of its signals."""

    session_id: UUID
    rev: int  # the highest one seen counts
    status: SessionStatus
    ends_at: datetime
    reminders: tuple[Reminder, ...]  # computed by the relay, without skipped ones
    arm_seconds: float  # how long before the due instant the sends are armed


class Moment(StrEnum):
    """When a reminder is opened."""

    ARMING = "arming"  # shortly before it is due: nobody may see anything of it
    DUE = "due"


@dataclass(frozen=True, slots=True)
class OpenReminder:
    """Check whether a reminder is still valid, and plan its pushes."""

    session_id: UUID
    minutes: int
    due_at: datetime
    moment: Moment


@dataclass(frozen=True, slots=True)
class OpenedReminder:
    """The result of opening: sends to make, or the reason why there are none."""

    sends: tuple[PlannedSend, ...] = ()
    withheld: str | None = None
    ends_briefly: bool = False  # its workflow may end without a second look and a result to search by; False: of old


@dataclass(frozen=True, slots=True)
class CloseTasks:
    """Ask for push tasks that are still pending to be closed for good."""

    task_ids: tuple[UUID, ...]
    state: TaskState  # WITHDRAWN or DEAD
    reason: str


@dataclass(frozen=True, slots=True)
class ReminderStatus:
    """The answer to the query `status`."""

    session_id: UUID
    rev: int
    status: SessionStatus
    waiting_for: str
    reminders: tuple[str, ...]  # one line per reminder that was opened


class ReminderOpening:
    """The local activities of `FastingReminder`; each is one transaction and may be repeated."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @activity.defn
    async def open_reminder(self, ask: OpenReminder) -> OpenedReminder:
        """Plan the pushes of a reminder that is still valid; at its due instant, put it into its user's log."""
        async with self._sessions.begin() as db:
            read = await fasting_sessions.read_with_phones(db, ask.session_id)
            if read is None:
                return OpenedReminder(withheld="session_missing")
            session, preferred, devices = read.session, read.preferences, read.devices
            reminder = _find(session, ask.minutes, ask.due_at)
            zones = [device.time_zone for device in devices]
            reason = withheld(session, ask.minutes, ask.due_at, preferred, zones)
            message = message_id(session.session_id, ask.minutes, ask.due_at)
            about = About(Kind.REMINDER, session.session_id, message, ask.minutes)
            if reason or reminder is None:
                if ask.moment is Moment.DUE:  # an earlier opening whose result was lost may have planned
                    left = [send.task_id for send in await push_tasks.pending_of(db, message)]
                    await push_tasks.close(db, left, TaskState.WITHDRAWN, reason or "goal_moved")
                    await withheld_pushes.note(db, about, {(session.user_id, None): reason or "goal_moved"})
                return OpenedReminder(withheld=reason or "goal_moved")
            if ask.moment is Moment.DUE:
                due = messages.ReminderMessage(message, session.session_id, session.user_id, reminder.minutes)
                await messages.enter_reminders(db, [due])
            is_over = ask.moment is Moment.DUE and reminder.expires_at <= await present_instant(db)
            if is_over:  # recorded for the phones that missed it, not for later ones
                devices = await device_tokens.active_since(db, session.user_id, reminder.due_at)
            if ask.moment is Moment.DUE:
                withheld_from = _withheld_from(devices, preferred, reminder)
                reasons: dict[Whom, str] = {
                    (session.user_id, each.installation_id): "quiet_hours" for each in withheld_from
                }
                if not devices:
                    reasons[session.user_id, None] = "no_active_token"
                if reasons:
                    await withheld_pushes.note(db, about, reasons)
                devices = [each for each in devices if each not in withheld_from]
            sends = await push_tasks.plan_and_list(db, _due_message(message, session.session_id, reminder), devices)
            if is_over:
                await push_tasks.close(db, [send.task_id for send in sends], TaskState.DEAD, "opened_too_late")
                return OpenedReminder(withheld="opened_too_late")
            return OpenedReminder(tuple(sends), ends_briefly=True)

    @activity.defn
    async def close_tasks(self, ask: CloseTasks) -> tuple[SentPush, ...]:
        """Withdraw push tasks, or mark them dead, whose sends are over; returns the true state of each."""
        async with self._sessions.begin() as db:
            await push_tasks.close(db, ask.task_ids, ask.state, ask.reason)
            states = await push_tasks.state_of(db, ask.task_ids)
        return tuple(SentPush(task_id, *states[task_id]) for task_id in ask.task_ids)


def _withheld_from(devices: Sequence[DeviceToken], preferred: Preferences, reminder: Reminder) -> list[DeviceToken]:
    """Find the phones that are in quiet hours; before the due instant the check of each push decides."""
    return [each for each in devices if unwanted(Kind.REMINDER, preferred, reminder.due_at, each.time_zone)]


def _find(session: FastingSession, minutes: int, due_at: datetime) -> Reminder | None:
    matching = (reminder for reminder in reminders(session) if (reminder.minutes, reminder.due_at) == (minutes, due_at))
    return next(matching, None)


def _due_message(message: UUID, session_id: UUID, reminder: Reminder) -> push_tasks.DueMessage:
    return push_tasks.DueMessage(
        message_id=message,
        kind=Kind.REMINDER,
        conversation_id=session_id,
        reminder_minutes=reminder.minutes,
        collapse_key=RULES[Kind.REMINDER].collapse_key(session_id),
        due_at=reminder.due_at,
        expires_at=reminder.expires_at,
    )
