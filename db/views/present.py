"""The present state of a person's pushes: one line for each unsettled one, with what it waits for."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import device_tokens, fasting_sessions, last_check, preferences, push_attempts, workers
from db.engine import among, present_instant
from db.models.people import DeviceToken, LogItemRow, MessageRow
from db.models.pushes import OutboxRow, PushTask
from db.push_tasks import planned
from db.views import devices as device_history
from db.views import gates
from db.views import standings as reminder_standings
from db.views.gates import ShownGates, ShownRoute
from db.views.standings import ReminderStanding
from domain.devices import SHOWS_NOTHING, ReportedPermission
from domain.fasts import LONGEST_FAST, ReminderState
from domain.kinds import RULES, Kind
from domain.last_check import unwanted_everywhere
from domain.messages import LONGEST_GRACE
from domain.preferences import Preferences
from domain.push import Environment, Provider, Route, TaskState
from domain.sentences import NO_PHONE_SHOWS
from domain.timeline import (
    MAX_PRESENT,
    Cutoff,
    Event,
    Happening,
    RouteNow,
    TimelineItem,
    TimelinePart,
    Unsettled,
    WaitsFor,
    next_try,
    waits_for,
)
from domain.timeline_words import in_words, now_quiet, shows

_LATEST_MESSAGES = 100  # of a person's log, whose delivery may not be decided yet


@dataclass(frozen=True, slots=True)
class _Push:
    """An unsettled push, planned or not."""

    kind: Kind
    conversation_id: UUID
    message_id: UUID
    due_at: datetime
    expires_at: datetime
    reminder_minutes: int | None = None
    refused: str | None = None
    task: PushTask | None = None  # None: not planned yet
    device: DeviceToken | None = None  # its phone, if it is not planned yet and routes differ


@dataclass(frozen=True, slots=True)
class _World:
    """What is true of all pushes at this moment."""

    now: datetime
    routes: ShownGates
    workers: int
    temporal_answers: bool
    preferred: Preferences
    devices: Sequence[DeviceToken]
    permissions: Mapping[tuple[str, UUID], ReportedPermission]
    undispatched: Mapping[UUID, datetime]  # since when a dispatch of these subjects has been waiting
    calls: Mapping[UUID, push_attempts.Begun]
    showing_life: Collection[UUID]  # workers


_NO_NEXT = {WaitsFor.CHECK, WaitsFor.RESUME, WaitsFor.REDRIVE, WaitsFor.WORKER, WaitsFor.TEMPORAL}


async def of_user(db: AsyncSession, user_id: str, part: TimelinePart) -> list[TimelineItem]:
    """List a user's unsettled pushes, the longest due first, at most MAX_PRESENT.

    The statements have to read one moment: call `engine.as_of_one_moment` first.
    """
    now = await present_instant(db)
    preferred = await preferences.of_user(db, user_id)
    devices = await device_tokens.active_for_user(db, user_id)
    pushes = await _planned(db, user_id, part, now)
    pushes += await _reminders(db, user_id, part, preferred, devices, now)
    pushes += await _messages(db, user_id, part, preferred, devices, now)
    if not pushes:
        return []
    pushes = sorted(pushes, key=lambda push: (push.due_at, push.message_id))[:MAX_PRESENT]
    living = await workers.live(db)
    world = _World(
        now=now,
        routes=await gates.shown(db),
        workers=len(living),
        temporal_answers=not living or any(each.gates.get("temporal_answers", True) for each in living),
        preferred=preferred,
        devices=devices,
        permissions=await device_history.permissions(db, {(user_id, each.installation_id) for each in devices}),
        undispatched=await _undispatched(db, pushes),
        calls=await push_attempts.under_way(db, [push.task.task_id for push in pushes if push.task]),
        showing_life=await workers.showing_life(db),
    )
    each = [one for push in pushes for one in _by_phone(push, world)]
    return [_item(push, world) for push in each[:MAX_PRESENT]]


async def _planned(db: AsyncSession, user_id: str, part: TimelinePart, now: datetime) -> list[_Push]:
    """Find pending pushes, and dead ones that can be redriven now or once their route is resumed."""
    redrivable = and_(PushTask.state == TaskState.DEAD, PushTask.expires_at > now)
    query = select(PushTask).where(
        PushTask.user_id == user_id, or_(PushTask.state == TaskState.PENDING, redrivable), *_of_part(part)
    )
    tasks = (await db.scalars(query.order_by(PushTask.due_at, PushTask.task_id).limit(MAX_PRESENT))).all()
    refused = await last_check.refusals(db, tasks)
    pushes = []
    for task in tasks:
        reason = refused.get(task.task_id)
        if planned(task) is None:
            continue  # of a newer release; this one has no words for it
        if task.state == TaskState.DEAD and reason not in {None, "brake_engaged"}:
            continue  # it stays dead
        pushes.append(
            _Push(
                kind=Kind(task.kind),
                conversation_id=task.conversation_id,
                message_id=task.message_id,
                due_at=task.due_at,
                expires_at=task.expires_at,
                reminder_minutes=task.reminder_minutes,
                refused=None if reason in {"brake_engaged", "expired"} else reason,
                task=task,
            )
        )
    return pushes


def _of_part(part: TimelinePart) -> Iterable[ColumnElement[bool]]:
    if part.session_id is not None:
        yield PushTask.conversation_id == part.session_id
    if part.message_id is not None:
        yield PushTask.message_id == part.message_id


async def _reminders(
    db: AsyncSession,
    user_id: str,
    part: TimelinePart,
    preferred: Preferences,
    devices: Collection[DeviceToken],
    now: datetime,
) -> list[_Push]:
    """Find the reminders that are scheduled or due, and have no planned push."""
    around = await fasting_sessions.ending(db, user_id, now, now + LONGEST_FAST)
    sessions = [session for session in around if part.session_id in {None, session.session_id}]
    standings = (await reminder_standings.of_sessions(db, sessions)).values() if sessions else ()

    zones = [device.time_zone for device in devices]

    def refused(each: ReminderStanding) -> str | None:
        reason = unwanted_everywhere(Kind.REMINDER, preferred, each.reminder.due_at, zones)
        return reason or (None if devices else "no_active_token")

    return [
        _Push(
            kind=Kind.REMINDER,
            conversation_id=each.session_id,
            message_id=each.message_id,
            due_at=each.reminder.due_at,
            expires_at=each.reminder.expires_at,
            reminder_minutes=each.reminder.minutes,
            refused=refused(each),
        )
        for of_one in standings
        for each in of_one
        if each.state in {ReminderState.SCHEDULED, ReminderState.DUE} and not each.record.tasks
        if part.message_id in {None, each.message_id}
    ]


async def _messages(
    db: AsyncSession,
    user_id: str,
    part: TimelinePart,
    preferred: Preferences,
    devices: Collection[DeviceToken],
    now: datetime,
) -> list[_Push]:
    """Find the latest messages in a user's log whose delivery is not decided yet."""
    useful_for = RULES[Kind.MESSAGE].useful_for
    assert useful_for is not None
    if part.session_id is not None:
        return []
    latest = (
        select(LogItemRow.message_id)
        .where(LogItemRow.user_id == user_id)
        .order_by(LogItemRow.seq.desc())
        .limit(_LATEST_MESSAGES)
        .subquery()
    )
    query = (
        select(MessageRow.id, MessageRow.conversation_id, MessageRow.created_at)
        .join(latest, latest.c.message_id == MessageRow.id)
        .where(MessageRow.kind == Kind.MESSAGE, MessageRow.handed_off_at.is_(None), MessageRow.sender_id != user_id)
        .where(MessageRow.created_at > now - useful_for)
        .where(~select(PushTask).where(PushTask.message_id == MessageRow.id, PushTask.user_id == user_id).exists())
    )
    reason = unwanted_everywhere(Kind.MESSAGE, preferred, now, [device.time_zone for device in devices])
    refused = reason or (None if devices else "no_active_token")
    return [
        _Push(Kind.MESSAGE, row.conversation_id, row.id, row.created_at, row.created_at + useful_for, refused=refused)
        for row in await db.execute(query)
        if part.message_id in {None, row.id}
    ]


