"""Events: what became of pushes, reminders and device tokens, as the app's backend learns it.

The database writes them, in the transaction of the change (docs/decisions/0044-events.md).
"""

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from uuid import UUID


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
