"""Value types that cross the wire to Temporal: ids and instants, never tokens or text."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from domain.kinds import Kind
from domain.messages import PresencePolicy
from domain.push import Environment, Provider, TaskState
from domain.reminders import Reminder
from domain.sessions import SessionStatus


@dataclass(frozen=True, slots=True)
class SessionState:
    """A fasting session's whole state: the input of `FastingReminder` and of each of its signals."""

    session_id: UUID
    rev: int  # the highest one seen counts
    status: SessionStatus
    ends_at: datetime
    reminders: tuple[Reminder, ...]  # computed at the edge; skipped ones left out
    arm_seconds: float  # how long before the due instant the sends are armed


class Moment(StrEnum):
    """When a reminder is opened."""

    ARMING = "arming"  # shortly before it is due: nothing may be told to anyone
    DUE = "due"


@dataclass(frozen=True, slots=True)
class OpenReminder:
    """Ask whether a reminder still holds, and plan its pushes."""

    session_id: UUID
    minutes: int
    due_at: datetime
    moment: Moment


@dataclass(frozen=True, slots=True)
class PlannedSend:
    """One push task that waits for its send."""

    task_id: UUID
    provider: Provider
    environment: Environment
    app_id: str | None = None
    kind: Kind = Kind.REMINDER
    user_digest: int = 0  # tells users apart without naming them, so that each has a turn; 0: of an older release


@dataclass(frozen=True, slots=True)
class OpenedReminder:
    """What opening came to: sends to make, or the reason why there are none."""

    sends: tuple[PlannedSend, ...] = ()
    withheld: str | None = None


@dataclass(frozen=True, slots=True)
class SendPush:
    """Ask for one push task to be sent at its due instant."""

    task_id: UUID
    environment: Environment
    hold_seconds: float  # from the scheduling of the activity to the due instant, on the server's clock
    app_id: str | None = None
    kind: Kind = Kind.REMINDER
    user_digest: int = 0


@dataclass(frozen=True, slots=True)
class SentPush:
    """How a push task stands after its send."""

    task_id: UUID
    state: TaskState
    reason: str | None


@dataclass(frozen=True, slots=True)
class CloseTasks:
    """Ask for push tasks that are still pending to be closed for good."""

    task_ids: tuple[UUID, ...]
    state: TaskState  # WITHDRAWN or DEAD
    reason: str


@dataclass(frozen=True, slots=True)
class HandoffState:
    """A message to hand off: the input of `MessageHandoff`."""

    message_id: UUID
    conversation_id: UUID
    paged: bool = False  # its plan comes in pages, and may be looked at again; False: an older release started it


@dataclass(frozen=True, slots=True)
class PlanHandoff:
    """Ask which phones have to be told of a message by push."""

    message_id: UUID
    heed: PresencePolicy
    paged: bool = False  # the first page of sends is enough; False: an older release's workflow wants all


@dataclass(frozen=True, slots=True)
class MoreSends:
    """Ask for the next page of a message's sends."""

    message_id: UUID
    after: "PlannedSend"  # the last one of the page before


@dataclass(frozen=True, slots=True)
class PlannedHandoff:
    """The sends that a message needs now."""

    sends: tuple[PlannedSend, ...] = ()
    due_at: datetime | None = None  # None: there is no such message
    expires_at: datetime | None = None
    streaming: int = 0  # phones left to their open stream
    quiet: int = 0  # phones that have read it, or whose owners want no push
    more: bool = False  # there is another page of sends
    later: int = 0  # phones whose line is taken for the moment
    again_in: float = 0.0  # seconds until it is worth looking at those again


@dataclass(frozen=True, slots=True)
class SendPage:
    """Sends of one fan-out, few enough for one history: the input of `SendingPage`."""

    sends: tuple[PlannedSend, ...]
    due_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RedriveState:
    """A redriven push task: the input of `Redrive`."""

    send: PlannedSend
    conversation_id: UUID
    due_at: datetime
    expires_at: datetime
    message_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class TestPushState:
    """A test push: the input of `TestPush`."""

    test_push_id: UUID
    sends: tuple[PlannedSend, ...]
    due_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ReminderStatus:
    """What a workflow tells about itself when it is asked."""

    session_id: UUID
    rev: int
    status: SessionStatus
    waiting_for: str
    reminders: tuple[str, ...]  # one line per reminder that was opened
