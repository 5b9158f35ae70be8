"""Pushes: a single one, the dead ones, redrives by filter, which show a dry run first; and how many of each kind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.console import rendering
from api.console.rendering import Column, page
from api.console.session import PATH, Console, Signed
from api.dependencies import Database, cut, page_at
from api.support import AnalyticsIn, FilterIn
from db import push_tasks
from db.views import analytics, dead_tasks
from db.views.analytics import AnalyticsQuery, Tally
from db.views.dead_tasks import PushTaskFilter
from domain.housekeeping import owning_workflow_ids
from domain.kinds import Kind
from domain.problems import InvalidField, NotFound
from domain.push import Environment, Provider
from operations import redrive as redrives
from operations.redrive import MAX_AT_ONCE, RedriveMode

router = APIRouter()
_ITEMS = 50
_RARE = {"app_id", "environment", "conversation_id", "message_id", "due_from", "due_to"}  # folded away
_DEFAULT_LIMIT = 1000
_LONGEST_LIMIT = 20  # digits; int() refuses thousands of them
_CHOICES: dict[str, Any] = {"kinds": list(Kind), "providers": list(Provider), "environments": list(Environment)}
_COUNT_CHOICES: dict[str, Any] = {"kinds": list(Kind), "providers": list(Provider), "spans": (1, 7, 31)}


@router.get("/dead")
async def listing(request: Request, operator: Signed, sessions: Database) -> Response:
    """List dead pushes, the latest due first."""
    query = _query(request)
    after = page_at(query.pop("cursor", None), _ITEMS).after
    async with sessions() as db:
        found = await dead_tasks.matching(db, _wanted(query), after, _ITEMS + 1)
    shown, following = cut(found, _ITEMS, lambda each: (each.due_at, each.task_id))
    return page(
        request,
        "dead",
        operator,
        tasks=shown,
        fields=query,
        query=urlencode(query),
        next=following and urlencode(query | {"cursor": following}),
        is_first=after is None,
        narrow=not _RARE.isdisjoint(query),
        **_CHOICES,
    )


@router.get("/dead/redrive")
async def rehearse(request: Request, operator: Signed, sessions: Database) -> Response:
    """Show what a redrive by this filter would do, with a button that does it."""
    query = _query(request)
    limit = _limit(query.pop("limit", None))
    would = await redrives.redrive_matching(sessions, _wanted(query), limit, operator.actor, RedriveMode.REHEARSAL)
    return page(
        request, "redrive", operator, fields=query, query=urlencode(query), limit=limit, result=would, done=False
    )


@router.post("/dead/redrive")
async def redrive(request: Request, operator: Signed, sessions: Database) -> Response:
    """Redrive by filter, and show the result."""
    query = {name: value for name, value in operator.form.items() if value and name != "csrf_token"}
    limit = _limit(query.pop("limit", None))
    result = await redrives.redrive_matching(sessions, _wanted(query), limit, operator.actor, RedriveMode.REAL)
    return page(
        request, "redrive", operator, fields=query, query=urlencode(query), limit=limit, result=result, done=True
    )


def _query(request: Request) -> dict[str, str]:
    """Read the filter's fields, without empty ones."""
    return {name: value.strip() for name, value in request.query_params.items() if value.strip()}


def _wanted(query: dict[str, str]) -> PushTaskFilter:
    return PushTaskFilter(**FilterIn.model_validate(query).model_dump())


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not text.isdecimal() or len(text) > _LONGEST_LIMIT or not 1 <= int(text) <= MAX_AT_ONCE:
        raise InvalidField("limit", f"The limit must be a number from 1 to {MAX_AT_ONCE}.")
    return int(text)


@router.get("/push/{task_id}")
async def show_push(
    task_id: UUID, request: Request, operator: Signed, sessions: Database, console: Console
) -> Response:
    """Show a push."""
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
    """Redrive a push. All checks run again."""
    async with sessions.begin() as db:
        await redrives.redrive(db, task_id, operator.actor)
    return RedirectResponse(f"{PATH}/push/{task_id}", 303)


@router.get("/analytics")
async def show(request: Request, operator: Signed, sessions: Database) -> Response:
    """Count, and show the page."""
    filled = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    query = AnalyticsQuery(**AnalyticsIn.model_validate(filled).model_dump())
    found = await analytics.by_day(sessions, query)
    days = _days(found.items, found.from_at.date(), query.days)
    return page(
        request, "analytics", operator, found=found, query=query, days=days, total=_total(found.items), **_COUNT_CHOICES
    )


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of some tallies."""

    pushes: int
    attempts: int
    accepted: int
    opened: int
    synced: int
    dead: int
    withdrawn: int

    @property
    def wanted(self) -> int:
        """Count the pushes that should have been accepted: all but the withdrawn ones."""
        return self.pushes - self.withdrawn


def _total(tallies: Iterable[Tally]) -> Total:
    rows = list(tallies)
    return Total(*(sum(getattr(row, field.name) for row in rows) for field in fields(Total)))


def _days(tallies: Sequence[Tally], first: date, count: int) -> list[Column]:
    """Draw one column for each day, days without pushes included."""
    columns = []
    for day in (first + timedelta(days=number) for number in range(count)):
        of_day = _total(tally for tally in tallies if tally.day == day)
        words = (
            f"{day:%a %d %b}: {rendering.count(of_day.wanted)} to be sent, {rendering.count(of_day.accepted)} accepted"
        )
        columns.append(Column(words, of_day.accepted, of_day.wanted - of_day.accepted))
    return columns
