"""The overview: what needs a person, how things stand now, the last hours, ways to phones, housekeeping."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from temporalio.client import Client
from temporalio.service import RPCError

from api.console.figures import count, route, seconds, share
from api.console.rendering import Column, page
from api.console.session import PATH, Console, Signed
from api.dependencies import Database
from db import workers
from db.engine import Sessions
from db.views import analytics, gates, signals
from dispatch.schedules import latest_runs
from domain.analytics import SPANS, Step, TimeSpan
from domain.housekeeping import ShownSchedule
from domain.kinds import Kind
from domain.problems import InvalidField
from domain.reasons import why
from domain.signals import Signals
from domain.support import ShownGates, ShownRoute

router = APIRouter()


@router.post("/brakes/{brake_id}/resume")
async def resume(brake_id: UUID, operator: Signed, sessions: Database) -> Response:
    """Let go of a brake, and go back to the overview."""
    async with sessions.begin() as db:
        await gates.resume(db, brake_id, operator.user_id)
    return RedirectResponse(f"{PATH}/?resumed", 303)


_LATE = timedelta(minutes=1)  # since when something that should pass at once has waited too long

_NEWS = timedelta(hours=1)  # for how long an answer that no table knows is one


def concerns_of(now: Signals, routes: ShownGates) -> list[str]:
    """List them, the worst first."""
    found = []
    if not now.workers:
        found.append("No worker is alive: nothing is sent until one is.")
    for each in routes.items:
        if each.brake is not None:
            found.append(f"The brake on {route(each)} is engaged: nothing is sent there until a person resumes it.")
        elif (shut := [gate for gate in each.workers if gate.state != "closed"]) and _is_waited_for(each, now):
            reason = f" ({shut[0].reason})" if shut[0].reason else ""
            found.append(f"The gate of {route(each)} is shut in {len(shut)} of {len(each.workers)} workers{reason}.")
    oldest = oldest_due_at(now)
    if oldest is not None and now.at - oldest > _LATE:
        found.append(f"A push has been overdue for {seconds(now.at - oldest)}.")
    if now.outbox.oldest_at is not None and now.at - now.outbox.oldest_at > _LATE:
        found.append(
            f"Temporal has been owed a dispatch for {seconds(now.at - now.outbox.oldest_at)}: "
            "it may be away. Requests are accepted meanwhile."
        )
    unopened = now.unopened
    if now.workers and unopened.oldest_at is not None and now.at - unopened.oldest_at > _LATE:
        are = (
            "1 reminder is due and was"
            if unopened.count == 1
            else f"{count(unopened.count)} reminders are due and were"
        )
        found.append(f"{are} not processed, the oldest for {seconds(now.at - unopened.oldest_at)}.")
    if now.handoffs.oldest_at is not None and now.at - now.handoffs.oldest_at > _LATE:
        found.append(f"A message has waited {seconds(now.at - now.handoffs.oldest_at)} for its handoff.")
    return found + list(_ended(now)) + _unheard_of(now, routes)


def _ended(now: Signals) -> Iterator[str]:
    """Tell of pushes that ended as none should, or that something of ours keeps from being sent."""
    for each in now.refused:
        of = "1 user" if each.users == 1 else f"{count(each.users)} users"
        pushes = "1 push" if each.pushes == 1 else f"{count(each.pushes)} pushes"
        yield f"{route(each.route)} refused {pushes} of {of} ({each.reason}): {why(each.reason)}"
    if unexpired := sum(each.unexpired for each in now.dead):
        dead = "dead push has" if unexpired == 1 else "dead pushes have"
        yield f"{count(unexpired)} {dead} not expired yet: see whether to redrive."
    if now.rejected:
        were = "push was" if now.rejected == 1 else "pushes were"
        yield f"{count(now.rejected)} {were} refused for a fault of ours within the last hour: see Analytics."


def _unheard_of(now: Signals, routes: ShownGates) -> list[str]:
    if any(now.at - each.last_at < _NEWS for each in routes.unknown_refusals):
        return ["A provider said something that no table of ours knows; see below."]
    return []


def _is_waited_for(gate: ShownRoute, now: Signals) -> bool:
    """Tell whether a push may wait there; a shut gate tries the provider only when one comes.

    The default app's gate serves apps without one of their own, so there another app's push counts, too.
    """
    return any(
        each.behind_gate
        for each in now.backlogs
        if (each.route.provider, each.route.environment) == (gate.provider, gate.environment)
        and gate.app_id in {each.route.app_id, None}
    )


def oldest_due_at(now: Signals) -> datetime | None:
    """Find since when the push that is overdue for longest has been; test pushes do not count."""
    due = (each.oldest_due_at for each in now.backlogs if each.oldest_due_at and each.kind is not Kind.TEST)
    return min(due, default=None)


@dataclass(frozen=True, slots=True)
class Trend:
    """One signal."""

    title: str
    tone: str
    figure: str  # of all the hours
    note: str
    columns: list[Column]


def trends_of(steps: Sequence[Step]) -> list[Trend]:
    """Make them of what was counted."""
    pushes, accepted, calls = (sum(getattr(step, name) for step in steps) for name in ("pushes", "accepted", "calls"))
    refused, synced = sum(step.refused for step in steps), sum(step.synced for step in steps)
    withdrawn = sum(step.withdrawn for step in steps)
    invalid, superseded = sum(step.invalid_tokens for step in steps), sum(step.superseded for step in steps)
    return [
        Trend(
            "Pushes due",
            "fate",
            count(pushes),
            f"{count(accepted)} accepted, {count(withdrawn)} withdrawn; hatched: not accepted",
            [_due(step) for step in steps],
        ),
        Trend(
            "Lateness",
            "spread",
            seconds(_worst(step.late_p99 for step in steps)),
            "due to accepted, without test pushes: the worst 99th percentile; solid: median",
            [_spread(step, step.late_p50, step.late_p99) for step in steps],
        ),
        Trend(
            "Provider latency",
            "spread",
            seconds(_worst(step.call_p99 for step in steps)),
            "the worst 99th percentile; solid: median",
            [_spread(step, step.call_p50, step.call_p99) for step in steps],
        ),
        Trend(
            "Provider errors",
            "bad",
            share(refused, calls),
            f"{count(refused)} of {count(calls)} calls were not accepted",
            [_part(step, step.refused, step.calls, "calls not accepted") for step in steps],
        ),
        Trend(
            "Invalid tokens",
            "bad",
            count(invalid),
            "calls that came back as unregistered",
            [_part(step, step.invalid_tokens, step.calls, "calls found the token invalid") for step in steps],
        ),
        Trend(
            "Collapsed",
            "plain",
            share(superseded, pushes),
            f"{count(superseded)} superseded before they were accepted",
            [_part(step, step.superseded, step.pushes, "pushes superseded") for step in steps],
        ),
        Trend(
            "Push to sync",
            "plain",
            share(synced, accepted),
            f"{count(synced)} of {count(accepted)} accepted were synced",
            [_part(step, step.synced, step.accepted, "accepted pushes synced") for step in steps],
        ),
        Trend(
            "Dead",
            "bad",
            count(sum(step.dead for step in steps)),
            "due in these hours, ended without acceptance",
            [_part(step, step.dead, step.pushes, "pushes dead") for step in steps],
        ),
    ]


def _due(step: Step) -> Column:
    words = f"{count(step.pushes)} due, {count(step.withdrawn)} withdrawn, {count(step.accepted)} accepted"
    return _column(step, words, step.accepted, step.pushes - step.withdrawn)


def _column(step: Step, words: str, lower: float, total: float) -> Column:
    return Column(f"{step.at:%H:%M} UTC: {words}", lower, max(total - lower, 0.0))


def _part(step: Step, part: int, whole: int, words: str) -> Column:
    return _column(step, f"{count(part)} of {count(whole)} {words}", part, part)


def _spread(step: Step, median: float | None, highest: float | None) -> Column:
    if median is None or highest is None:
        return _column(step, "none", 0, 0)
    words = f"median {seconds(median)}, 99th percentile {seconds(highest)}"
    return _column(step, words, max(median, 0.0), max(highest, 0.0))


def _worst(found: Iterable[float | None]) -> float | None:
    return max((each for each in found if each is not None), default=None)


_TEMPORAL_ANSWERS_WITHIN = 2.0  # seconds


@router.get("/")
async def overview(
    request: Request,
    operator: Signed,
    sessions: Database,
    console: Console,
    hours: Annotated[int, Query()] = SPANS[0].hours,
) -> Response:
    """Show it."""
    span = next((each for each in SPANS if each.hours == hours), SPANS[0])
    schedules = asyncio.create_task(_schedules(console.temporal))
    async with sessions() as db:
        present = await signals.present(db)
        routes = await gates.shown(db)
        living = await workers.live(db)
    steps = await _steps(sessions, span)
    return page(
        request,
        "overview",
        operator,
        now=present,
        concerns=concerns_of(present, routes),
        oldest=oldest_due_at(present),
        routes=routes,
        workers=living,
        spans=SPANS,
        span=span,
        trends=None if steps is None else trends_of(steps),
        steps=steps,
        schedules=await schedules,
        sweep=ShownSchedule("sweep", present.swept_at, None, _unopened(present.unopened.count), None),
        resumed="resumed" in request.query_params,
    )


async def _steps(sessions: Sessions, span: TimeSpan) -> Sequence[Step] | None:
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
