"""API keys: who may call the API with one, when it was used last, and its end."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.console.rendering import page
from api.console.session import PATH, Signed
from api.dependencies import Database
from db import api_keys

router = APIRouter()
_MOST = 200  # keys on the page, the newest


@router.get("/api-keys")
async def show_api_keys(request: Request, operator: Signed, sessions: Database) -> Response:
    """List the keys, without their texts, which nobody can read again."""
    async with sessions() as db:
        keys = await api_keys.all_keys(db)
    revoked = request.query_params.get("revoked")
    return page(
        request,
        "api_keys",
        operator,
        keys=keys[:_MOST],
        has_more=len(keys) > _MOST,
        revoked=next((key for key in keys if str(key.key_id) == revoked), None),
    )


@router.post("/api-keys/{key_id}/revoke")
async def revoke_api_key(key_id: UUID, operator: Signed, sessions: Database) -> Response:
    """Revoke a key, and go back to the list. Repeats are harmless."""
    async with sessions.begin() as db:
        await api_keys.revoke(db, str(key_id), actor=operator.actor)
    return RedirectResponse(f"{PATH}/api-keys?revoked={key_id}", 303)
