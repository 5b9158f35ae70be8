"""The page of a user: phones, fasts, timeline and test push."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import AfterValidator, Field

from api.console.rendering import page
from api.console.session import PATH, Console, Signed
from api.dependencies import Cursor, Database, Page, next_cursor, page_at
from api.fasting_sessions import list_of
from api.fields import Body, printable
from api.http.auth import LONGEST_USER_ID, is_user_id
from db.engine import as_of_one_moment
from db.views import devices as device_history
from db.views import present, timeline
from domain.diagnostic_push import AskedTest
from domain.naming import reminder_workflow_id, test_push_workflow_id
from domain.problems import InvalidField, NotFound
from domain.timeline import TimelinePart
from operations import diagnostic_push as test_pushes

router = APIRouter()


_MAX_DEVICES, _MAX_FASTS, _ITEMS = 50, 10, 50


class PersonIn(Body):
    """The user, and the part of their timeline."""

    user: Annotated[str, Field(max_length=LONGEST_USER_ID), AfterValidator(printable)] = ""
    session_id: UUID | None = None
    message_id: UUID | None = None
    cursor: Cursor = None


@router.get("/person")
async def person(
    request: Request,
    operator: Signed,
    sessions: Database,
    console: Console,
    query: Annotated[PersonIn, Query()],
) -> Response:
    """Find a user by id, and show what happened to their pushes."""
    user = query.user
    if not user.strip():
        return page(request, "find", operator)
    part, after = TimelinePart(query.session_id, query.message_id), page_at(query.cursor, _ITEMS).after
    async with sessions() as db:
        await as_of_one_moment(db)
        devices = await device_history.of_user(db, user, None, _MAX_DEVICES)
        now = [] if after else await present.of_user(db, user, part)
        items = await timeline.of_user(db, user, part, after, _ITEMS + 1)
    fasts = (await list_of(user, sessions, Page(None, _MAX_FASTS))).items
    shown = items[:_ITEMS]
    return page(
        request,
        "person",
        operator,
        user=user,
        devices=devices,
        fasts=[(fast, console.workflow_page(reminder_workflow_id(fast.id))) for fast in fasts],
        now=now,
        items=shown,
        part=part,
        is_first=after is None,
        next=next_cursor(shown[-1].at, shown[-1].id) if len(items) > len(shown) else None,
    )


@router.post("/test-push")
async def send_test_push(operator: Signed, sessions: Database) -> Response:
    """Send a test push, and go to the page with its result."""
    form = operator.form
    wanted = AskedTest(
        user_id=_user_id(form.get("user", "")),
        installation_id=_installation(form.get("installation_id", "")),
        validate_only=form.get("validate_only") == "yes",
    )
    async with sessions.begin() as db:
        sent = await test_pushes.send(db, wanted, operator.user_id)
    return RedirectResponse(f"{PATH}/test-push/{sent.test_push_id}", 303)


@router.get("/test-push/{test_push_id}")
async def show_test_push(
    test_push_id: UUID, request: Request, operator: Signed, sessions: Database, console: Console
) -> Response:
    """Show the result; the page reloads itself until every push is settled."""
    async with sessions() as db:
        found = await test_pushes.shown(db, test_push_id)
    if found is None:
        raise NotFound("test push")
    workflow = console.workflow_page(test_push_workflow_id(test_push_id))
    return page(request, "test_push", operator, test=found, workflow=workflow)


def _user_id(text: str) -> str:
    if not is_user_id(text):
        raise InvalidField("user", "This is not a user id.")
    return text


def _installation(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise InvalidField("installation_id", "This is not the id of an installation.") from None
