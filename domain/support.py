"""What support sees of push tasks and does to them; a token only ever by its last characters, text never."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.devices import Permission
from domain.kinds import Kind
from domain.problems import InvalidField
from domain.push import Environment, Provider, TaskState
from domain.reasons import meaning
from domain.signals import Refusals

SHOWN = 6  # last characters of a token that are ever shown
NOT_DEAD = "not_dead"
MAX_AT_ONCE = 10_000  # redriven by one request


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which push tasks are meant; None means any."""

    state: TaskState = TaskState.DEAD
    provider: Provider | None = None
    app_id: str | None = None
    environment: Environment | None = None
    kind: Kind | None = None
    reason: str | None = None
    user_id: str | None = None
    conversation_id: UUID | None = None
    message_id: UUID | None = None
    due_from: datetime | None = None
    due_to: datetime | None = None  # itself not included


@dataclass(frozen=True, slots=True)
class ShownTask:
    """A push task as support sees it."""

    task_id: UUID
    state: TaskState
    last_reason: str | None
    kind: Kind
    user_id: str
    installation_id: UUID
    provider: Provider
    app_id: str | None
    environment: Environment
    token: str  # its last 6 characters; nothing of a very short one
    conversation_id: UUID
    message_id: UUID
    reminder_minutes: int | None
    due_at: datetime
    expires_at: datetime
    attempt_count: int
    next_attempt_at: datetime | None
    created_at: datetime
    accepted_at: datetime | None
    opened_at: datetime | None
    synced_at: datetime | None
    held_up_by: str | None  # the last reason why it was not sent or taken at once
    accepted_to_synced_seconds: float | None  # push to sync; null unless both happened
    redrive_refused: str | None  # why a redrive would be refused now; null where it would not
    permission: Permission | None  # what the app told of the phone when it registered last
    permission_told_at: datetime | None


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """One provider call."""

    number: int
    started_at: datetime
    outcome: str | None  # null while it is under way
    reason: str | None
    latency_ms: int | None
    provider_id: str | None


@dataclass(frozen=True, slots=True)
class ShownAction:
    """What a person did."""

    at: datetime
    actor: str
    action: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WholeTask:
    """A push task with all that was done for it."""

    task: ShownTask
    attempts: list[ShownAttempt]
    actions: list[ShownAction]


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive by filter came to."""

    redriven: int
    withheld: Mapping[str, int]  # by reason; these stay dead
    limit_reached: bool  # there may be more


ROUTE_STATES = {"closed": "sending", "open": "paused", "half_open": "paused, testing", "braked": "stopped"}  # to people


@dataclass(frozen=True, slots=True)
class ShownGate:
    """How one worker's gate of a route stands."""

    worker_id: UUID
    seen_at: datetime  # the worker's last heartbeat
    state: str  # closed: calls pass, as in an electric circuit; open; half_open: one call is tried; braked
    reason: str | None
    until: datetime | None  # while open: the earliest next call
    waiting: int
    in_flight: int
    rate: float | None  # calls per second of this worker; null: no limit


@dataclass(frozen=True, slots=True)
class ShownBrake:
    """A mass of token errors on one route; while it is engaged nothing is sent and no token deactivated."""

    id: UUID
    reason: str  # the most frequent one
    token_errors: int  # users whose token was refused
    answers: int  # users answered for
    engaged_at: datetime
    resumed_at: datetime | None
    resumed_by: str | None


@dataclass(frozen=True, slots=True)
class ShownRoute:
    """One way to phones, as all workers see it."""

    provider: Provider
    app_id: str | None
    environment: Environment
    brake: ShownBrake | None  # engaged
    workers: list[ShownGate]
    errors: Refusals | None = None  # of the pushes due in the last 15 minutes; null where none was refused


@dataclass(frozen=True, slots=True)
class ShownRefusal:
    """What a provider said that no table of ours knows."""

    provider: Provider
    status: int  # 0 with the reason `others`: more kinds than are told apart
    reason: str
    count: int  # in all live workers together, each since it began
    last_at: datetime


@dataclass(frozen=True, slots=True)
class ShownGates:
    """All routes, and what was said on them that nobody understood; both are few, so there is one page."""

    items: list[ShownRoute]
    unknown_refusals: list[ShownRefusal]
    next_cursor: None = None


def check_wanted(wanted: Wanted) -> None:
    """Raise InvalidField for a search that no index serves."""
    narrow = (wanted.user_id, wanted.conversation_id, wanted.message_id)
    if wanted.state is not TaskState.DEAD and not any(narrow):
        raise InvalidField(
            "state", "Push tasks that are not dead can be listed of one user, conversation or message only."
        )


def refusal_in_words(reason: str) -> str:
    """Say why a push cannot be redriven."""
    return f"This push cannot be redriven: {meaning(reason) or f'it would be withheld ({reason}).'}"
