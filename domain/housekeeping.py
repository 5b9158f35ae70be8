"""Housekeeping: how long things are kept, and what its workflows and activities tell each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from domain.kinds import RULES, Kind, Subject
from domain.naming import (
    RETENTION,
    handoff_workflow_id,
    redrive_workflow_id,
    reminder_workflow_id,
    test_push_workflow_id,
)

UNTOUCHED = 120.0  # seconds after which nobody can be in the middle of something, a lost worker's call included
AHEAD = timedelta(minutes=10)  # how long before a reminder is due its workflow is looked for first
SWEEP = "sweep"  # the lease of the process that looks for what lost its workflow


@dataclass(frozen=True, slots=True)
class Keep:
    """How long what is finished is kept; what people did (`support_actions`) is kept for good."""

    finished: timedelta = timedelta(days=30)  # push tasks with attempts, what is known of phones that are gone, brakes
    log: timedelta = timedelta(days=90)  # items of users' logs; their messages stay in their conversations


DEFAULT_KEEP = Keep()


@dataclass(frozen=True, slots=True)
class SweepOrphans:
    """Ask for a sweep: the input of `OrphanSweep`."""

    untouched: float = UNTOUCHED  # seconds


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a walk through rows in order of time has come."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Walk:
    """Ask for the next page of a walk."""

    untouched: float  # seconds
    after: Mark | None = None  # None: from the start
    since: datetime | None = None  # what the sweep before looked up to; None: it is not known
    upto: datetime | None = None  # None: this is the first page, and it is up to now


@dataclass(frozen=True, slots=True)
class Walked:
    """What one page of a walk came to."""

    changed: int
    after: Mark | None  # None: the walk is at its end
    upto: datetime  # by the database's clock


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep came to; the next one goes on from it."""

    orphans: int = 0  # push tasks made dead
    sessions: int = 0  # owed to Temporal once more
    handoffs: int = 0  # the same
    upto: datetime | None = None
    after: Mark | None = None  # where the walk through waiting push tasks was broken off


class RetentionTarget(StrEnum):
    """What retention lets go."""

    PUSH_TASKS = "push_tasks"
    TOKEN_EVENTS = "token_events"  # noqa: S105
    PRESENCES = "presences"
    LOG_ITEMS = "log_items"
    WITHHELD_PUSHES = "withheld_pushes"
    CONSOLE_SESSIONS = "console_sessions"
    CONSOLE_CODES = "console_codes"
    DEVICE_TOKENS = "device_tokens"  # after the pushes and events that refer to them
    SYNC_POSITIONS = "sync_positions"
    REMINDERS = "reminders"  # their messages, once no log holds them
    WORKERS = "workers"
    BRAKES = "brakes"
    PREFERENCE_CODES = "preference_codes"
    PREFERENCE_SESSIONS = "preference_sessions"
    SPENT_TICKETS = "spent_tickets"


@dataclass(frozen=True, slots=True)
class Purged:
    """What was let go, and whether there is more."""

    count: int
    is_all: bool


def owning_workflow_ids(kind: Kind, task_id: UUID, conversation_id: UUID, message_id: UUID) -> tuple[str, ...]:
    """Name the workflows that may be sending a push task."""
    redrive = redrive_workflow_id(task_id)
    match RULES[kind].subject:
        case Subject.SESSION:
            return (reminder_workflow_id(conversation_id), redrive)
        case Subject.MESSAGE:
            return (handoff_workflow_id(message_id), redrive)
        case Subject.NOTHING:
            return (test_push_workflow_id(message_id), redrive)


@dataclass(frozen=True, slots=True)
class ShownSchedule:
    """A schedule as an operator sees it."""

    name: str
    started_at: datetime | None  # its latest run; None: it never ran
    state: str | None  # of that run: running, completed, failed, …; missing: there is no such schedule
    found: str | None  # in words, once it is completed
    next_at: datetime | None  # None: paused


def findings(name: str, result: Mapping[str, Any]) -> str:
    """Say what a completed run found."""
    words = {"orphans": "push tasks made dead", "sessions": "fasts started again", "handoffs": "messages started again"}
    if name == RETENTION:
        words = {what: f"{what.replace('_', ' ')} deleted" for what in RetentionTarget}
    found = [f"{result[field]} {said}" for field, said in words.items() if result.get(field)]
    return ", ".join(found) or "nothing"
