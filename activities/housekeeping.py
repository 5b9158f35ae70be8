"""Housekeeping: finds what has lost its workflow, and purges what has been kept long enough."""

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from db import device_tokens, fasting_sessions, messages, orphans, outbox, preferences, retention, withheld_pushes
from db.engine import Sessions, may_be_ones_fault, present_instant, wait_briefly_for_locks
from db.orphans import Mark, Stray, Window
from db.retention import Purged
from domain.fasts import LONGEST_USEFUL, FastingSession, message_id, upcoming
from domain.housekeeping import AHEAD, UNTOUCHED, Keep, RetentionTarget, owning_workflow_ids
from domain.kinds import RULES, Kind
from domain.last_check import unwanted_everywhere
from domain.naming import handoff_workflow_id, reminder_workflow_id
from domain.preferences import Preferences
from operations import redrive as redrives

PAGE = 50  # rows of a walk, and questions to Temporal, in one activity: few, so that it is short
_AT_ONCE = 10  # questions to Temporal under way
_ANSWERS_WITHIN = 3.0  # seconds
_PURGES_FOR = 2.0  # seconds that one activity works at most, transaction after transaction

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SweepOrphans:
    """Ask for a sweep: the input of `OrphanSweep`."""

    untouched: float = UNTOUCHED  # seconds


@dataclass(frozen=True, slots=True)
class Walk:
    """Ask for the next page of a walk."""

    untouched: float  # seconds
    after: Mark | None = None  # None: from the start
    since: datetime | None = None  # what the sweep before looked up to; None: it is not known
    upto: datetime | None = None  # None: this is the first page, and it is up to now


