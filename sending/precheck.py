"""The rules of the last check: facts about many push tasks in, a verdict on each out. No database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID, uuid4

import structlog

from db import last_check, push_attempts, push_tasks
from db.collapse_groups import Sounding
from db.device_tokens import ActiveToken
from db.unreadable import log_unreadable
from domain.back_off import in_time
from domain.kinds import RULES, Subject
from domain.last_check import CollapseGroupTurn, is_quiet
from domain.preferences import Preview
from domain.presentation import Content, Presentations, Words, worded
from domain.push import Push, Route, TaskState
from push.payload_limit import is_usable

ATTEMPT_LEASE = timedelta(seconds=16)  # after this long, the worker of a call without an outcome is lost
SOONEST_LOOK = timedelta(milliseconds=100)  # of a push that waits for its route and nearly expires
LINE_TAKEN = timedelta(milliseconds=300)  # until a push checks again, while another one of its collapse group is sent

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why the provider cannot be called now, and when to try again."""

    reason: str
    delay: timedelta
    share: float | None = None  # the part of the time until it expires that the push may wait at most
    look: timedelta | None = None  # when to check whether it may go sooner; not recorded


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask for one push task to be checked, and for an attempt to be begun if all is well."""

    task_id: UUID
    held_by: UUID | None = None  # the worker that the database has for it; None: its hold was not recorded
    attempt_id: UUID = field(default_factory=uuid4)  # of the attempt that it begins


@dataclass(frozen=True, slots=True)
class Hindered:
    """Ask for one push task to be checked, and for what hinders it to be noted if all else is well."""

    task_id: UUID
    hindrance: Hindrance
    held_by: UUID | None = None  # as in `Claim`


@dataclass(frozen=True, slots=True)
class Proceed:
    """Call the provider now."""

    push: Push
    route: Route
    device_id: UUID
    number: int  # of the attempt, from 1
    began_at: datetime
    expires_at: datetime
    user_id: str
    sounding: Sounding | None = None  # where its sound counts
    silent_because: str | None = None  # why the phone must not ring


@dataclass(frozen=True, slots=True)
class Deferred:
    """It may be sent, once the hindrance is over."""

    hindrance: Hindrance
    user_id: str | None = None  # None: the push could not be checked
    left: timedelta = timedelta(0)  # until the push expires


@dataclass(frozen=True, slots=True)
class InFlight:
    """Another attempt is open, for so much longer at most."""

    wait: timedelta


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Another worker has it: this one had stopped showing life."""


@dataclass(frozen=True, slots=True)
class Final:
    """The task's state is final."""

    state: TaskState
    reason: str | None
    accepted_by: datetime | None = None  # where its call was noted on the attempt alone


Verdict = Proceed | Deferred | InFlight | TakenOver | Final

CHECK_FAILED = Hindrance("check_failed", timedelta(seconds=10))


@dataclass(frozen=True, slots=True)
class Facts:
    """What the transaction has read."""

    pushes: last_check.PushFacts
    under_way: Mapping[UUID, push_attempts.Begun]
    final: Mapping[UUID, push_attempts.FinalAttempt]
    presentations: Presentations
    now: datetime
    words: dict[object, tuple[Words, Words]] = field(default_factory=dict, repr=False)  # of this batch, by what differs


@dataclass(frozen=True, slots=True)
class Prechecked:
    """The verdicts on many tasks, and the tasks of valid reminders, which enter the log."""

    verdicts: dict[UUID, Verdict]
    entering: list[push_tasks.Task]


