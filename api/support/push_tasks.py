"""Push tasks for support: list, show, redrive."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field, StrictBool
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Cursor, Database, Limit, RowWrites, Supporter, cut, page_at
from api.fields import Body, Instant, printable
from api.http.problem_types import responses
from db.views import dead_tasks
from db.views.dead_tasks import PushTaskFilter, ShownTask, WholeTask, check_filter
from domain.kinds import Kind
from domain.problems import NotFound
from domain.push import Environment, Provider, TaskState
from operations import redrive as redrives
from operations.redrive import MAX_AT_ONCE, Redriven

router = APIRouter(prefix="/push-tasks")
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


@router.get("", responses=responses("not-allowed"))
async def list_push_tasks(query: Annotated[ListIn, Query()], sessions: Database) -> ShownTaskList:
    """List push tasks, by default the dead ones."""
    wanted = PushTaskFilter(**query.model_dump(exclude={"cursor", "limit"}))
    page = page_at(query.cursor, query.limit)
    check_filter(wanted)
    async with sessions() as db:
        found = await dead_tasks.matching(db, wanted, page.after, page.limit + 1)
    return ShownTaskList(*cut(found, page.limit, lambda each: (each.due_at, each.task_id)))


@router.post("/redrive", responses=responses("not-allowed", "being-erased"))
async def redrive_push_tasks(body: RedriveIn, caller: Supporter, sessions: Database) -> Redriven:
    """Redrive dead push tasks by filter, the latest due first. A push that may not be sent any more stays dead."""
    wanted = PushTaskFilter(**body.model_dump(exclude={"limit", "dry_run"}))
    mode = redrives.RedriveMode.REHEARSAL if body.dry_run else redrives.RedriveMode.REAL
    return await redrives.redrive_matching(sessions, wanted, body.limit, caller.actor, mode)


@router.get(
    "/{task_id:uuid}", responses=responses("not-allowed", "not-found")
)  # so that `redrive` is not read as an id
async def show_push_task(task_id: UUID, sessions: Database) -> WholeTask:
    """Show a push task with its attempts, the actions of operators, and whether it can be redriven."""
    async with sessions() as db:
        found = await dead_tasks.whole(db, task_id)
    if found is None:
        raise NotFound("push task")
    return found


@router.post(
    "/{task_id}/redrive",
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
