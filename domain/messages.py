"""Messages: what is kept of them, and to whom a push is planned, and when, as they are handed off."""

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

    @property
    def url(self) -> str | None:
        """Give the deep link."""
        return None if self.kind is None else RULES[self.kind].deep_link(self.conversation_id)


def check_repeat(posted: Message, sender_id: str, body: str) -> None:
    """Check that a message posted again is the same; raises Conflict."""
    if (posted.sender_id, posted.body) != (sender_id, body):
        raise Conflict("message-exists", "This message was posted before with other content or by somebody else.")


PRESENCE_TRUSTED = timedelta(seconds=5)  # for so long after a message a connected phone may stay silent

IDLE = timedelta(seconds=10)  # for so long a line may go without a push because there is always a later message

BURST = timedelta(minutes=1)  # pushes to one line that lie no further apart are of one burst

IN_BETWEEN = timedelta(seconds=1)  # until a line that is being pushed to is looked at again


_RESTS_MORE = timedelta(seconds=2)  # with each push of a burst but the first, so that a dialogue is not held up

_LONGEST_REST = timedelta(seconds=10)

LONGEST_GRACE = PRESENCE_TRUSTED + _LONGEST_REST  # that a push to a phone may be meant to wait after it is due


@dataclass(frozen=True, slots=True)
class Recipient:
    """One installation of somebody whose log holds the message."""

    has_read: bool  # its cursor has passed the message
    is_present: bool  # a stream of it is open
    time_zone: str | None = None  # of the phone, by its last registration


@dataclass(frozen=True, slots=True)
class CollapseGroupPlan:
    """One line on a screen, as the planning of one of its messages finds it."""

    newer_planned: bool = False  # a later message's push waits or was accepted
    newer_to_come: bool = False  # a later message concerns this phone, and is not handed off yet
    is_taken: bool = False  # an earlier message's push is being called for, or has not been tried yet
    rests_for: timedelta = timedelta(0)  # until the next push may be planned
    is_idle: bool = True  # it was not pushed to within the last IDLE


class PresencePolicy(Enum):
    """Whether open streams count."""

    PRESENCE = "presence"
    NOTHING = "nothing"  # they had their time


class DeliveryChannel(Enum):
    """How an installation learns of a message."""

    PUSH = "push"
    STREAM = "stream"
    SYNC = "sync"  # alone: it has done so, or pushes are not wanted
    LATER_MESSAGE = "later_message"  # whose push takes the same line
    LATER = "later"  # by a push, once its line is free


def means(recipient: Recipient, preferences: Preferences, at: datetime, heed: PresencePolicy) -> DeliveryChannel:
    """Decide how an installation is told."""
    if unneeded(recipient, preferences, at):
        return DeliveryChannel.SYNC
    if recipient.is_present and heed is PresencePolicy.PRESENCE and RULES[Kind.MESSAGE].yields_to_presence:
        return DeliveryChannel.STREAM
    return DeliveryChannel.PUSH


def planned_for(line: CollapseGroupPlan) -> DeliveryChannel:
    """Decide what becomes of a push that a phone needs, given its line; the newest message is what stays there.

    A line that is free and was left alone for a while takes a push at once, whatever follows, so that somebody who
    writes without a pause starves nobody.
    """
    takes_it = not line.is_taken and line.rests_for <= timedelta(0) and (line.is_idle or not line.newer_to_come)
    if line.newer_planned or (line.newer_to_come and not takes_it):
        return DeliveryChannel.LATER_MESSAGE
    return DeliveryChannel.PUSH if takes_it else DeliveryChannel.LATER


def rest_after(burst: int) -> timedelta:
    """Say how long a line rests after the so-manieth push of a burst: 0, 2, 4, … up to 10 seconds."""
    return min(_RESTS_MORE * max(burst - 1, 0), _LONGEST_REST)


def unneeded(recipient: Recipient, preferences: Preferences, at: datetime) -> str | None:
    """Say why an installation needs no push; None when it may."""
    return "synced" if recipient.has_read else unwanted(Kind.MESSAGE, preferences, at, recipient.time_zone)
