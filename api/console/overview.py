"""The overview: what needs a person, how things stand now, the last hours, ways to phones, housekeeping."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from temporalio.client import Client
from temporalio.service import RPCError

from api.console import concerns, trends
from api.console.door import Signed
from api.console.means import Means
from api.console.rendering import page
from api.dependencies import Database
from db import analytics, gates, signals, workers
from db.engine import Sessions
from domain.analytics import SPANS, Span, Step
from domain.housekeeping import ShownSchedule
from domain.problems import InvalidField
from workflows.schedules import latest_runs

router = APIRouter()

_TEMPORAL_ANSWERS_WITHIN = 2.0  # seconds


@router.get("/")
async def overview(
    request: Request, visitor: Signed, sessions: Database, means: Means, hours: Annotated[int, Query()] = SPANS[0].hours
) -> Response:
    """Show it."""
    span = next((each for each in SPANS if each.hours == hours), SPANS[0])
    schedules = asyncio.create_task(_schedules(means.temporal))
    async with sessions() as db:
        present = await signals.present(db)
        routes = await gates.shown(db)
        living = await workers.live(db)
    steps = await _steps(sessions, span)
    return page(
        request,
        "overview",
        visitor,
        now=present,
        concerns=concerns.of(present, routes),
        oldest=concerns.oldest_due_at(present),
        routes=routes,
        workers=living,
        spans=SPANS,
        span=span,
        trends=None if steps is None else trends.of(steps),
        steps=steps,
        schedules=await schedules,
        sweep=ShownSchedule("sweep", present.swept_at, None, _unopened(present.unopened.count), None),
        resumed="resumed" in request.query_params,
    )


async def _steps(sessions: Sessions, span: Span) -> Sequence[Step] | None:
    """Count the last hours; None where that takes too long."""
    try:
        return await analytics.lately(sessions, span)
    except InvalidField:
        return None


def _unopened(count: int) -> str:
    return f"{count} reminders due and not opened" if count else "nothing"


async def _schedules(temporal: Client) -> list[ShownSchedule] | None:
    """Ask Temporal; None where it does not answer."""
    try:
        async with asyncio.timeout(_TEMPORAL_ANSWERS_WITHIN):
            return await latest_runs(temporal)
    except (RPCError, RuntimeError, TimeoutError):  # RuntimeError: what the SDK raises when it cannot connect
        return None
