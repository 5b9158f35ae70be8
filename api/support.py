"""Support: a user's timeline, devices and fasts; push tasks and their redrive; routes, cutoffs, analytics.

A user id is any text, so it comes percent-encoded, and a slash is part of it: `{user_id:path}`. No token may name an
id with a line break, so such an id gets 404.
"""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Security
from pydantic import AfterValidator, Field, StrictBool
from sqlalchemy.ext.asyncio import AsyncSession

from api.acting import UserIdInPath
from api.dependencies import Cursor, Database, Limit, Paged, RowWrites, Supporter, cut, page_at, supporter
from api.fasting_sessions import SessionList, list_of
from api.fields import Body, Instant, printable
from api.http.problem_types import responses
from db.engine import as_of_one_moment
from db.views import analytics, dead_tasks, gates, present, timeline
from db.views import devices as device_history
from db.views.analytics import MAX_DAYS, Analytics, AnalyticsQuery
from db.views.dead_tasks import PushTaskFilter, ShownTask, WholeTask, check_filter
from db.views.devices import ShownDevice
from db.views.gates import ShownBrake, ShownGates
from domain.kinds import Kind
from domain.problems import NotFound
from domain.push import APP_ID, LONGEST_APP_ID, Environment, Provider, TaskState
from domain.timeline import TimelineItem, TimelinePart
from operations import redrive as redrives
from operations.redrive import MAX_AT_ONCE, Redriven
from operations.redrive import resume as resume_route

router = APIRouter(prefix="/v1/support", tags=["support"], dependencies=[Security(supporter, scopes=["support"])])


class TimelineIn(Body):
    """Which part of a timeline to read."""

    session_id: Annotated[UUID | None, Field(description="Only this fasting session and its reminders.")] = None
    message_id: UUID | None = None
    at_from: Annotated[Instant | None, Field(alias="from")] = None
    at_to: Annotated[Instant | None, Field(alias="to", description="Exclusive.")] = None
    cursor: Cursor = None
    limit: Limit = 50


@dataclass(frozen=True, slots=True)
class Timeline:
    """A page of a timeline, the latest first.

    `present` is filled on the first page: one item for each push that is not settled, with what it waits for.
    """

    present: list[TimelineItem]
    items: list[TimelineItem]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class DeviceList:
    """A page of device tokens with their history, the last seen first."""

    items: list[ShownDevice]
    next_cursor: str | None


@router.get("/users/{user_id:path}/timeline", responses=responses("not-allowed", "not-found"))
async def show_timeline_of_user(
    user_id: UserIdInPath, query: Annotated[TimelineIn, Query()], sessions: Database
) -> Timeline:
    """Show what a user's pushes wait for now, and what was decided about them and why, as far back as it is kept."""
    part = TimelinePart(**query.model_dump(exclude={"cursor", "limit"}))
    page = page_at(query.cursor, query.limit)
    async with sessions() as db:
        await as_of_one_moment(db)
        now = [] if page.after else await present.of_user(db, user_id, part)
        found = await timeline.of_user(db, user_id, part, page.after, page.limit + 1)
    return Timeline(now, *cut(found, page.limit, lambda each: (each.at, each.id)))


@router.get("/users/{user_id:path}/devices", responses=responses("not-allowed", "not-found"))
async def list_devices_of_user(user_id: UserIdInPath, sessions: Database, page: Paged) -> DeviceList:
    """List a user's device tokens, each with its history."""
    async with sessions() as db:
        found = await device_history.of_user(db, user_id, page.after, page.limit + 1)
    return DeviceList(*cut(found, page.limit, lambda each: (each.last_seen_at, each.id)))


@router.get("/users/{user_id:path}/fasting-sessions", responses=responses("not-allowed", "not-found"))
async def list_fasts_of_user(user_id: UserIdInPath, sessions: Database, page: Paged) -> SessionList:
    """List a user's fasting sessions."""
    return await list_of(user_id, sessions, page)


Words = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]


class FilterIn(Body):
    """Which push tasks to select. A field that is left out matches any."""

    provider: Provider | None = None
    app_id: Words | None = None
    environment: Environment | None = None
    kind: Kind | None = None
    reason: Annotated[Words | None, Field(description="`last_reason`, an exact match.")] = None
    user_id: Words | None = None
    conversation_id: UUID | None = None
    message_id: UUID | None = None
    due_from: Instant | None = None
    due_to: Annotated[Instant | None, Field(description="Exclusive.")] = None


