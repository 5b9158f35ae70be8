"""A test push: what support asks for, and how it stands on each phone."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.devices import ToldPermission
from domain.push import Environment, Provider, TaskState
from domain.reasons import why, why_so
from domain.timeline_words import shows

MAX_PER_MINUTE = 5  # to one person


@dataclass(frozen=True, slots=True)
class AskedTest:
    """Whom to send a test push, and whether a phone is to show it."""

    user_id: str
    installation_id: UUID | None = None  # None: all that have an active token
    validate_only: bool = False  # FCM checks the push, no phone is told


@dataclass(frozen=True, slots=True)
class TestedPhone:
    """How a test push stands on one phone."""

    task_id: UUID
    installation_id: UUID
    provider: Provider
    app_id: str | None
    environment: Environment
    token: str  # its last 6 characters; nothing of a very short one
    state: TaskState
    reason: str | None
    text: str  # how it stands, in words
    attempt_count: int
    next_attempt_at: datetime | None
    accepted_at: datetime | None
    settled_at: datetime | None
    opened_at: datetime | None


@dataclass(frozen=True, slots=True)
class ShownTestPush:
    """A test push as it stands now."""

    test_push_id: UUID
    user_id: str
    sent_by: str
    validate_only: bool
    created_at: datetime
    expires_at: datetime
    is_settled: bool  # nothing more will come of it
    items: list[TestedPhone]
    skipped: list[UUID]  # installations with no dry run (APNs), where only that was asked for
    next_cursor: None = None


def standing_in_words(
    state: TaskState, reason: str | None, provider: Provider | None = None, told: ToldPermission | None = None
) -> str:
    """Say how a test push stands on a phone, which may show nothing of it by what its app `told`."""
    if state is TaskState.ACCEPTED and reason is not None:
        return f"Accepted: {why(reason, provider)}"
    stands = _STANDINGS[state].format(because="." if reason is None else f": {why_so(state, reason, provider)}")
    return stands + (shows(told) if state in {TaskState.PENDING, TaskState.ACCEPTED} else "")


_STANDINGS = {
    TaskState.ACCEPTED: "Accepted by the provider.",
    TaskState.PENDING: "On its way{because}",
    TaskState.REJECTED: "Refused by the provider{because}",
    TaskState.UNREGISTERED: "Its token was refused by the provider{because}",
    TaskState.EXPIRED: "Not sent before it expired{because}",
    TaskState.WITHDRAWN: "Not sent{because}",
    TaskState.DEAD: "Given up{because}",
}
