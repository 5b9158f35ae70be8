"""Outbox to Temporal: reads a subject as it is now and makes Temporal agree with it.

Level-triggered, so it may run twice, late or out of order. The API process dispatches what it has just committed; the
sweeper in each worker dispatches whatever is left.
"""

import asyncio
from datetime import timedelta
from uuid import UUID

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from db import fasting_sessions, handoffs, messages, outbox, redrives, test_pushes
from db.engine import Sessions
from domain.naming import (
    CONVERSATION_ID_ATTRIBUTE,
    HANDOFF_STATE_ATTRIBUTE,
    MESSAGE_ID_ATTRIBUTE,
    REMINDER_STATE_ATTRIBUTE,
    SESSION_ID_ATTRIBUTE,
    WORKFLOW_QUEUE,
    handoff_workflow_id,
    redrive_workflow_id,
    reminder_workflow_id,
    test_push_workflow_id,
)
from domain.reminders import arm_seconds, upcoming
from domain.sessions import FastingSession, SessionStatus
from domain.wire import HandoffState, RedriveState, SessionState
from telemetry import labels, metrics, tracing
from workflows.details import ABOUT_HANDOFF, ABOUT_REDRIVE, ABOUT_REMINDERS, ABOUT_TEST_PUSH, found_by
from workflows.fasting_reminder import FastingReminder
from workflows.message_handoff import MessageHandoff
from workflows.redrive import Redrive, about
from workflows.test_push import TestPush

_RPC_TIMEOUT = timedelta(seconds=5)
_DISPATCH_TIMEOUT = 15.0  # seconds; also bounds the first connect, which has no timeout of its own
_CLOSE_WITHIN = 5.0  # seconds
_AT_ONCE = 20  # dispatches under way in one process
_MOST_WAITING = 1000  # beyond this an API process leaves its rows to the sweepers
_SWEEP_EVERY = 1.0  # seconds
_SWEEP_MOST = 200
_SUBJECT_IDS = {
    fasting_sessions.OUTBOX_KIND: "session_id",
    messages.OUTBOX_KIND: "message_id",
    redrives.OUTBOX_KIND: "task_id",
    test_pushes.OUTBOX_KIND: "test_push_id",
}

log = structlog.get_logger()


