"""Names: of this release, workflows, task queues and search attributes; digests of secrets and users."""

import hashlib
import hmac
import secrets
import tomllib
from pathlib import Path
from urllib.parse import quote
from uuid import UUID
from zlib import crc32

from domain.push import Provider

_PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
VERSION: str = _PROJECT["version"]  # of this release


def digest(secret: str) -> bytes:
    """Give SHA-256 over the UTF-8 bytes. Secrets are random and long, so they need no salt."""
    return hashlib.sha256(secret.encode()).digest()


def keyed_digest(user_id: str, key: bytes | None) -> bytes:
    """Give HMAC-SHA256 of a user id. Without a key it is that of a random key, so that nobody can test a guess."""
    return hmac.digest(key or secrets.token_bytes(32), user_id.encode(), "sha256")


WORKFLOW_QUEUE = "fastbell"
WEBHOOK_QUEUE = "webhooks"
ORPHAN_SWEEP = "orphan-sweep"  # schedules; with the time of each run, its workflow
RETENTION = "retention"
SESSION_ID_ATTRIBUTE = "SessionId"  # Keyword
CONVERSATION_ID_ATTRIBUTE = "ConversationId"  # Keyword
MESSAGE_ID_ATTRIBUTE = "MessageId"  # Keyword
REMINDER_STATE_ATTRIBUTE = "ReminderState"  # Keyword
HANDOFF_STATE_ATTRIBUTE = "HandoffState"  # Keyword

SEARCH_ATTRIBUTES = (
    SESSION_ID_ATTRIBUTE,
    CONVERSATION_ID_ATTRIBUTE,
    MESSAGE_ID_ATTRIBUTE,
    REMINDER_STATE_ATTRIBUTE,
    HANDOFF_STATE_ATTRIBUTE,
)


_FASTING_REMINDER, _MESSAGE_HANDOFF, _REDRIVE = "fasting-reminder", "message-handoff", "redrive"
_WEBHOOK = "webhook"

_SUBJECTS = {
    _FASTING_REMINDER: "session_id",
    _MESSAGE_HANDOFF: "message_id",
    _REDRIVE: "task_id",
    _WEBHOOK: "webhook_id",
}


def user_digest(user_id: str) -> int:
    """Give a number that distinguishes users without naming them."""
    return crc32(user_id.encode())


def push_queue(provider: Provider) -> str:
    """Name the task queue of one provider's sends."""
    return f"push-{provider}"


def reminder_workflow_id(session_id: UUID) -> str:
    """Name the workflow of one fasting session."""
    return f"{_FASTING_REMINDER}/{session_id}"


def handoff_workflow_id(message_id: UUID) -> str:
    """Name the workflow that hands one message off."""
    return f"{_MESSAGE_HANDOFF}/{message_id}"


def sending_workflow_id(message_id: UUID, page: int) -> str:
    """Name the workflow that makes one page of a message's sends, pages counted from 1."""
    return f"{handoff_workflow_id(message_id)}/{page}"


def test_push_workflow_id(test_push_id: UUID) -> str:
    """Name the workflow of one test push."""
    return f"test-push/{test_push_id}"


def webhook_workflow_id(webhook_id: UUID) -> str:
    """Name the workflow that follows the feed for one webhook."""
    return f"{_WEBHOOK}/{webhook_id}"


def redrive_workflow_id(task_id: UUID) -> str:
    """Name the workflow of one redriven push task."""
    return f"{_REDRIVE}/{task_id}"


def subject_of(workflow_id: str) -> dict[str, str]:
    """Read the subject of a workflow from its id, by the name of the subject's id; empty for an unknown one."""
    kind, _, rest = workflow_id.partition("/")
    name = _SUBJECTS.get(kind)
    return {name: rest.partition("/")[0]} if name else {}


def workflow_page(ui_url: str, namespace: str, workflow_id: str) -> str:
    """Name the page of a workflow's latest run in Temporal's Web UI."""
    return f"{ui_url}/namespaces/{quote(namespace, safe='')}/workflows/{quote(workflow_id, safe='')}"
