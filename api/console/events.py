"""What backends use: events, the newest first; webhooks, and what mends them; API keys, and their end."""

from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import AfterValidator, BeforeValidator, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.console.rendering import page
from api.console.session import PATH, Operator, Signed
from api.dependencies import Cursor, Database, Dispatch, cut, page_at
from api.fields import Body, printable
from api.http.auth import LONGEST_USER_ID
from db import api_keys, events, support_actions, webhook_deliveries, webhooks
from db.engine import as_of_one_moment
from db.events import NUMBERED_AT_ONCE
from db.support_actions import Deed
from db.webhooks import ShownWebhook
from domain.events import EventType
from domain.problems import Conflict

router = APIRouter()
_EVENTS, _DELIVERIES = 50, 50
_ROUNDS = 3  # of numbering what was committed until now


class EventFilterIn(Body):
    """Which events to list."""

    type: Annotated[EventType | None, BeforeValidator(lambda value: value or None)] = None  # empty: any
    user: Annotated[str, Field(max_length=LONGEST_USER_ID), AfterValidator(printable)] = ""
    before: Annotated[int | None, Field(ge=1, le=2**63 - 1)] = None  # the number of an event


@router.get("/events")
async def show_events(
    request: Request, operator: Signed, sessions: Database, query: Annotated[EventFilterIn, Query()]
) -> Response:
    """List what happened, the newest first."""
    rounds = 0
    while (is_behind := await events.number(sessions) >= NUMBERED_AT_ONCE) and rounds < _ROUNDS:
        rounds += 1
    async with sessions() as db:
        await as_of_one_moment(db)
        found = await events.latest(db, query.user or None, query.type, query.before, _EVENTS)
    return page(request, "events", operator, query=query, types=list(EventType), found=found, is_behind=is_behind)


@router.get("/webhooks")
async def show_webhooks(request: Request, operator: Signed, sessions: Database) -> Response:
    """List the webhooks; there are few."""
    async with sessions() as db:
        found = await webhooks.shown(db)
    return page(request, "webhooks", operator, webhooks=[(each, receiver(each)) for each in found])


@router.get("/webhooks/{webhook_id}")
async def show_webhook(
    webhook_id: UUID, request: Request, operator: Signed, sessions: Database, cursor: Cursor = None
) -> Response:
    """Show a webhook with its last deliveries."""
    after = page_at(cursor).after
    async with sessions() as db:
        webhook = await webhooks.one(db, webhook_id)
        found = await webhook_deliveries.log_of(db, webhook_id, after, _DELIVERIES + 1)
    shown, following = cut(found, _DELIVERIES, lambda each: (each.created_at, each.id))
    return page(
        request,
        "webhook",
        operator,
        webhook=webhook,
        receiver=receiver(webhook),
        deliveries=shown,
        is_first=after is None,
        next=following,
        done=request.query_params.get("done"),
    )


@router.post("/webhooks/{webhook_id}/test")
async def send_test_event(webhook_id: UUID, operator: Signed, sessions: Database, relay: Dispatch) -> Response:
    """Send a test event, as the API does."""
    async with sessions.begin() as db:
        await _enabled(db, webhook_id)
        delivery_id = await webhook_deliveries.add_test(db, webhook_id)
        entry = await webhooks.notify(db, webhook_id)
        await _note(db, operator, "test_webhook", webhook_id, delivery_id=str(delivery_id))
    relay.dispatch_soon(entry)
    return _back(webhook_id, "test")


@router.post("/webhooks/{webhook_id}/redrive")
async def redrive_deliveries(webhook_id: UUID, operator: Signed, sessions: Database, relay: Dispatch) -> Response:
    """Send all dead deliveries again."""
    async with sessions.begin() as db:
        await _enabled(db, webhook_id)
        redriven = await webhook_deliveries.redrive(db, webhook_id)
        entry = await webhooks.notify(db, webhook_id)
        await _note(db, operator, "redrive_webhook", webhook_id, redriven=redriven)
    relay.dispatch_soon(entry)
    return _back(webhook_id, "redrive")


@router.post("/webhooks/{webhook_id}/enable")
async def enable_webhook(webhook_id: UUID, operator: Signed, sessions: Database, relay: Dispatch) -> Response:
    """Enable a disabled webhook again. It starts at now."""
    async with sessions.begin() as db:
        webhook = await webhooks.one(db, webhook_id)
        await webhooks.store(db, webhook_id, webhook.url, webhook.types)
        entry = await webhooks.notify(db, webhook_id)
        await _note(db, operator, "enable_webhook", webhook_id)
    relay.dispatch_soon(entry)
    return _back(webhook_id, "enable")


def receiver(webhook: ShownWebhook) -> str:
    """Name where a webhook's requests go; the path may be a secret."""
    address = urlsplit(webhook.url)
    return f"{address.scheme}://{address.netloc}" + ("/…" if address.path.strip("/") or address.query else "")


async def _enabled(db: AsyncSession, webhook_id: UUID) -> None:
    if (await webhooks.one(db, webhook_id)).state == "disabled":
        raise Conflict("webhook-disabled", "This webhook is disabled. Enable it first.")


async def _note(db: AsyncSession, operator: Operator, action: str, webhook_id: UUID, **detail: object) -> None:
    await support_actions.note(db, Deed(operator.actor, action, "webhook"), {webhook_id: detail})


def _back(webhook_id: UUID, done: str) -> Response:
    return RedirectResponse(f"{PATH}/webhooks/{webhook_id}?done={done}", 303)


_API_KEYS = 200  # keys on the page, the newest


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
        keys=keys[:_API_KEYS],
        has_more=len(keys) > _API_KEYS,
        revoked=next((key for key in keys if str(key.key_id) == revoked), None),
    )


@router.post("/api-keys/{key_id}/revoke")
async def revoke_api_key(key_id: UUID, operator: Signed, sessions: Database) -> Response:
    """Revoke a key, and go back to the list. Repeats are harmless."""
    async with sessions.begin() as db:
        await api_keys.revoke(db, str(key_id), actor=operator.actor)
    return RedirectResponse(f"{PATH}/api-keys?revoked={key_id}", 303)
