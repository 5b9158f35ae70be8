"""The last-moment check before a provider call, one transaction for many attempts at once.

Thousands of reminders come due at one instant. The check holds the sessions and tokens it judges until it commits, so
an end, a cancel or a transfer is either seen or comes after the attempt began.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import assert_never
from uuid import UUID, uuid4

from db import device_tokens, fasting_sessions, messages, preferences, push_attempts, push_tasks, screen_lines
from db.engine import Sessions, present_instant, wait_briefly_for_locks
from db.models import DeviceToken
from domain.kinds import RULES, Subject
from domain.last_check import Address, Line, Turn, misaddressed, turn_of, unwanted, withheld
from domain.preferences import Preferences, Preview
from domain.push import Environment, Provider, Push, Route, TaskState
from domain.sessions import FastingSession
from domain.wording import Content, worded

IN_FLIGHT = timedelta(seconds=16)  # after this long a call without an outcome has lost its worker
LAST_LOOK = timedelta(seconds=5)  # before it expires, at a gate that was shut until then
LINE_TAKEN = timedelta(milliseconds=300)  # until a push asks again for a line that another one is being sent to


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why the provider cannot be called now, and when to ask again."""

    reason: str
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask for one push task: to begin an attempt if all is well, or only to note that it is due but hindered."""

    task_id: UUID
    hindrance: Hindrance | None = None


@dataclass(frozen=True, slots=True)
class Go:
    """Call the provider now."""

    push: Push
    route: Route
    device_id: UUID
    number: int  # of the attempt, from 1
    began_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """All is well, but for the hindrance."""

    hindrance: Hindrance


@dataclass(frozen=True, slots=True)
class Busy:
    """Another worker's call is under way, or was lost, for so much longer."""

    wait: timedelta


@dataclass(frozen=True, slots=True)
class Settled:
    """The task is finished."""

    state: TaskState
    reason: str | None


Verdict = Go | Waiting | Busy | Settled


@dataclass(frozen=True, slots=True)
class _Facts:
    now: datetime
    sessions: dict[UUID, FastingSession]
    devices: dict[UUID, DeviceToken]
    messages: dict[UUID, messages.Addressed]
    lines: dict[UUID, Line]
    preferences: dict[str, Preferences]
    under_way: dict[UUID, push_attempts.Begun]


async def begin_attempts(sessions: Sessions, claims: Sequence[Claim]) -> list[Verdict]:
    """Check each task a last time and begin an attempt where it may be sent; one transaction."""
    async with sessions.begin() as db:
        await wait_briefly_for_locks(db)
        tasks = await push_tasks.locked(db, {claim.task_id for claim in claims})
        about_messages = [task for task in tasks if RULES[task.kind].subject is Subject.MESSAGE]
        facts = _Facts(
            sessions=await fasting_sessions.shared(db, {task.conversation_id for task in tasks}),
            messages=await messages.addressed(db, {task.task_id: (task.message_id, task.user_id) for task in about_messages}),
            lines=await screen_lines.around(db, about_messages, IN_FLIGHT),
            devices=await device_tokens.active_shared(db, {task.installation_id for task in tasks}),
            preferences=await preferences.of_users(db, {task.user_id for task in tasks}),
            under_way=dict(await push_attempts.under_way(db, {t.task_id for t in tasks if t.attempt_count})),
            now=await present_instant(db),
        )
        asked = {claim.task_id: claim for claim in claims}
        verdicts = _verdicts(tasks, asked, facts)

        going = [verdict for verdict in verdicts.values() if isinstance(verdict, Go)]
        lost = [begun for task_id, begun in facts.under_way.items() if not isinstance(verdicts[task_id], Busy)]
        await push_attempts.end(
            db, [push_attempts.Ended(a.attempt_id, "unknown", "worker_lost", None, None) for a in lost]
        )
        await push_attempts.begin(
            db,
            [push_attempts.Begun(go.push.attempt_id, go.push.task_id, go.number, go.began_at) for go in going],
        )
        await push_tasks.apply(
            db, [update for task in tasks if (update := _update(task, verdicts[task.task_id], facts.now))]
        )
        await messages.enter_reminders(db, [_message(task) for task in tasks if _enters_the_log(task, facts)])

    taken: set[UUID] = set()
    answers: list[Verdict] = []
    for claim in claims:
        verdict = verdicts.get(claim.task_id, Settled(TaskState.WITHDRAWN, "task_missing"))
        if isinstance(verdict, Go) and claim.task_id in taken:  # asked twice in one batch
            verdict = Busy(IN_FLIGHT)
        taken.add(claim.task_id)
        answers.append(verdict)
    return answers


def _verdicts(tasks: Sequence[push_tasks.Task], asked: Mapping[UUID, Claim], facts: _Facts) -> dict[UUID, Verdict]:
    """Judge the newest first: of those that share a line only it goes."""
    verdicts: dict[UUID, Verdict] = {}
    begun: set[tuple[UUID, str]] = set()
    for task in sorted(tasks, key=lambda t: t.due_at, reverse=True):
        verdict = _judge(task, asked[task.task_id].hindrance, facts)
        if isinstance(verdict, Go) and task.task_id in facts.lines:
            line = (task.installation_id, task.collapse_key)
            verdict = Settled(TaskState.WITHDRAWN, "superseded") if line in begun else verdict
            begun.add(line)
        verdicts[task.task_id] = verdict
    return verdicts


