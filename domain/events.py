"""Events, and the webhooks that carry them: what became of pushes, reminders and device tokens, for an app's backend.

The database writes events, in the transaction of the change (docs/decisions/0044-events.md). Webhooks are signed in the
form of Standard Webhooks (https://www.standardwebhooks.com). Here is also when a failed delivery is tried again, and
when sending rests.
"""

import base64
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

from domain.back_off import BackOff

MAX_WEBHOOKS = 50  # each is followed by a workflow and an activity of its own
LONGEST_URL = 2000  # characters
TRIED_FOR = timedelta(days=1)  # a delivery; then it is dead
OVERLAP = timedelta(days=1)  # in which rotated secrets still sign
FORMER_KEPT = 4  # rotated secrets that sign: a rotation may be repeated before a receiver knows of the first
LOG_KEPT = 1000  # accepted deliveries of each webhook
MAX_PENDING = 2000  # failed deliveries of one webhook that are tried again; beyond, the oldest are dead
SUSPICIOUS = 5  # deliveries that failed since the last accepted one, after which only one at a time is tried
LONGEST_REST = timedelta(minutes=5)
LONGEST_RETRY_AFTER = timedelta(hours=1)
TEST_TYPE = "webhook.test"
GONE = "gone"  # the receiver answered 410
_PREFIX = "whsec_"
_SECRET_BYTES = 32
_AGAIN = BackOff(timedelta(seconds=5), timedelta(hours=1))  # one delivery
_RESTS = BackOff(timedelta(seconds=5), LONGEST_REST)  # the whole webhook
_FIRST_FAILURES = 13  # so many fail in the batch with which the rests begin


class EventType(StrEnum):
    """What happened."""

    PUSH_ACCEPTED = "push.accepted"
    PUSH_DEAD = "push.dead"
    PUSH_WITHDRAWN = "push.withdrawn"
    PUSH_EXPIRED = "push.expired"
    PUSH_REJECTED = "push.rejected"
    PUSH_UNREGISTERED = "push.unregistered"
    PUSH_OPENED = "push.opened"
    PUSH_SYNCED = "push.synced"  # the app has read the message of an accepted push
    REMINDER_SKIPPED = "reminder.skipped"  # it was set too late
    REMINDER_WITHHELD = "reminder.withheld"  # no phone, switched off, or quiet hours
    DEVICE_TOKEN_REGISTERED = "device_token.registered"  # noqa: S105
    DEVICE_TOKEN_INVALIDATED = "device_token.invalidated"  # noqa: S105
    DEVICE_TOKEN_TRANSFERRED = "device_token.transferred"  # noqa: S105
    DEVICE_TOKEN_SIGNED_OUT = "device_token.signed_out"  # noqa: S105
    WEBHOOK_DISABLED = "webhook.disabled"


@dataclass(frozen=True, slots=True)
class EventDetails:
    """What an event is about; None where it does not apply. Never a token or a text."""

    task_id: UUID | None = None
    kind: str | None = None  # of the push
    session_id: UUID | None = None
    conversation_id: UUID | None = None
    message_id: UUID | None = None
    installation_id: UUID | None = None
    provider: str | None = None
    reason: str | None = None
    due_at: datetime | None = None
    webhook_id: UUID | None = None

    def written(self, user_id: str | None) -> dict[str, str | None]:
        """Give what applies as in JSON, with the person, for the body of a webhook."""
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {"user_id": user_id} | {name: _written(value) for name, value in values if value is not None}


def _written(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One event of the feed."""

    id: int  # grows along the feed; the cursor
    type: str  # an EventType, or one of a newer release
    occurred_at: datetime
    user_id: str | None  # None: it concerns no person
    data: EventDetails


class DeliveryState(StrEnum):
    """The state of a delivery to a webhook."""

    PENDING = "pending"
    ACCEPTED = "accepted"  # the receiver answered 2xx
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is sent events."""

    id: UUID
    url: str = field(repr=False)  # its path may be a secret
    types: frozenset[str] | None  # None: all
    secret: str = field(repr=False)
    former_secret: str | None = field(repr=False)  # several with blanks between; None, or expired: only one signs
    created_at: datetime
    starts_at: datetime
    position: int
    failures: int
    suspects: int  # deliveries that failed since the last accepted one

    @property
    def secrets(self) -> tuple[str, ...]:
        """Those that sign, the present one first."""
        return (self.secret, *(self.former_secret or "").split())

    @property
    def is_resting(self) -> bool:
        """Whether so many deliveries failed that only one at a time is tried."""
        return self.suspects >= SUSPICIOUS


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A delivery to attempt."""

    delivery_id: UUID
    event_number: int | None  # None: a test
    type: str
    occurred_at: datetime
    data: dict[str, Any]
    attempts: int = 0  # before this one
    gives_up_at: datetime | None = None  # None: it is not recorded yet

    @property
    def webhook_message_id(self) -> str:
        """Name it for the receiver, the same at each attempt."""
        return f"test_{self.delivery_id}" if self.event_number is None else f"evt_{self.event_number}"

    @property
    def body(self) -> bytes:
        """Write the body."""
        at = self.occurred_at.isoformat().replace("+00:00", "Z")
        return json.dumps({"type": self.type, "timestamp": at, "data": self.data}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Attempted:
    """What an attempt came to."""

    status: int | None  # of the answer; None: there was none
    reason: str | None  # None: accepted
    latency_ms: int
    retry_after: timedelta | None = None


def new_secret() -> str:
    """Make a secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signature(signing: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Give the header that proves body, id and time with each of these secrets."""
    content = f"{message_id}.{timestamp}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix(_PREFIX)) for secret in signing]
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}" for key in keys)


def delivery_id(webhook_id: UUID, event_number: int) -> UUID:
    """Name the delivery of one event to one webhook."""
    return uuid5(webhook_id, str(event_number))


def again_after(attempts: int, chance: float, retry_after: timedelta | None) -> timedelta:
    """Say how long a delivery waits after this number of failed attempts; `chance` is uniform in [0, 1)."""
    return _AGAIN.delay(attempts, chance, _floor(retry_after))


def rest_after(failures: int, chance: float, retry_after: timedelta | None) -> timedelta:
    """Say how long a webhook rests that failed so often since its last accepted delivery."""
    return _RESTS.delay(max(1, failures - _FIRST_FAILURES), chance, _floor(retry_after))


def _floor(retry_after: timedelta | None) -> timedelta | None:
    return None if retry_after is None else min(retry_after, LONGEST_RETRY_AFTER)
