"""The overview: what needs a person, the present, the last hours, routes to phones, housekeeping."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from temporalio.client import Client
from temporalio.service import RPCError

from api.console.rendering import Column, count, filled, page, route, seconds, share
from api.console.session import PATH, Console, Signed
from api.dependencies import Database
from db import push_tasks, workers
from db.engine import Sessions
from db.push_tasks import OverduePush
from db.views import analytics, gates, signals
from db.views.analytics import SPANS, Step, TimeSpan
from db.views.gates import ShownGates, ShownRoute
from db.views.signals import Signals
from dispatch.schedules import ShownSchedule, latest_runs
from domain.kinds import Kind
from domain.problems import InvalidField
from domain.reasons import why
from operations.redrive import resume as resume_route

router = APIRouter()
_LATE = timedelta(minutes=1)  # from then on, what should pass at once has waited too long
_SUMMED = ("pushes", "accepted", "calls", "refused", "synced", "withdrawn", "invalid_tokens", "superseded", "dead")
_NEWS = timedelta(hours=1)  # for how long an unknown reason is a concern
_CONCERNS = {
    "no_worker": "No worker is alive. Nothing is sent until one is.",
    "stopped": "{route} is stopped by its token-error cutoff. Nothing is sent there until a person resumes it.",
    "paused": "{route} is paused in {paused} of {workers} workers{reason}.",
    "overdue": "A push has been overdue for {age}.",
    "stuck": "Dispatches to Temporal have been stuck for {age}. Temporal may be down. Requests are still accepted.",
    "webhook": "A webhook has been failing for {age}. Its receiver may be down. Each delivery is tried for a day.",
    "handoff": "A message has waited {age} for its handoff.",
    "refused": "{route} refused {pushes} of {users} ({reason}): {why}",
    "unknown": "A provider gave a reason that Fastbell does not know.",
}
_COUNTED = {  # for one, and for several
    "unprocessed": (
        "1 reminder is due and was not processed, for {age}.",
        "{count} reminders are due and were not processed, the oldest for {age}.",
    ),
    "dead": (
        "1 dead push has not expired yet. Check whether to redrive it.",
        "{count} dead pushes have not expired yet. Check whether to redrive them.",
    ),
    "deliveries": (
        "1 delivery to a webhook was given up. Check whether to send it again.",
        "{count} deliveries to webhooks were given up. Check whether to send them again.",
    ),
    "rejected": (
        "1 push was rejected in the last hour because of an error of ours.",
        "{count} pushes were rejected in the last hour because of an error of ours.",
    ),
    "pushes": ("1 push", "{count} pushes"),
    "users": ("1 user", "{count} users"),
}


@router.post("/brakes/{brake_id}/resume")
async def resume(brake_id: UUID, operator: Signed, sessions: Database) -> Response:
    """End a token-error cutoff, and go back to the overview."""
    async with sessions.begin() as db:
        await resume_route(db, brake_id, operator.actor)
    return RedirectResponse(f"{PATH}/?resumed", 303)


@dataclass(frozen=True, slots=True)
class Concern:
    """What needs a person, and where that person mends it or finds the cause."""

    text: str
    href: str


def concerns_of(now: Signals, routes: ShownGates, overdue: OverduePush | None = None) -> list[Concern]:
    """Say what needs a person, the worst first. `overdue`: the push that is overdue for longest."""
    return [*_routes(now, routes), *_delays(now, overdue), *_endings(now, routes)]


def _routes(now: Signals, routes: ShownGates) -> Iterator[Concern]:
    if not now.workers:
        yield Concern(_CONCERNS["no_worker"], "#workers")
    for each in routes.items:
        if each.brake is not None:
            yield Concern(_CONCERNS["stopped"].format(route=route(each)), f"#cutoff-{each.brake.id}")
        elif (paused := [gate for gate in each.workers if gate.state != "closed"]) and _is_waited_for(each, now):
            reason = f" ({paused[0].reason})" if paused[0].reason else ""
            fields = {"route": route(each), "paused": len(paused), "workers": len(each.workers), "reason": reason}
            yield Concern(_CONCERNS["paused"].format(**fields), "#routes")


def _delays(now: Signals, overdue: OverduePush | None) -> Iterator[Concern]:
    if age := _age(now, oldest_due_at(now)):
        whose = None if overdue is None else urlencode({"user": overdue.user_id, "message_id": overdue.message_id})
        yield Concern(_CONCERNS["overdue"].format(age=age), f"{PATH}/person?{whose}" if whose else "#now")
    if age := _age(now, now.outbox.oldest_at):
        yield Concern(_CONCERNS["stuck"].format(age=age), "#housekeeping")
    if now.workers and (age := _age(now, now.unopened.oldest_at)):
        yield Concern(_counted("unprocessed", now.unopened.count, age=age), "#workers")
    if age := _age(now, now.webhooks.failing_since):
        yield Concern(_CONCERNS["webhook"].format(age=age), f"{PATH}/webhooks")
    if age := _age(now, now.handoffs.oldest_at):
        yield Concern(_CONCERNS["handoff"].format(age=age), "#workers")


def _endings(now: Signals, routes: ShownGates) -> Iterator[Concern]:
    for each in now.refused:
        pushes, users = _counted("pushes", each.pushes), _counted("users", each.users)
        fields = {"route": route(each.route), "pushes": pushes, "users": users, "reason": each.reason}
        counts = urlencode(filled({"days": 1, "provider": each.route.provider, "app_id": each.route.app_id}))
        text = _CONCERNS["refused"].format(**fields, why=why(each.reason))
        yield Concern(text, f"{PATH}/analytics?{counts}#errors")
    if unexpired := sum(each.unexpired for each in now.dead):
        yield Concern(_counted("dead", unexpired), f"{PATH}/dead")
    if now.webhooks.dead:
        yield Concern(_counted("deliveries", now.webhooks.dead), f"{PATH}/webhooks")
    if now.rejected:
        yield Concern(_counted("rejected", now.rejected), f"{PATH}/analytics?days=1#fates")
    if any(now.at - each.last_at < _NEWS for each in routes.unknown_refusals):
        yield Concern(_CONCERNS["unknown"], "#unknown")


def _age(now: Signals, oldest_at: datetime | None) -> str | None:
    """Write how long something has waited, if it is late."""
    return None if oldest_at is None or now.at - oldest_at <= _LATE else seconds(now.at - oldest_at)


def _counted(what: str, number: int, **fields: str) -> str:
    one, several = _COUNTED[what]
    return (one if number == 1 else several).format(count=count(number), **fields)


def _is_waited_for(gate: ShownRoute, now: Signals) -> bool:
    """Tell whether a push may wait for this route. A paused route tests its provider only when a push comes.

    The default app's limiter also serves apps without one of their own, so their pushes count there.
    """
    return any(
        each.behind_gate
        for each in now.backlogs
        if (each.route.provider, each.route.environment) == (gate.provider, gate.environment)
        and gate.app_id in {each.route.app_id, None}
    )


def oldest_due_at(now: Signals) -> datetime | None:
    """Find the due instant of the push that is overdue for longest, test pushes left out."""
    due = (each.oldest_due_at for each in now.backlogs if each.oldest_due_at and each.kind is not Kind.TEST)
    return min(due, default=None)


@dataclass(frozen=True, slots=True)
class Trend:
    """One chart."""

    title: str
    tone: str
    figure: str  # of the whole span
    note: str
    columns: list[Column]


def trends_of(steps: Sequence[Step]) -> list[Trend]:
    """Make the charts from what was counted."""
    total = {name: sum(getattr(step, name) for step in steps) for name in _SUMMED}
    pushes, accepted, calls, superseded = (total[name] for name in ("pushes", "accepted", "calls", "superseded"))
    return [
        Trend(
            "Pushes due",
            "fate",
            count(pushes),
            f"{count(accepted)} accepted, {count(total['withdrawn'])} withdrawn; hatched: not accepted",
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
            share(total["refused"], calls),
            f"{count(total['refused'])} of {count(calls)} calls were not accepted",
            [_part(step, step.refused, step.calls, "calls not accepted") for step in steps],
        ),
        Trend(
            "Invalid tokens",
            "bad",
            count(total["invalid_tokens"]),
            "calls with the answer unregistered",
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
            share(total["synced"], accepted),
            f"{count(total['synced'])} of {count(accepted)} accepted were synced",
            [_part(step, step.synced, step.accepted, "accepted pushes synced") for step in steps],
        ),
        Trend(
            "Dead",
            "bad",
            count(total["dead"]),
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


def _worst(values: Iterable[float | None]) -> float | None:
    return max((each for each in values if each is not None), default=None)


_TEMPORAL_ANSWERS_WITHIN = 2.0  # seconds


@router.get("/")
async def overview(
    request: Request,
    operator: Signed,
    sessions: Database,
    console: Console,
    hours: Annotated[int, Query()] = SPANS[0].hours,
) -> Response:
    """Show the overview."""
    span = next((each for each in SPANS if each.hours == hours), SPANS[0])
    schedules = asyncio.create_task(_schedules(console.temporal))
    async with sessions() as db:
        present = await signals.present(db)
        routes = await gates.shown(db)
        living = await workers.live(db)
        overdue = await push_tasks.overdue_longest(db)
    steps = await _steps(sessions, span)
    return page(
        request,
        "overview",
        operator,
        now=present,
        concerns=concerns_of(present, routes, overdue),
        oldest=oldest_due_at(present),
        routes=routes,
        workers=living,
        spans=SPANS,
        span=span,
        trends=None if steps is None else trends_of(steps),
        steps=steps,
        schedules=await schedules,
        sweep=ShownSchedule("sweep", present.swept_at, None, _unprocessed(present.unopened.count), None),
        resumed="resumed" in request.query_params,
    )


async def _steps(sessions: Sessions, span: TimeSpan) -> Sequence[Step] | None:
    """Count the last hours; None if that takes too long."""
    try:
        return await analytics.lately(sessions, span)
    except InvalidField:
        return None


def _unprocessed(count: int) -> str:
    return f"{count} reminders due and not processed" if count else "nothing"


async def _schedules(temporal: Client) -> list[ShownSchedule] | None:
    """Ask Temporal; None if it does not answer."""
    try:
        async with asyncio.timeout(_TEMPORAL_ANSWERS_WITHIN):
            return await latest_runs(temporal)
    except (RPCError, RuntimeError, TimeoutError):  # RuntimeError: what the SDK raises when it cannot connect
        return None
