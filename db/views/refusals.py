"""Refusals: why a redrive of a push task would not go out, by the rules of the last-moment check."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import collapse_groups, conversations, device_tokens, fasting_sessions, preferences, token_error_cutoffs
from db.engine import present_instant
from db.models.people import DeviceToken
from db.models.pushes import PushTask
from db.push_tasks import planned
from domain.kinds import RULES, Kind, Subject
from domain.last_check import AddressedDevice, Circumstances, CollapseGroupTurn, misaddressed, turn_of, useless
from domain.preferences import Preferences
from domain.push import Environment, Provider, Route


async def of(db: AsyncSession, tasks: Sequence[PushTask]) -> dict[UUID, str]:
    """Say of tasks why a redrive would not go out now; those that would go out are left out.

    Nothing is locked: the check at the moment of sending has the last word.
    """
    if not tasks:
        return {}
    now = await present_instant(db)
    found = {task.task_id: "not_understood" for task in tasks if planned(task) is None}
    tasks = [task for task in tasks if task.task_id not in found]
    about_messages = [task for task in tasks if RULES[Kind(task.kind)].subject is Subject.MESSAGE]
    members = await conversations.members_among(db, {_membership(task) for task in about_messages})
    lines = await collapse_groups.seen(db, [task.task_id for task in about_messages], timedelta(0))
    sessions = await fasting_sessions.by_id(db, {task.conversation_id for task in tasks})
    devices = await device_tokens.active_at(db, {task.installation_id for task in tasks})
    wishes = await preferences.of_users(db, {task.user_id for task in tasks})
    braked = await token_error_cutoffs.engaged(db)
    for task in tasks:
        device = devices.get(task.installation_id)
        around = Circumstances(
            session=sessions.get(task.conversation_id),
            is_member=_membership(task) in members,
            is_synced=task.synced_at is not None,
            preferences=wishes.get(task.user_id, Preferences()),
            now=now,
            time_zone=None if device is None else device.time_zone,
        )
        turn = turn_of(lines.get(task.task_id), task.attempt_count)
        reason = (
            ("expired" if task.expires_at <= now else None)
            or useless(Kind(task.kind), task.reminder_minutes, task.due_at, around)
            or misaddressed(_address(task), None if device is None else _address(device))
            or ("superseded" if turn is CollapseGroupTurn.NEVER else None)
            or ("brake_engaged" if _address(task).route in braked else None)
        )
        if reason:
            found[task.task_id] = reason
    return found


def _membership(task: PushTask) -> tuple[UUID, str]:
    return task.conversation_id, task.user_id


def _address(of: PushTask | DeviceToken) -> AddressedDevice:
    return AddressedDevice(of.user_id, Route(Provider(of.provider), of.app_id, Environment(of.environment)))
