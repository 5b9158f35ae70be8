"""All that is held of a person, page by page: each row as JSON that PostgreSQL writes."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, exists, func, literal_column, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from db import erasures
from db.engine import Sessions
from db.models.events import EventRow, UnnumberedEvent
from db.models.operations import (
    ApiKeyRow,
    ConsoleCode,
    ConsoleSession,
    PreferenceCode,
    PreferenceSession,
    SupportAction,
)
from db.models.people import (
    DeviceToken,
    DeviceTokenEvent,
    FastingSessionRow,
    LogHead,
    LogItemRow,
    Member,
    MessageAllowance,
    MessageRow,
    PreferencesRow,
    Presence,
    SyncPosition,
)
from db.models.pushes import PushTask, WithheldPush
from domain.problems import being_erased

PAGE = 100  # rows; with the largest texts some megabytes

_Column = InstrumentedAttribute[Any]


@dataclass(frozen=True, slots=True)
class Held:
    """Rows of one kind: those where `of` is the person, in the order of `key`, with what else belongs to each."""

    kind: str
    of: ColumnElement[Any] | _Column
    key: tuple[_Column, ...]
    more: str = "'{}'"  # an SQL expression of type jsonb
    without: tuple[str, ...] = ()  # secrets that only we need
    by_person: _Column | None = None  # tells whether a person acted, or what is named like one


def _rows(table: str, condition: str, order: str) -> str:
    """Write SQL that gives rows of another table as a JSON list."""
    return f"coalesce((SELECT jsonb_agg(to_jsonb(o) ORDER BY o.{order}) FROM {table} o WHERE {condition}), '[]')"  # noqa: S608 -- ours


_ATTEMPTS = _rows("push_attempts", "o.task_id = push_tasks.task_id", "number")
_EVENTS = _rows("device_token_events", "o.device_id = device_tokens.id", "id")
_MESSAGE = "(SELECT to_jsonb(m) FROM messages m WHERE m.id = log_items.message_id)"
_CONVERSATION = "(SELECT to_jsonb(c) FROM conversations c WHERE c.id = members.conversation_id)"

HELD = (
    Held("device_token", DeviceToken.user_id, (DeviceToken.id,), f"jsonb_build_object('events', {_EVENTS})"),
    Held("preferences", PreferencesRow.user_id, (PreferencesRow.user_id,)),
    Held("fasting_session", FastingSessionRow.user_id, (FastingSessionRow.started_at, FastingSessionRow.id)),
    Held("conversation", Member.user_id, (Member.conversation_id,), _CONVERSATION),
    Held("message", MessageRow.sender_id, (MessageRow.id,)),
    Held("log_item", LogItemRow.user_id, (LogItemRow.seq,), f"jsonb_build_object('message', {_MESSAGE})"),
    Held("log", LogHead.user_id, (LogHead.user_id,)),
    Held("message_allowance", MessageAllowance.user_id, (MessageAllowance.conversation_id,)),
    Held("sync_position", SyncPosition.user_id, (SyncPosition.installation_id,)),
    Held("push_task", PushTask.user_id, (PushTask.task_id,), f"jsonb_build_object('attempts', {_ATTEMPTS})"),
    Held("withheld_push", WithheldPush.user_id, (WithheldPush.at, WithheldPush.id)),
    Held("event", EventRow.user_id, (EventRow.number,)),
    Held("event", UnnumberedEvent.user_id, (UnnumberedEvent.id,)),
    Held("presence", Presence.user_id, (Presence.stream_id,)),
    Held("preference_link", PreferenceCode.user_id, (PreferenceCode.digest,), without=("digest",)),
    Held(
        "preference_session", PreferenceSession.user_id, (PreferenceSession.digest,), without=("digest", "csrf_token")
    ),
    Held("takeover", DeviceTokenEvent.taken_by, (DeviceTokenEvent.id,), without=("device_id",)),
    Held(
        "console_code", ConsoleCode.user_id, (ConsoleCode.digest,), without=("digest",), by_person=ConsoleCode.by_person
    ),
    Held(
        "console_session",
        ConsoleSession.user_id,
        (ConsoleSession.digest,),
        without=("digest", "csrf_token"),
        by_person=ConsoleSession.by_person,
    ),
    Held("support_action", SupportAction.detail["user_id"].as_string(), (SupportAction.id,), without=("actor",)),
    Held(
        "own_action", SupportAction.actor, (SupportAction.id,), without=("detail",), by_person=SupportAction.by_person
    ),
)


async def pages_of(sessions: Sessions, user_id: str) -> AsyncGenerator[list[str]]:
    """Give lines `{"type", "data"}` about a person, a page at a time. Each page is a transaction of its own.

    Raises Conflict once the person is being erased: what follows would be missing.
    """
    for held in HELD:
        after: tuple[Any, ...] | None = None
        while True:
            async with sessions() as db:
                rows = await _page(db, held, user_id, after)
                if await erasures.running(db, user_id) is not None:  # afterwards: an erasure is longer than a page
                    raise being_erased()
            if rows:
                yield [f'{{"type": "{held.kind}", "data": {row[-1]}}}\n' for row in rows]
            if len(rows) < PAGE:
                break
            after = tuple(rows[-1][:-1])


async def _page(db: AsyncSession, held: Held, user_id: str, after: tuple[Any, ...] | None) -> list[tuple[Any, ...]]:
    table = held.key[0].class_.__table__.name
    secrets = ", ".join(f"'{name}'" for name in held.without)
    row: ColumnElement[Any] = literal_column(f"((to_jsonb({table}) || {held.more}) - CAST(ARRAY[{secrets}] AS text[]))")
    query = select(*held.key, cast(row, Text)).where(held.of == user_id).order_by(*held.key).limit(PAGE)
    if held.by_person is not None:
        named_like_a_key = exists().where(ApiKeyRow.name == user_id)  # asked of rows that the release before wrote
        query = query.where(func.coalesce(held.by_person, ~named_like_a_key))
    if after is not None:
        query = query.where(tuple_(*held.key) > tuple_(*after))
    await db.execute(text("SET LOCAL TIME ZONE 'UTC'"))
    return [tuple(each) for each in await db.execute(query)]
