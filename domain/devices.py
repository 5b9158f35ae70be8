"""Device tokens as their owner and support see them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from domain.push import Environment, Provider


class Permission(StrEnum):
    """Whether a phone's system lets the app show notifications, by its last registration."""

    UNDETERMINED = "undetermined"
    GRANTED = "granted"
    PROVISIONAL = "provisional"
    DENIED = "denied"


SHOWS_NOTHING = frozenset({Permission.UNDETERMINED, Permission.DENIED})


@dataclass(frozen=True, slots=True)
class ToldPermission:
    """What an app told when it registered last; the person may have changed it since."""

    permission: Permission
    at: datetime


@dataclass(frozen=True, slots=True)
class ShownTokenEvent:
    """Something that happened to a device token."""

    at: datetime
    event: str  # registered, reactivated, rotated, transferred, signed_out, invalidated, permission_told
    reason: str | None  # the provider's (invalidated), too_many_installations (signed_out), or the permission


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A device token."""

    id: UUID
    installation_id: UUID
    provider: Provider
    app_id: str | None
    environment: Environment
    token: str  # its last 6 characters; nothing of a very short one
    active: bool
    inactive_reason: str | None
    refresh_required: bool  # the app should fetch its token from the system and register again
    registered_at: datetime
    last_seen_at: datetime
    locale: str | None
    time_zone: str | None
    app_version: str | None
    os_version: str | None
    permission: Permission | None  # as the app told when it registered last; None: it did not tell
    has_public_key: bool  # whether texts can be sealed for this installation


@dataclass(frozen=True, slots=True)
class ShownDevice(ShownToken):
    """A device token with its history, for support."""

    history: list[ShownTokenEvent]  # the latest first, as far back as events are kept, at most 50
