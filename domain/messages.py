"""Conversations and the messages in them."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from domain.kinds import Kind
from domain.problems import Conflict

LARGEST_BODY = 16 * 1024  # bytes, as UTF-8
MOST_MEMBERS = 1000
MEMBERS_LISTED = 20  # of each conversation in a list


@dataclass(frozen=True, slots=True)
class Conversation:
    """A thread of messages between its members."""

    conversation_id: UUID
    member_ids: tuple[str, ...]  # in a list the first few of them
    member_count: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """What a member posted."""

    message_id: UUID
    conversation_id: UUID
    number: int  # counts the conversation's messages from 1
    sender_id: str
    body: str = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LogItem:
    """A message's or due reminder's place in a user's log; a reminder has minutes, a message the rest."""

    seq: int
    message_id: UUID
    kind: Kind | None  # None: a newer release's
    conversation_id: UUID
    created_at: datetime
    number: int | None
    sender_id: str | None
    body: str | None = field(repr=False)
    reminder_minutes: int | None


def check_repeat(posted: Message, sender_id: str, body: str) -> None:
    """Check that a message posted again is the same; raises Conflict."""
    if (posted.sender_id, posted.body) != (sender_id, body):
        raise Conflict("message-exists", "This message was posted before with other content or by somebody else.")
