"""Conversations: who belongs to them, what is posted in them. A message is accepted when it is committed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import (
    LARGEST_PAGE,
    AnyCaller,
    Database,
    Dispatch,
    Paged,
    RowWrites,
    ServiceCaller,
    cut,
    next_cursor,
)
from api.fields import Body
from api.http.problems import responses
from api.sync import MAX_SEQ
from db import conversations, messages, outbox
from domain.messages import LARGEST_BODY, MAX_MEMBERS, MEMBERS_LISTED, Conversation, Message, check_repeat
from domain.problems import NotFound
from domain.reminders import DERIVED

router = APIRouter(prefix="/v1/conversations", tags=["messages"])


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("must not name a user twice")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must consist of printable characters")
    return value


def _storable(value: str) -> str:
    if len(value.encode()) > LARGEST_BODY:
        raise ValueError(f"must have at most {LARGEST_BODY} bytes of UTF-8")
    if "\0" in value:
        raise ValueError("must not hold the character U+0000")
    return value


UserId = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class ConversationIn(Body):
    """Who belongs to a conversation, from now on."""

    member_ids: Annotated[tuple[UserId, ...], Field(min_length=1, max_length=MAX_MEMBERS), AfterValidator(_distinct)]


class ConversationOut(BaseModel):
    """A conversation."""

    id: UUID
    member_ids: list[str] = Field(description=f"In a list the first {MEMBERS_LISTED}; all of them by its id.")
    member_count: int
    created_at: datetime


class ConversationList(BaseModel):
    """A page of conversations, the newest first."""

    items: list[ConversationOut]
    next_cursor: str | None


def _not_derived(value: UUID) -> UUID:
    """Refuse what a reminder's id could be, which is made from its fast (`domain/reminders.py`): it exists once."""
    if value.version == DERIVED:
        raise ValueError("must not be a UUID of version 5; take one of version 4 or 7")
    return value


@dataclass(frozen=True, slots=True)
class MessagePlace:
    """Where a message is posted, under an id of the caller's choice."""

    conversation_id: UUID
    message_id: Annotated[UUID, AfterValidator(_not_derived)]


class MessageIn(Body):
    """A message to post."""

    body: Annotated[
        str, Field(min_length=1, description=f"At most {LARGEST_BODY} bytes of UTF-8."), AfterValidator(_storable)
    ]


class MessageOut(BaseModel):
    """A message."""

    id: UUID
    conversation_id: UUID
    number: int = Field(description="Counts the conversation's messages from 1.")
    sender_id: str
    body: str
    created_at: datetime


class MessageList(BaseModel):
    """A page of messages, the latest first."""

    items: list[MessageOut]
    next_cursor: str | None


_CONVERSATION = TypeAdapter(Conversation)


@router.put("/{conversation_id}", status_code=201, responses=responses(403) | {200: {"model": ConversationOut}})
async def store(
    conversation_id: UUID, body: ConversationIn, _: ServiceCaller, writes: RowWrites, response: Response
) -> ConversationOut:
    """Make a conversation: 201; or replace the members of one: 200."""

    async def change(db: AsyncSession) -> tuple[Conversation | None, bool]:
        is_new = await conversations.store(db, conversation_id, body.member_ids)
        return await conversations.read(db, conversation_id), is_new

    stored, is_new = await writes.run(change, _row(conversation_id))
    assert stored is not None
    if not is_new:
        response.status_code = 200
    return _conversation(stored)


@router.get("", responses=responses())
async def list_mine(caller: AnyCaller, sessions: Database, page: Paged) -> ConversationList:
    """List the caller's conversations."""
    async with sessions() as db:
        found = await conversations.of_member(db, caller.user_id, page.after, page.limit + 1)
    shown, more = cut(found, page.limit, _CONVERSATION)
    return ConversationList(
        items=[_conversation(each) for each in shown],
        next_cursor=next_cursor(shown[-1].created_at, shown[-1].conversation_id) if more else None,
    )


@router.get("/{conversation_id}", responses=responses(404))
async def read(conversation_id: UUID, caller: AnyCaller, sessions: Database) -> ConversationOut:
    """Read a conversation of the caller's; with scope `service`, any."""
    async with sessions() as db:
        found = await conversations.read(db, conversation_id)
    if found is None or not ("service" in caller.scopes or caller.user_id in found.member_ids):
        raise NotFound("conversation")
    return _conversation(found)


@router.put(
    "/{conversation_id}/messages/{message_id}",
    status_code=201,
    responses=responses(404, 409) | {200: {"model": MessageOut}},
)
async def post(
    place: Annotated[MessagePlace, Depends()],
    body: MessageIn,
    caller: AnyCaller,
    writes: RowWrites,
    relay: Dispatch,
    response: Response,
) -> MessageOut:
    """Post a message under an id of the caller's choice: 201; the same again: 200; other content: 409."""

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
        if message is None:  # somebody took its id in another conversation, at the same moment
            raise NotFound("message")
        return message, await outbox.add(db, messages.OUTBOX_KIND, place.message_id)

    message, owed = await writes.run(store, _row(place.conversation_id))
    if owed is None:
        response.status_code = 200
    else:
        relay.dispatch_soon(owed)
    return _message(message)


@router.get("/{conversation_id}/messages", responses=responses(404))
async def list_messages(
    conversation_id: UUID,
    caller: AnyCaller,
    sessions: Database,
    cursor: Annotated[int | None, Query(ge=1, le=MAX_SEQ, description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> MessageList:
    """List a conversation's messages, those from before the caller joined, too."""
    async with sessions() as db:
        if not await conversations.has_member(db, conversation_id, caller.user_id):
            raise NotFound("conversation")
        size = messages.PageSize(limit, LARGEST_PAGE)
        page = await messages.of_conversation(db, conversation_id, cursor, size)
    return MessageList(
        items=[_message(each) for each in page.items],
        next_cursor=str(page.items[-1].number) if page.has_more else None,
    )


def _row(conversation_id: UUID) -> str:
    return f"conversation/{conversation_id}"


def _conversation(stored: Conversation) -> ConversationOut:
    return ConversationOut(
        id=stored.conversation_id,
        member_ids=list(stored.member_ids),
        member_count=stored.member_count,
        created_at=stored.created_at,
    )


def _message(message: Message) -> MessageOut:
    return MessageOut(
        id=message.message_id,
        conversation_id=message.conversation_id,
        number=message.number,
        sender_id=message.sender_id,
        body=message.body,
        created_at=message.created_at,
    )
