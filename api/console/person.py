"""People: found by any id of theirs; a user's reminders and messages, phones, fasts, timeline and test push."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import AfterValidator, Field

from api.console.rendering import filled, page
from api.console.session import PATH, Console, Signed
from api.dependencies import Cursor, Database, Page, next_cursor, page_at
from api.fasting_sessions import page_of
from api.fields import Body, printable
from api.http.auth import LONGEST_USER_ID, is_user_id
from db.engine import as_of_one_moment
from db.views import devices as device_history
from db.views import present, search, summaries, timeline
from db.views.devices import ShownDevice
from domain.naming import reminder_workflow_id, test_push_workflow_id
from domain.preferences import zone as time_zone
from domain.problems import InvalidField, NotFound
from domain.timeline import TimelinePart
from operations import diagnostic_push as test_pushes
from operations.diagnostic_push import TestPushRequest

router = APIRouter()


_MAX_DEVICES, _MAX_FASTS, _LINES, _ITEMS = 50, 10, 25, 50
UserText = Annotated[str, Field(max_length=LONGEST_USER_ID), AfterValidator(printable)]


class WhoIn(Body):
    """What a person is searched by."""

    q: UserText = ""


class PersonIn(Body):
    """The user, the part of their timeline, and where its two lists begin."""

    user: UserText = ""
    session_id: UUID | None = None
    message_id: UUID | None = None
    before: Cursor = None  # of the reminders and messages
    cursor: Cursor = None  # of the timeline


@router.get("/find")
async def find(request: Request, operator: Signed, sessions: Database, query: Annotated[WhoIn, Query()]) -> Response:
    """Find people by a user id, or by the id of anything of theirs; one match leads to their page."""
    wanted = query.q.strip()
    if not wanted:
        return page(request, "find", operator, q="", people=None)
    try:
        named = UUID(wanted)
    except ValueError:
        return RedirectResponse(_page_of(user=query.q), 303)
    async with sessions() as db:
        await as_of_one_moment(db)
        people = await search.owners(db, named, wanted)
    if len(people) > 1:
        return page(request, "find", operator, q=wanted, people=people)
    if not people:
        return RedirectResponse(_page_of(user=wanted), 303)
    [one] = people
    return RedirectResponse(_page_of(user=one.user_id, session_id=one.session_id, message_id=one.message_id), 303)


def _page_of(**fields: object) -> str:
    return f"{PATH}/person?{urlencode(filled(fields))}"


@router.get("/person")
async def person(
    request: Request, operator: Signed, sessions: Database, console: Console, query: Annotated[PersonIn, Query()]
) -> Response:
    """Show what became of a user's reminders and messages, their phones and fasts, and everything in order."""
    user = query.user
    if not user.strip():
        return page(request, "find", operator, q="", people=None)
    part = TimelinePart(query.session_id, query.message_id)
    before, after = page_at(query.before, _LINES).after, page_at(query.cursor, _ITEMS).after
    async with sessions() as db:
        await as_of_one_moment(db)
        devices = await device_history.of_user(db, user, None, _MAX_DEVICES)
        now = await present.of_user(db, user, part)
        first = [] if before else await summaries.unsettled(db, user, now)
        settled = await summaries.of_user(db, user, part, now, before, _LINES + 1)
        lines = await summaries.with_timelines(db, user, first + settled[:_LINES], now)
        items = await timeline.of_user(db, user, part, after, _ITEMS + 1)
        fasts = (await page_of(db, user, Page(None, _MAX_FASTS))).items
    return page(
        request,
        "person",
        operator,
        user=user,
        zone=_zone_of(devices),
        devices=devices,
        fasts=[(fast, console.workflow_page(reminder_workflow_id(fast.id))) for fast in fasts],
        part=part,
        lines=lines,
        is_latest=before is None,
        before=next_cursor(settled[_LINES - 1].at, settled[_LINES - 1].message_id) if len(settled) > _LINES else None,
        items=items[:_ITEMS],
        is_first=after is None,
        next=next_cursor(items[_ITEMS - 1].at, items[_ITEMS - 1].id) if len(items) > _ITEMS else None,
    )


def _zone_of(devices: Sequence[ShownDevice]) -> ZoneInfo | None:
    """Give the time zone of the phone that was seen last of those that reported one."""
    found = (time_zone(device.time_zone) for device in devices if device.time_zone)
    return next((zone for zone in found if zone is not None), None)


@router.post("/test-push")
async def send_test_push(operator: Signed, sessions: Database) -> Response:
    """Send a test push, and go to the page with its result."""
    form = operator.form
    wanted = TestPushRequest(
        user_id=_user_id(form.get("user", "")),
        installation_id=_installation(form.get("installation_id", "")),
        validate_only=form.get("validate_only") == "yes",
    )
    async with sessions.begin() as db:
        sent = await test_pushes.send(db, wanted, operator.actor)
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
