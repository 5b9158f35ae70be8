"""Begins attempts: the last check and the record of a call, in one transaction for many pushes.

Thousands of reminders are due at one instant. The check locks the sessions and tokens it reads until it commits, so
an end, a cancel or a transfer is either seen or comes after the attempt began.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import (
    batch,
    collapse_groups,
    device_tokens,
    fasting_sessions,
    log,
    messages,
    preferences,
    push_attempts,
    push_tasks,
)
from db.engine import Sessions, present_instant, wait_briefly_for_locks
from domain.kinds import RULES, Subject
from domain.push import TaskState
from operations import revival as revivals
from sending.precheck import (
    ATTEMPT_LEASE,
    Claim,
    Deferred,
    Facts,
    Final,
    Hindrance,
    InFlight,
    Proceed,
    Verdict,
    precheck,
)

_MOVED = Final(TaskState.WITHDRAWN, "token_changed")
_UNREADABLE = Deferred(Hindrance("not_understood", timedelta(seconds=10)))  # a newer release may understand it


async def begin_attempts(sessions: Sessions, claims: Sequence[Claim]) -> list[Verdict]:
    """Check each task a last time, and begin an attempt where it may be sent; one transaction."""
    async with sessions.begin() as db:
        await wait_briefly_for_locks(db)
        tasks, about_messages = await _locked(db, claims)
        tried = {task.task_id for task in tasks if task.attempt_count}
        missing = {claim.task_id for claim in claims} - {task.task_id for task in tasks}
        unreadable = await push_tasks.existing(db, missing) if missing else set()
        facts = Facts(
            sessions=await fasting_sessions.shared(db, {task.conversation_id for task in tasks}),
            messages=await messages.addressed(
                db, {task.task_id: (task.message_id, task.user_id) for task in about_messages}
            ),
            collapse_groups=await collapse_groups.around(db, about_messages, ATTEMPT_LEASE),
            devices=await device_tokens.active_shared(db, {task.installation_id for task in tasks}),
            preferences=await preferences.of_users(db, {task.user_id for task in tasks}),
            under_way=dict(await push_attempts.under_way(db, tried)),
            final=dict(await push_attempts.final(db, tried)) if tried else {},
            now=await present_instant(db),
        )
        checked = precheck(tasks, {claim.task_id: claim for claim in claims}, facts)
        verdicts = checked.verdicts

        going = [verdict for verdict in verdicts.values() if isinstance(verdict, Proceed)]
        lost = [
            begun
            for task_id, begun in facts.under_way.items()
            if begun.started_at + ATTEMPT_LEASE <= facts.now or isinstance(verdicts[task_id], Final)
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
        await messages.enter_reminders(db, [_message(task) for task in checked.entering])
        moved = [task for task in tasks if task.state is TaskState.PENDING and verdicts[task.task_id] == _MOVED]
        for installation_id in {task.installation_id for task in moved}:  # it has registered already
            await revivals.revive(db, facts.devices[installation_id])
        await collapse_groups.note_begun(db, [go.sounding for go in going if go.sounding])  # last: others wait for it

    taken: set[UUID] = set()
    answers: list[Verdict] = []
    for claim in claims:
        unread = _UNREADABLE if claim.task_id in unreadable else Final(TaskState.WITHDRAWN, "task_missing")
        verdict = verdicts.get(claim.task_id, unread)
        if isinstance(verdict, Proceed) and claim.task_id in taken:  # claimed twice in one batch
            verdict = InFlight(ATTEMPT_LEASE)
        taken.add(claim.task_id)
        answers.append(verdict)
    return answers


async def unheld_claims(sessions: Sessions, claims: Sequence[Claim]) -> list[bool]:
    """Say of each claim whether it can be checked now, without waiting for another transaction's locks."""
    async with sessions.begin() as db:
        free = await batch.unheld_around(db, {claim.task_id for claim in claims})
    return [claim.task_id in free for claim in claims]


async def _locked(db: AsyncSession, claims: Sequence[Claim]) -> tuple[list[push_tasks.Task], list[push_tasks.Task]]:
    """Lock all tasks; returns them, and those about messages."""
    task_ids = {claim.task_id for claim in claims}
    tasks = await push_tasks.locked(db, task_ids)
    about_messages = [task for task in tasks if RULES[task.kind].subject is Subject.MESSAGE]
    if about_messages and await log.settle_read(db, [task.task_id for task in about_messages]):
        return await _locked(db, claims)
    return tasks, about_messages


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
        case Final(state, settled_reason):
            return push_tasks.Update(task.task_id, state, settled_reason)
        case InFlight():
            return None


def _message(task: push_tasks.Task) -> messages.ReminderMessage:
    return messages.ReminderMessage(task.message_id, task.conversation_id, task.user_id, task.reminder_minutes)