def precheck(tasks: Sequence[push_tasks.Task], asks: Mapping[UUID, Claim | Hindered], facts: Facts) -> Prechecked:
    """Check the newest first: of one collapse group only the newest goes."""
    verdicts: dict[UUID, Verdict] = {}
    entering: list[push_tasks.Task] = []
    begun: set[tuple[UUID, str]] = set()
    for task in sorted(tasks, key=lambda t: t.due_at, reverse=True):
        verdict, enters = _check_alone(task, asks[task.task_id], facts)
        if enters:
            entering.append(task)
        if isinstance(verdict, Proceed) and task.task_id in facts.pushes.groups:
            group = (task.installation_id, task.collapse_key)
            verdict = Final(TaskState.WITHDRAWN, "superseded") if group in begun else verdict
            begun.add(group)
        verdicts[task.task_id] = verdict
    return Prechecked(verdicts, entering)


def _check_alone(task: push_tasks.Task, ask: Claim | Hindered, facts: Facts) -> tuple[Verdict, bool]:
    """Check one of many, and say whether it enters the log; an error concerns this task alone."""
    verdict: Verdict | None = None
    try:
        verdict = _check(task, ask, facts)
        return verdict, _enters_the_log(task, verdict, facts)
    except Exception as error:  # noqa: BLE001 -- whatever its rows may hold
        log.error("checking a push failed", task_id=str(task.task_id), error=type(error).__name__)  # noqa: TRY400 (its text may hold the row)
        left = task.expires_at - facts.now
        return verdict or Deferred(replace(CHECK_FAILED, delay=in_time(CHECK_FAILED.delay, left) or left)), False


def _check(task: push_tasks.Task, ask: Claim | Hindered, facts: Facts) -> Verdict:
    if task.state is not TaskState.PENDING:
        return Final(task.state, task.last_reason)
    final = facts.final.get(task.task_id)
    if final is not None and (task.again_at is None or task.again_at < final.started_at):
        return Final(TaskState(final.outcome), final.reason, final.answered_at)  # noted on its attempt alone
    if ask.held_by is not None and ask.held_by != task.held_by:
        return TakenOver()
    under_way = facts.under_way.get(task.task_id)
    if under_way is not None and under_way.is_under_way(facts.now, ATTEMPT_LEASE):
        return InFlight(under_way.started_at + ATTEMPT_LEASE - facts.now)
    if task.expires_at <= facts.now:
        outlasted = task.last_reason  # trouble that lasted until the end; nothing else shows it
        return Final(TaskState.DEAD, outlasted) if outlasted else Final(TaskState.EXPIRED, "too_late")
    device, reason = facts.pushes.devices.get(task.installation_id), facts.pushes.refusal(task, facts.now)
    if reason or device is None:
        return Final(TaskState.WITHDRAWN, reason)
    if under_way is not None and not task.collapse_key:  # lost with its worker; to send it again may show it twice
        return Final(TaskState.DEAD, "fate_unknown")
    return _hindered(task, ask, facts) if isinstance(ask, Hindered) else _begin(task, ask, device, facts)


def _hindered(task: push_tasks.Task, ask: Hindered, facts: Facts) -> Deferred | Final:
    """Put off a push that may be sent, or end it if it expires before that."""
    left = task.expires_at - facts.now
    fitting = _in_time(ask.hindrance, left)
    return Deferred(fitting, task.user_id, left) if fitting else Final(TaskState.DEAD, ask.hindrance.reason)


def _begin(task: push_tasks.Task, claim: Claim, device: ActiveToken, facts: Facts) -> Proceed | Deferred:
    """Begin an attempt for a push that may go out, unless another push of its collapse group is being sent."""
    if facts.pushes.turn(task) is CollapseGroupTurn.LATER:
        left = task.expires_at - facts.now
        return Deferred(Hindrance("line_taken", min(LINE_TAKEN, left)), task.user_id, left)
    silent_because = _silent_because(task, facts)
    return Proceed(
        push=_push(task, claim.attempt_id, device, facts, sounds=silent_because is None),
        route=task.route,
        device_id=device.id,
        number=task.attempt_count + 1,
        began_at=facts.now,
        expires_at=task.expires_at,
        user_id=task.user_id,
        sounding=_sounding(task, facts) if silent_because is None else None,
        silent_because=silent_because,
    )


