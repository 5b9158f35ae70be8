"""The live workers, by their heartbeats, and the leases by which one of them works for all."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import among
from db.models.operations import Lease, WorkerRow
from db.unreadable import reported_route
from domain.push import Route

LATELY = timedelta(seconds=10)
KEPT = timedelta(days=1)  # a row of a worker that stopped without deregistering
_SHOWS_LIFE_WITHIN = timedelta(seconds=3)
_AHEAD = timedelta(minutes=5)  # a worker seen further ahead is odd, and gets no share of the rate


@dataclass(frozen=True, slots=True)
class Seen:
    """What a heartbeat read, by the database's clock."""

    at: datetime
    others: int  # other live workers
    oldest_other: datetime | None  # when the one silent for longest was seen


async def beat(db: AsyncSession, worker_id: UUID, gates: Mapping[str, Any], *, lives: float) -> Seen:
    """Record that a worker lives, and read which others do: those seen in the last `lives` seconds.

    Heartbeats queue, so of any two workers one sees the other. Commit at once: a worker that freezes before it delays
    the others for 2 s, then PostgreSQL ends its transaction.
    """
    await db.execute(_ONE_AT_A_TIME)
    values = {"id": worker_id, "gates": json.dumps(gates), "lives": timedelta(seconds=lives), "ahead": _AHEAD}
    return Seen(*(await db.execute(_BEAT, values)).one())


async def show_life(db: AsyncSession, worker_id: UUID) -> dict[UUID, datetime | None]:
    """Record that a worker lives, in a statement that waits for nobody; gives when it and the others did so last.

    Others that have not done so for a minute are not among them, nor is this one while it has no row: its next
    heartbeat writes one.
    """
    await db.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    return {row[0]: row[1] for row in await db.execute(_SHOW_LIFE, {"id": worker_id})}


async def showing_life(db: AsyncSession) -> set[UUID]:
    """List the workers that showed life in the last 3 s."""
    now = func.clock_timestamp()
    return set(await db.scalars(select(WorkerRow.worker_id).where(WorkerRow.alive_at > now - _SHOWS_LIFE_WITHIN)))


async def identities(db: AsyncSession, worker_ids: Collection[UUID]) -> set[str]:
    """Name these workers as Temporal knows them: process and host, as the SDK does."""
    rows = await db.scalars(select(WorkerRow.gates).where(among(WorkerRow.worker_id, worker_ids)))
    return {f"{gates.get('pid')}@{gates.get('host')}" for gates in rows if isinstance(gates, dict)}


async def forget_dead(db: AsyncSession, host: str, is_dead: Callable[[int], bool]) -> None:
    """Delete the workers of this host whose process is dead, by `is_dead` of a process id."""
    here = select(WorkerRow.worker_id, WorkerRow.gates["pid"]).where(WorkerRow.gates["host"].as_string() == host)
    rows = await db.execute(here)
    dead = [worker_id for worker_id, pid in rows if isinstance(pid, int) and is_dead(pid)]
    await db.execute(delete(WorkerRow).where(among(WorkerRow.worker_id, dead)))


async def leave(db: AsyncSession, worker_id: UUID) -> None:
    """Deregister, so that the others share the rate at once; also delete those that stopped without it."""
    now = func.clock_timestamp()
    expired = or_(WorkerRow.seen_at < now - KEPT, WorkerRow.seen_at > now + KEPT)
    await db.execute(delete(WorkerRow).where((WorkerRow.worker_id == worker_id) | expired))


async def live(db: AsyncSession) -> list[WorkerRow]:
    """List the live workers, with their route limiters: `{"gates": [GateReport, …]}`."""
    now = func.clock_timestamp()
    lately = and_(WorkerRow.seen_at > now - LATELY, WorkerRow.seen_at < now + _AHEAD)
    tells = func.jsonb_typeof(WorkerRow.gates) == "object"
    return list(await db.scalars(select(WorkerRow).where(lately, tells).order_by(WorkerRow.started_at)))


def gates_of(worker: WorkerRow) -> Iterator[tuple[Route, dict[str, Any]]]:
    """List the route limiters that a worker reports, without those that this release cannot read."""
    reports = worker.gates.get("gates")
    for report in reports if isinstance(reports, list) else ():
        if (route := reported_route(report)) is not None:
            yield route, report


_ONE_AT_A_TIME = text("""
    SELECT set_config('idle_in_transaction_session_timeout', '2s', true),
           pg_advisory_xact_lock(hashtextextended('workers', 0))
""")


_BEAT = text("""
    WITH others AS (
        SELECT seen_at FROM workers
         WHERE worker_id <> :id AND seen_at > clock_timestamp() - CAST(:lives AS interval)
           AND seen_at < clock_timestamp() + CAST(:ahead AS interval)
    ), own AS (
        INSERT INTO workers (worker_id, seen_at, gates)
        VALUES (:id, clock_timestamp(), CAST(:gates AS jsonb))
            ON CONFLICT (worker_id) DO UPDATE SET seen_at = excluded.seen_at, gates = excluded.gates
        RETURNING seen_at
    )
    SELECT own.seen_at, (SELECT count(*) FROM others), (SELECT min(seen_at) FROM others) FROM own
""")


_SHOW_LIFE = text("""
    WITH own AS (UPDATE workers SET alive_at = clock_timestamp() WHERE worker_id = :id)
    SELECT worker_id, alive_at FROM workers
     WHERE alive_at > clock_timestamp() - interval '1 minute' OR worker_id = :id
""")


_LONGEST = timedelta(minutes=5)  # a lease that ends later than any can is odd, and free


async def take(db: AsyncSession, name: str, holder: UUID, lasts: timedelta) -> datetime | None:
    """Take or renew a lease; gives the database's clock, or None while another process holds it."""
    now = func.clock_timestamp()
    row = insert(Lease).values(name=name, holder=holder, expires_at=now + lasts)
    taken = row.on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": row.excluded.holder, "expires_at": row.excluded.expires_at},
        where=or_(Lease.holder == holder, Lease.expires_at < now, Lease.expires_at > now + _LONGEST),
    )
    at: datetime | None = await db.scalar(taken.returning(now))
    return at


async def report(db: AsyncSession, name: str, holder: UUID, findings: Mapping[str, Any]) -> None:
    """Publish the findings of the holder."""
    mine = update(Lease).where(Lease.name == name, Lease.holder == holder)
    await db.execute(mine.values(found=findings))


async def reported(db: AsyncSession, name: str) -> Mapping[str, Any]:
    """Read the last findings; empty if there are none, or this release cannot read them."""
    findings: Any = await db.scalar(select(Lease.found).where(Lease.name == name))
    return findings if isinstance(findings, dict) else {}


async def give_up(db: AsyncSession, name: str, holder: UUID) -> None:
    """Let another process take it at once; the findings stay."""
    mine = update(Lease).where(Lease.name == name, Lease.holder == holder)
    await db.execute(mine.values(expires_at=func.clock_timestamp()))
