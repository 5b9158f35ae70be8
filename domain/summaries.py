"""One line for each reminder or message of a person: what became of its pushes, in sentences that can be read out."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from domain.kinds import Kind
from domain.push import FAILED, Provider, TaskState
from domain.reasons import PROVIDERS, TOKEN_ERRORS, why, why_so, why_then
from domain.timeline import Event, TimelineItem
from domain.timeline_words import duration

_PHONE = re.compile(r" for the (iPhone|Android phone|phone) [0-9a-f]{8}")
_ON_TIME = timedelta(seconds=1)
_A_SECOND = timedelta(seconds=1)


class SummaryState(StrEnum):
    """What a line is about, in a word; the states of push tasks are among them."""

    WAITS = "waits"  # some push of it is not settled
    DEAD = "dead"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNREGISTERED = "unregistered"
    WITHDRAWN = "withdrawn"
    WITHHELD = "withheld"
    SKIPPED = "skipped"
    UNOPENED = "unopened"
    OTHER = "other"  # of a newer release


class TokenSince(StrEnum):
    """What a phone's token is now, after it was refused."""

    ACTIVE = "active"  # kept, or registered again
    SUSPECTED = "suspected"  # kept, because the settings of the service may be to blame
    INVALIDATED = "invalidated"


@dataclass(frozen=True, slots=True)
class SettledPushes:
    """The pushes of one message to one person that have the same state, provider and reason."""

    state: TaskState
    provider: Provider | None
    reason: str | None
    phones: int
    first_at: datetime | None = None  # of their acceptances
    last_at: datetime | None = None
    late: timedelta | None = None  # the latest of them; None: lateness means nothing here
    opened: int = 0
    synced: int = 0
    token: TokenSince | None = None  # only where it was refused


@dataclass(frozen=True, slots=True)
class WithheldReason:
    """Why no push was planned: for all phones of the person, or for some."""

    reason: str
    phones: int | None  # None: all


@dataclass(frozen=True, slots=True)
class MessageSummary:
    """One reminder, message or test push of a person."""

    message_id: UUID
    at: datetime  # when it was due
    kind: Kind | None  # None: of a newer release
    conversation_id: UUID  # of a reminder: its fasting session
    reminder_minutes: int | None
    state: SummaryState
    text: str
    happened: Sequence[TimelineItem] = field(default=())  # the latest first, not all of them if there are many
    has_more: bool = False


class _Says(StrEnum):
    """Sentences; {why} ends with its own full stop."""

    ACCEPTED = "Accepted on {phones} {when}{late}."
    VALIDATED = "Checked for {phones}: {why}"
    READ = " Read on {synced}."
    OPENED = " Opened on {opened}."
    WITHHELD = "Withheld: {why}"
    WITHHELD_FROM = "Withheld from {phones}: {why}"
    NO_PHONE = "no phone of theirs had an active token."
    WITHDRAWN = "Not sent to {phones}: {why}"
    EXPIRED = "Expired before it was accepted, on {phones}: {why}"
    REJECTED = "Refused for {phones}: {why}"
    UNREGISTERED = "The token of {phones} was refused by {provider}.{now}"
    REGISTERED_NOW = " It is active now: the phone registered again, or the refusal was about an older registration."
    SUSPECTED_NOW = " It is active now: the settings of the service may be to blame as well, so it was kept."
    TO_OPEN = " Opening the app there once fixes it."
    DEAD = "Given up for {phones}: {why}"
    SO_FOR_ALL = " This holds for {phones}."
    SO_FOR_OTHERS = " Likewise for {phones} more, at other times."
    PENDING = "Not settled yet on {phones}."
    OTHER = "A newer release recorded what this one cannot read."


_BY_STATE = {
    TaskState.WITHDRAWN: _Says.WITHDRAWN,
    TaskState.EXPIRED: _Says.EXPIRED,
    TaskState.REJECTED: _Says.REJECTED,
    TaskState.DEAD: _Says.DEAD,
    TaskState.PENDING: _Says.PENDING,
}
_NOW = {
    None: "",
    TokenSince.ACTIVE: _Says.REGISTERED_NOW,
    TokenSince.SUSPECTED: _Says.SUSPECTED_NOW,
    TokenSince.INVALIDATED: _Says.TO_OPEN,
}
# What may have changed since, in the past tense
_THEN = {
    "no_active_token": "the phone had no active token.",
    "quiet_hours": "it fell into the person's quiet hours.",
    "reminders_off": "the person had switched off reminders.",
    "messages_off": "the person had switched off pushes of messages.",
    "not_a_member": "the person had left the conversation.",
    "synced": "the app had already read it.",
    "token_transferred": "another account had signed in on the phone.",
}
SKIPPED = "Skipped: its time had passed when it was set."
ENDED_BEFORE = "Not sent: {why}"
ENDED_UNPROCESSED = "Not sent: it was due and had not been processed when the fast ended."


