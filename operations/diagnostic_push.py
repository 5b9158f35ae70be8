"""Test pushes: push tasks of their own kind, an outbox entry and a support action; one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import device_tokens, outbox, push_tasks, support_actions
from db.engine import hold_names, present_instant
from db.models.people import DeviceToken
from db.models.pushes import PushTask
from db.support_actions import Actor, Deed
from db.views import answer_of
from db.views import devices as device_history
from db.views.dead_tasks import KNOWN, with_token
from domain.devices import InstallationStanding, ReportedPermission
from domain.kinds import RULES, Kind
from domain.problems import Conflict, InvalidField, LimitReached, NotFound
from domain.push import Environment, PlannedSend, Provider, TaskState
from domain.timeline_words import standing_in_words

OUTBOX_KIND = "test_push"
_MINUTE = timedelta(minutes=1)


MAX_PER_MINUTE = 5  # to one person


@dataclass(frozen=True, slots=True)
class TestPushState:
    """A test push: the input of `TestPush`."""

    test_push_id: UUID
    sends: tuple[PlannedSend, ...]
    due_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TestPushRequest:
    """Whom to send a test push, and whether a phone shows it."""

    user_id: str
    installation_id: UUID | None = None  # None: all with an active token
    validate_only: bool = False  # FCM checks the push, no phone shows it


@dataclass(frozen=True, slots=True)
class TestedPhone:
    """The state of a test push on one phone."""

    task_id: UUID
    installation_id: UUID
    provider: Provider
    app_id: str | None
    environment: Environment
    token: str  # its last 6 characters; nothing of a very short one
    state: TaskState
    reason: str | None
    text: str  # the state in words
    attempt_count: int
    next_attempt_at: datetime | None
    accepted_at: datetime | None
    settled_at: datetime | None
    opened_at: datetime | None


@dataclass(frozen=True, slots=True)
class ShownTestPush:
    """The present state of a test push."""

    test_push_id: UUID
    user_id: str
    sent_by: str
    validate_only: bool
    created_at: datetime
    expires_at: datetime
    is_settled: bool  # all pushes are final
    items: list[TestedPhone]
    skipped: list[UUID]  # installations whose provider cannot check without sending (APNs), with `validate_only`
    next_cursor: None = None


async def send(db: AsyncSession, request: TestPushRequest, actor: Actor) -> ShownTestPush:
    """Plan a test push; a worker's sweeper dispatches it once this is committed.

    Raises NotFound (not their installation), Conflict (no active token), InvalidField (nothing to validate),
    LimitReached.
    """
    devices = await _phones(db, request)
    going = [device for device in devices if not request.validate_only or device.provider == Provider.FCM]
    if not going:
        raise InvalidField("validate_only", "Apple cannot check a push without sending it. Leave this out.")
    await _take_turn(db, request.user_id)
    test_push_id, now = uuid4(), await present_instant(db)
    rules = RULES[Kind.TEST]
    assert rules.useful_for is not None
    message = push_tasks.DueMessage(
        message_id=test_push_id,
        kind=Kind.TEST,
        conversation_id=test_push_id,
        reminder_minutes=None,
        collapse_key=rules.collapse_key(test_push_id),
        due_at=now,
        expires_at=now + rules.useful_for,
        validate_only=request.validate_only,
    )
    detail = {
        "user_id": request.user_id,
        "installations": [str(device.installation_id) for device in going],
        "skipped": [str(device.installation_id) for device in devices if device not in going],
        "validate_only": request.validate_only,
    }
    await support_actions.note(db, Deed(actor, "test_push", "test_push"), {test_push_id: detail})  # first: the cause
    await push_tasks.plan(db, message, going)
    await outbox.add_for_sweepers(db, OUTBOX_KIND, [test_push_id])
    planned = await shown(db, test_push_id)
    assert planned is not None
    return planned


async def shown(db: AsyncSession, test_push_id: UUID) -> ShownTestPush | None:
    """Show the state of a test push; None if there is none."""
    query = with_token().where(PushTask.message_id == test_push_id, PushTask.kind == Kind.TEST, *KNOWN)
    rows = (await db.execute(query.order_by(PushTask.provider, PushTask.task_id))).all()
    if not rows:
        return None
    [action] = await support_actions.about(db, test_push_id)
    first: PushTask = rows[0][0]
    unopened = {(task.user_id, task.installation_id) for task, _ in rows if task.opened_at is None}
    reported = {} if first.validate_only else await device_history.permissions(db, unopened)
    return ShownTestPush(
        test_push_id=test_push_id,
        user_id=first.user_id,
        sent_by=action.actor,
        validate_only=first.validate_only,
        created_at=first.created_at,
        expires_at=first.expires_at,
        is_settled=all(task.state != TaskState.PENDING for task, _ in rows),
        items=[_phone(task, token, reported.get((task.user_id, task.installation_id))) for task, token in rows],
        skipped=[UUID(each) for each in action.detail.get("skipped", ())],
    )


async def under_way(db: AsyncSession, test_push_id: UUID) -> TestPushState | None:
    """Read the input of a test push's workflow; None when it is finished."""
    sends = await push_tasks.pending_of(db, test_push_id)
    if not sends:
        return None
    task = await db.get_one(PushTask, sends[0].task_id)
    return TestPushState(test_push_id, tuple(sends), task.due_at, task.expires_at)


async def _phones(db: AsyncSession, request: TestPushRequest) -> Sequence[DeviceToken]:
    """Find the requested active tokens."""
    devices = await device_tokens.active_for_user(db, request.user_id)
    if request.installation_id is None:
        if not devices:
            raise Conflict("no-active-token", "No phone of this person has an active token.", "no_active_token")
        return devices
    named = [device for device in devices if device.installation_id == request.installation_id]
    if not named:
        standing = await device_tokens.standing(db, request.user_id, request.installation_id)
        if standing in {InstallationStanding.UNKNOWN, InstallationStanding.FOREIGN}:
            raise NotFound("installation")
        detail = "This installation has no active token. Somebody has to open the app there, or to sign in."
        raise Conflict("no-active-token", detail, standing)
    return named


async def _take_turn(db: AsyncSession, user_id: str) -> None:
    """Hold off other test pushes to the same person until the commit; raises LimitReached."""
    await hold_names(db, [f"test-push/{user_id}"])
    since = func.statement_timestamp() - _MINUTE
    lately = (
        select(func.min(PushTask.created_at))
        .where(PushTask.user_id == user_id, PushTask.kind == Kind.TEST, PushTask.created_at > since)
        .group_by(PushTask.message_id)
    )
    sent_at = (await db.scalars(lately)).all()
    if len(sent_at) >= MAX_PER_MINUTE:
        raise LimitReached(
            f"This person got {MAX_PER_MINUTE} test pushes within a minute.",
            min(sent_at) + _MINUTE - await present_instant(db),
        )


def _phone(task: PushTask, token: str, reported: ReportedPermission | None) -> TestedPhone:
    state = TaskState(task.state)
    text = standing_in_words(state, task.last_reason, Provider(task.provider), reported)
    return answer_of(TestedPhone, task, token=token, reason=task.last_reason, text=text)
