"""The end of a brake, by a person."""

from uuid import UUID

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from api.console.door import PATH, Signed
from api.dependencies import Database
from db import gates

router = APIRouter()


@router.post("/brakes/{brake_id}/resume")
async def resume(brake_id: UUID, visitor: Signed, sessions: Database) -> Response:
    """Let go of a brake, and go back to the overview."""
    async with sessions.begin() as db:
        await gates.resume(db, brake_id, visitor.user_id)
    return RedirectResponse(f"{PATH}/?resumed", 303)