def state_of(present: Sequence[TimelineItem], settled: Iterable[SettledPushes], *, is_withheld: bool) -> SummaryState:
    """Give the word for all pushes of a message: what a person may still act on goes first."""
    states = {each.state for each in settled}
    if any(item.event is Event.WAITS and not item.detail.get("is_dead") for item in present):
        return SummaryState.WAITS
    if TaskState.PENDING in states:
        return SummaryState.WAITS
    if present:
        return SummaryState.DEAD
    if TaskState.ACCEPTED in states:
        return SummaryState.ACCEPTED
    failed = next((state for state in FAILED if state in states), None)
    if failed is not None:
        return SummaryState(failed)
    if is_withheld:
        return SummaryState.WITHHELD
    return SummaryState.WITHDRAWN if states else SummaryState.OTHER


def in_words(
    present: Iterable[TimelineItem], settled: Sequence[SettledPushes], withheld: Iterable[WithheldReason]
) -> str:
    """Say what became of a message's pushes; `settled` are those that `present` does not speak of."""
    taken = [each for each in settled if each.state is TaskState.ACCEPTED and each.reason != "validated"]
    others = [each for each in settled if each not in taken]
    sentences = [
        *([_accepted(taken)] if taken else []),
        *_present(present),
        *map(_settled, others),
        *map(_withheld, withheld),
    ]
    return " ".join(sentences) or _Says.OTHER


def _present(items: Iterable[TimelineItem]) -> Iterator[str]:
    """Say once what several pushes wait for in the same way."""
    alike: dict[tuple[object, ...], list[TimelineItem]] = {}
    for item in items:
        key = (item.provider, item.reason, item.detail.get("waits_for"), item.detail.get("is_dead"))
        alike.setdefault(key, []).append(item)
    for first, *more in alike.values():
        if not more:
            yield first.text
            continue
        without_phones = {_PHONE.sub("", item.text, count=1) for item in (first, *more)}
        if len(without_phones) == 1:
            yield without_phones.pop() + _Says.SO_FOR_ALL.format(phones=_phones(len(more) + 1))
        else:
            yield first.text + _Says.SO_FOR_OTHERS.format(phones=_phones(len(more)))


def _accepted(groups: Sequence[SettledPushes]) -> str:
    first = min((each.first_at for each in groups if each.first_at), default=None)
    last = max((each.last_at for each in groups if each.last_at), default=None)
    sentence = _Says.ACCEPTED.format(
        phones=_phones(sum(each.phones for each in groups)), when=_when(first, last), late=_late(groups)
    )
    synced, opened = sum(each.synced for each in groups), sum(each.opened for each in groups)
    sentence += _Says.READ.format(synced=_phones(synced)) if synced else ""
    return sentence + (_Says.OPENED.format(opened=_phones(opened)) if opened else "")


def _when(first: datetime | None, last: datetime | None) -> str:
    if first is None or last is None:
        return "at an unknown time"
    if last - first < _A_SECOND:
        return f"at {_written(last)}"
    return f"between {_written(first)} and {_written(last)}"


def _late(groups: Sequence[SettledPushes]) -> str:
    late = max((each.late for each in groups if each.late is not None), default=None)
    if late is None:
        return ""
    if late < _ON_TIME:
        return ", on time"
    return f", {'at most ' if sum(each.phones for each in groups) > 1 else ''}{duration(late)} late"


def _settled(group: SettledPushes) -> str:
    phones = _phones(group.phones)
    if group.state is TaskState.ACCEPTED:
        return _Says.VALIDATED.format(phones=phones, why=why(group.reason, group.provider))
    if group.state is TaskState.UNREGISTERED:
        provider = PROVIDERS[group.provider]
        return _Says.UNREGISTERED.format(phones=phones, provider=provider, now=_NOW[group.token])
    return _BY_STATE[group.state].format(phones=phones, why=_why(group))


def _why(group: SettledPushes) -> str:
    """Say why in words that stay true, without what somebody had to do then."""
    if group.reason in TOKEN_ERRORS:
        return why_so(group.state, group.reason, group.provider)
    return _THEN.get(group.reason or "") or why_then(group.reason, group.provider)


def _withheld(decision: WithheldReason) -> str:
    if decision.phones is not None:
        reason = _THEN.get(decision.reason) or why_then(decision.reason)
        return _Says.WITHHELD_FROM.format(phones=_phones(decision.phones), why=reason)
    if decision.reason == "no_active_token":
        return _Says.WITHHELD.format(why=_Says.NO_PHONE)
    return _Says.WITHHELD.format(why=_THEN.get(decision.reason) or why_then(decision.reason))


def _phones(count: int) -> str:
    return "1 phone" if count == 1 else f"{count} phones"


def _written(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
