"""The outbox: dispatches to Temporal that are still to be made. A row is deleted once its dispatch is done.

The soonest needed rows go first, in two lanes: fasts, and all others (messages, redrives, test pushes). Neither lane
can take all places from the other (docs/decisions/0025-fair-shares.md).
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import ColumnElement, TextClause, delete, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import among, any_of_locked, columns_of
from db.models.pushes import OutboxRow
from domain.housekeeping import AHEAD
from telemetry import tracing

GRACE = timedelta(seconds=5)  # in which only the API process dispatches its own rows
LEASE = timedelta(seconds=30)  # a dispatcher that died holds its rows this long
FEW = 20  # dispatches that a process tries at once, whenever they are needed
SOON = timedelta(minutes=1)
UNHURRIED = AHEAD  # what is needed later than in this time can wait behind everything else
KEPT_FOR_OTHERS = 0.25  # the share of a sweep that fasts leave to the other lane, if it has rows
FAST = "fasting_session"  # the kind that has a lane of its own
_MAX_COUNTED = 1_000_000  # attempts of a row
_LONGEST_BACK_OFF = 60.0  # seconds
_FURTHEST = timedelta(seconds=65)  # no row is postponed for longer: a later instant is odd, and counts as past
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One dispatch that is due."""

    id: int
    subject_kind: str
    subject_id: UUID
    attempts: int
    traceparent: str | None = None
    needed_at: datetime = _LONG_AGO  # when Temporal has to know

    @property
    def place(self) -> tuple[datetime, int]:
        """Say where it stands in the order of dispatch: the soonest needed first."""
        return self.needed_at, self.id


async def add(db: AsyncSession, subject_kind: str, subject_id: UUID, needed_at: datetime | None = None) -> OutboxEntry:
    """Add a dispatch of this subject, which this process tries first; `needed_at` None: now."""
    traceparent = tracing.traceparent()
    values = {
        "subject_kind": subject_kind,
        "subject_id": subject_id,
        "next_attempt_at": func.clock_timestamp() + GRACE,
        "needed_at": needed_at or func.clock_timestamp(),
        "traceparent": traceparent,
    }
    added = insert(OutboxRow).values(values).returning(OutboxRow.id, OutboxRow.needed_at)
    row = (await db.execute(added)).one()
    return OutboxEntry(row.id, subject_kind, subject_id, 1, traceparent, row.needed_at)


@dataclass(frozen=True, slots=True)
class PlannedDispatch:
    """A dispatch of a fast that is to be added."""

    subject_id: UUID
    needed_at: datetime
    next_attempt_at: datetime
    traceparent: str | None
    is_own: bool  # this process tries it first

    def entry(self, subject_kind: str, outbox_id: int) -> OutboxEntry:
        """Give the entry of the row that was added under this id."""
        return OutboxEntry(outbox_id, subject_kind, self.subject_id, 1, self.traceparent, self.needed_at)


def planned_dispatches(
    needs: Mapping[UUID, datetime], now: datetime, traceparents: Mapping[UUID, str | None] = MappingProxyType({})
) -> list[PlannedDispatch]:
    """Plan dispatches, each with the instant at which Temporal has to know.

    Of many, this process tries those first that are needed soon. Sweepers dispatch the others, without haste.
    `traceparents`: of the requests that need them; without one it is the present request.
    """
    few, present = len(needs) <= FEW, tracing.traceparent()
    planned = []
    for subject_id, needed_at in needs.items():
        is_own = few or needed_at <= now + SOON
        traceparent = traceparents.get(subject_id) or present
        planned.append(PlannedDispatch(subject_id, needed_at, now + GRACE if is_own else now, traceparent, is_own))
    return planned


async def add_all(db: AsyncSession, subject_kind: str, dispatches: Collection[PlannedDispatch]) -> list[OutboxEntry]:
    """Add dispatches; gives those that this process tries first."""
    if not dispatches:
        return []
    names = ("subject_id", "next_attempt_at", "needed_at", "traceparent")
    added = await db.execute(_ADD, {"subject_kind": subject_kind, **columns_of(dispatches, *names)})
    return entries(subject_kind, dispatches, {row.subject_id: row.id for row in added})


def entries(subject_kind: str, dispatches: Iterable[PlannedDispatch], ids: Mapping[UUID, int]) -> list[OutboxEntry]:
    """Give those of these dispatches that were added, under which ids, and that this process tries first."""
    return [
        each.entry(subject_kind, ids[each.subject_id]) for each in dispatches if each.is_own and each.subject_id in ids
    ]


async def add_for_sweepers(db: AsyncSession, subject_kind: str, subject_ids: Iterable[UUID]) -> None:
    """Add dispatches that no API process tries first."""
    common = {
        "subject_kind": subject_kind,
        "next_attempt_at": func.clock_timestamp(),
        "traceparent": tracing.traceparent(),
    }
    rows = [{"subject_id": each, **common} for each in subject_ids]
    if rows:
        await db.execute(insert(OutboxRow).values(rows))


