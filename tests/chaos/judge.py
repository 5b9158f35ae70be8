"""Judges a run from outside: what people asked and were answered, what reached the providers, what screens show.

`docs/chaos.md` defines each verdict. Times are UNIX seconds of one clock.
"""

import math
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar
from uuid import UUID

from tests.chaos.plan import Disturbance

T = TypeVar("T")

_NEVER = -math.inf  # when the reminder of a fast that never began is due
IN_FLIGHT = 5.0  # seconds between a push's last check and its call, at most: `_MAX_CLAIM` in activities/sending.py
RECORDED_WITHIN = 5.0  # seconds from a provider's answer to its record: a kill in between leaves its fate unknown
LEASED = 10.0  # seconds from a call without a record to the next one, at least: `ATTEMPT_LEASE` without `IN_FLIGHT`
_NO_ANSWERS = (None, "silent", "reset", "close", "goaway", "nobody_listens", "REFUSED_STREAM", "AFTER_GOAWAY")
EXPLAINED = frozenset(  # what planned faults and kills make of a call; nothing else may happen
    {(200, None), (503, "ServiceUnavailable"), (503, "UNAVAILABLE"), *((None, reason) for reason in _NO_ANSWERS)}
)


@dataclass(frozen=True, slots=True)
class Said(Generic[T]):
    """Something that somebody wanted to be so. It became so between these instants."""

    asked_at: float
    answered_at: float  # infinite: never answered
    what: T


