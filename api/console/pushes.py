"""Pushes: one of them, those that are dead, and their redrive, by filter once a dry run was seen."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.console.rendering import page
from api.console.session import PATH, Console, Signed
from api.dependencies import Database, next_cursor, page_at
from api.support.push_tasks import FilterIn
from db import push_tasks
from db.views import dead_tasks
from domain.housekeeping import owning_workflow_ids
from domain.kinds import Kind
from domain.problems import InvalidField, NotFound
from domain.push import Environment, Provider
from domain.support import MAX_AT_ONCE, Wanted
from operations import redrive as redrives
from operations.redrive import RedriveMode

router = APIRouter()


_ITEMS = 50

_SELDOM = {"app_id", "environment", "conversation_id", "message_id", "due_from", "due_to"}  # folded away

_USUALLY = 1000  # redriven at once

_LONGEST_LIMIT = 20  # digits; int() refuses thousands of them

_CHOICES: dict[str, Any] = {"kinds": list(Kind), "providers": list(Provider), "environments": list(Environment)}


@router.get("/dead")
async def listing(request: Request, operator: Signed, sessions: Database) -> Response:
    """List them, the latest due first."""
    asked = _asked(request)
    after = page_at(asked.pop("cursor", None), _ITEMS).after
    async with sessions() as db:
        found = await dead_tasks.matching(db, _wanted(asked), after, _ITEMS + 1)
    shown = found[:_ITEMS]
    following = None
    if len(found) > len(shown):
        following = urlencode(asked | {"cursor": next_cursor(shown[-1].due_at, shown[-1].task_id)})
    return page(
        request,
        "dead",
        operator,
        tasks=shown,
        asked=asked,
        query=urlencode(asked),
        next=following,
        is_first=after is None,
        narrow=not _SELDOM.isdisjoint(asked),
        **_CHOICES,
    )


@router.get("/dead/redrive")
async def rehearse(request: Request, operator: Signed, sessions: Database) -> Response:
    """Tell what a redrive by this filter would come to, and ask whether it is meant."""
    asked = _asked(request)
    limit = _limit(asked.pop("limit", None))
    would = await redrives.redrive_matching(sessions, _wanted(asked), limit, operator.user_id, RedriveMode.REHEARSAL)
    return page(
        request, "redrive", operator, asked=asked, query=urlencode(asked), limit=limit, came_to=would, done=False
    )


@router.post("/dead/redrive")
async def redrive(request: Request, operator: Signed, sessions: Database) -> Response:
    """Redrive by filter, and tell what it came to."""
    asked = {name: value for name, value in operator.form.items() if value and name != "csrf_token"}
    limit = _limit(asked.pop("limit", None))
    came_to = await redrives.redrive_matching(sessions, _wanted(asked), limit, operator.user_id, RedriveMode.REAL)
    return page(
        request, "redrive", operator, asked=asked, query=urlencode(asked), limit=limit, came_to=came_to, done=True
    )


def _asked(request: Request) -> dict[str, str]:
    """Read the filter's fields, without those that were left empty."""
    return {name: value.strip() for name, value in request.query_params.items() if value.strip()}


def _wanted(asked: dict[str, str]) -> Wanted:
    return Wanted(**FilterIn.model_validate(asked).model_dump())


def _limit(text: str | None) -> int:
    if text is None:
        return _USUALLY
    if not text.isdecimal() or len(text) > _LONGEST_LIMIT or not 1 <= int(text) <= MAX_AT_ONCE:
        raise InvalidField("limit", f"At most: a number from 1 to {MAX_AT_ONCE}.")
    return int(text)


@router.get("/push/{task_id}")
async def show_push(
    task_id: UUID, request: Request, operator: Signed, sessions: Database, console: Console
) -> Response:
    """Show it."""
    async with sessions() as db:
        found = await dead_tasks.whole(db, task_id)
        late_from = await push_tasks.late_from_of(db, task_id)
    if found is None or late_from is None:
        raise NotFound("push task")
    task = found.task
    names = owning_workflow_ids(task.kind, task.task_id, task.conversation_id, task.message_id)
    workflows = [(name, console.workflow_page(name)) for name in names]
    return page(request, "push", operator, whole=found, task=task, late_from=late_from, workflows=workflows)


@router.post("/push/{task_id}/redrive")
async def redrive_push(task_id: UUID, operator: Signed, sessions: Database) -> Response:
    """Redrive it, with all checks again."""
    async with sessions.begin() as db:
        await redrives.redrive(db, task_id, operator.user_id)
    return RedirectResponse(f"{PATH}/push/{task_id}", 303)
