"""Gates and brakes as support sees them: every route that a worker has a gate for, or that is braked."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from db import brakes, refused_users, workers
from db.engine import present_instant
from db.models import BrakeRow, WorkerRow
from db.unreadable import tell
from domain.problems import Conflict, NotFound
from domain.push import Route
from domain.support import ShownBrake, ShownGate, ShownGates, ShownRefusal, ShownRoute

_GATE = TypeAdapter(ShownGate)
_REFUSALS = TypeAdapter(list[ShownRefusal])


async def shown(db: AsyncSession) -> ShownGates:
    """Show the routes with the gates of all live workers, by name, and what no table of these workers knows."""
    reporting = await workers.live(db)
    return ShownGates(await _routes(db, reporting), _unknown_refusals(reporting))


async def resume(db: AsyncSession, brake_id: UUID, actor: str) -> ShownBrake:
    """Let go of a brake; raises NotFound, and Conflict where somebody did before."""
    resumed = await brakes.resume(db, brake_id, actor)
    row = await db.get(BrakeRow, brake_id, populate_existing=True)
    if row is None:
        raise NotFound("brake")
    if not resumed:
        raise Conflict("brake-resumed", f"This brake was resumed by {row.resumed_by} before.")
    return _brake(row)


async def _routes(db: AsyncSession, reporting: Sequence[WorkerRow]) -> list[ShownRoute]:
    gates: dict[Route, list[ShownGate]] = {}
    for worker in reporting:
        for route, report in workers.gates_of(worker):
            if gate := _gate(worker, report):
                gates.setdefault(route, []).append(gate)
    engaged = await brakes.engaged(db)
    known = gates.keys() | engaged.keys()
    of_late = await refused_users.of_late(db, known, await present_instant(db))
    refused = {each.route: each.refusals for each in of_late if each.refusals}
    found = known | refused.keys()
    return [
        ShownRoute(
            provider=route.provider,
            app_id=route.app_id,
            environment=route.environment,
            brake=_brake(engaged[route]) if route in engaged else None,
            workers=gates.get(route, []),
            errors=refused.get(route),
        )
        for route in sorted(found, key=lambda route: (route.provider, route.app_id or "", route.environment))
    ]


def _unknown_refusals(reporting: Sequence[WorkerRow]) -> list[ShownRefusal]:
    found: dict[tuple[str, int, str], ShownRefusal] = {}
    for worker in reporting:
        for each in _refusals(worker):
            key = (each.provider, each.status, each.reason)
            known = found.get(key, replace(each, count=0))
            found[key] = replace(known, count=known.count + each.count, last_at=max(known.last_at, each.last_at))
    return [found[key] for key in sorted(found)]


def _refusals(worker: WorkerRow) -> list[ShownRefusal]:
    try:
        return _REFUSALS.validate_python(worker.gates.get("unknown_refusals", ()))
    except ValidationError:
        tell("workers.unknown_refusals", "")
        return []


def _gate(worker: WorkerRow, report: dict[str, object]) -> ShownGate | None:
    try:
        return _GATE.validate_python(report | {"worker_id": worker.worker_id, "seen_at": worker.seen_at})
    except ValidationError:
        tell("workers.gates", "")
        return None


def _brake(row: BrakeRow) -> ShownBrake:
    return ShownBrake(
        id=row.id,
        reason=row.reason,
        token_errors=row.token_errors,
        answers=row.answers,
        engaged_at=row.engaged_at,
        resumed_at=row.resumed_at,
        resumed_by=row.resumed_by,
    )