async def lease_due(db: AsyncSession, limit: int, unhurried: int | None = None) -> Sequence[OutboxEntry]:
    """Take due rows, the soonest needed first, and keep other sweepers off them for a while.

    At most `unhurried` of them are fasts of which Temporal has to know much later (None: no bound).
    """
    lane = _FASTS if unhurried is None else _FASTS_SOON
    fasts = await _lease(db, lane, limit - int(limit * KEPT_FOR_OTHERS))
    others = await _lease(db, _OTHERS, limit - len(fasts))
    if fasts and len(fasts) + len(others) < limit:
        fasts += await _lease(db, lane, limit - len(fasts) - len(others))
    if unhurried:
        fasts += await _lease(db, _FASTS_LATER, min(unhurried, limit - len(fasts) - len(others)))
    return sorted((*fasts, *others), key=lambda entry: entry.place)


async def settle(db: AsyncSession, outbox_id: int) -> None:
    """Delete a row whose dispatch is done."""
    await db.execute(delete(OutboxRow).where(OutboxRow.id == outbox_id))


async def give_back(db: AsyncSession, outbox_ids: Collection[int]) -> None:
    """Release rows that were leased and not dispatched. Waits for no lock, since a lease expires."""
    await _change(db, among(OutboxRow.id, outbox_ids), next_attempt_at=func.clock_timestamp())


async def hurry(db: AsyncSession, subject_ids: Collection[UUID]) -> None:
    """Let rows of these subjects come next, because their workflows are missing. Waits for no lock.

    A row that its own process has yet to try stays as it is.
    """
    now = func.statement_timestamp()
    put_off = or_(OutboxRow.needed_at > now, OutboxRow.next_attempt_at > now + GRACE)
    soon = {
        "needed_at": func.least(OutboxRow.needed_at, now),
        "next_attempt_at": func.least(OutboxRow.next_attempt_at, now),
    }
    await _change(db, among(OutboxRow.subject_id, subject_ids) & put_off, **soon)


async def postpone(db: AsyncSession, outbox_id: int, attempts: int, error: str) -> None:
    """Try again later: exponential back-off with full jitter."""
    wait = timedelta(seconds=random.uniform(0.5, min(_LONGEST_BACK_OFF, 2.0 ** min(attempts, 10))))  # noqa: S311 -- spreads load
    values = {"next_attempt_at": func.clock_timestamp() + wait, "last_error": error}
    await db.execute(update(OutboxRow).where(OutboxRow.id == outbox_id).values(values))


async def _change(db: AsyncSession, which: ColumnElement[bool], **values: ColumnElement[datetime]) -> None:
    free = select(OutboxRow.id).where(which).order_by(OutboxRow.id).with_for_update(skip_locked=True)
    query = update(OutboxRow).where(any_of_locked(OutboxRow.id, free)).values(**values)
    await db.execute(query)


async def _lease(db: AsyncSession, lane: TextClause, limit: int) -> list[OutboxEntry]:
    values = {"limit": limit, "lasts": LEASE, "furthest": _FURTHEST, "max_counted": _MAX_COUNTED}
    return [OutboxEntry(*row) for row in await db.execute(lane, values)]


def _lane(which: str) -> TextClause:
    """Write the statement that leases rows of a lane. A worker runs it every second, mostly in vain."""
    return text(f"""
        UPDATE outbox
           SET next_attempt_at = statement_timestamp() + CAST(:lasts AS interval),
               attempts = least(attempts, :max_counted - 1) + 1
         WHERE id = ANY (ARRAY(
               SELECT id FROM outbox
                WHERE {which}
                  AND (next_attempt_at <= statement_timestamp()
                       OR next_attempt_at > statement_timestamp() + CAST(:furthest AS interval))
                ORDER BY needed_at, id LIMIT :limit FOR UPDATE SKIP LOCKED))
        RETURNING id, subject_kind, subject_id, attempts, traceparent, needed_at
    """)  # noqa: S608 -- of our own words alone


# The kind is written out, so that the planner sees that the index of the lane serves.
_CAN_WAIT = f"needed_at > statement_timestamp() + interval '{UNHURRIED.total_seconds():.0f} s'"
_FASTS, _OTHERS = _lane(f"subject_kind = '{FAST}'"), _lane(f"subject_kind <> '{FAST}'")
_FASTS_SOON = _lane(f"subject_kind = '{FAST}' AND NOT {_CAN_WAIT}")
_FASTS_LATER = _lane(f"subject_kind = '{FAST}' AND {_CAN_WAIT}")

_ADD = text("""
    INSERT INTO outbox (subject_kind, subject_id, next_attempt_at, needed_at, traceparent)
    SELECT CAST(:subject_kind AS text), subject_id, next_attempt_at, needed_at, traceparent
      FROM unnest(CAST(:subject_id AS uuid[]), CAST(:next_attempt_at AS timestamptz[]),
                  CAST(:needed_at AS timestamptz[]), CAST(:traceparent AS text[]))
           AS planned (subject_id, next_attempt_at, needed_at, traceparent)
    RETURNING id, subject_id
""")