def _judge(task: push_tasks.Task, hindrance: Hindrance | None, facts: _Facts) -> Verdict:
    if task.state is not TaskState.PENDING:
        return Settled(task.state, task.last_reason)
    under_way = facts.under_way.get(task.task_id)
    if under_way is not None and under_way.started_at + IN_FLIGHT > facts.now:
        return Busy(under_way.started_at + IN_FLIGHT - facts.now)
    if task.expires_at <= facts.now:
        return Settled(TaskState.EXPIRED, task.last_reason or "too_late")
    device = facts.devices.get(task.installation_id)
    current = None if device is None else Address(device.user_id, _route(device))
    reason = _withheld(task, facts) or misaddressed(Address(task.user_id, task.route), current)
    if reason or device is None:
        return Settled(TaskState.WITHDRAWN, reason)
    if under_way is not None and not task.collapse_key:  # lost with its worker; to send it again might show it twice
        return Settled(TaskState.DEAD, "fate_unknown")
    turn = turn_of(facts.lines.get(task.task_id), task.attempt_count)
    if turn is Turn.NEVER:
        return Settled(TaskState.WITHDRAWN, "superseded")
    if hindrance is not None:
        return Waiting(_in_time(hindrance, task.expires_at - facts.now))
    if turn is Turn.LATER:
        return Busy(LINE_TAKEN)
    return Go(_push(task, device, facts), task.route, device.id, task.attempt_count + 1, facts.now, task.expires_at)


def _in_time(hindrance: Hindrance, left: timedelta) -> Hindrance:
    """Look in once more shortly before the push expires: waiting has cost the provider nothing."""
    last_look = left - LAST_LOOK
    if timedelta(0) < last_look < hindrance.delay:
        return replace(hindrance, delay=last_look)
    return hindrance


def _route(device: DeviceToken) -> Route:
    return Route(Provider(device.provider), device.app_id, Environment(device.environment))


def _withheld(task: push_tasks.Task, facts: _Facts) -> str | None:
    wishes = facts.preferences.get(task.user_id, Preferences())
    if task.is_synced:
        return "synced"
    match RULES[task.kind].subject:
        case Subject.SESSION:
            return withheld(facts.sessions.get(task.conversation_id), task.reminder_minutes, task.due_at, wishes)
        case Subject.MESSAGE:
            message = facts.messages.get(task.task_id)
            if message is None or not message.is_member:
                return "not_a_member"
            return unwanted(task.kind, wishes, facts.now)
        case Subject.NOTHING:
            return unwanted(task.kind, wishes, facts.now)
        case never:
            assert_never(never)


def _enters_the_log(task: push_tasks.Task, facts: _Facts) -> bool:
    is_reminder = RULES[task.kind].subject is Subject.SESSION
    return is_reminder and task.state is TaskState.PENDING and _withheld(task, facts) is None


def _push(task: push_tasks.Task, device: DeviceToken, facts: _Facts) -> Push:
    rules, wishes = RULES[task.kind], facts.preferences.get(task.user_id, Preferences())
    content = _content(task, facts)
    words = worded(task.kind, device.locale, rules.preview(wishes), content)
    generic = worded(task.kind, device.locale, Preview.GENERIC, content)
    return Push(
        task_id=task.task_id,
        attempt_id=uuid4(),
        kind=task.kind,
        token=device.token,
        title=words.title,
        body=words.body,
        generic_title=generic.title,
        generic_body=generic.body,
        url=rules.deep_link(task.conversation_id),
        collapse_key=task.collapse_key or None,
        thread_id=task.collapse_key or str(task.conversation_id),
        expires_at=task.expires_at,
        public_key=device.public_key,
    )


def _content(task: push_tasks.Task, facts: _Facts) -> Content:
    session, message = facts.sessions.get(task.conversation_id), facts.messages.get(task.task_id)
    left = ceil((session.ends_at - facts.now) / timedelta(minutes=1)) if session else 0
    return Content(min(left, task.reminder_minutes or 0), message.body if message else "")


def _update(task: push_tasks.Task, verdict: Verdict, now: datetime) -> push_tasks.Update | None:
    if task.state is not TaskState.PENDING:
        return None
    match verdict:
        case Go():
            return push_tasks.Update(
                task.task_id, TaskState.PENDING, task.last_reason, new_attempts=1, device_id=verdict.device_id
            )
        case Waiting(Hindrance(reason, delay)):
            return push_tasks.Update(task.task_id, TaskState.PENDING, reason, next_attempt_at=now + delay)
        case Settled(state, settled_reason):
            return push_tasks.Update(task.task_id, state, settled_reason)
        case Busy():
            return None


def _message(task: push_tasks.Task) -> messages.ReminderMessage:
    return messages.ReminderMessage(task.message_id, task.conversation_id, task.user_id, task.reminder_minutes)
