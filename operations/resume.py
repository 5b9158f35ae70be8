"""The end of a token-error cutoff: a person lets its route send again, which is recorded; one transaction."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import support_actions, token_error_cutoffs
from db.models.operations import TokenErrorCutoffRow
from db.support_actions import Actor, Deed
from db.views import gates
from db.views.gates import ShownBrake
from domain.problems import Conflict, NotFound


async def resume(db: AsyncSession, brake_id: UUID, actor: Actor) -> ShownBrake:
    """Let a stopped route send again; raises NotFound, and Conflict where it was resumed before."""
    is_resumed = await token_error_cutoffs.release(db, brake_id, actor)
    row = await db.get(TokenErrorCutoffRow, brake_id, populate_existing=True)
    if row is None:
        raise NotFound("brake")
    if not is_resumed:
        raise Conflict("brake-resumed", f"{row.resumed_by} has already resumed this route.")
    detail = {"reason": row.reason, "token_errors": row.token_errors, "answers": row.answers}
    await support_actions.note(db, Deed(actor, "resume", "brake"), {brake_id: detail})
    return gates.shown_cutoff(row)