@dataclass(frozen=True, slots=True)
class Walked:
    """The result of one page of a walk."""

    changed: int
    after: Mark | None  # None: the walk is at its end
    upto: datetime  # by the database's clock


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of a sweep, from which the next one continues."""

    orphans: int = 0  # push tasks made dead
    sessions: int = 0  # dispatched again
    handoffs: int = 0  # the same
    upto: datetime | None = None
    after: Mark | None = None  # where the walk through waiting push tasks was broken off


class WorkflowState(Enum):
    """The state of a workflow, as far as Temporal says."""

    RUNS = "runs"
    CLOSED = "closed"
    LOST = "lost"  # Temporal knows no such workflow
    UNKNOWN = "unknown"  # Temporal did not say


GONE = frozenset({WorkflowState.CLOSED, WorkflowState.LOST})
_CLOSED = {
    WorkflowExecutionStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED,
    WorkflowExecutionStatus.CANCELED,
    WorkflowExecutionStatus.TERMINATED,
    WorkflowExecutionStatus.TIMED_OUT,
}


class Sweeping:
    """The local activities of `OrphanSweep`; each may be repeated."""

    def __init__(self, sessions: Sessions, client: Client) -> None:
        self._sessions = sessions
        self._client = client

    @activity.defn
    async def restart_sessions(self, ask: Walk) -> Walked:
        """Dispatch again the fasts without a workflow that have a reminder soon, or had one that was not opened."""
        async with self._sessions() as db:
            until = ask.upto or await present_instant(db)
            ahead = Window(until if ask.since is None else max(ask.since + AHEAD, until), until + AHEAD)
            untouched = timedelta(seconds=ask.untouched)
            behind = Window((until - LONGEST_USEFUL if ask.since is None else ask.since) - untouched, until - untouched)
            page = await orphans.sessions_due(db, [ahead, behind], ask.after, PAGE)
            sessions = (await fasting_sessions.by_id(db, [mark.id for mark in page])).values()
            never_opened = await _never_opened(db, sessions, behind)
        near = [session for session in sessions if any(ahead.holds(each.due_at) for each in upcoming(session))]
        gone = await self._gone({reminder_workflow_id(session.session_id) for session in near})
        lost = {each.session_id for each in near if reminder_workflow_id(each.session_id) in gone}
        changed = await self.dispatch_again(fasting_sessions.OUTBOX_KIND, sorted(lost | never_opened))
        return Walked(changed, page[-1] if len(page) == PAGE else None, until)

    @activity.defn
    async def restart_handoffs(self, ask: Walk) -> Walked:
        """Dispatch again the messages whose handoff is not decided and has no workflow."""
        useful_for = RULES[Kind.MESSAGE].useful_for
        assert useful_for is not None
        async with self._sessions() as db:
            until = ask.upto or await present_instant(db)
            marks = await orphans.handoffs_not_done(db, timedelta(seconds=ask.untouched), useful_for, ask.after, PAGE)
        gone = await self._gone({handoff_workflow_id(each.id) for each in marks})
        lost = {each.id for each in marks if handoff_workflow_id(each.id) in gone}
        changed = await self.dispatch_again(messages.OUTBOX_KIND, sorted(lost))
        return Walked(changed, marks[-1] if len(marks) == PAGE else None, until)

    @activity.defn(name="bury_orphans")
    async def mark_orphans_dead(self, ask: Walk) -> Walked:
        """Mark waiting push tasks dead that no running workflow owns; what Temporal lost is sent again."""
        async with self._sessions() as db:
            until = ask.upto or await present_instant(db)
            strays = await orphans.strays(db, timedelta(seconds=ask.untouched), ask.after, PAGE)
        owners = {
            stray: owning_workflow_ids(stray.kind, stray.task_id, stray.conversation_id, stray.message_id)
            for stray in strays
        }
        by_owner = await self.workflow_states({owner for each in owners.values() for owner in each})
        states = {stray: {by_owner[owner] for owner in owners[stray]} for stray in strays}
        gone = [stray for stray in strays if states[stray] <= GONE]
        lost = [stray for stray in gone if stray.expires_at > until and states[stray] == {WorkflowState.LOST}]
        closed = [stray for stray in gone if stray not in lost]
        await self.dispatch_again(redrives.OUTBOX_KIND, [stray.task_id for stray in lost])
        dead = await self._mark_dead(closed)
        last = Mark(strays[-1].due_at, strays[-1].task_id) if len(strays) == PAGE else None
        return Walked(dead, last, until)

    async def _mark_dead(self, strays: Sequence[Stray]) -> int:
        """Mark strays dead together, or one by one where one fails."""
        if not strays:
            return 0
        try:
            async with self._sessions.begin() as db:
                await wait_briefly_for_locks(db)
                return await orphans.mark_dead(db, strays)
        except DBAPIError as error:
            if not may_be_ones_fault(error):
                raise
            if len(strays) == 1:
                log.warning("marking an orphan dead failed", task_id=str(strays[0].task_id), error=type(error).__name__)
                return 0
        return sum([await self._mark_dead([stray]) for stray in strays])

    async def dispatch_again(self, subject_kind: str, lost: Collection[UUID]) -> int:
        """Put these subjects into the outbox, in their order; those there come next. Returns how many are new."""
        if not lost:
            return 0
        async with self._sessions.begin() as db:
            waiting = await orphans.in_outbox(db, lost)
            await outbox.hurry(db, waiting)
            added = [each for each in dict.fromkeys(lost) if each not in waiting]
            await outbox.add_for_sweepers(db, subject_kind, added)
        return len(added)

    async def workflow_states(self, workflow_ids: Collection[str]) -> dict[str, WorkflowState]:
        """Ask for the states of these workflows. Once Temporal leaves one question unanswered, it asks no more."""
        turns, silent = asyncio.Semaphore(_AT_ONCE), asyncio.Event()
        ordered = sorted(workflow_ids)
        answers = await asyncio.gather(*(self._workflow_state(each, turns, silent) for each in ordered))
        return dict(zip(ordered, answers, strict=True))

    async def _gone(self, workflow_ids: Collection[str]) -> set[str]:
        """Say which of these workflows do certainly not run."""
        return {
            workflow_id for workflow_id, state in (await self.workflow_states(workflow_ids)).items() if state in GONE
        }

    async def _workflow_state(self, workflow_id: str, turns: asyncio.Semaphore, silent: asyncio.Event) -> WorkflowState:
        async with turns:
            if silent.is_set():
                return WorkflowState.UNKNOWN
            try:
                async with asyncio.timeout(_ANSWERS_WITHIN):  # the SDK's own retries included
                    described = await self._client.get_workflow_handle(workflow_id).describe()
            except RPCError as error:
                return WorkflowState.LOST if error.status is RPCStatusCode.NOT_FOUND else WorkflowState.UNKNOWN
            except TimeoutError:
                silent.set()
                return WorkflowState.UNKNOWN
            except Exception as error:  # noqa: BLE001 -- one that fails does not stop the others
                log.warning("reading a workflow failed", workflow_id=workflow_id, error=type(error).__name__)
                return WorkflowState.UNKNOWN
            return WorkflowState.CLOSED if described.status in _CLOSED else WorkflowState.RUNS


async def _never_opened(db: AsyncSession, sessions: Collection[FastingSession], behind: Window) -> set[UUID]:
    """Find the fasts with reminders that were due and wanted, and are in no log: they were not opened."""
    user_ids = {session.user_id for session in sessions}
    by_user, zones = await preferences.of_users(db, user_ids), await device_tokens.time_zones(db, user_ids)
    due = {
        message_id(session.session_id, reminder.minutes, reminder.due_at): session.session_id
        for session in sessions
        for reminder in upcoming(session)
        if behind.holds(reminder.due_at)
        and not unwanted_everywhere(
            Kind.REMINDER, by_user.get(session.user_id, Preferences()), reminder.due_at, zones.get(session.user_id, ())
        )
    }
    opened = await orphans.entered(db, due) | set(await withheld_pushes.counts_by_message(db, list(due)))
    return {session_id for message, session_id in due.items() if message not in opened}


class Purging:
    """The local activity of `Retention`; it may be repeated."""

    def __init__(self, sessions: Sessions, keep: Keep) -> None:
        self._sessions = sessions
        self._keep = keep

    @activity.defn(name="let_go")
    async def purge(self, what: RetentionTarget) -> Purged:
        """Delete old rows for some seconds, in short transactions.

        An error with one kind of rows is logged, and the other kinds follow. The next run tries again.
        """
        until, count = time.monotonic() + _PURGES_FOR, 0
        while time.monotonic() < until:
            try:
                async with self._sessions.begin() as db:
                    await wait_briefly_for_locks(db)
                    purged = await retention.purge(db, what, self._keep)
            except DBAPIError as error:
                if not may_be_ones_fault(error):
                    raise
                log.warning("purging old rows failed", what=what.value, error=type(error).__name__)
                return Purged(count, is_all=True)
            count += purged.count
            if purged.is_all:
                return Purged(count, is_all=True)
        return Purged(count, is_all=False)
