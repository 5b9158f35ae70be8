"""Messages: their data, and the rules of the handoff: which phones get a push, and when."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from domain.kinds import RULES, Kind
from domain.last_check import unwanted
from domain.preferences import Preferences
from domain.problems import Conflict

LARGEST_BODY = 16 * 1024  # bytes, as UTF-8
MAX_MEMBERS = 1000
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
    sender_id: str | None  # None, as the body: the sender was erased
    body: str | None = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LogItem:
    """A message or due reminder in a user's log; a reminder has minutes, a message the other fields."""

    seq: int
    message_id: UUID
    kind: Kind | None  # None: of a newer release
    conversation_id: UUID
    created_at: datetime
    number: int | None
    sender_id: str | None
    body: str | None = field(repr=False)
    reminder_minutes: int | None
    url: str = ""  # the deep link of the app that reads it


def check_repeat(posted: Message, sender_id: str, body: str) -> None:
    """Check that a message that is posted again is the same; raises Conflict."""
    if (posted.sender_id, posted.body) != (sender_id, body):
        raise Conflict("message-exists", "This message was already posted, with other content or by another user.")


PRESENCE_TRUSTED = timedelta(seconds=5)  # how long a connected phone may take to acknowledge a message
IDLE = timedelta(seconds=10)  # how long a group may go without a push while later messages keep coming
BURST = timedelta(minutes=1)  # pushes of one group that lie no further apart form one burst
IN_BETWEEN = timedelta(seconds=1)  # until a group with a push under way is looked at again
_RESTS_MORE = timedelta(seconds=2)  # with each push of a burst after the first, so that a dialogue is not delayed
_LONGEST_REST = timedelta(seconds=10)
LONGEST_GRACE = PRESENCE_TRUSTED + _LONGEST_REST  # the longest intended wait of a push after it is due


@dataclass(frozen=True, slots=True)
class Recipient:
    """One installation of a user whose log holds the message."""

    has_read: bool  # its cursor is past the message
    is_present: bool  # it has an open stream
    time_zone: str | None = None  # of the phone, by its last registration


@dataclass(frozen=True, slots=True)
class CollapseGroupPlan:
    """A collapse group, as the planning of one of its messages sees it."""

    newer_planned: bool = False  # a later message's push is pending or was accepted
    newer_to_come: bool = False  # a later message concerns this phone, and is not handed off yet
    is_taken: bool = False  # an earlier message's push is being sent, or has not been tried yet
    rests_for: timedelta = timedelta(0)  # until the next push may be planned
    is_idle: bool = True  # it got no push within the last IDLE


class PresencePolicy(Enum):
    """Whether open streams count."""

    PRESENCE = "presence"
    NOTHING = "nothing"  # their time is over


class DeliveryChannel(Enum):
    """How an installation gets a message."""

    PUSH = "push"
    STREAM = "stream"
    SYNC = "sync"  # only: it has read it, or pushes are not wanted
    LATER_MESSAGE = "later_message"  # whose push replaces this one
    LATER = "later"  # by a push, once its group is free


def channel_for(
    recipient: Recipient, preferences: Preferences, at: datetime, policy: PresencePolicy
) -> DeliveryChannel:
    """Decide how an installation gets a message."""
    if unneeded(recipient, preferences, at):
        return DeliveryChannel.SYNC
    if recipient.is_present and policy is PresencePolicy.PRESENCE and RULES[Kind.MESSAGE].yields_to_presence:
        return DeliveryChannel.STREAM
    return DeliveryChannel.PUSH


def planned_for(group: CollapseGroupPlan) -> DeliveryChannel:
    """Decide when a phone gets its push, given the collapse group; the newest message is what the screen shows.

    A group that is free and has been idle for a while gets a push at once, whatever follows, so that someone who writes
    without a pause starves nobody.
    """
    takes_it = not group.is_taken and group.rests_for <= timedelta(0) and (group.is_idle or not group.newer_to_come)
    if group.newer_planned or (group.newer_to_come and not takes_it):
        return DeliveryChannel.LATER_MESSAGE
    return DeliveryChannel.PUSH if takes_it else DeliveryChannel.LATER


def rest_after(burst: int) -> timedelta:
    """Give the rest of a group after this push of a burst (from 1): 0, 2, 4, … up to 10 seconds."""
    return min(_RESTS_MORE * max(burst - 1, 0), _LONGEST_REST)


def unneeded(recipient: Recipient, preferences: Preferences, at: datetime) -> str | None:
    """Say why an installation needs no push; None when it may need one."""
    return "synced" if recipient.has_read else unwanted(Kind.MESSAGE, preferences, at, recipient.time_zone)
