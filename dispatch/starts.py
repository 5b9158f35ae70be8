"""How each workflow is started or signalled: one call each, which may be repeated at any time."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

from temporalio.client import Client
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.handoff import HandoffState
from activities.reminders import SessionState
from activities.webhooks import FollowFeed
from domain.fasts import FIRST_REV, SessionStatus
from domain.kinds import RULES, Kind
from domain.naming import (
    CONVERSATION_ID_ATTRIBUTE,
    HANDOFF_STATE_ATTRIBUTE,
    MESSAGE_ID_ATTRIBUTE,
    REMINDER_STATE_ATTRIBUTE,
    SESSION_ID_ATTRIBUTE,
    WEBHOOK_QUEUE,
    WORKFLOW_QUEUE,
    handoff_workflow_id,
    redrive_workflow_id,
    reminder_workflow_id,
    test_push_workflow_id,
    webhook_workflow_id,
)
from operations.diagnostic_push import TestPushState
from operations.redrive import RedriveState
from workflows.fasting_reminder import FastingReminder
from workflows.message_handoff import MessageHandoff
from workflows.redrive import DiagnosticPush, Redrive, about
from workflows.status import ABOUT_HANDOFF, ABOUT_REDRIVE, ABOUT_REMINDERS, ABOUT_TEST_PUSH, ABOUT_WEBHOOK, found_by
from workflows.webhook_follower import WebhookFollower

_RPC_TIMEOUT = timedelta(seconds=5)
_MISSED_AFTER = timedelta(seconds=5)  # of a workflow task: if its worker is killed meanwhile, another one has it then
_COMMON: dict[str, Any] = {  # a running one continues; after an ended one another starts
    "task_queue": WORKFLOW_QUEUE,
    "id_conflict_policy": WorkflowIDConflictPolicy.USE_EXISTING,
    "id_reuse_policy": WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    "rpc_timeout": _RPC_TIMEOUT,
    "task_timeout": _MISSED_AFTER,
}


async def remind_as(client: Client, state: SessionState) -> None:
    """Have the reminders of a fasting session sent, or cancelled, by its present state.

    A new session's workflow is started without a signal, which would cost an event and say what the start says.
    """
    if state.status is SessionStatus.ACTIVE and state.reminders:
        if state.rev == FIRST_REV:
            with suppress(WorkflowAlreadyStartedError):
                await _start(client, state, id_conflict_policy=WorkflowIDConflictPolicy.FAIL)
                return
        await _start(client, state, start_signal="reschedule", start_signal_args=[state])
        return
    handle = client.get_workflow_handle(reminder_workflow_id(state.session_id))
    signal = {
        SessionStatus.ACTIVE: FastingReminder.reschedule,
        SessionStatus.CANCELLED: FastingReminder.cancel,
    }.get(state.status, FastingReminder.end)
    with _if_running():  # without a workflow there is nothing to cancel
        await handle.signal(signal, state, rpc_timeout=_RPC_TIMEOUT)


async def _start(client: Client, state: SessionState, **more: Any) -> None:  # noqa: ANN401 -- the SDK's arguments
    await client.start_workflow(
        FastingReminder.run,
        state,
        id=reminder_workflow_id(state.session_id),
        static_summary=f"Reminders of fasting session {state.session_id}",
        static_details=ABOUT_REMINDERS,
        search_attributes=found_by(
            {SESSION_ID_ATTRIBUTE: str(state.session_id), REMINDER_STATE_ATTRIBUTE: "scheduled"}
        ),
        priority=_priority(Kind.REMINDER),
        **(_COMMON | more),
    )


async def hand_off(client: Client, state: HandoffState) -> None:
    """Have a message handed off."""
    await client.start_workflow(
        MessageHandoff.run,
        state,
        id=handoff_workflow_id(state.message_id),
        static_summary=f"Handoff of message {state.message_id}",
        static_details=ABOUT_HANDOFF,
        search_attributes=found_by(
            {
                CONVERSATION_ID_ATTRIBUTE: str(state.conversation_id),
                MESSAGE_ID_ATTRIBUTE: str(state.message_id),
                HANDOFF_STATE_ATTRIBUTE: "handing_off",
            }
        ),
        priority=_priority(Kind.MESSAGE),
        **_COMMON,
    )


async def redrive(client: Client, state: RedriveState) -> None:
    """Have a push task sent again."""
    await client.start_workflow(
        Redrive.run,
        state,
        id=redrive_workflow_id(state.send.task_id),
        start_signal="again",
        start_signal_args=[state],
        static_summary=f"Redrive of push task {state.send.task_id}",
        static_details=ABOUT_REDRIVE,
        search_attributes=found_by(about(state, "redriving")),
        priority=_priority(state.send.kind),
        **_COMMON,
    )


async def test(client: Client, state: TestPushState) -> None:
    """Have a test push sent."""
    await client.start_workflow(
        DiagnosticPush.run,
        state,
        id=test_push_workflow_id(state.test_push_id),
        static_summary=f"Test push {state.test_push_id}",
        static_details=ABOUT_TEST_PUSH,
        search_attributes=found_by({MESSAGE_ID_ATTRIBUTE: str(state.test_push_id)}),
        priority=_priority(Kind.TEST),
        **_COMMON,
    )


async def follow(client: Client, webhook_id: UUID) -> None:
    """Have the feed followed for a webhook, or its rest ended."""
    await client.start_workflow(
        WebhookFollower.run,
        FollowFeed(webhook_id),
        id=webhook_workflow_id(webhook_id),
        start_signal="look_again",
        static_summary=f"Events for webhook {webhook_id}",
        static_details=ABOUT_WEBHOOK,
        **_COMMON | {"task_queue": WEBHOOK_QUEUE},  # which 0.1.0 does not ask: it has no such workflow
    )


async def stop_following(client: Client, webhook_id: UUID) -> None:
    """End the rest of the workflow of a webhook that was deleted or disabled, so that it ends."""
    handle = client.get_workflow_handle(webhook_workflow_id(webhook_id))
    with _if_running():
        await handle.signal(WebhookFollower.look_again, rpc_timeout=_RPC_TIMEOUT)


async def follow_elsewhere(client: Client, webhook_id: UUID, living: Collection[str]) -> bool:
    """Have the feed followed by another worker, where the one that does so is not among the living; tells whether."""
    handle = client.get_workflow_handle(webhook_workflow_id(webhook_id))
    with _if_running():
        described = await handle.describe(rpc_timeout=_RPC_TIMEOUT)
        following = {each.last_worker_identity for each in described.raw_description.pending_activities}
        if following - {"", *living}:
            await handle.signal(WebhookFollower.follow_elsewhere, rpc_timeout=_RPC_TIMEOUT)
            return True
    return False


@contextmanager
def _if_running() -> Iterator[None]:
    """Signal nobody where there is no workflow."""
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


def _priority(kind: Kind) -> Priority:
    """Let the workflow tasks of reminders go first."""
    return Priority(priority_key=RULES[kind].urgency)