def _silent_because(task: push_tasks.Task, facts: Facts) -> str | None:
    """Say why the phone must not ring now; None when it may."""
    at = max(facts.now, task.due_at)  # a push that is late rings late
    if is_quiet(task.kind, facts.pushes.preferences_of(task), at, facts.pushes.time_zone(task)):
        return "quiet_hours"
    group = facts.pushes.groups.get(task.task_id)
    return "sounded_lately" if group is not None and group.has_sounded else None


def _sounding(task: push_tasks.Task, facts: Facts) -> Sounding | None:
    """Name the sound of a message's push; those of reminders do not count, since they are a minute or more apart."""
    counts = task.task_id in facts.pushes.groups
    return Sounding(task.installation_id, task.collapse_key, facts.now) if counts else None


def _in_time(hindrance: Hindrance, left: timedelta) -> Hindrance | None:
    """Fit the delay in before the push expires; None where no time is left for another try."""
    if hindrance.share is None:
        delay = in_time(hindrance.delay, left)
    else:
        delay = min(hindrance.delay, max(left * hindrance.share, SOONEST_LOOK))
    return replace(hindrance, delay=delay) if delay is not None and delay < left else None


def _enters_the_log(task: push_tasks.Task, verdict: Verdict, facts: Facts) -> bool:
    """Whether the task is of a reminder that is still valid."""
    if RULES[task.kind].subject is not Subject.SESSION or task.state is not TaskState.PENDING:
        return False
    return isinstance(verdict, Proceed) or facts.pushes.unwanted(task, facts.now) is None


def _push(task: push_tasks.Task, attempt_id: UUID, device: ActiveToken, facts: Facts, *, sounds: bool) -> Push:
    """Decide all that the phone shows, by one version of the app's presentation: the one in use at this moment."""
    kind, presentation = task.kind, facts.presentations.of(task.route.app_id)
    words, generic = _words(task, device, facts)
    return Push(
        task_id=task.task_id,
        attempt_id=attempt_id,
        kind=task.kind,
        token=device.token,
        title=words.title,
        body=words.body,
        generic_title=generic.title,
        generic_body=generic.body,
        url=presentation.url(kind, task.conversation_id),
        collapse_key=task.collapse_key or None,
        thread_id=presentation.thread_id(kind, task.conversation_id, task.collapse_key or str(task.conversation_id)),
        expires_at=task.expires_at,
        useful_for=task.expires_at - facts.now,
        look=presentation.looks[kind],
        public_key=_public_key(device),
        sounds=sounds,
        validate_only=task.validate_only,
        user_id=task.user_id,
    )


def _public_key(device: ActiveToken) -> bytes | None:
    """Return the key that seals the text; None where the stored one is unusable, so the phone gets the generic text."""
    if device.public_key is None or is_usable(device.public_key):
        return device.public_key
    log_unreadable("device_tokens.public_key", "")
    return None


def _words(task: push_tasks.Task, device: ActiveToken, facts: Facts) -> tuple[Words, Words]:
    """Put a push into words, as its person wants them, and generic; most of a batch say the same."""
    kind, app_id, locale = task.kind, task.route.app_id, device.locale
    content, preview = _content(task, facts), RULES[kind].preview(facts.pushes.preferences_of(task))
    key = (kind, app_id, locale, preview, content.minutes_left, content.body, *content.labels.items())
    known = facts.words.get(key)
    if known is None:
        presentation = facts.presentations.of(app_id)
        full, generic = (worded(presentation, kind, locale, each, content) for each in (preview, Preview.GENERIC))
        known = facts.words[key] = full, generic
    return known


def _content(task: push_tasks.Task, facts: Facts) -> Content:
    session = facts.pushes.sessions.get(task.conversation_id)
    left = ceil((session.ends_at - facts.now) / timedelta(minutes=1)) if session else 0
    labels = session.labels if session else {}
    return Content(min(left, task.reminder_minutes or 0), facts.pushes.bodies.get(task.task_id, ""), labels)
