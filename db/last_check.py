"""The last check of push tasks: its facts and its rules put together, once for sends and redrives alike."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import (
    collapse_groups,
    conversations,
    device_tokens,
    fasting_sessions,
    messages,
    preferences,
    push_tasks,
    token_error_cutoffs,
)
from db.device_tokens import ActiveToken
from db.engine import present_instant
from db.models.pushes import PushTask
from db.push_tasks import Task
from domain.fasts import FastingSession
from domain.kinds import RULES, Subject
from domain.last_check import (
    AddressedDevice,
    Circumstances,
    CollapseGroupTurn,
    CollapseGroupUse,
    misaddressed,
    turn_of,
    useless,
)
from domain.preferences import Preferences

_UNSET = Preferences()


@dataclass(frozen=True, slots=True)
class PushFacts:
    """The facts about some push tasks, as one transaction has read them."""

    sessions: Mapping[UUID, FastingSession]
    devices: Mapping[UUID, ActiveToken]  # by installation
    bodies: Mapping[UUID, str]  # of messages, by push task
    members: Collection[UUID]  # push tasks whose user belongs to the conversation
    erased: Collection[UUID]  # push tasks whose message has lost its text with its sender
    groups: Mapping[UUID, CollapseGroupUse]  # of pushes about messages, by push task
    preferences: Mapping[str, Preferences]

    def preferences_of(self, task: Task) -> Preferences:
        """Give the preferences of a push's user."""
        return self.preferences.get(task.user_id, _UNSET)

    def time_zone(self, task: Task) -> str | None:
        """Give the time zone of a push's phone, by its last registration."""
        device = self.devices.get(task.installation_id)
        return None if device is None else device.time_zone

    def turn(self, task: Task) -> CollapseGroupTurn:
        """Say when a push may take its place on the screen."""
        return turn_of(self.groups.get(task.task_id), task.attempt_count)

    def unwanted(self, task: Task, now: datetime) -> str | None:
        """Say why a push must no longer be sent, to any phone; None when it may."""
        around = Circumstances(
            session=self.sessions.get(task.conversation_id),
            is_member=task.task_id in self.members,
            is_synced=task.is_synced,
            preferences=self.preferences_of(task),
            now=now,
            time_zone=self.time_zone(task),
            is_erased=task.task_id in self.erased,
        )
        return useless(task.kind, task.reminder_minutes, task.due_at, around)

    def refusal(self, task: Task, now: datetime) -> str | None:
        """Say why a push must not be sent to its phone, by the first rule that forbids it; None when it may."""
        device = self.devices.get(task.installation_id)
        current = None if device is None else AddressedDevice(device.user_id, device.route)
        superseded = "superseded" if self.turn(task) is CollapseGroupTurn.NEVER else None
        return (
            self.unwanted(task, now) or misaddressed(AddressedDevice(task.user_id, task.route), current) or superseded
        )


async def held(db: AsyncSession, tasks: Sequence[Task], call_lasts: timedelta) -> PushFacts:
    """Read the facts about locked push tasks; locks fasts, memberships, tokens and collapse groups until the commit.

    A call that began longer than `call_lasts` ago has lost its worker.
    """
    about_messages = of_messages(tasks)
    sessions = await fasting_sessions.shared(db, {task.conversation_id for task in tasks})
    addressed = await messages.addressed(db, {task.task_id: (task.message_id, task.user_id) for task in about_messages})
    return PushFacts(
        sessions=sessions,
        bodies={task_id: each.body or "" for task_id, each in addressed.items()},
        members={task_id for task_id, each in addressed.items() if each.is_member},
        erased={task_id for task_id, each in addressed.items() if each.body is None},
        groups=await collapse_groups.around(db, about_messages, call_lasts),
        devices=await device_tokens.active_shared(db, {task.installation_id for task in tasks}),
        preferences=await preferences.of_users(db, {task.user_id for task in tasks}),
    )


def of_messages(tasks: Sequence[Task]) -> list[Task]:
    """Choose those of these push tasks that are about messages."""
    return [task for task in tasks if RULES[task.kind].subject is Subject.MESSAGE]


async def refusals(db: AsyncSession, rows: Sequence[PushTask]) -> dict[UUID, str]:
    """Say why push tasks would not be sent now if they were redriven; those that would are left out.

    Locks nothing: the check right before the call has the last word.
    """
    if not rows:
        return {}
    now = await present_instant(db)
    read = {row.task_id: push_tasks.task_of(row) for row in rows}
    tasks = [task for task in read.values() if task is not None]
    facts = await _seen(db, tasks)
    stopped = await token_error_cutoffs.engaged(db)
    reasons = {task_id: "not_understood" for task_id, task in read.items() if task is None}
    for task in tasks:
        reason = "expired" if task.expires_at <= now else facts.refusal(task, now)
        if reason := reason or ("brake_engaged" if task.route in stopped else None):
            reasons[task.task_id] = reason
    return reasons


async def _seen(db: AsyncSession, tasks: Sequence[Task]) -> PushFacts:
    """Read the facts without locks and without texts."""
    about_messages = of_messages(tasks)
    memberships = {task.task_id: (task.conversation_id, task.user_id) for task in about_messages}
    members = await conversations.members_among(db, set(memberships.values()))
    erased = await messages.erased_among(db, {task.message_id for task in about_messages})
    return PushFacts(
        sessions=await fasting_sessions.by_id(db, {task.conversation_id for task in tasks}),
        bodies={},
        members={task_id for task_id, membership in memberships.items() if membership in members},
        erased={task.task_id for task in about_messages if task.message_id in erased},
        groups=await collapse_groups.seen(db, [task.task_id for task in about_messages], timedelta(0)),
        devices=await device_tokens.active_at(db, {task.installation_id for task in tasks}),
        preferences=await preferences.of_users(db, {task.user_id for task in tasks}),
    )