class ListIn(FilterIn):
    """Which push tasks to list."""

    state: Annotated[
        TaskState, Field(description="A state other than `dead` needs `user_id`, `conversation_id` or `message_id`.")
    ] = TaskState.DEAD
    cursor: Cursor = None
    limit: Limit = 50


class RedriveIn(FilterIn):
    """Which dead push tasks to redrive."""

    limit: Annotated[int, Field(strict=True, ge=1, le=MAX_AT_ONCE, description="At most this many are redriven.")]
    dry_run: Annotated[StrictBool, Field(description="Only show what would happen.")] = False


@dataclass(frozen=True, slots=True)
class ShownTaskList:
    """A page of push tasks, the latest due first."""

    items: list[ShownTask]
    next_cursor: str | None


@router.get("/push-tasks", responses=responses("not-allowed"))
async def list_push_tasks(query: Annotated[ListIn, Query()], sessions: Database) -> ShownTaskList:
    """List push tasks, by default the dead ones."""
    wanted = PushTaskFilter(**query.model_dump(exclude={"cursor", "limit"}))
    page = page_at(query.cursor, query.limit)
    check_filter(wanted)
    async with sessions() as db:
        found = await dead_tasks.matching(db, wanted, page.after, page.limit + 1)
    return ShownTaskList(*cut(found, page.limit, lambda each: (each.due_at, each.task_id)))


@router.post("/push-tasks/redrive", responses=responses("not-allowed", "being-erased"))
async def redrive_push_tasks(body: RedriveIn, caller: Supporter, sessions: Database) -> Redriven:
    """Redrive dead push tasks by filter, the latest due first. A push that may not be sent any more stays dead."""
    wanted = PushTaskFilter(**body.model_dump(exclude={"limit", "dry_run"}))
    mode = redrives.RedriveMode.REHEARSAL if body.dry_run else redrives.RedriveMode.REAL
    return await redrives.redrive_matching(sessions, wanted, body.limit, caller.actor, mode)


@router.get(
    "/push-tasks/{task_id:uuid}", responses=responses("not-allowed", "not-found")
)  # so that `redrive` is not read as an id
async def show_push_task(task_id: UUID, sessions: Database) -> WholeTask:
    """Show a push task with its attempts, the actions of operators, and whether it can be redriven."""
    async with sessions() as db:
        found = await dead_tasks.whole(db, task_id)
    if found is None:
        raise NotFound("push task")
    return found


@router.post(
    "/push-tasks/{task_id}/redrive",
    status_code=202,
    responses=responses("not-allowed", "not-found", "push-not-dead", "redrive-refused", "being-erased"),
)
async def redrive_push_task(task_id: UUID, caller: Supporter, sessions: Database, writes: RowWrites) -> WholeTask:
    """Redrive a dead push task. 409 if it is not dead or may not be sent any more; `reason` says why."""

    async def accept(db: AsyncSession) -> None:
        await redrives.redrive(db, task_id, caller.actor)

    await writes.run(accept, f"push-task/{task_id}")
    async with sessions() as db:
        found = await dead_tasks.whole(db, task_id)
    assert found is not None
    return found


@router.get("/gates", responses=responses("not-allowed"))
async def list_gates(sessions: Database) -> ShownGates:
    """List the routes, their limiters in all live workers, their cutoffs, and unknown reasons of providers."""
    async with sessions() as db:
        return await gates.shown(db)


@router.post(
    "/brakes/{brake_id}/resume", responses=responses("not-allowed", "not-found", "brake-resumed", "being-erased")
)
async def resume_brake(brake_id: UUID, caller: Supporter, writes: RowWrites) -> ShownBrake:
    """End a token-error cutoff: its route sends again, and tokens that fail are deactivated again."""

    async def end_cutoff(db: AsyncSession) -> ShownBrake:
        return await resume_route(db, brake_id, caller.actor)

    return await writes.run(end_cutoff, f"brake/{brake_id}")


class AnalyticsIn(Body):
    """Which pushes to count. A field that is left out matches any."""

    days: Annotated[int, Field(ge=1, le=MAX_DAYS, description="UTC days, up to today.")] = 7
    kind: Kind | None = None
    provider: Provider | None = None
    app_id: Annotated[str | None, Field(max_length=LONGEST_APP_ID, pattern=APP_ID)] = None


@router.get("/analytics", responses=responses("not-allowed"))
async def count_pushes(query: Annotated[AnalyticsIn, Query()], sessions: Database) -> Analytics:
    """Count pushes by the day they were due, by kind, provider and app."""
    return await analytics.by_day(sessions, AnalyticsQuery(**query.model_dump()))