class Relay:
    """Dispatches outbox rows over one client."""

    def __init__(self, sessions: Sessions, client: Client, arm_window: float) -> None:
        self._sessions = sessions
        self._client = client
        self._arm_window = arm_window
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._soon: set[asyncio.Task[None]] = set()

    def dispatch_soon(self, owed: outbox.Owed) -> None:
        """Dispatch a row that was just committed, after the answer; if that fails, a sweeper will."""
        if len(self._soon) < _MOST_WAITING:
            task = asyncio.create_task(self.dispatch(owed))
            self._soon.add(task)
            task.add_done_callback(self._soon.discard)

    async def sweep_forever(self) -> None:
        """Dispatch what is due, for ever; trouble with the database is logged and outlived."""
        while True:
            swept = 0
            try:
                swept = await self.sweep()
            except Exception as error:  # noqa: BLE001 -- a sweeper that dies is worse than any error
                log.warning("sweep failed", error=type(error).__name__)
            if swept < _SWEEP_MOST:
                await asyncio.sleep(_SWEEP_EVERY)

    async def sweep(self) -> int:
        """Dispatch the rows that are due; returns how many there were."""
        async with self._sessions.begin() as db:
            due = await outbox.lease_due(db, _SWEEP_MOST)
        await asyncio.gather(*(self.dispatch(owed) for owed in due))
        return len(due)

    async def dispatch(self, owed: outbox.Owed) -> None:
        """Make Temporal agree with one subject, then forget the row; on trouble note it for later."""
        subject = {_SUBJECT_IDS.get(owed.subject_kind, "subject_id"): str(owed.subject_id)}
        async with self._at_once:
            with structlog.contextvars.bound_contextvars(**subject):
                try:
                    await self._dispatch(owed)
                except Exception as error:  # noqa: BLE001 -- whatever it is, the row stays owed
                    log.warning("dispatch postponed", error=_name(error))
                    metrics.dispatches.labels(owed.subject_kind, "postponed", labels.reason(_name(error))).inc()
                    await self._postpone(owed, _name(error))
                else:
                    metrics.dispatches.labels(owed.subject_kind, "agreed", "").inc()

    def state_of(self, session: FastingSession) -> SessionState:
        """Put into words for Temporal what the session is, its reminders computed."""
        return SessionState(
            session_id=session.session_id,
            rev=session.rev,
            status=session.status,
            ends_at=session.ends_at,
            reminders=upcoming(session),
            arm_seconds=arm_seconds(session.session_id, self._arm_window),
        )

    async def close(self) -> None:
        """Let dispatches under way finish."""
        if self._soon:
            _, late = await asyncio.wait(self._soon, timeout=_CLOSE_WITHIN)
            for task in late:  # their rows stay owed; a sweeper has them
                task.cancel()

    async def _dispatch(self, owed: outbox.Owed) -> None:
        parent = tracing.context_of(owed.traceparent)
        with tracing.span(f"dispatch {owed.subject_kind}", tracing.Kind.PRODUCER, parent, {}):
            async with asyncio.timeout(_DISPATCH_TIMEOUT):
                await self._make_agree(owed)
        async with self._sessions.begin() as db:
            await outbox.settle(db, owed.id)

    async def _make_agree(self, owed: outbox.Owed) -> None:
        match owed.subject_kind:
            case fasting_sessions.OUTBOX_KIND:
                await self._remind_as(owed.subject_id)
            case messages.OUTBOX_KIND:
                await self._hand_off(owed.subject_id)
            case redrives.OUTBOX_KIND:
                await self._redrive(owed.subject_id)
            case test_pushes.OUTBOX_KIND:
                await self._test(owed.subject_id)
            case unknown:  # a newer release wrote it and will dispatch it
                raise LookupError(unknown)

    async def _remind_as(self, session_id: UUID) -> None:
        """Tell Temporal until the session has not changed meanwhile, so that a slow dispatch leaves no old state."""
        told_rev = None
        while (session := await self._read(session_id)) is not None and session.rev != told_rev:
            await self._tell(session)
            told_rev = session.rev

    async def _read(self, session_id: UUID) -> FastingSession | None:
        async with self._sessions() as db:
            return await fasting_sessions.read(db, session_id)

    async def _tell(self, session: FastingSession) -> None:
        state = self.state_of(session)
        if session.status is SessionStatus.ACTIVE and state.reminders:
            await self._start_or_reschedule(state)
            return
        handle = self._client.get_workflow_handle(reminder_workflow_id(state.session_id))
        signal = {
            SessionStatus.ACTIVE: FastingReminder.reschedule,
            SessionStatus.CANCELLED: FastingReminder.cancel,
        }.get(session.status, FastingReminder.end)
        try:
            await handle.signal(signal, state, rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:  # no workflow: nothing to call off
                raise

    async def _start_or_reschedule(self, state: SessionState) -> None:
        await self._client.start_workflow(
            FastingReminder.run,
            state,
            id=reminder_workflow_id(state.session_id),
            task_queue=WORKFLOW_QUEUE,
            start_signal="reschedule",
            start_signal_args=[state],
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=f"Reminders of fasting session {state.session_id}",
            static_details=ABOUT_REMINDERS,
            search_attributes=found_by(
                {SESSION_ID_ATTRIBUTE: str(state.session_id), REMINDER_STATE_ATTRIBUTE: "scheduled"}
            ),
            rpc_timeout=_RPC_TIMEOUT,
        )

    async def _hand_off(self, message_id: UUID) -> None:
        async with self._sessions() as db:
            message = await handoffs.posted(db, message_id)
        if message is None:
            return
        await self._client.start_workflow(
            MessageHandoff.run,
            HandoffState(message_id, message.conversation_id),
            id=handoff_workflow_id(message_id),
            task_queue=WORKFLOW_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=f"Handoff of message {message_id}",
            static_details=ABOUT_HANDOFF,
            search_attributes=found_by(
                {
                    CONVERSATION_ID_ATTRIBUTE: str(message.conversation_id),
                    MESSAGE_ID_ATTRIBUTE: str(message_id),
                    HANDOFF_STATE_ATTRIBUTE: "handing_off",
                }
            ),
            rpc_timeout=_RPC_TIMEOUT,
        )

    async def _redrive(self, task_id: UUID) -> None:
        async with self._sessions() as db:
            state = await redrives.under_way(db, task_id)
        if state is not None:
            await self._start_or_tell_again(state)

    async def _start_or_tell_again(self, state: RedriveState) -> None:
        await self._client.start_workflow(
            Redrive.run,
            state,
            id=redrive_workflow_id(state.send.task_id),
            task_queue=WORKFLOW_QUEUE,
            start_signal="again",
            start_signal_args=[state],
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=f"Redrive of push task {state.send.task_id}",
            static_details=ABOUT_REDRIVE,
            search_attributes=found_by(about(state, "redriving")),
            rpc_timeout=_RPC_TIMEOUT,
        )

    async def _test(self, test_push_id: UUID) -> None:
        async with self._sessions() as db:
            state = await test_pushes.under_way(db, test_push_id)
        if state is None:
            return
        await self._client.start_workflow(
            TestPush.run,
            state,
            id=test_push_workflow_id(test_push_id),
            task_queue=WORKFLOW_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=f"Test push {test_push_id}",
            static_details=ABOUT_TEST_PUSH,
            search_attributes=found_by({MESSAGE_ID_ATTRIBUTE: str(test_push_id)}),
            rpc_timeout=_RPC_TIMEOUT,
        )

    async def _postpone(self, owed: outbox.Owed, error: str) -> None:
        try:
            async with self._sessions.begin() as db:
                await outbox.postpone(db, owed.id, owed.attempts, error)
        except Exception as trouble:  # noqa: BLE001 -- the lease runs out by itself
            log.warning("outbox row not postponed", outbox_id=owed.id, error=type(trouble).__name__)


def _name(error: Exception) -> str:
    """Name an error without its text, which may hold what the database must not keep."""
    return f"Temporal: {error.status.name}" if isinstance(error, RPCError) else type(error).__name__