async def _undispatched(db: AsyncSession, pushes: Collection[_Push]) -> dict[UUID, datetime]:
    subjects = {push.conversation_id for push in pushes} | {push.message_id for push in pushes}
    subjects |= {push.task.task_id for push in pushes if push.task}
    query = select(OutboxRow.subject_id, func.min(OutboxRow.created_at)).where(among(OutboxRow.subject_id, subjects))
    return {row[0]: row[1] for row in await db.execute(query.group_by(OutboxRow.subject_id))}


def _by_phone(push: _Push, world: _World) -> list[_Push]:
    """Split what is not planned yet by phone if their routes differ, since one may be paused and another not."""
    if push.task is not None or len({_worst(world, {_route(device)})[1] for device in world.devices}) < 2:
        return [push]
    return [replace(push, device=device) for device in world.devices]


def _item(push: _Push, world: _World) -> TimelineItem:
    task, devices = push.task, world.devices if push.device is None else [push.device]
    provider, route = _worst(world, {_route(task)} if task else {_route(device) for device in devices})
    call = None if task is None else world.calls.get(task.task_id)
    subjects = {push.conversation_id, push.message_id} | ({task.task_id} if task else set())
    unsettled = Unsettled(
        now=world.now,
        due_at=push.due_at + (LONGEST_GRACE if task is None and push.kind is Kind.MESSAGE else timedelta()),
        expires_at=push.expires_at,
        next_attempt_at=None if task is None else task.next_attempt_at,
        last_reason=None if task is None else task.last_reason,
        is_dead=task is not None and task.state == TaskState.DEAD,
        refused=push.refused,
        call_since=None if call is None else call.started_at,
        owed_since=min((world.undispatched[each] for each in subjects if each in world.undispatched), default=None),
        workers=world.workers,
        temporal_answers=world.temporal_answers,
        route=route,
        holder_is_lost=task is not None and task.held_by is not None and task.held_by not in world.showing_life,
    )
    return _described(push, unsettled, provider, world)


