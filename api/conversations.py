"""Conversations: their members and their messages. A message is accepted when it is committed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import (
    LARGEST_PAGE,
    AnyCaller,
    Database,
    Dispatch,
    Paged,
    RowWrites,
    ServiceCaller,
    UserCaller,
    cut,
)
from api.fields import Body, Out, UserId
from api.http.problem_types import responses
from api.sync import MAX_SEQ
from db import conversations, messages, outbox
from domain.fasts import DERIVED
from domain.messages import LARGEST_BODY, MAX_MEMBERS, MEMBERS_LISTED, Conversation, Message, check_repeat
from domain.problems import NotFound

router = APIRouter(prefix="/v1/conversations", tags=["messages"])
user_router = APIRouter(prefix="/conversations", tags=["messages"])


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("must not contain a user twice")
    return value


def _storable(value: str) -> str:
    if len(value.encode()) > LARGEST_BODY:
        raise ValueError(f"must have at most {LARGEST_BODY} bytes of UTF-8")
    if "\0" in value:
        raise ValueError("must not contain the character U+0000")
    return value


class ConversationIn(Body):
    """The members of a conversation from now on."""

    member_ids: Annotated[tuple[UserId, ...], Field(min_length=1, max_length=MAX_MEMBERS), AfterValidator(_distinct)]


class ConversationOut(Out):
    """A conversation."""

    id: UUID = Field(validation_alias="conversation_id")
    member_ids: list[str] = Field(description=f"A list shows the first {MEMBERS_LISTED}, a single conversation all.")
    member_count: int
    created_at: datetime


class ConversationList(BaseModel):
    """A page of conversations, the newest first."""

    items: list[ConversationOut]
    next_cursor: str | None


def _not_derived(value: UUID) -> UUID:
    """Refuse an id that a reminder could have. A reminder's id is derived from its fast (`domain/fasts.py`)."""
    if value.version == DERIVED:
        raise ValueError("must not be a UUID of version 5; use version 4 or 7")
    return value


@dataclass(frozen=True, slots=True)
class MessagePlace:
    """Where a message is posted, and its id, which the caller chooses."""

    conversation_id: UUID
    message_id: Annotated[UUID, AfterValidator(_not_derived)]


class MessageIn(Body):
    """A message to post."""

    body: Annotated[
        str, Field(min_length=1, description=f"At most {LARGEST_BODY} bytes of UTF-8."), AfterValidator(_storable)
    ]


class MessageOut(Out):
    """A message."""

    id: UUID = Field(validation_alias="message_id")
    conversation_id: UUID
    number: int = Field(description="Position in the conversation, from 1.")
    sender_id: str | None
    body: str | None
    created_at: datetime


class MessageList(BaseModel):
    """A page of messages, the latest first."""

    items: list[MessageOut]
    next_cursor: str | None


@router.put(
    "/{conversation_id}",
    status_code=201,
    responses=responses("not-allowed", "being-erased") | {200: {"model": ConversationOut}},
)
async def store_conversation(
    conversation_id: UUID, body: ConversationIn, _: ServiceCaller, writes: RowWrites, response: Response
) -> ConversationOut:
    """Create a conversation (201), or replace the members of an existing one (200)."""

    async def change(db: AsyncSession) -> tuple[Conversation | None, bool]:
        is_new = await conversations.store(db, conversation_id, body.member_ids)
        return await conversations.read(db, conversation_id), is_new

    stored, is_new = await writes.run(change, _row(conversation_id))
    assert stored is not None
    if not is_new:
        response.status_code = 200
    return ConversationOut.model_validate(stored)


@user_router.get("", responses=responses())
async def list_conversations(caller: UserCaller, sessions: Database, page: Paged) -> ConversationList:
    """List the caller's conversations."""
    async with sessions() as db:
        found = await conversations.of_member(db, caller.user_id, page.after, page.limit + 1)
    shown, following = cut(found, page.limit, lambda each: (each.created_at, each.conversation_id))
    return ConversationList(items=[ConversationOut.model_validate(each) for each in shown], next_cursor=following)


@router.get("/{conversation_id}", responses=responses("not-found"))
async def read_conversation(conversation_id: UUID, caller: AnyCaller, sessions: Database) -> ConversationOut:
    """Read one of the caller's conversations. With scope `service`: any conversation."""
    async with sessions() as db:
        found = await conversations.read(db, conversation_id)
    is_member = found is not None and caller.is_person and caller.user_id in found.member_ids
    if found is None or not ("service" in caller.scopes or is_member):
        raise NotFound("conversation")
    return ConversationOut.model_validate(found)


@user_router.put(
    "/{conversation_id}/messages/{message_id}",
    status_code=201,
    responses=responses("not-found", "message-exists", "too-many-messages", "being-erased")
    | {200: {"model": MessageOut}},
)
async def post_message(
    place: Annotated[MessagePlace, Depends()],
    body: MessageIn,
    caller: UserCaller,
    writes: RowWrites,
    relay: Dispatch,
    response: Response,
) -> MessageOut:
    """Post a message under an id that the caller chooses.

    201: accepted. 200: the same message was accepted before. 409: the id has other content.
    """

    async def store(db: AsyncSession) -> tuple[Message, outbox.OutboxEntry | None]:
        await conversations.lock(db, place.conversation_id)
        if not await conversations.has_member(db, place.conversation_id, caller.user_id):
            raise NotFound("conversation")
        if await messages.is_taken(db, place.message_id):
            message = await messages.read(db, place.message_id)
            if message is None or message.conversation_id != place.conversation_id:
                raise NotFound("message")
            check_repeat(message, caller.user_id, body.body)
            return message, None
        await conversations.spend(db, place.conversation_id, caller.user_id, writes.quotas.messages)
        message = await messages.post(db, place.conversation_id, place.message_id, caller.user_id, body.body)
        if message is None:  # another conversation took the id at the same moment
            raise NotFound("message")
        return message, await outbox.add(db, messages.OUTBOX_KIND, place.message_id)

    message, entry = await writes.run(store, _row(place.conversation_id))
    if entry is None:
        response.status_code = 200
    else:
        relay.dispatch_soon(entry)
    return MessageOut.model_validate(message)


@user_router.get("/{conversation_id}/messages", responses=responses("not-found"))
async def list_messages(
    conversation_id: UUID,
    caller: UserCaller,
    sessions: Database,
    cursor: Annotated[int | None, Query(ge=1, le=MAX_SEQ, description="`next_cursor` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> MessageList:
    """List a conversation's messages, including those from before the caller joined."""
    async with sessions() as db:
        if not await conversations.has_member(db, conversation_id, caller.user_id):
            raise NotFound("conversation")
        size = messages.PageSize(limit, LARGEST_PAGE)
        page = await messages.of_conversation(db, conversation_id, cursor, size)
    return MessageList(
        items=[MessageOut.model_validate(each) for each in page.items],
        next_cursor=str(page.items[-1].number) if page.has_more else None,
    )


def _row(conversation_id: UUID) -> str:
    return f"conversation/{conversation_id}"
