"""Value types of a push: where it goes, what it says, how it ended."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from domain.kinds import Kind
from domain.presentation import Look

APP_ID = r"^[A-Za-z0-9._-]+$"  # the form of an app's name: bundle ids and package names have it
LONGEST_APP_ID = 155  # characters


class Provider(StrEnum):
    """A push provider."""

    APNS = "apns"
    FCM = "fcm"


class Environment(StrEnum):
    """The token space of a device token; FCM has only production."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class Route:
    """A provider, an app and an environment, which fail, are throttled and are paused together."""

    provider: Provider
    app_id: str | None  # None: the default app
    environment: Environment


class TaskState(StrEnum):
    """The state of a push task; every state but PENDING is final."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNREGISTERED = "unregistered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    DEAD = "dead"


# The result of several pushes of which none was accepted is the first of these that one of them has.
FAILED = (TaskState.DEAD, TaskState.REJECTED, TaskState.EXPIRED, TaskState.UNREGISTERED)


@dataclass(frozen=True, slots=True)
class Push:
    """One notification for one device token, the same for all providers."""

    task_id: UUID
    attempt_id: UUID  # new for each provider call; the apns-id for APNs
    kind: Kind
    token: str = field(repr=False)
    title: str = field(repr=False)
    body: str = field(repr=False)
    generic_title: str = field(repr=False)  # shown instead by an app whose texts are sealed
    generic_body: str = field(repr=False)
    url: str  # deep link that a tap opens
    collapse_key: str | None  # at most 64 bytes; replaces an earlier one; None: no retry in doubt
    thread_id: str  # groups the notifications of one conversation on the lock screen
    expires_at: datetime  # aware UTC; the push is not useful afterwards
    useful_for: timedelta  # until then, from its last check on: by the database's clock, since ours may be wrong
    look: Look
    badge: int | None = None  # the number on the app's icon; None: it stays
    public_key: bytes | None = None  # X25519, of the installation; seals the text
    sounds: bool = True  # False: it replaces a notification without a sound
    validate_only: bool = False  # FCM checks it, no phone shows it; APNs cannot do that
    user_id: str = field(default="", repr=False)  # whose it is; not sent to providers


@dataclass(frozen=True, slots=True)
class PlannedSend:
    """One push task to send."""

    task_id: UUID
    provider: Provider
    environment: Environment
    app_id: str | None = None
    kind: Kind = Kind.REMINDER
    user_digest: int = 0  # distinguishes users without naming them, so that each has a turn; 0: of an older release


@dataclass(frozen=True, slots=True)
class SentPush:
    """The state of a push task after its send."""

    task_id: UUID
    state: TaskState
    reason: str | None
    reaches_all: bool = False  # each phone of its person had a push when this one's outcome was stored; False: unknown
