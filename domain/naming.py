"""Names that several rooms agree on: task queues, workflow ids, search attributes."""

from uuid import UUID

from domain.push import Provider

WORKFLOW_QUEUE = "fastbell"
SESSION_ID_ATTRIBUTE = "SessionId"  # Keyword
REMINDER_STATE_ATTRIBUTE = "ReminderState"  # Keyword


def session_url(session_id: UUID) -> str:
    """Link to a fasting session in the app."""
    return f"fastbell://fasting-sessions/{session_id}"


def conversation_url(conversation_id: UUID) -> str:
    """Link to a conversation in the app."""
    return f"fastbell://conversations/{conversation_id}"


def push_queue(provider: Provider) -> str:
    """Name the task queue of one provider's sends."""
    return f"push-{provider}"


def reminder_workflow_id(session_id: UUID) -> str:
    """Name the workflow of one fasting session."""
    return f"fasting-reminder/{session_id}"


def redrive_workflow_id(task_id: UUID) -> str:
    """Name the workflow of one redriven push task."""
    return f"redrive/{task_id}"