@dataclass(slots=True)
class Fast:
    """A fasting session: when its reminder was to be due, in the order in which that was said; None: it was over."""

    user_id: str
    goals: list[Said[float | None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Post:
    """A message that somebody wrote."""

    message_id: UUID
    conversation_id: UUID
    sender_id: str


@dataclass(slots=True)
class Handset:
    """A phone: who was signed in on it, in order (None: nobody), and which log items it acknowledged."""

    token: str
    holders: list[Said[str | None]] = field(default_factory=list)
    reads: list[Said[frozenset[UUID]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that reached a provider."""

    received_at: float
    provider: str
    token: str
    task_id: str
    kind: str
    subject: UUID | None  # the session or conversation that a tap would open
    status: int | None
    reason: str | None
    arrived: bool  # the phone has it, whatever the sender was answered


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A line on a screen at the end."""

    token: str
    kind: str
    subject: UUID | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something was killed or frozen, or connections were cut."""

    target: str
    began_at: float
    ended_at: float
    how: Disturbance | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """What a phone read from its owner's log, or got by a stream: sequence numbers and ids, as they came."""

    user_id: str
    items: tuple[tuple[int, UUID], ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What the API told when the run was over: what it had accepted has to be so."""

    fasts: Mapping[UUID, float | None]  # when the reminder of each is due; None: the fast is over
    holders: Mapping[str, frozenset[str]]  # who is signed in on each phone, by token


@dataclass(slots=True)
class Run:
    """All that can be seen of a run."""

    fasts: dict[UUID, Fast] = field(default_factory=dict)
    handsets: dict[str, Handset] = field(default_factory=dict)  # by token
    members: dict[UUID, frozenset[str]] = field(default_factory=dict)  # by conversation
    posts: list[Said[Post]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    lines: list[ShownLine] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)
    odd_answers: list[str] = field(default_factory=list)  # of the API
    told: Told | None = None  # None: not asked yet
    until: float = math.inf  # when all of this was seen: what is due later may still come


@dataclass(slots=True)
class Verdict:
    """What was found. The first five have to be empty."""

    lost: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    misdirected: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    reminders: list[float] = field(default_factory=list)  # seconds late, of those whose first call arrived
    called_again: list[float] = field(default_factory=list)  # the same, where an earlier call had failed
    latest: list[tuple[float, Call]] = field(default_factory=list)  # each reminder's lateness, and the call
    messages: list[float] = field(default_factory=list)  # seconds from the answer to the phone
    overtaken: list[float] = field(default_factory=list)  # how late it was when its person acted first
    in_flight: list[float] = field(default_factory=list)  # seconds between an act and a call checked before it
    repeated: int = 0  # calls after one of unknown fate

    @property
    def zeros(self) -> Mapping[str, Sequence[str]]:
        """The five that have to be empty."""
        return {
            "lost": self.lost,
            "stale": self.stale,
            "misdirected": self.misdirected,
            "doubled": self.doubled,
            "unexplained": self.unexplained,
        }


def judge(run: Run) -> Verdict:
    """Judge a run that is over; before that, `lost` has also what is only late."""
    verdict = Verdict(unexplained=list(run.odd_answers))
    index = _Index(run)
    for call in run.calls:
        _judge_call(call, index, verdict)
    for calls in index.by_task.values():
        _judge_repeats(calls, run.troubles, verdict)
    _judge_counts(index, verdict)
    for session_id, fast in run.fasts.items():
        _judge_fast(session_id, fast, index, verdict)
    for post in run.posts:
        _judge_post(post, index, verdict)
    for line in run.lines:
        if (line.token, line.subject) not in index.arrived:
            verdict.unexplained.append(f"a line of {line.kind} {line.subject} that no call brought")
    for log in run.logs:
        _judge_log(log, index, verdict)
    if run.told is not None:
        verdict.lost += _untrue(run, run.told)
    return verdict


def _untrue(run: Run, told: Told) -> Iterator[str]:
    """Say what the API had accepted, and tells otherwise in the end. What it never answered may be so or not."""
    for session_id, fast in run.fasts.items():
        due_at = told.fasts.get(session_id, _NEVER)
        if not any(_is_same(due_at, each) for each in _in_the_end(fast.goals, _NEVER)):
            yield f"fast {session_id}: the API tells that its reminder is due at {due_at}"
    for token, handset in run.handsets.items():
        signed_in = told.holders.get(token, frozenset())
        if not any(signed_in == frozenset({each} - {None}) for each in _in_the_end(handset.holders, None)):
            yield f"phone {token[:12]}: the API tells that {set(signed_in) or 'nobody'} is signed in"


def _in_the_end(history: Sequence[Said[T]], before: T) -> Iterator[T]:
    """Give all that may be so when nobody asks for anything any more; `before` was so at first."""
    if all(said.answered_at == math.inf for said in history):
        yield before
    yield from possible(history, sys.float_info.max, math.inf)


def _is_same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and abs(one - other) < 0.01)


class _Index:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.by_task: dict[tuple[str, str], list[Call]] = defaultdict(list)
        self.arrived: dict[tuple[str, UUID | None], list[Call]] = defaultdict(list)
        self.shown = {(line.token, line.subject) for line in run.lines}
        self.phones_of: dict[str, list[Handset]] = defaultdict(list)
        self.posts: dict[UUID, list[Said[Post]]] = defaultdict(list)
        for call in sorted(run.calls, key=lambda call: call.received_at):
            self.by_task[call.token, call.task_id].append(call)
            if call.arrived:
                self.arrived[call.token, call.subject].append(call)
        for handset in run.handsets.values():
            for user_id in {holder.what for holder in handset.holders if holder.what is not None}:
                self.phones_of[user_id].append(handset)
        for post in run.posts:
            self.posts[post.what.conversation_id].append(post)


def possible(history: Sequence[Said[T]], since: float, until: float) -> Iterator[T]:
    """Give all that may have been so at some time between two instants."""
    settled = [said for said in history if said.answered_at <= since]
    if settled:
        yield settled[-1].what
    for said in history:
        if said.asked_at <= until and said.answered_at > since:
            yield said.what


def _name(call: Call) -> str:
    return f"{call.kind} {call.subject} to {call.token[:12]} at {call.received_at:.3f} ({call.status} {call.reason})"


def _judge_call(call: Call, index: _Index, verdict: Verdict) -> None:
    run = index.run
    handset, fast = run.handsets.get(call.token), run.fasts.get(call.subject) if call.subject else None
    members = run.members.get(call.subject) if call.subject else None
    if handset is None or (fast is None and members is None):
        verdict.unexplained.append(f"nobody has this phone, fast or conversation: {_name(call)}")
        return
    if (call.status, call.reason) not in EXPLAINED:
        verdict.unexplained.append(f"an answer that no fault gave: {_name(call)}")
    since, at = call.received_at - IN_FLIGHT, call.received_at
    holders = set(possible(handset.holders, since, at))
    if fast is not None:
        if fast.user_id not in holders:
            verdict.misdirected.append(f"signed in: {holders or None}, not {fast.user_id}: {_name(call)}")
        _judge_reminder(call, fast, verdict)
        return
    addressed = holders & (members or set())
    written = [post for post in index.posts[call.subject] if post.asked_at <= at] if call.subject else []
    if not any(post.what.sender_id != user_id for post in written for user_id in addressed):
        verdict.misdirected.append(f"signed in: {holders or None}, to whom nobody wrote: {_name(call)}")
        return
    read = {each for said in handset.reads if said.answered_at <= since for each in said.what}
    if all(post.what.message_id in read for post in written if not addressed <= {post.what.sender_id}):
        verdict.stale.append(f"all of it was read: {_name(call)}")


def _judge_reminder(call: Call, fast: Fast, verdict: Verdict) -> None:
    at = call.received_at
    goals = set(possible(fast.goals, at - IN_FLIGHT, at))
    if any(goal is not None and goal <= at for goal in goals):
        now = set(possible(fast.goals, at, at))
        if not any(goal is not None and goal <= at for goal in now):
            verdict.in_flight.append(at - max(said.answered_at for said in fast.goals if said.answered_at <= at))
    elif any(said.what is not None and said.what <= at for said in fast.goals if said.asked_at <= at):
        verdict.stale.append(f"the fast had ended, or its goal was moved: {_name(call)}")
    else:
        verdict.unexplained.append(f"before it was due: {_name(call)}")


def _judge_repeats(calls: Sequence[Call], troubles: Sequence[Trouble], verdict: Verdict) -> None:
    """See that a push was called again only where the sender could not know that it had arrived."""
    for before, again in pairwise(calls):
        verdict.repeated += 1
        is_known = before.status == 200 and before.reason is None
        if is_known and not any(_explains(trouble, before, again) for trouble in troubles):
            verdict.doubled.append(f"{again.task_id}, {again.received_at:.3f}, after {_name(before)}")


def _explains(trouble: Trouble, call: Call, again: Call) -> bool:
    """Whether the answer to a call, or its record, may have been lost by this, so that the push was called again.

    A sender that lives and lost the answer may call soon. Without a record the attempt's lease comes first.
    """
    if trouble.target == "providers":  # calls that waited meanwhile are read right after it
        return trouble.began_at <= call.received_at <= trouble.ended_at + 1
    if trouble.target.startswith("provider"):
        return trouble.target == f"provider {call.provider}" and abs(trouble.began_at - call.received_at) < 1
    if not trouble.target.startswith(("worker", "postgres")) or trouble.began_at > call.received_at + RECORDED_WITHIN:
        return False
    is_leased = again.received_at - call.received_at >= LEASED
    if trouble.target.startswith("postgres"):
        return is_leased and trouble.ended_at >= call.received_at
    if trouble.how is Disturbance.KILL:  # what its successor calls until it is ready has nothing to do with it
        return is_leased and trouble.began_at >= call.received_at - 1
    return trouble.ended_at >= call.received_at


def _judge_counts(index: _Index, verdict: Verdict) -> None:
    """See that nothing was sent by two push tasks: at most one for each goal that was due, and each message."""
    for (token, subject), calls in index.arrived.items():
        tasks = {call.task_id for call in calls}
        fast = index.run.fasts.get(subject) if subject else None
        if fast is not None:
            due = {said.what for said in fast.goals if said.what is not None and said.what <= calls[-1].received_at}
            most = len(due)
        else:
            most = len(index.posts[subject]) if subject else 0
        if len(tasks) > most:
            verdict.doubled.append(f"{calls[0].kind} {subject} to {token[:12]}: {len(tasks)} pushes, of {most}")
    lines: dict[tuple[str, UUID | None], int] = defaultdict(int)
    for line in index.run.lines:
        lines[line.token, line.subject] += 1
    verdict.doubled += [
        f"{count} lines of {subject} on {token[:12]}" for (token, subject), count in lines.items() if count > 1
    ]


def _judge_fast(session_id: UUID, fast: Fast, index: _Index, verdict: Verdict) -> None:
    """See that each goal was reminded of, on each phone, unless its person acted first."""
    for place, goal in enumerate(fast.goals):
        due_at = goal.what
        changed_at = fast.goals[place + 1].asked_at if place + 1 < len(fast.goals) else math.inf
        if due_at is None or goal.answered_at >= due_at or min(changed_at, index.run.until) <= due_at:
            continue
        for handset in index.phones_of[fast.user_id]:
            if set(possible(handset.holders, due_at, due_at)) != {fast.user_id}:
                continue
            acted_at = min(changed_at, _left_at(handset, due_at), _synced_at(handset, due_at))
            calls = index.arrived.get((handset.token, session_id), [])
            first = next((call for call in calls if call.received_at >= due_at), None)
            if first is not None and (handset.token, session_id) in index.shown:
                _note_lateness(first, due_at, index, verdict)
            elif acted_at < math.inf:
                verdict.overtaken.append(acted_at - due_at)
            else:
                verdict.lost.append(f"reminder {session_id} on {handset.token[:12]}, due at {due_at:.3f}")


def _note_lateness(first: Call, due_at: float, index: _Index, verdict: Verdict) -> None:
    began = index.by_task[first.token, first.task_id][0] is first
    (verdict.reminders if began else verdict.called_again).append(first.received_at - due_at)
    verdict.latest.append((first.received_at - due_at, first))


def _left_at(handset: Handset, since: float) -> float:
    """Say when somebody next began to sign out of it or in on it."""
    return min((said.asked_at for said in handset.holders if said.asked_at > since), default=math.inf)


def _synced_at(handset: Handset, since: float) -> float:
    return min((said.asked_at for said in handset.reads if said.asked_at > since), default=math.inf)


def _judge_post(post: Said[Post], index: _Index, verdict: Verdict) -> None:
    """See that a message, or a later one of its conversation, reached each phone that did not read it first."""
    if post.answered_at == math.inf:
        return
    conversation_id = post.what.conversation_id
    for user_id in index.run.members[conversation_id] - {post.what.sender_id}:
        for handset in index.phones_of[user_id]:
            if set(possible(handset.holders, post.asked_at, post.answered_at)) != {user_id}:
                continue
            calls = index.arrived.get((handset.token, conversation_id), [])
            first = bisect_right(calls, post.asked_at, key=lambda call: call.received_at)
            if first < len(calls) and (handset.token, conversation_id) in index.shown:
                verdict.messages.append(max(calls[first].received_at - post.answered_at, 0.0))
            elif any(post.what.message_id in said.what for said in handset.reads):
                continue
            elif _left_at(handset, post.asked_at) == math.inf:
                verdict.lost.append(f"message {post.what.message_id} on {handset.token[:12]}")


def _judge_log(log: Log, index: _Index, verdict: Verdict) -> None:
    """See that a log has each message once, in order."""
    items = [message_id for _, message_id in log.items]
    mine = {conversation for conversation, members in index.run.members.items() if log.user_id in members}
    written = {post.what.message_id for conversation in mine for post in index.posts[conversation]}
    accepted = {
        post.what.message_id
        for conversation in mine
        for post in index.posts[conversation]
        if post.answered_at < math.inf
    }
    for message_id in accepted - set(items):
        verdict.lost.append(f"message {message_id} in the log of {log.user_id}")
    if len(set(items)) < len(items):
        verdict.doubled.append(f"an item in the log of {log.user_id}")
    if any(one >= two for one, two in pairwise(seq for seq, _ in log.items)):
        verdict.unexplained.append(f"the order of the log of {log.user_id}")
    reminders = _reminder_count(index.run.fasts.values(), log.user_id)
    if len(set(items) - written) > reminders:
        verdict.unexplained.append(f"items that nobody wrote in the log of {log.user_id}")


def _reminder_count(fasts: Iterable[Fast], user_id: str) -> int:
    return sum(len([1 for goal in fast.goals if goal.what]) for fast in fasts if fast.user_id == user_id)
