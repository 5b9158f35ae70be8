"""The console's one style sheet."""

from fastapi import APIRouter, Response

from api.console.rendering import STYLE

router = APIRouter()


@router.get("/style.css")
async def style() -> Response:
    """Give it; its address changes with it, so it may be kept."""
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": "private, max-age=31536000, immutable"})
