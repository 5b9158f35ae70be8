"""How pushes ended. Each count reads a bounded range of the index of due instants, for some seconds at most."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Date, cast, func, or_, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import CANCELED, Sessions, present_instant
from db.models.pushes import PushAttempt, PushTask
from db.unreadable import readable
from domain.kinds import Kind
from domain.problems import InvalidField
from domain.push import Provider, TaskState
from domain.reasons import UNCALLED

_MAX_REASONS = 200
_ACCEPTED = PushTask.state == TaskState.ACCEPTED


MAX_DAYS = 31


@dataclass(frozen=True, slots=True)
class AnalyticsQuery:
    """Which pushes are counted; None means any. Days are UTC days, the last one today."""

    days: int = 7
    kind: Kind | None = None
    provider: Provider | None = None
    app_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """The pushes of one kind, provider and app that were due on one day."""

    day: date
    kind: Kind
    provider: Provider
    app_id: str | None
    pushes: int
    attempts: int  # to call the provider; a few end without a call
    accepted: int
    opened: int  # of those accepted
    synced: int  # of those accepted
    pending: int
    dead: int
    withdrawn: int  # not sent by decision: the fast had ended, the app had read it, …; no failure


@dataclass(frozen=True, slots=True)
class Unaccepted:
    """Attempts that were not accepted; no outcome: still under way."""

    kind: Kind
    provider: Provider
    app_id: str | None
    outcome: str | None
    reason: str | None
    count: int


@dataclass(frozen=True, slots=True)
class EndedPushes:
    """Pushes that ended without acceptance."""

    kind: Kind
    provider: Provider
    app_id: str | None
    state: TaskState
    reason: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Analytics:
    """All counts; few enough rows for one page."""

    from_at: datetime
    to_at: datetime  # itself not included
    items: list[Tally]  # the latest day first
    unaccepted: list[Unaccepted]  # the most frequent first
    fates: list[EndedPushes]  # the most frequent first
    next_cursor: None = None


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """The last hours, cut into equal steps; the first begins at a full step of the clock."""

    hours: int
    step: timedelta


SPANS = (TimeSpan(1, timedelta(minutes=2)), TimeSpan(6, timedelta(minutes=10)), TimeSpan(24, timedelta(minutes=40)))


@dataclass(frozen=True, slots=True)
class Step:
    """The pushes that were due in one step, and the provider calls for them."""

    at: datetime
    pushes: int = 0
    accepted: int = 0
    dead: int = 0
    withdrawn: int = 0  # not sent by decision; no failure
    synced: int = 0  # of those accepted
    superseded: int = 0  # replaced by a newer push before it was accepted
    late_p50: float | None = None  # seconds from due to accepted; without test pushes, and waits for a stream
    late_p99: float | None = None
    calls: int = 0  # that were answered
    refused: int = 0  # calls that were not accepted
    invalid_tokens: int = 0
    call_p50: float | None = None  # seconds
    call_p99: float | None = None


async def by_day(sessions: Sessions, query: AnalyticsQuery) -> Analytics:
    """Count the pushes of some days; raises InvalidField where that takes too long."""
    async with _in_time(sessions, "days") as db:
        to_at = await present_instant(db)
        from_at = datetime.combine(to_at.astimezone(UTC).date() - timedelta(days=query.days - 1), time(), UTC)
        wanted = _wanted(query, from_at, to_at)
        return Analytics(
            from_at, to_at, await _tallies(db, wanted), await _unaccepted(db, wanted), await _fates(db, wanted)
        )


async def lately(sessions: Sessions, span: TimeSpan) -> list[Step]:
    """Count the pushes of the last hours, step by step; raises InvalidField where that takes too long."""
    async with _in_time(sessions, "hours") as db:
        now = await present_instant(db)
        length = span.step.total_seconds()
        last = datetime.fromtimestamp(now.timestamp() // length * length, UTC)
        count = round(timedelta(hours=span.hours) / span.step)
        steps = [Step(last - span.step * ago) for ago in reversed(range(count))]
        values = {"from_at": steps[0].at, "to_at": now, "step": span.step}
        pushes = {row.at: row for row in await db.execute(_PUSHES, values)}
        calls = {row.at: row for row in await db.execute(_CALLS, values | {"uncalled": sorted(UNCALLED)})}
    return [_filled(step, *(rows[step.at]._asdict() for rows in (pushes, calls) if step.at in rows)) for step in steps]


@asynccontextmanager
async def _in_time(sessions: Sessions, field: str) -> AsyncIterator[AsyncSession]:
    """Open a transaction whose statements have 5 s each."""
    try:
        async with sessions.begin() as db:
            await db.execute(text("SET LOCAL statement_timeout = '5s'"))
            yield db
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != CANCELED:
            raise
        raise InvalidField(field, "This many pushes cannot be counted within 5 s. Ask for a shorter time.") from None


def _wanted(query: AnalyticsQuery, from_at: datetime, to_at: datetime) -> list[ColumnElement[bool]]:
    narrow = ((PushTask.kind, query.kind), (PushTask.provider, query.provider), (PushTask.app_id, query.app_id))
    matches = [column == value for column, value in narrow if value is not None]
    known = (PushTask.kind.in_(tuple(Kind)), PushTask.provider.in_(tuple(Provider)))  # to this release
    return [PushTask.due_at >= from_at, PushTask.due_at < to_at, *known, *matches]


async def _tallies(db: AsyncSession, wanted: list[ColumnElement[bool]]) -> list[Tally]:
    key = (cast(func.timezone("UTC", PushTask.due_at), Date).label("day"), PushTask.kind, PushTask.provider)
    query = select(
        *key,
        PushTask.app_id,
        func.count(),
        func.coalesce(func.sum(PushTask.attempt_count), 0),
        func.count().filter(_ACCEPTED),
        func.count(PushTask.opened_at).filter(_ACCEPTED),
        func.count(PushTask.synced_at).filter(_ACCEPTED),
        func.count().filter(PushTask.state == TaskState.PENDING),
        func.count().filter(PushTask.state == TaskState.DEAD),
        func.count().filter(PushTask.state == TaskState.WITHDRAWN),
    )
    grouped = query.where(*wanted).group_by(text("1, 2, 3, 4")).order_by(text("1 DESC, 2, 3, 4 NULLS FIRST"))
    return [
        Tally(day, Kind(kind), Provider(provider), *counts)
        for day, kind, provider, *counts in await db.execute(grouped)
    ]


async def _unaccepted(db: AsyncSession, wanted: list[ColumnElement[bool]]) -> list[Unaccepted]:
    key = (PushTask.kind, PushTask.provider, PushTask.app_id, PushAttempt.outcome, PushAttempt.reason)
    query = select(*key, func.count()).join(PushAttempt, PushAttempt.task_id == PushTask.task_id)
    had_others = or_(~_ACCEPTED, PushTask.attempt_count > 1)  # than the one call that was accepted
    query = query.where(*wanted, had_others, PushAttempt.outcome.is_distinct_from("accepted"))
    return [
        Unaccepted(Kind(kind), Provider(provider), *more)
        for kind, provider, *more in await db.execute(_most_frequent_first(query))
    ]


async def _fates(db: AsyncSession, wanted: list[ColumnElement[bool]]) -> list[EndedPushes]:
    key = (PushTask.kind, PushTask.provider, PushTask.app_id, PushTask.state, PushTask.last_reason)
    ended = set(TaskState) - {TaskState.ACCEPTED, TaskState.PENDING}
    query = select(*key, func.count()).where(*wanted, PushTask.state.in_(sorted(ended)))
    return [
        EndedPushes(Kind(kind), Provider(provider), app_id, TaskState(state), *more)
        for kind, provider, app_id, state, *more in await db.execute(_most_frequent_first(query))
    ]


def _most_frequent_first(query: Any) -> Any:  # noqa: ANN401 -- SQLAlchemy's type of a select says its columns
    grouped = query.group_by(text("1, 2, 3, 4, 5"))
    return grouped.order_by(func.count().desc(), text("1, 2, 3, 4, 5")).limit(_MAX_REASONS)


def _filled(step: Step, *rows: Mapping[str, Any]) -> Step:
    for counts in rows:
        step = replace(step, **counts)
    return step


_PUSHES = text(
    f"""
    SELECT date_bin(:step, due_at, :from_at) AS at, count(*) AS pushes,
           count(*) FILTER (WHERE state = 'accepted') AS accepted,
           count(*) FILTER (WHERE state = 'dead') AS dead,
           count(*) FILTER (WHERE state = 'withdrawn') AS withdrawn,
           count(synced_at) FILTER (WHERE state = 'accepted') AS synced,
           count(*) FILTER (WHERE state = 'withdrawn' AND last_reason = 'superseded') AS superseded,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY lateness) FILTER (WHERE kind <> 'test') AS late_p50,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY lateness) FILTER (WHERE kind <> 'test') AS late_p99
      FROM push_tasks,
           LATERAL (SELECT extract(epoch FROM {readable("accepted_at")} - coalesce({readable("again_at")}, due_at))
                           AS lateness) AS late
     WHERE due_at >= :from_at AND due_at < :to_at
     GROUP BY 1
"""  # noqa: S608 -- of `readable` alone
)

_CALLS = text("""
    SELECT date_bin(:step, t.due_at, :from_at) AS at, count(*) AS calls,
           count(*) FILTER (WHERE a.outcome <> 'accepted') AS refused,
           count(*) FILTER (WHERE a.outcome = 'unregistered') AS invalid_tokens,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY a.latency_ms) / 1000 AS call_p50,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY a.latency_ms) / 1000 AS call_p99
      FROM push_tasks t JOIN push_attempts a ON a.task_id = t.task_id AND a.outcome IS NOT NULL
     WHERE t.due_at >= :from_at AND t.due_at < :to_at
       AND coalesce(a.reason, '') <> ALL(CAST(:uncalled AS text[]))
     GROUP BY 1
""")
