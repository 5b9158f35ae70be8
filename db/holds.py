"""Who holds which push while it waits in a worker, and how another worker takes over what a lost one held.

`push_tasks.held_by` names the worker. It is set while a send waits, and cleared by the check that claims the push. Each
function is one statement that commits by itself, so that a worker that freezes leaves no lock behind.
"""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.push_tasks import planned
from db.unreadable import EARLIEST
from domain.kinds import Kind
from domain.push import Environment, PlannedSend, Provider


@dataclass(frozen=True, slots=True)
class Lost:
    """What is to be taken over: of these kinds and providers, held by these workers, or by such as left long ago.

    With `unheld_for` also what nobody holds or calls so many seconds after it was due: a worker was killed between
    the moment when Temporal gave it the send and the moment when it recorded that. After a minute Temporal has
    missed that worker, and what still waits may belong to no workflow any more. Likewise what was being called when
    its worker was lost, once the lease of that attempt is over.
    """

    workers: Collection[UUID]
    kinds: Collection[Kind]
    providers: Collection[Provider]
    unheld_for: float | None = None
    lease: float = 60.0  # seconds from the start of an attempt; without an outcome by then, its worker was lost


@dataclass(frozen=True, slots=True)
class Part:
    """The part of the lost pushes that this worker takes first: number `place` of `of`, from 0."""

    place: int
    of: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A push that was taken over."""

    send: PlannedSend
    lateness: float  # seconds since it was due, or since its next attempt was


async def record(db: AsyncSession, worker_id: UUID, task_ids: Collection[UUID]) -> set[UUID]:
    """Record that a worker holds these pushes; gives those recorded. One that is locked or settled is left out."""
    await _commit_each(db)
    return set(await db.scalars(_RECORD, {"id": worker_id, "task_ids": list(task_ids)}))


async def take(db: AsyncSession, worker_id: UUID, lost: Lost, part: Part, most: int) -> list[Taken]:
    """Take over pushes that are due, `most` at most; this worker's part first, and then the longest due.

    Pushes that another transaction has locked are left to it.
    """
    await _commit_each(db)
    values = _values(lost) | {"id": worker_id, "place": part.place, "of": part.of, "most": most}
    rows = (await db.execute(_TAKE, values)).all()
    return [Taken(send, row.lateness) for row in rows if (send := planned(row)) is not None]


async def next_due(db: AsyncSession, lost: Lost, within: float) -> float | None:
    """Say in how many seconds the next lost push is due; None where none is due within so many seconds."""
    await _commit_each(db)
    seconds: float | None = await db.scalar(_NEXT_DUE, _values(lost) | {"within": within})
    return seconds


def _values(lost: Lost) -> dict[str, object]:
    return {
        "lost": list(lost.workers),
        "kinds": list(lost.kinds),
        "providers": list(lost.providers),
        "environments": list(Environment),
        "unheld_for": lost.unheld_for,
        "lease": lost.lease,
    }


async def _commit_each(db: AsyncSession) -> None:
    await db.connection(execution_options={"isolation_level": "AUTOCOMMIT"})


# An odd instant would break arithmetic.
_DUE = f"""greatest(t.due_at, t.next_attempt_at, CASE WHEN t.again_at <= statement_timestamp() THEN t.again_at END,
                    CAST('{EARLIEST:%Y-%m-%d}+00' AS timestamptz))"""
_UNHELD_FOR = "CAST(:unheld_for AS float8) * interval '1 second'"

_LEASE = "CAST(:lease AS float8) * interval '1 second'"

_LAPSED = f"""(
    t.held_by IS NULL AND t.next_attempt_at IS NULL
    AND EXISTS (SELECT FROM push_attempts a
                 WHERE a.task_id = t.task_id AND a.outcome IS NULL
                   AND a.started_at BETWEEN statement_timestamp() - interval '1 minute' - {_LEASE}
                                        AND statement_timestamp() - {_LEASE})
)"""

_LOST = f"""
    t.state = 'pending' AND (t.held_by IS NOT NULL OR CAST(:unheld_for AS float8) IS NOT NULL)
    AND t.kind = ANY(CAST(:kinds AS text[])) AND t.provider = ANY(CAST(:providers AS text[]))
    AND t.environment = ANY(CAST(:environments AS text[]))
    AND (t.held_by = ANY(CAST(:lost AS uuid[]))
         OR NOT EXISTS (SELECT FROM workers w
                         WHERE w.worker_id = t.held_by AND w.alive_at > clock_timestamp() - interval '1 minute'))
    AND (t.held_by IS NOT NULL
         OR t.next_attempt_at > statement_timestamp() - interval '1 minute'
            AND NOT EXISTS (SELECT FROM push_attempts a WHERE a.task_id = t.task_id AND a.outcome IS NULL)
         OR {_LAPSED})
"""  # noqa: S608 -- of our own words alone

_RECORD = text("""
    WITH free AS (
        SELECT task_id FROM push_tasks
         WHERE task_id = ANY(CAST(:task_ids AS uuid[])) AND state = 'pending'
         ORDER BY task_id
           FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE push_tasks AS t SET held_by = :id FROM free WHERE t.task_id = free.task_id RETURNING t.task_id
""")

_TAKE = text(
    f"""
    WITH lost AS (
        SELECT t.task_id FROM push_tasks AS t
         WHERE {_LOST} AND t.held_by IS DISTINCT FROM :id
           AND (t.held_by IS NOT NULL OR {_DUE} <= statement_timestamp() - {_UNHELD_FOR})
           AND t.due_at <= statement_timestamp() AND (t.next_attempt_at <= statement_timestamp() OR {_LAPSED})
         ORDER BY (uuid_hash(t.task_id) & 65535) % :of <> :place, t.due_at, t.task_id
         LIMIT :most
           FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE push_tasks AS t SET held_by = :id FROM lost WHERE t.task_id = lost.task_id
    RETURNING t.task_id, t.kind, t.provider, t.environment, t.app_id, t.user_id,
              CAST(extract(epoch FROM clock_timestamp() - {_DUE}) AS float8) AS lateness
"""  # noqa: S608 -- of our own words alone
)

_NEXT_DUE = text(
    f"""
    SELECT CAST(extract(epoch FROM min(CASE WHEN t.held_by IS NULL THEN {_DUE} + {_UNHELD_FOR} ELSE {_DUE} END)
                         - statement_timestamp()) AS float8)
      FROM push_tasks AS t
     WHERE {_LOST} AND t.due_at <= statement_timestamp() + :within * interval '1 second'
       AND (t.next_attempt_at <= statement_timestamp() + :within * interval '1 second' OR {_LAPSED})
"""  # noqa: S608 -- of our own words alone
)
