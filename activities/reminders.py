"""Open a reminder: check it in the database, not in the workflow's memory, and plan its pushes."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from db import device_tokens, fasting_sessions, messages, push_tasks, withheld_pushes
from db.batch import Batch
from db.engine import Sessions, is_contended, present_instant, wait_briefly_for_locks
from db.fasting_sessions import FastWithPhones
from db.models.people import DeviceToken
from db.unreadable import Unreadable
from db.withheld_pushes import About, Whom
from domain.fasts import FastingSession, Reminder, SessionStatus, message_id, reminders
from domain.kinds import RULES, Kind
from domain.last_check import unwanted, withheld
from domain.preferences import Preferences
from domain.push import PlannedSend, SentPush, TaskState

_GATHERS = 0.2  # seconds: reminders to be armed within them share a transaction
_HURRY = timedelta(seconds=1)  # a reminder that is due so soon waits for no other


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
    """The local activities of `FastingReminder`; each may be repeated."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._arming = Batch(self._arm_together, in_flight=2)
        self._gathering: asyncio.Task[None] | None = None

    @activity.defn
    async def open_reminder(self, ask: OpenReminder) -> OpenedReminder:
        """Plan the pushes of a reminder that is still valid; at its due instant, put it into its user's log."""
        if ask.moment is Moment.DUE:
            return await self._open_due(ask)
        if ask.due_at - datetime.now(UTC) > _HURRY:
            if self._gathering is None or self._gathering.done():
                self._gathering = asyncio.create_task(asyncio.sleep(_GATHERS))
            await asyncio.wait({self._gathering})
        try:
            return await self._arming.ask(ask)
        except DBAPIError as error:
            if not is_contended(error):
                raise
        async with self._sessions.begin() as db:  # waits for the lock, and nobody waits with it
            [opened] = await _arm(db, [ask])
        if isinstance(opened, Unreadable):
            raise opened
        return opened

    async def _arm_together(self, asks: Sequence[OpenReminder]) -> Sequence[OpenedReminder | Unreadable]:
        """Share a transaction, which costs more than what it does for each."""
        async with self._sessions.begin() as db:
            await wait_briefly_for_locks(db)
            return await _arm(db, asks)

    async def _open_due(self, ask: OpenReminder) -> OpenedReminder:
        async with self._sessions.begin() as db:
            read = await fasting_sessions.read_with_phones(db, [ask.session_id])
            reminder, fast = _checked(ask, read), read.get(ask.session_id)
            if isinstance(reminder, Unreadable):
                raise reminder
            if fast is None:
                return OpenedReminder(withheld="session_missing")
            user_id, devices = fast.session.user_id, fast.devices
            message = message_id(ask.session_id, ask.minutes, ask.due_at)
            about = About(Kind.REMINDER, ask.session_id, message, ask.minutes)
            if isinstance(reminder, str):  # an earlier opening whose result was lost may have planned
                left = [send.task_id for send in await push_tasks.pending_of(db, message)]
                await push_tasks.close(db, left, TaskState.WITHDRAWN, reminder)
                await withheld_pushes.note(db, about, {(user_id, None): reminder})
                return OpenedReminder(withheld=reminder)
            due = messages.ReminderMessage(message, ask.session_id, user_id, reminder.minutes)
            await messages.enter_reminders(db, [due])
            is_over = reminder.expires_at <= await present_instant(db)
            if is_over:  # recorded for the phones that missed it, not for later ones
                devices = await device_tokens.active_since(db, user_id, reminder.due_at)
            withheld_from = _withheld_from(devices, fast.preferences, reminder)
            reasons: dict[Whom, str] = {(user_id, each.installation_id): "quiet_hours" for each in withheld_from}
            if not devices:
                reasons[user_id, None] = "no_active_token"
            if reasons:
                await withheld_pushes.note(db, about, reasons)
            devices = [each for each in devices if each not in withheld_from]
            [sends] = await push_tasks.plan_and_list(db, [(_due_message(ask, reminder), devices)])
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


async def _arm(db: AsyncSession, asks: Sequence[OpenReminder]) -> list[OpenedReminder | Unreadable]:
    """Plan reminders that are nearly due: nobody may see anything of them yet."""
    read = await fasting_sessions.read_with_phones(db, {ask.session_id for ask in asks})
    checked = [_checked(ask, read) for ask in asks]
    plans = [
        (_due_message(ask, each), fast.devices)
        for ask, each in zip(asks, checked, strict=True)
        if isinstance(each, Reminder) and (fast := read[ask.session_id]) is not None
    ]
    planned = iter(await push_tasks.plan_and_list(db, plans) if plans else ())
    opened: list[OpenedReminder | Unreadable] = []
    for each in checked:
        match each:
            case Reminder():
                opened.append(OpenedReminder(tuple(next(planned)), ends_briefly=True))
            case str():
                opened.append(OpenedReminder(withheld=each))
            case Unreadable():
                opened.append(each)
    return opened


def _checked(ask: OpenReminder, read: Mapping[UUID, FastWithPhones | None]) -> Reminder | str | Unreadable:
    """Give the reminder if it may be sent to some phone, and else why not."""
    if ask.session_id not in read:
        return "session_missing"
    fast = read[ask.session_id]
    if fast is None:
        return Unreadable("fasting session")
    zones = [device.time_zone for device in fast.devices]
    reason = withheld(fast.session, ask.minutes, ask.due_at, fast.preferences, zones)
    return reason or _find(fast.session, ask.minutes, ask.due_at) or "goal_moved"


def _withheld_from(devices: Sequence[DeviceToken], preferred: Preferences, reminder: Reminder) -> list[DeviceToken]:
    """Find the phones that are in quiet hours; before the due instant the check of each push decides."""
    return [each for each in devices if unwanted(Kind.REMINDER, preferred, reminder.due_at, each.time_zone)]


def _find(session: FastingSession, minutes: int, due_at: datetime) -> Reminder | None:
    matching = (reminder for reminder in reminders(session) if (reminder.minutes, reminder.due_at) == (minutes, due_at))
    return next(matching, None)


def _due_message(ask: OpenReminder, reminder: Reminder) -> push_tasks.DueMessage:
    return push_tasks.DueMessage(
        message_id=message_id(ask.session_id, ask.minutes, ask.due_at),
        kind=Kind.REMINDER,
        conversation_id=ask.session_id,
        reminder_minutes=reminder.minutes,
        collapse_key=RULES[Kind.REMINDER].collapse_key(ask.session_id),
        due_at=reminder.due_at,
        expires_at=reminder.expires_at,
    )
