"""One push: where it stands, its provider calls, what people did to it; and its redrive."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.console.door import PATH, Signed
from api.console.means import Means
from api.console.rendering import page
from api.dependencies import Database
from db import dead_tasks, push_tasks, redrives
from domain.housekeeping import senders
from domain.problems import NotFound

router = APIRouter(prefix="/push/{task_id}")


@router.get("")
async def show(task_id: UUID, request: Request, visitor: Signed, sessions: Database, means: Means) -> Response:
    """Show it."""
    async with sessions() as db:
        found = await dead_tasks.whole(db, task_id)
        late_from = await push_tasks.late_from_of(db, task_id)
    if found is None or late_from is None:
        raise NotFound("push task")
    task = found.task
    names = senders(task.kind, task.task_id, task.conversation_id, task.message_id)
    workflows = [(name, means.workflow_page(name)) for name in names]
    return page(request, "push", visitor, whole=found, task=task, late_from=late_from, workflows=workflows)


@router.post("/redrive")
async def redrive(task_id: UUID, visitor: Signed, sessions: Database) -> Response:
    """Redrive it, with all checks again."""
    async with sessions.begin() as db:
        await redrives.redrive(db, task_id, visitor.user_id)
    return RedirectResponse(f"{PATH}/push/{task_id}", 303)
