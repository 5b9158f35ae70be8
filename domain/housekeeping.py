"""Housekeeping: how long things are kept, and which workflows own what."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from domain.kinds import RULES, Kind, Subject
from domain.naming import handoff_workflow_id, redrive_workflow_id, reminder_workflow_id, test_push_workflow_id

UNTOUCHED = 120.0  # seconds without a change, after which no work can be under way, lost workers' calls included
AHEAD = timedelta(minutes=10)  # how long before a reminder is due the first look for its workflow comes
SWEEP = "sweep"  # the lease of the process that looks for missing workflows


@dataclass(frozen=True, slots=True)
class Keep:
    """How long finished things are kept; support actions are kept for good."""

    finished: timedelta = timedelta(days=30)  # push tasks with attempts, data of gone phones, cutoffs
    log: timedelta = timedelta(days=90)  # items of users' logs; their messages stay in their conversations
    events: timedelta = timedelta(days=7)  # the feed, and deliveries to webhooks


DEFAULT_KEEP = Keep()


class RetentionTarget(StrEnum):
    """What retention purges, in this order; a new one goes last, since runs of older releases count from the first."""

    PUSH_TASKS = "push_tasks"
    TOKEN_EVENTS = "token_events"  # noqa: S105
    PRESENCES = "presences"
    LOG_ITEMS = "log_items"
    WITHHELD_PUSHES = "withheld_pushes"
    CONSOLE_SESSIONS = "console_sessions"
    CONSOLE_CODES = "console_codes"
    DEVICE_TOKENS = "device_tokens"  # after the pushes and events that refer to them
    SYNC_POSITIONS = "sync_positions"
    REMINDERS = "reminders"  # their messages, once no log has them
    WORKERS = "workers"
    BRAKES = "brakes"
    PREFERENCE_CODES = "preference_codes"
    PREFERENCE_SESSIONS = "preference_sessions"
    SPENT_TICKETS = "spent_tickets"
    EVENTS = "events"
    WEBHOOK_DELIVERIES = "webhook_deliveries"


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
