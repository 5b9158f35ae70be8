"""Push tasks, as the phone sees them: the user tapped one."""

from uuid import UUID

from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import RowWrites, UserCaller
from api.http.problem_types import responses
from db import push_tasks
from domain.problems import NotFound

user_router = APIRouter(prefix="/push-tasks", tags=["push tasks"])


@user_router.post("/{task_id}/opened", status_code=204, responses=responses("not-found", "being-erased"))
async def mark_push_opened(task_id: UUID, caller: UserCaller, writes: RowWrites) -> Response:
    """Record that the user tapped the notification. The first time counts."""

    async def note(db: AsyncSession) -> bool:
        return await push_tasks.mark_opened(db, caller.user_id, task_id)

    if not await writes.run(note, f"push-task/{task_id}"):
        raise NotFound("push task")
    return Response(status_code=204)