def _shows(push: _Push, world: _World) -> str:
    """Say what the phones will do with a push, by the last reports of their apps."""
    phone = push.task or push.device
    if phone is not None:
        return shows(world.permissions.get((phone.user_id, phone.installation_id)))
    reported = [world.permissions.get((each.user_id, each.installation_id)) for each in world.devices]
    is_for_none = reported and all(each is not None and each.permission in SHOWS_NOTHING for each in reported)
    return NO_PHONE_SHOWS if is_for_none else ""


def _described(push: _Push, unsettled: Unsettled, provider: Provider | None, world: _World) -> TimelineItem:
    waits, task = waits_for(unsettled), push.task
    reason = _reason(waits, unsettled)
    detail = _detail(waits, push, unsettled)
    phone = task or push.device
    installation_id = None if phone is None else phone.installation_id
    happening = Happening(
        Event.WAITS, push.kind, provider, installation_id, push.reminder_minutes, reason, detail, unsettled.now
    )
    is_quiet = waits is WaitsFor.CHECK and push.refused == "quiet_hours"
    is_reminder = push.kind is Kind.REMINDER
    shown = "" if waits in {WaitsFor.CHECK, WaitsFor.EXPIRY} else _shows(push, world)
    return TimelineItem(
        id=uuid5(push.message_id, f"waits/{installation_id}"),
        at=unsettled.now,
        event=Event.WAITS,
        text=in_words(happening) + (now_quiet(world.preferred.quiet_hours) if is_quiet else "") + shown,
        session_id=push.conversation_id if is_reminder else None,
        conversation_id=push.conversation_id if push.kind is Kind.MESSAGE else None,
        message_id=push.message_id,
        task_id=None if task is None else task.task_id,
        installation_id=installation_id,
        provider=None if phone is None else provider,
        reason=reason,
        detail=detail,
    )


def _reason(waits: WaitsFor, push: Unsettled) -> str | None:
    match waits:
        case WaitsFor.CHECK:
            return push.refused
        case WaitsFor.RESUME:
            return "brake_engaged"
        case WaitsFor.ROUTE:
            return push.route.reason
        case WaitsFor.REDRIVE | WaitsFor.RETRY:
            return push.last_reason
        case _:
            return None


def _detail(waits: WaitsFor, push: _Push, unsettled: Unsettled) -> dict[str, Any]:
    """Give the detail as JSON."""
    cutoff = unsettled.route.cutoff if waits is WaitsFor.RESUME else None
    instants = {
        "due_at": push.due_at,
        "expires_at": push.expires_at,
        "next_attempt_at": None if waits in _NO_NEXT else next_try(unsettled),
        "call_since": unsettled.call_since,
        "owed_since": unsettled.owed_since if waits is WaitsFor.TEMPORAL else None,
        "route_until": unsettled.route.until if waits is WaitsFor.ROUTE else None,
        "engaged_at": cutoff and cutoff.engaged_at,
    }
    detail: dict[str, Any] = {name: at and at.isoformat() for name, at in instants.items()}
    detail |= {"waits_for": waits.value, "is_dead": unsettled.is_dead, "refused": push.refused}
    if cutoff is not None:
        detail |= {"brake_id": cutoff.brake_id, "token_errors": cutoff.token_errors, "answers": cutoff.answers}
        detail["cutoff_reason"] = cutoff.reason
    return detail


def _route(of: PushTask | DeviceToken) -> Route:
    return Route(Provider(of.provider), of.app_id, Environment(of.environment))


def _worst(world: _World, wanted: Collection[Route]) -> tuple[Provider | None, RouteNow]:
    """Give the worst state of these routes, and its provider; a cutoff is worse than a breaker."""
    known = {Route(each.provider, each.app_id, each.environment): each for each in world.routes.items}
    states = []
    for route in wanted:
        serving = known.get(route) or known.get(Route(route.provider, None, route.environment))
        states.append((route.provider, RouteNow() if serving is None else _stands(serving, world.now)))
    return max(states, key=lambda each: (each[1].cutoff is not None, each[1].reason or ""), default=(None, RouteNow()))


def _stands(route: ShownRoute, now: datetime) -> RouteNow:
    """Give the state of a route: calls pass as long as one worker lets them.

    A pause that is over counts as none, even before its worker reports that: one call is tried. A limiter that is still
    reported as stopped counts as open once a person has resumed the route.
    """
    if (engaged := route.brake) is not None:
        cutoff = Cutoff(str(engaged.id), engaged.engaged_at, engaged.token_errors, engaged.answers, engaged.reason)
        return RouteNow(cutoff)
    shut = [gate for gate in route.workers if gate.state not in {"closed", "braked"}]
    if not shut or len(shut) < len(route.workers):
        return RouteNow()
    untils = [gate.until for gate in shut if gate.until is not None and gate.until > now]
    return RouteNow(reason=shut[0].reason or "paused", until=min(untils) if len(untils) == len(shut) else None)
