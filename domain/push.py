"""Value types of a push: where it goes, what it says, how it ended."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from domain.kinds import Kind

APP_ID = r"^[A-Za-z0-9._-]+$"  # the form of an app's name: bundle ids and package names have it
LONGEST_APP_ID = 155  # characters


class Provider(StrEnum):
    """A push provider."""

    APNS = "apns"
    FCM = "fcm"


class Environment(StrEnum):
    """The token space of a device token; FCM knows only production."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class Route:
    """One way to phones, which fails, is throttled and is paused as a whole."""

    provider: Provider
    app_id: str | None  # None: the default app
    environment: Environment


class TaskState(StrEnum):
    """Where a push task stands; every state but PENDING is final."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNREGISTERED = "unregistered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    DEAD = "dead"


# What several pushes for one thing came to where none was accepted: the first of these that any of them came to.
FAILED = (TaskState.DEAD, TaskState.REJECTED, TaskState.EXPIRED, TaskState.UNREGISTERED)


@dataclass(frozen=True, slots=True)
class Push:
    """One notification for one device token, in our words."""

    task_id: UUID
    attempt_id: UUID  # new for each provider call; APNs echoes it as apns-id
    kind: Kind
    token: str = field(repr=False)
    title: str = field(repr=False)
    body: str = field(repr=False)
    generic_title: str = field(repr=False)  # shown in its place by an app whose texts are sealed
    generic_body: str = field(repr=False)
    url: str  # deep link that a tap opens
    collapse_key: str | None  # at most 64 bytes; replaces the line with the same key; None: not sent again in doubt
    thread_id: str  # groups lines of one conversation on the lock screen
    expires_at: datetime  # aware UTC; the push is of no use afterwards
    public_key: bytes | None = None  # X25519, of the installation; seals the text
    sounds: bool = True  # False: its line on the screen is replaced without a noise
    validate_only: bool = False  # FCM checks it, no phone is told; APNs has no such thing
    user_id: str = field(default="", repr=False)  # whose it is; no provider is told


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
class SentPush:
    """How a push task stands after its send."""

    task_id: UUID
    state: TaskState
    reason: str | None
