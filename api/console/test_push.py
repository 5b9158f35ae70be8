"""Test pushes: sent from a person's page, then followed until nothing more will come of them."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.console.door import PATH, Signed
from api.console.means import Means
from api.console.rendering import page
from api.dependencies import Database
from db import test_pushes
from domain.naming import test_push_workflow_id
from domain.problems import InvalidField, NotFound
from domain.test_push import AskedTest

router = APIRouter()

_LONGEST_USER_ID = 200


@router.post("/test-push")
async def send(visitor: Signed, sessions: Database) -> Response:
    """Send one, and go on to where its fate shows."""
    form = visitor.form
    asked = AskedTest(
        user_id=_user_id(form.get("user", "")),
        installation_id=_installation(form.get("installation_id", "")),
        validate_only=form.get("validate_only") == "yes",
    )
    async with sessions.begin() as db:
        sent = await test_pushes.send(db, asked, visitor.user_id)
    return RedirectResponse(f"{PATH}/test-push/{sent.test_push_id}", 303)


@router.get("/test-push/{test_push_id}")
async def show(test_push_id: UUID, request: Request, visitor: Signed, sessions: Database, means: Means) -> Response:
    """Show how it stands; the page loads itself again until that is final."""
    async with sessions() as db:
        found = await test_pushes.shown(db, test_push_id)
    if found is None:
        raise NotFound("test push")
    workflow = means.workflow_page(test_push_workflow_id(test_push_id))
    return page(request, "test_push", visitor, test=found, workflow=workflow)


def _user_id(text: str) -> str:
    if not 0 < len(text) <= _LONGEST_USER_ID or not text.isprintable():
        raise InvalidField("user", "This is no user id.")
    return text


def _installation(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise InvalidField("installation_id", "This is no id of an installation.") from None
