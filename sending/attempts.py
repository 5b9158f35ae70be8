"""Begins attempts: the last check and the record of a call, in one transaction for many pushes.

Thousands of reminders are due at one instant. The check locks the sessions and tokens it reads until it commits, so
an end, a cancel or a transfer is either seen or comes after the attempt began.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import batch, collapse_groups, last_check, log, messages, push_attempts, push_tasks
from db.engine import Sessions, present_instant, wait_briefly_for_locks
from domain.presentation import Badge, Presentations
from domain.presentation_file import SHIPPED
from domain.push import TaskState
from operations import redrive as redrives
from sending.precheck import (
    ATTEMPT_LEASE,
    Claim,
    Deferred,
    Facts,
    Final,
    Hindered,
    Hindrance,
    InFlight,
    Proceed,
    TakenOver,
    Verdict,
    precheck,
)

SHIPPED_ALONE = Presentations(SHIPPED)
_MOVED = Final(TaskState.WITHDRAWN, "token_changed")
_UNREADABLE = Deferred(Hindrance("not_understood", timedelta(seconds=10)))  # a newer release may understand it


async def check_pushes(
    sessions: Sessions, asks: Sequence[Claim | Hindered], presentations: Presentations = SHIPPED_ALONE
) -> list[Verdict]:
    """Check each task a last time; begin an attempt, or note what hinders it, where it may be sent. One transaction."""
    async with sessions.begin() as db:
        await wait_briefly_for_locks(db)
        tasks = await _locked(db, {ask.task_id for ask in asks})
        tried = {task.task_id for task in tasks if task.attempt_count}
        missing = {ask.task_id for ask in asks} - {task.task_id for task in tasks}
        unreadable = await push_tasks.existing(db, missing) if missing else set()
        facts = Facts(
            pushes=await last_check.held(db, tasks, ATTEMPT_LEASE),
            under_way=await push_attempts.under_way(db, tried) if tried else {},
            final=await push_attempts.final(db, tried) if tried else {},
            presentations=presentations.at_present(),
            now=await present_instant(db),
        )
        checked = precheck(tasks, {ask.task_id: ask for ask in asks}, facts)
        verdicts = checked.verdicts

        going = [verdict for verdict in verdicts.values() if isinstance(verdict, Proceed)]
        lost = [
            begun
            for task_id, begun in facts.under_way.items()
            if not begun.is_under_way(facts.now, ATTEMPT_LEASE) or isinstance(verdicts[task_id], Final)
        ]
        await push_attempts.end_lost(db, lost)
        await push_attempts.begin(
            db,
            [
                push_attempts.Begun(
                    go.push.attempt_id, go.push.task_id, go.number, go.began_at, silent_because=go.silent_because
                )
                for go in going
            ],
        )
        await push_tasks.apply(
            db, [update for task in tasks if (update := _update(task, verdicts[task.task_id], facts.now))]
        )
        again = [begun.task_id for begun in lost if isinstance(verdicts[begun.task_id], Proceed)]
        await push_tasks.note_loss(db, again)  # after `apply`, which repeats what held it up before
        await messages.enter_reminders(db, [_message(task) for task in checked.entering])
        await _count_unread(db, tasks, verdicts, facts.presentations)
        moved = [task for task in tasks if task.state is TaskState.PENDING and verdicts[task.task_id] == _MOVED]
        for installation_id in {task.installation_id for task in moved}:  # it has registered already
            await redrives.revive(db, facts.pushes.devices[installation_id])
        await collapse_groups.note_begun(db, [go.sounding for go in going if go.sounding])  # last: others wait for it

    answers: list[Verdict] = []
    for ask in asks:
        unread = _UNREADABLE if ask.task_id in unreadable else Final(TaskState.WITHDRAWN, "task_missing")
        verdict = verdicts.get(ask.task_id, unread)
        if isinstance(verdict, Proceed) and not _is_of(verdict, ask):  # asked twice in one batch
            verdict = InFlight(ATTEMPT_LEASE)
        answers.append(verdict)
    return answers


def _is_of(go: Proceed, ask: Claim | Hindered) -> bool:
    return isinstance(ask, Claim) and ask.attempt_id == go.push.attempt_id


async def unheld_pushes(sessions: Sessions, asks: Sequence[Claim | Hindered]) -> list[bool]:
    """Say of each task whether it can be checked now, without a wait for a lock of another transaction."""
    async with sessions.begin() as db:
        free = await batch.unheld_around(db, {ask.task_id for ask in asks})
    return [ask.task_id in free for ask in asks]


async def _count_unread(
    db: AsyncSession,
    tasks: Sequence[push_tasks.Task],
    verdicts: dict[UUID, Verdict],
    presentations: Presentations,
) -> None:
    """Set the badges of pushes of apps that count unread items, those that enter the log now included."""
    going = {
        task: go
        for task in tasks
        if isinstance(go := verdicts[task.task_id], Proceed)
        and presentations.of(task.route.app_id).badge is Badge.UNREAD
    }
    if going:
        unread = await log.unread(db, {(task.user_id, task.installation_id) for task in going})
        for task, go in going.items():
            badge = unread.get((task.user_id, task.installation_id), 0)
            verdicts[task.task_id] = replace(go, push=replace(go.push, badge=badge))


async def _locked(db: AsyncSession, task_ids: Collection[UUID]) -> list[push_tasks.Task]:
    """Hold all tasks, after those are settled whose message the phone has read."""
    tasks = await push_tasks.locked(db, task_ids)
    about_messages = last_check.of_messages(tasks)
    if about_messages and await log.settle_read(db, [task.task_id for task in about_messages]):
        return await _locked(db, task_ids)
    return tasks


def _update(task: push_tasks.Task, verdict: Verdict, now: datetime) -> push_tasks.Update | None:
    if task.state is not TaskState.PENDING:
        return None
    match verdict:
        case Proceed():
            return push_tasks.Update(
                task.task_id, TaskState.PENDING, task.last_reason, new_attempts=1, device_id=verdict.device_id
            )
        case Deferred(Hindrance(reason, delay)):
            return push_tasks.Update(task.task_id, TaskState.PENDING, reason, next_attempt_at=now + delay)
        case Final(state, settled_reason, accepted_by):
            return push_tasks.Update(task.task_id, state, settled_reason, accepted_by=accepted_by)
        case InFlight() | TakenOver():
            return None


def _message(task: push_tasks.Task) -> messages.ReminderMessage:
    return messages.ReminderMessage(task.message_id, task.conversation_id, task.user_id, task.reminder_minutes)
