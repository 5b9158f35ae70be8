"""Events for backends: what became of pushes, reminders and device tokens, read by cursor or sent to webhooks."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import AllServices, Database, Dispatch, Paged, RowWrites, ServiceCaller, cut
from api.fields import Body, Out
from api.http.problem_types import responses
from api.http.problems import Detail
from api.sync import MAX_SEQ
from db import events, webhook_deliveries, webhooks
from db.engine import as_of_one_moment
from db.outbox import OutboxEntry
from db.webhook_deliveries import MAX_REDRIVEN
from domain.events import LONGEST_URL, DeliveryState, EventType
from domain.problems import Conflict, EventCursorTooOld, InvalidField
from webhooks.sender import check_url

router = APIRouter(prefix="/v1/events", tags=["events"])
MAX_EVENTS = 500


def _left_out(value: object) -> bool:
    return value is None


class EventDetailsOut(Out):
    """What an event is about; what does not apply is left out. Never a token or a text."""

    task_id: UUID | None = Field(default=None, description="The push.", exclude_if=_left_out)
    kind: str | None = Field(default=None, description="reminder, message or test.", exclude_if=_left_out)
    session_id: UUID | None = Field(default=None, description="The fast of a reminder.", exclude_if=_left_out)
    conversation_id: UUID | None = Field(default=None, description="Of a message.", exclude_if=_left_out)
    message_id: UUID | None = Field(default=None, description="The item of the user's log.", exclude_if=_left_out)
    installation_id: UUID | None = Field(default=None, description="The app on the phone.", exclude_if=_left_out)
    provider: str | None = Field(default=None, description="apns or fcm.", exclude_if=_left_out)
    reason: str | None = Field(default=None, description="Why, as a stable word.", exclude_if=_left_out)
    due_at: datetime | None = Field(default=None, description="When it was due.", exclude_if=_left_out)
    webhook_id: UUID | None = Field(default=None, description="The disabled webhook.", exclude_if=_left_out)


class EventOut(Out):
    """One event."""

    id: int = Field(description="Its place in the feed.")
    type: str = Field(description="What happened.", examples=[EventType.PUSH_ACCEPTED])
    occurred_at: datetime = Field(description="When it happened.")
    user_id: str | None = Field(description="Whom it concerns; null if no person.")
    data: EventDetailsOut = Field(description="What applies of these fields.")


class EventList(BaseModel):
    """The events after the cursor, oldest first."""

    items: list[EventOut] = Field(description="The events.")
    next_cursor: int = Field(description="Send it as `after` next time.")
    has_more: bool = Field(description="Whether to ask again at once.")


@router.get("", responses=responses("not-allowed", "event-cursor-too-old"))
async def list_events(
    _: ServiceCaller,
    sessions: Database,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="0: from the start.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS)] = 100,
    types: Annotated[
        list[str] | None, Query(max_length=100, description="Only these, repeated or separated by commas; else all.")
    ] = None,
) -> EventList:
    """Read what happened after a cursor. No event ever appears behind a cursor that was given out."""
    wanted = _types(types or [])
    numbered = await events.number(sessions)
    async with sessions() as db:
        await as_of_one_moment(db)
        extent = await events.extent(db)
        if after > extent.head:
            raise InvalidField("after", Detail.FUTURE_EVENT.format(head=extent.head))
        if 0 < after < extent.horizon:
            raise EventCursorTooOld(extent.horizon)
        page = await events.page_after(db, after, limit, wanted, extent)
    return EventList(
        items=[EventOut.model_validate(event) for event in page.items],
        next_cursor=max(after, page.until),
        has_more=page.has_more or numbered >= events.NUMBERED_AT_ONCE,
    )


def _types(given: list[str]) -> set[str] | None:
    names = {name.strip() for each in given for name in each.split(",")} - {""}
    unknown = sorted(names - set(EventType))
    if unknown:
        raise InvalidField("types", Detail.UNKNOWN_TYPE.format(known=", ".join(EventType)))
    return names or None


webhooks_router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
_KIND = "webhook"


class WebhookIn(Body):
    """Where to send which events."""

    url: Annotated[str, Field(max_length=LONGEST_URL, description="https:// only, without user name and fragment.")]
    types: Annotated[
        list[EventType] | None, Field(min_length=1, max_length=len(EventType), description="Only these; null: all.")
    ] = None


class WebhookOut(Out):
    """A webhook, and how it is doing."""

    id: UUID
    url: str = Field(description="Where events are sent.")
    types: list[str] | None = Field(description="Only these; null: all.")
    state: Literal["enabled", "failing", "disabled"] = Field(description="failing: the last request was not accepted.")
    created_at: datetime = Field(description="When it was created.")
    failing_since: datetime | None = Field(description="Since when no request is accepted; null: it is not failing.")
    last_accepted_at: datetime | None = Field(description="When a request was last accepted; null: never.")
    pending: int = Field(description="Deliveries that failed and are tried again.")
    dead: int = Field(description="Deliveries that were tried for a day, or gone; they can be redriven.")
    behind: int = Field(description="Events of the feed that it has not reached yet.")
    missed: int = Field(description="Events that were deleted before they could be sent.")
    former_secret_expires_at: datetime | None = Field(description="Until then the former secrets sign too.")
    disabled_at: datetime | None = Field(description="When it was disabled; null: it is not.")
    disabled_reason: str | None = Field(description="gone: the receiver answered 410. PUT enables it again.")


class WebhookWithSecret(WebhookOut):
    """A webhook that was created, or whose secret was rotated: the only answers with the secret."""

    secret: str | None = Field(
        default=None,
        description="whsec_ and the key in base64. Only in the answers of creation and rotation.",
        exclude_if=lambda value: value is None,
    )


class WebhookList(BaseModel):
    """All webhooks, the newest first."""

    items: list[WebhookOut] = Field(description="The webhooks.")
    next_cursor: str | None = Field(description="Always null: there is one page.")


class DeliveryOut(Out):
    """One event, or test, on its way to a webhook."""

    id: UUID
    event_id: int | None = Field(description="Null: a test.")
    type: str = Field(description="The event's type, or `webhook.test`.")
    state: DeliveryState = Field(description="The state of the delivery.")
    attempts: int = Field(description="How many requests were made.")
    created_at: datetime = Field(description="When it was first tried, or had to wait.")
    last_attempt_at: datetime | None = Field(description="When the last request ended; null: none was made.")
    next_attempt_at: datetime | None = Field(description="When it is tried again; null: it is not.")
    status: int | None = Field(description="HTTP status of the last answer; null: there was none.")
    reason: str | None = Field(description="Why the last attempt was not accepted; null: it was.")
    latency_ms: int | None = Field(description="How long the last request took, in milliseconds.")


class DeliveryList(BaseModel):
    """A page of deliveries, the latest first. Of accepted ones the last 1 000 are kept."""

    items: list[DeliveryOut] = Field(description="The deliveries.")
    next_cursor: str | None


class TestEventOut(BaseModel):
    """A test that will be sent."""

    delivery_id: UUID = Field(description="See the deliveries for its result.")


class RedeliveryIn(Body):
    """Which dead deliveries to send again."""

    delivery_ids: Annotated[list[UUID] | None, Field(max_length=MAX_REDRIVEN, description="Null: all.")] = None


class RedriveOut(BaseModel):
    """The number of deliveries that are sent again."""

    redriven: int = Field(description=f"{MAX_REDRIVEN} at most; ask again for the rest.")


@webhooks_router.put(
    "/{webhook_id}",
    responses=responses("not-allowed", "too-many-webhooks")
    | {201: {"model": WebhookWithSecret, "description": "Created, with its secret."}},
)
async def put_webhook(
    webhook_id: UUID, body: WebhookIn, _: ServiceCaller, services: AllServices, response: Response
) -> WebhookWithSecret:
    """Create a webhook, or change its address or types. A new one, and one that was disabled, starts at now.

    The secret is in the answer of the creation only. If that answer is lost, rotate the secret.
    """
    try:
        check_url(body.url, allow_private=services.allow_private_webhooks)
    except ValueError as error:
        raise InvalidField("url", str(error)) from None

    async def store(db: AsyncSession) -> tuple[str | None, OutboxEntry | None]:
        secret, is_news = await webhooks.store(db, webhook_id, body.url, body.types)
        return secret, await webhooks.notify(db, webhook_id) if is_news or secret else None

    secret, entry = await services.writes.run(store, f"{_KIND}/all")
    if entry is not None:
        services.relay.dispatch_soon(entry)
    if secret is not None:
        response.status_code = 201
    return await _shown(services.sessions, webhook_id, secret)


@webhooks_router.get("", responses=responses("not-allowed"))
async def list_webhooks(_: ServiceCaller, sessions: Database) -> WebhookList:
    """List all webhooks; there are few."""
    async with sessions() as db:
        rows = await webhooks.shown(db)
    return WebhookList(items=[WebhookOut.model_validate(row) for row in rows], next_cursor=None)


@webhooks_router.get("/{webhook_id}", responses=responses("not-allowed", "not-found"))
async def get_webhook(webhook_id: UUID, _: ServiceCaller, sessions: Database) -> WebhookOut:
    """Show a webhook, and how it is doing."""
    return WebhookOut.model_validate(await _shown(sessions, webhook_id))


@webhooks_router.delete("/{webhook_id}", status_code=204, responses=responses("not-allowed"))
async def delete_webhook(webhook_id: UUID, _: ServiceCaller, writes: RowWrites, relay: Dispatch) -> Response:
    """Delete a webhook and its deliveries. A request that is under way may still arrive."""

    async def remove(db: AsyncSession) -> OutboxEntry | None:
        return await webhooks.notify(db, webhook_id) if await webhooks.remove(db, webhook_id) else None

    entry = await writes.run(remove, f"{_KIND}/{webhook_id}")
    if entry is not None:
        relay.dispatch_soon(entry)
    return Response(status_code=204)


@webhooks_router.post(
    "/{webhook_id}/test", status_code=202, responses=responses("not-allowed", "not-found", "webhook-disabled")
)
async def send_test_event(webhook_id: UUID, _: ServiceCaller, writes: RowWrites, relay: Dispatch) -> TestEventOut:
    """Send an event of the type `webhook.test`, in the same way as all others."""

    async def add(db: AsyncSession) -> tuple[UUID, OutboxEntry]:
        await _check_enabled(db, webhook_id)
        return await webhook_deliveries.add_test(db, webhook_id), await webhooks.notify(db, webhook_id)

    delivery_id, entry = await writes.run(add, f"{_KIND}/{webhook_id}")
    relay.dispatch_soon(entry)
    return TestEventOut(delivery_id=delivery_id)


@webhooks_router.post("/{webhook_id}/rotate-secret", responses=responses("not-allowed", "not-found"))
async def rotate_webhook_secret(
    webhook_id: UUID, _: ServiceCaller, writes: RowWrites, sessions: Database
) -> WebhookWithSecret:
    """Make a new secret. For a day the former ones sign too, so that the receiver can change over."""

    async def rotate(db: AsyncSession) -> str:
        return await webhooks.rotate_secret(db, webhook_id)

    secret = await writes.run(rotate, f"{_KIND}/{webhook_id}")
    return await _shown(sessions, webhook_id, secret)


@webhooks_router.get("/{webhook_id}/deliveries", responses=responses("not-allowed", "not-found"))
async def list_webhook_deliveries(webhook_id: UUID, _: ServiceCaller, page: Paged, sessions: Database) -> DeliveryList:
    """List a webhook's deliveries, the latest first."""
    async with sessions() as db:
        await webhooks.one(db, webhook_id)
        rows = await webhook_deliveries.log_of(db, webhook_id, page.after, page.limit + 1)
    found = [DeliveryOut.model_validate(row) for row in rows]
    items, following = cut(found, page.limit, lambda each: (each.created_at, each.id))
    return DeliveryList(items=items, next_cursor=following)


@webhooks_router.post("/{webhook_id}/redrive", responses=responses("not-allowed", "not-found", "webhook-disabled"))
async def redrive_webhook_deliveries(
    webhook_id: UUID, body: RedeliveryIn, _: ServiceCaller, writes: RowWrites, relay: Dispatch
) -> RedriveOut:
    """Send dead deliveries again, the oldest first; each is tried for another day."""

    async def redrive(db: AsyncSession) -> tuple[int, OutboxEntry]:
        await _check_enabled(db, webhook_id)
        redriven = await webhook_deliveries.redrive(db, webhook_id, body.delivery_ids)
        return redriven, await webhooks.notify(db, webhook_id)

    redriven, entry = await writes.run(redrive, f"{_KIND}/{webhook_id}")
    relay.dispatch_soon(entry)
    return RedriveOut(redriven=redriven)


async def _shown(sessions: Database, webhook_id: UUID, secret: str | None = None) -> WebhookWithSecret:
    async with sessions() as db:
        found = await webhooks.one(db, webhook_id)
    return WebhookWithSecret.model_validate(found).model_copy(update={"secret": secret})


async def _check_enabled(db: AsyncSession, webhook_id: UUID) -> None:
    if (await webhooks.one(db, webhook_id)).state == "disabled":
        raise Conflict("webhook-disabled", Detail.WEBHOOK_DISABLED)
